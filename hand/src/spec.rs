//! What a hand is made from. Plain data: it goes over a pipe to `launch` and lies in the hand's folder.

use crate::limits;
use crate::protocol::Layer;
use crate::sandbox::landlock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What to do where a layer of the sandbox cannot be put up.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Go on without the layers that need privileges (cgroups, own uid, own disk), and say so in the status.
    Dev,
    /// Refuse unless every layer is on; each hand has a disk of its own.
    #[default]
    Strict,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Strict => "strict",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Dev, Self::Strict].into_iter().find(|mode| mode.name() == name).ok_or("a mode is strict or dev")
    }
}

/// What a sandbox is made by.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(tag = "made_by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Walls {
    /// bubblewrap, as a child of the shim.
    #[default]
    Bubblewrap,
    /// A container runtime, which is asked by the keeper that listens there.
    Container { keeper: PathBuf },
}

/// The recipe of one hand.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// `[A-Za-z0-9_-]{1,64}`; also the name of its folder.
    pub hand_id: String,
    /// The folder of all hands. With the service as root every user must be able to pass through it.
    pub hands_dir: PathBuf,
    /// The `steadyhand-hand` binary.
    pub program: PathBuf,
    #[serde(default)]
    pub mode: Mode,
    #[serde(default)]
    pub walls: Walls,
    /// The lease epoch a new hand starts with; an existing one keeps its own.
    #[serde(default = "one")]
    pub epoch: u64,
    #[serde(default = "lease_default")]
    pub lease_ms: u64,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub resources: Resources,
    /// The way out; none: there is none.
    #[serde(default)]
    pub egress: Option<Egress>,
    /// Packages beside those of the machine; none: there are no others.
    #[serde(default)]
    pub shelf: Option<Shelf>,
    /// Whose it is, for those who list hands. Nothing here goes by it.
    #[serde(default)]
    pub owner: Option<Owner>,
    /// Where the shim stops itself, for tests of what becomes of a call when somebody dies then.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// The lesser user on whose behalf the hand is made: files must be his, and he may talk to it. None: whoever launches.
    #[serde(default)]
    pub client: Option<u32>,
}

impl Spec {
    /// A hand with defaults and an empty workspace.
    pub fn new(hand_id: impl Into<String>, hands_dir: impl Into<PathBuf>, program: impl Into<PathBuf>) -> Self {
        Self {
            hand_id: hand_id.into(),
            hands_dir: hands_dir.into(),
            program: program.into(),
            mode: Mode::default(),
            walls: Walls::default(),
            epoch: one(),
            lease_ms: lease_default(),
            limits: Limits::default(),
            resources: Resources::default(),
            egress: None,
            shelf: None,
            owner: None,
            stop: None,
            client: None,
        }
    }
}

/// Bounds of the sandbox as a whole: of the disk in every mode, of the rest where cgroups can be used.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub memory_bytes: u64,
    pub pids: u64,
    /// Hundredths of a core.
    pub cpu_percent: u64,
    /// Workspace, outputs and home together.
    #[serde(default = "disk_default")]
    pub disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: limits::MEMORY_BYTES,
            pids: limits::PIDS,
            cpu_percent: limits::CPU_PERCENT,
            disk_bytes: limits::DISK_BYTES,
        }
    }
}

/// The service and the session that a hand is made for.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The name of the service on this machine.
    pub host: String,
    pub session_id: String,
    /// What the session calls it.
    #[serde(default = "main_hand")]
    pub name: String,
}

impl Owner {
    /// Of the hand that every session has.
    pub fn new(host: impl Into<String>, session_id: impl Into<String>) -> Self {
        Self { host: host.into(), session_id: session_id.into(), name: main_hand() }
    }
}

fn main_hand() -> String {
    "main".to_owned()
}

/// The n-th passage of a moment, counted from 1.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    pub at: StopAt,
    pub nth: u64,
}

/// Moments of a call, each between two things that a crash must not tear apart.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum StopAt {
    /// The journal knows of the call; nothing was started.
    Begun,
    /// The call is over; the journal does not know.
    Ended,
    /// The result is in the journal; nobody was told.
    Recorded,
}

/// A proxy outside, and what the sandbox has to know to use it. Holds nothing that is secret.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// A host folder with the socket `proxy.sock`. The folder is bound and not the socket, so that a proxy that is
    /// started again is found again.
    pub dir: PathBuf,
    /// Placeholders of credentials, by the environment variable that has them inside.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// Repositories: the beginning of the URL that the agent knows, and the proxy's path for it.
    #[serde(default)]
    pub repositories: Vec<(String, String)>,
    /// Where package managers find what they install, by the environment variable that tells them.
    #[serde(default)]
    pub registries: BTreeMap<String, String>,
}

