//! Results of activities, as they stand in history, and the digests of them that decisions see.

use crate::{
    Event, Failure, HandName, Usage,
    agent::{ToolFact, ToolKind},
    content::{BlobRef, Json},
    event::{ErrorBody, Permission},
    model::ModelPrivate,
    session::{HandRef, Workspace},
};
use serde::{Deserialize, Serialize};

/// Result of `call_model`. A failure of the provider is a result, not a failure of the activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelOutcome {
    pub digest: ModelDigest,
    /// Public events in order: thinking, message, uses.
    pub events: Vec<Event>,
    pub private: Option<ModelPrivate>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ModelDigest {
    Answer {
        stop_reason: String,
        usage: Usage,
        blocks: Vec<BlockDigest>,
        calls: Vec<Call>,
        /// Why the model refused, when it did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refusal: Option<String>,
    },
    Failed {
        failure: Failure,
    },
}

/// One block of an answer, by size and edges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockDigest {
    pub kind: String,
    pub bytes: u64,
    /// First and last `VIEW_TEXT_EDGE_BYTES` of a text block; `tail` is empty when `head` holds it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub head: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_sha256: Option<String>,
}

/// A tool call that waits to be run, answered or refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The use event's id: the identity of the call everywhere, also in the hand's journal.
    pub tool_use_id: String,
    pub name: String,
    #[serde(flatten)]
    pub kind: ToolKind,
    /// By reference above `limits::STATE_INPUT_BYTES_MAX`.
    pub input: Json,
    pub input_sha256: String,
    pub permission: Permission,
    /// The hand that runs it, if a hand does.
    #[serde(default, skip_serializing_if = "HandName::is_main")]
    pub hand: HandName,
    /// The tool is not offered, or its input is no JSON: what the model is told instead of a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Result of `execute`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolOutcome {
    pub digest: ToolDigest,
    /// `agent.tool_result`.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolDigest {
    pub tool_use_id: String,
    pub is_error: bool,
    pub bytes: u64,
    pub sha256: String,
    /// First `VIEW_RESULT_HEAD_BYTES` of its text.
    pub head: String,
    /// Nothing survived that could tell what the call did. The hand is gone with it when `hand_lost`.
    #[serde(default)]
    pub lost: bool,
    #[serde(default)]
    pub hand_lost: bool,
}

/// Result of `provision`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ProvisionOutcome {
    Ready {
        hand: HandRef,
        /// What of the recipe the hand does without: repositories that could not be had.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        problems: Vec<ErrorBody>,
    },
    Failed {
        failure: Failure,
    },
}

/// Result of `list_tools`: what MCP servers offer, put together with what the agent has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListOutcome {
    /// Absent where no server could be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<Listed>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ErrorBody>,
    /// The hand in which servers were to be asked is gone with everything in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hand_lost: bool,
}

/// The agent with the tools of servers that were asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    pub servers: Vec<String>,
    /// All tools of the agent, and the snapshot that has their texts.
    pub tools: Vec<ToolFact>,
    pub snapshot: BlobRef,
}

/// Result of `seal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealOutcome {
    pub run_id: String,
    pub manifest: BlobRef,
}

/// Result of `park`. The hand is as it was: what is kept is recorded before anything of it is let go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ParkOutcome {
    Parked {
        workspace: Workspace,
    },
    /// It cannot be parked; it stays until its lease ends.
    Kept {
        failure: Failure,
    },
    /// Nothing of it is left.
    Gone {},
}

/// Result of `collect`: what a hand holds at the end of a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectOutcome {
    /// A JSON array of `session::OutputFile`; absent when nothing changed since the last time.
    pub listing: Option<BlobRef>,
}
