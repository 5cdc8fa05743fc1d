//! What is said over a shim's socket: one JSON line a request, one JSON line a reply, in order, on each connection.
//!
//! A connection that ends does not stop its call. Requests that change anything carry the lease epoch of who asks.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// `[A-Za-z0-9_.:-]{1,128}`: a tool-use id as the brain knows it.
pub type CallId = String;

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Run a tool, or get what became of it. Answered when the call is settled.
    Execute {
        id: CallId,
        name: String,
        input: Value,
        #[serde(default)]
        timeout_ms: Option<u64>,
        epoch: u64,
    },
    /// End a running call; answered with what became of it once its processes are proven dead.
    Cancel { id: CallId, epoch: u64 },
    /// Who this hand is and what holds it.
    Status,
    /// Move the lease epoch on, if it is still `from`.
    Fence { from: u64, to: u64 },
    /// Let the lease end no earlier than `ttl_ms` from now.
    Renew { ttl_ms: u64 },
    /// List outputs that differ from `known` (path to sha-256), and the diff of the repository.
    Collect {
        #[serde(default)]
        known: BTreeMap<String, String>,
        epoch: u64,
    },
    /// Pack the workspace; refused while calls run.
    Snapshot { epoch: u64 },
    /// A piece of a blob that an earlier reply named.
    Blob { sha256: String, offset: u64 },
    /// End the sandbox and the shim. The folder stays; who owns it removes it.
    Release { epoch: u64 },
}

#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Settled(Settled),
    Status(Box<Status>),
    Fenced { epoch: u64 },
    Renewed { lease_ms: u64 },
    Collected(Collected),
    Snapshot(Snapshot),
    Blob(Piece),
    Released,
    Refused { code: Refusal, message: String },
}

/// What became of a call.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub state: State,
    pub how: How,
    /// The contract's string: JSON of a [`ToolResult`].
    pub result: String,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Finished,
    /// Started, and nobody knows how it ended. Never run again.
    Lost,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By this request.
    Ran,
    /// By an earlier request, and it was still running.
    Attached,
    /// Read from the journal.
    Replayed,
}

/// Why a request was not carried out. None of these has started anything.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not a request of this protocol.
    BadRequest,
    /// The id is known with another name or input.
    Conflict,
    /// The epoch is not the hand's.
    Fenced,
    /// No call, blob or repository of that name.
    Unknown,
    /// Too much is running, or something is running that must not be.
    Busy,
    /// The journal can no longer be written, so nothing may be started.
    Poisoned,
    /// The hand is ending.
    Ending,
    /// It was tried inside the sandbox and did not work.
    Failed,
}

/// The shape of every tool's result.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ToolResult {
    pub content: Vec<Block>,
    pub is_error: bool,
    pub truncated: bool,
    /// The sha-256 of the whole output where the content is only a part of it; see [`Request::Blob`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<String>,
}

impl ToolResult {
    pub fn ok(text: impl Into<String>) -> Self {
        Self { content: vec![Block::text(text)], is_error: false, truncated: false, blob: None }
    }

    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::ok(text) }
    }

    /// All text of the result, for those who only look.
    pub fn text(&self) -> String {
        self.content
            .iter()
            .filter_map(|block| if let Block::Text { text } = block { Some(text.as_str()) } else { None })
            .collect()
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a tool result has only string keys")
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text { text: String },
    Image { source: Source },
    Document { source: Source },
}

impl Block {
    /// A text block. The model's API takes no block without visible text, so nothing is said as such.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Text { text: if text.trim().is_empty() { "(no output)".to_owned() } else { text } }
    }
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    Base64 { media_type: String, data: String },
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Status {
    pub hand_id: String,
    pub epoch: u64,
    /// The shim's process id on the host.
    pub pid: u32,
    pub lease_left_ms: u64,
    pub running: Vec<CallId>,
    pub start: Option<crate::spec::Start>,
    /// What of its recipe it does without.
    #[serde(default)]
    pub failed_clones: Vec<crate::spec::FailedClone>,
    pub mode: crate::spec::Mode,
    pub layers: Vec<Layer>,
}

/// One layer of the sandbox, as `probe`, `doctor` and the status tell it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    pub name: String,
    pub on: bool,
    pub need: Need,
    pub why: String,
    /// What to install or set; empty where nothing is to be done.
    pub fix: String,
}

/// What follows where a layer is off.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// No hand starts, in any mode.
    Always,
    /// No hand starts in strict mode.
    Strict,
    /// Hands start; it is only said.
    Advice,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    pub files: Vec<OutputFile>,
    /// More files were there than are listed.
    pub files_truncated: bool,
    /// None without a repository.
    pub diff: Option<Diff>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// Relative to /mnt/session/outputs.
    pub path: String,
    pub bytes: u64,
    /// None where the file was too large, or could not be read, and so was left where it is.
    pub sha256: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    pub bytes: u64,
    /// None where it could not be made; `error` says why.
    pub sha256: Option<String>,
    pub truncated: bool,
    pub error: Option<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub sha256: String,
    pub bytes: u64,
    pub start: Option<crate::spec::Start>,
}

#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Piece {
    pub total_bytes: u64,
    /// Base64 of the bytes from the offset asked for; empty at the end.
    pub data: String,
}

/// Whether `id` may name a call.
pub fn is_call_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_result_is_still_a_valid_block() {
        assert_eq!(ToolResult::ok(" \n").text(), "(no output)");
        assert_eq!(
            ToolResult::ok("a").to_json(),
            r#"{"content":[{"type":"text","text":"a"}],"is_error":false,"truncated":false}"#
        );
    }

    #[test]
    fn requests_are_strict() {
        assert!(serde_json::from_str::<Request>(r#"{"op":"cancel","id":"a","epoch":1}"#).is_ok());
        assert!(serde_json::from_str::<Request>(r#"{"op":"cancel","id":"a","epoch":1,"x":1}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"op":"nothing"}"#).is_err());
    }

    #[test]
    fn call_ids_are_plain() {
        for (id, expect) in [("toolu_01", true), ("a:b.c-d", true), ("", false), ("../../x", false), ("a b", false)] {
            assert_eq!(is_call_id(id), expect, "{id}");
        }
        assert!(!is_call_id(&"a".repeat(129)));
    }
}
