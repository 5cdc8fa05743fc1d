//! What shim and init say to one another, in the JSON frames of [`crate::wire`].
//!
//! The frame's call number ties the messages of one call together; 0 is the sandbox as a whole. The shim believes
//! nothing that comes out of a sandbox beyond what belongs to the call it is said of.

use crate::protocol::ToolResult;
use crate::sandbox::landlock;
use crate::spec::{CloneOf, FailedClone, Start};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The call number of messages about the sandbox.
pub const SANDBOX: u64 = 0;

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToInit {
    /// The first message: what to put into the workspace.
    Configure(Configure),
    Call {
        name: String,
        input: Value,
        /// The caller's bound beside the tool's own.
        timeout_ms: Option<u64>,
        /// Where the whole output can be read inside.
        spool: PathBuf,
    },
    Cancel,
    Collect {
        known: BTreeMap<String, String>,
    },
    Snapshot,
}

#[derive(Serialize, Deserialize, Debug, Default)]
pub struct Configure {
    /// What to put on before anything else.
    pub landlock: Option<landlock::Level>,
    /// What its folders may hold, where no disk of its own says so.
    pub disk_bytes: Option<u64>,
    /// Whether there is a way out to lead to.
    pub egress: bool,
    /// Whether packages are installed here.
    #[serde(default)]
    pub fills_shelf: bool,
    /// None where an earlier sandbox of this hand has carried it out.
    pub recipe: Option<Recipe>,
    /// What was found then.
    pub start: Option<Start>,
}

#[derive(Serialize, Deserialize, Debug, Default, Clone)]
pub struct Recipe {
    /// Clone the bundle to this folder.
    pub clone_to: Option<PathBuf>,
    /// Clone these through the way out.
    #[serde(default)]
    pub clones: Vec<CloneOf>,
    /// Unpack the snapshot.
    pub restore: bool,
    /// What the snapshot said about its repository.
    pub restored_start: Option<Start>,
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum FromInit {
    /// The recipe is carried out and calls may come.
    Ready {
        start: Option<Start>,
        /// Of the recipe's clones.
        #[serde(default)]
        failed: Vec<FailedClone>,
    },
    /// The recipe could not be carried out; the sandbox ends.
    Failed { message: String },
    /// The call's own time begins.
    Started { timeout_ms: u64 },
    /// The call is over. `lost`: its processes could not be shown to be dead.
    Done { result: ToolResult, lost: bool },
    /// The chunks since the last part are this.
    Part(Part),
    /// A collection or a snapshot is over.
    End { error: Option<String>, more: bool },
}

#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// An output file. Without `sent` its bytes were left out.
    File {
        path: String,
        bytes: u64,
        sent: bool,
    },
    Diff {
        truncated: bool,
        error: Option<String>,
    },
    Snapshot {
        start: Option<Start>,
    },
}

/// Paths inside every sandbox.
pub mod inside {
    pub const WORKSPACE: &str = "/workspace";
    pub const UPLOADS: &str = "/mnt/session/uploads";
    pub const OUTPUTS: &str = "/mnt/session/outputs";
    /// Whole outputs of calls, kept by the shim.
    pub const SPOOL: &str = "/mnt/session/tool_output";
    pub const HOME: &str = "/home/agent";
    /// The folder with the socket of the way out.
    pub const EGRESS: &str = "/run/egress";
    pub const EGRESS_SOCKET: &str = "proxy.sock";
    /// Where programs inside find the way out, on loopback.
    pub const PROXY_PORT: u16 = 3128;
    /// Packages, installed here or read.
    pub const PACKAGES: &str = "/opt/packages";
    /// The folder with the shim's socket, in a container.
    pub const LINK: &str = "/run/steadyhand/link";
    pub const LINK_SOCKET: &str = "shim.sock";
    /// What two sandboxes of a hand cannot hold at once, in a container.
    pub const LOCK: &str = "/run/steadyhand/lock";
    /// This very program, in a container.
    pub const PROGRAM: &str = "/run/steadyhand/hand";
    /// What the recipe is carried out from.
    pub const RECIPE: &str = "/run/recipe";
    pub const BUNDLE: &str = "repo.bundle";
    pub const ARCHIVE: &str = "snapshot.tar";
}