/// What of /opt/packages a hand may do; by the name of the [shelf](crate::shelf), which is like a hand's id.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Shelf {
    /// Fill it, to be kept when the hand has ended.
    Fill(String),
    /// Read one that was kept.
    Read(String),
}

/// What is put into the sandbox before the first call.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Copied, and read-only inside under /mnt/session/uploads.
    #[serde(default)]
    pub files: Vec<FileResource>,
    /// Cloned inside the sandbox.
    #[serde(default)]
    pub repo: Option<Repo>,
    /// Cloned inside the sandbox through the way out, which adds what is needed to be let in.
    #[serde(default)]
    pub clones: Vec<CloneOf>,
    /// A snapshot of an earlier hand, unpacked inside the sandbox instead of cloning.
    #[serde(default)]
    pub restore: Option<Restore>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct FileResource {
    /// A host path.
    pub source: PathBuf,
    /// Relative to /mnt/session/uploads; no `..`.
    pub path: PathBuf,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Repo {
    /// A git bundle on the host.
    pub bundle: PathBuf,
    /// The folder below /workspace; none clones into /workspace itself.
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CloneOf {
    /// As the agent knows it.
    pub url: String,
    /// Below /workspace; no `..`. Empty clones into /workspace itself.
    pub path: PathBuf,
    /// A branch, or a commit that is on one; none is the repository's own choice.
    #[serde(default)]
    pub checkout: Option<String>,
}

/// A clone that could not be had. The hand goes without it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct FailedClone {
    pub url: String,
    pub step: CloneStep,
    /// What git said.
    pub said: String,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum CloneStep {
    Clone,
    Checkout,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The bytes of a snapshot, on the host.
    pub archive: PathBuf,
    /// What the snapshot said about the repository in it.
    #[serde(default)]
    pub start: Option<Start>,
}

/// Where the workspace began, so that its diff can be told.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The repository's folder inside the sandbox.
    pub dir: PathBuf,
    /// A commit id; none in an empty repository.
    pub commit: Option<String>,
}

/// A hand that can be called.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct HandRef {
    pub hand_id: String,
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub epoch: u64,
}

/// What `launch` decided for this hand, for the shim and for whoever enters the sandbox.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Plan {
    pub spec: Spec,
    /// The host uid that sandbox and shim run as, where it is not the service's own.
    pub uid: Option<u32>,
    /// Who may talk to the shim beside root.
    #[serde(alias = "owner_uid")]
    pub client_uid: u32,
    /// `cgroup.procs` files that the sandbox enters.
    pub cgroup_procs: Vec<PathBuf>,
    /// What init puts on itself; none where this kernel has none, which the layers say.
    #[serde(default)]
    pub landlock: Option<landlock::Level>,
    pub layers: Vec<Layer>,
}

/// A relative path of plain names, the only kind that may be joined to a folder of the hand.
pub fn is_plain_relative(path: &Path) -> bool {
    use std::path::Component;
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// One plain folder name.
pub fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    is_plain_relative(Path::new(name)) && parts.next().is_some() && parts.next().is_none() && !name.contains('\0')
}

/// `[A-Za-z0-9_-]{1,64}`, safe as a folder, a cgroup and a log field.
pub fn is_hand_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn one() -> u64 {
    1
}

fn disk_default() -> u64 {
    limits::DISK_BYTES
}

fn lease_default() -> u64 {
    limits::LEASE_DEFAULT_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_joined() {
        for (path, expect) in
            [("a", true), ("a/b.txt", true), ("", false), ("/a", false), ("../a", false), ("a/../b", false)]
        {
            assert_eq!(is_plain_relative(Path::new(path)), expect, "{path}");
        }
        for (name, expect) in [("repo", true), ("a/b", false), ("..", false), ("", false), (".", false)] {
            assert_eq!(is_plain_name(name), expect, "{name}");
        }
    }

    #[test]
    fn hand_ids_are_plain() {
        for (id, expect) in [("hand_1", true), ("", false), ("a/b", false), ("..", false), ("a.b", false)] {
            assert_eq!(is_hand_id(id), expect, "{id}");
        }
        assert!(!is_hand_id(&"a".repeat(65)));
    }
}
