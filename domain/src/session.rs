//! Session workflows from outside: their name, queues, input and signals.
//!
//! These are data in history: a field may be added with a default, none may change its meaning.

use crate::{
    Event, HandName, Summary, Time,
    agent::{AgentFacts, HarnessRef, StrategyRef},
    content::{BlobRef, Json},
    limits,
    model::{ModelPrivate, Purpose, Range},
    outcome::Call,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

pub const WORKFLOW_TYPE: &str = "SessionWorkflow";

/// Task queues.
pub mod queue {
    /// Workflow tasks of sessions and the brain's activities.
    pub const BRAIN: &str = "brain";
    /// What-ifs: brain workers take a few at a time, so that no session waits for them.
    pub const TRIALS: &str = "brain-trials";
    /// Work that any hand worker can take: `provision`.
    pub const HANDS: &str = "hands";

    /// Work for the one host that has a hand.
    pub fn hand_host(host: &str) -> String {
        format!("{HAND_HOST}{host}")
    }

    /// The host whose queue that is.
    pub fn host_of(queue: &str) -> Option<&str> {
        queue.strip_prefix(HAND_HOST)
    }

    const HAND_HOST: &str = "hand-host-";
}

/// Signal names.
pub mod signal {
    pub const EVENTS: &str = "events";
    pub const CHANGE: &str = "change";
    pub const SWAP: &str = "swap";
    pub const GIVE: &str = "give";
    pub const HANDED: &str = "handed";
    pub const CLOSE: &str = "close";
}

/// Input of every run of a session; `S` is the session's state, which readers of the log leave opaque.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionInput<S = Value> {
    pub session_id: String,
    #[serde(flatten)]
    pub from: Origin<S>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "origin", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one a run, and it is taken apart at once")]
pub enum Origin<S> {
    /// The first run.
    Created {
        created_at: Time,
        attributes: Attributes,
        harness: HarnessRef,
        /// `initial_events`, accepted and with ids.
        events: Vec<Event>,
    },
    /// The first run of a session that goes on from another one; the manifest in the state lists what they share.
    Forked { state: Box<S> },
    /// Every later run.
    Continued {
        state: Box<S>,
        previous_run_id: String,
        /// Accepted and not yet committed.
        mailbox: Vec<Mail>,
        /// POSTs of earlier runs, oldest first, by fingerprint with the ids of their events: a retry that comes in a
        /// later run gets the first answer too.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        posts: Vec<(String, Vec<String>)>,
    },
}

/// The part of a session's state that readers of the log know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateHead {
    pub summary: Summary,
}

/// What a session is made of, beside its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    pub title: Option<String>,
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    pub environment_id: String,
    /// Tools run in the client's own worker: no hand is provisioned.
    #[serde(default)]
    pub self_hosted: bool,
    #[serde(default)]
    pub vault_ids: Vec<String>,
    #[serde(default)]
    pub resources: Vec<Resource>,
    pub agent: AgentFacts,
    /// Milliseconds of workflow time a retry may wait at most; limits lowered by tests.
    #[serde(default)]
    pub tuning: Tuning,
}

/// Knobs of the shell that an operator (or a test) may turn for new sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Decisions after which a run continues as new, before the engine suggests it. 0: only when suggested.
    #[serde(default)]
    pub decisions_per_run: u64,
    /// Milliseconds within which a hand's host has to take a call. 0: `limits::HOST_WAIT_MS`.
    #[serde(default)]
    pub host_wait_ms: u64,
    /// Milliseconds at rest after which a session's hand is parked. 0: never.
    #[serde(default)]
    pub park_after_ms: u64,
}

impl Tuning {
    pub fn host_wait(&self) -> Duration {
        let ms = if self.host_wait_ms == 0 { limits::HOST_WAIT_MS } else { self.host_wait_ms };
        Duration::from_millis(ms)
    }
}

/// Something that `provision` puts into a hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    pub id: String,
    #[serde(flatten)]
    pub kind: ResourceKind,
    pub mount_path: String,
    pub created_at: Time,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResourceKind {
    File {
        file_id: String,
        blob: BlobRef,
    },
    /// A git bundle that the hand clones inside the sandbox.
    GitBundle {
        blob: BlobRef,
    },
    /// Cloned inside the sandbox through egress, which has the token, if there is one.
    GithubRepository {
        url: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkout: Option<Checkout>,
        /// Egress holds a token for it.
        #[serde(default)]
        authorized: bool,
        /// Refs that may be pushed to, `*` at the end for all below.
        #[serde(default)]
        push: Vec<String>,
    },
}

impl ResourceKind {
    /// The bytes that it is made from, where the session has them.
    pub fn blob(&self) -> Option<&BlobRef> {
        match self {
            ResourceKind::File { blob, .. } | ResourceKind::GitBundle { blob } => Some(blob),
            ResourceKind::GithubRepository { .. } => None,
        }
    }
}

/// What of a repository is checked out; without it, what its server says.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Checkout {
    Branch { name: String },
    Commit { sha: String },
}

impl Checkout {
    /// As git takes it.
    pub fn name(&self) -> &str {
        match self {
            Checkout::Branch { name } => name,
            Checkout::Commit { sha } => sha,
        }
    }
}

/// A message to the workflow, as it waits in the mailbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mail", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "a mailbox holds a few, and changes of attributes are rare")]
pub enum Mail {
    Event { event: Event },
    Change { change: Change },
    Swap { swap: Swap },
    Give { give: Give },
    Handed { handed: Handed },
    Close { close: Close },
}

impl Mail {
    /// What redelivery is recognised by.
    pub fn id(&self) -> &str {
        match self {
            Mail::Event { event } => &event.id,
            Mail::Change { change } => &change.id,
            Mail::Swap { swap } => &swap.id,
            Mail::Give { give } => &give.id,
            Mail::Handed { handed } => &handed.id,
            Mail::Close { close } => &close.id,
        }
    }
}

/// Signal `events`: one POST, all or nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Posted {
    pub events: Vec<Event>,
    /// Fingerprint of (key, path, body) that a retry is recognised by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// Signal `change`: new attributes, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::event::given")]
    pub title: Option<Option<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentChange>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Vec<Resource>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Box<StrategyChange>>,
}

impl Change {
    /// One that changes nothing yet.
    pub fn of(id: &str) -> Self {
        Change { id: id.to_owned(), title: None, metadata: None, agent: None, resources: None, strategy: None }
    }
}

/// Another context strategy, from the next model request on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyChange {
    pub strategy: StrategyRef,
    /// For the turn that is on, or the next one, and no longer.
    #[serde(default)]
    pub turn: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentChange {
    pub facts: AgentFacts,
    /// The public agent object, for `session.updated`.
    pub public: Json,
}

/// Signal `swap`: another harness from the next turn boundary on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Swap {
    pub id: String,
    pub harness: HarnessRef,
}

/// Signal `give`: what is in the hand goes to another session, when this one rests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Give {
    pub id: String,
    /// The other session.
    pub to: String,
    /// What this session calls it.
    #[serde(default, skip_serializing_if = "HandName::is_main")]
    pub name: HandName,
    /// What the other one will.
    #[serde(default, skip_serializing_if = "HandName::is_main")]
    pub to_name: HandName,
}

/// Signal `handed`, from one session to another: what was in a hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    pub id: String,
    /// The session that had it.
    pub from: String,
    /// The hand that it was in.
    pub hand: String,
    /// What whoever is told of it is to call it.
    #[serde(default, skip_serializing_if = "HandName::is_main")]
    pub name: HandName,
    /// What whoever tells of it called it.
    #[serde(default, skip_serializing_if = "HandName::is_main")]
    pub from_name: HandName,
    pub workspace: Workspace,
    /// It comes back, as it was not taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub returned: bool,
}

/// Signal `close`: release the hands and end the workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Close {
    pub id: String,
}

/// A hand: where, and under which lease epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandRef {
    pub hand: String,
    pub host: String,
    pub epoch: u64,
}

/// What was kept of a hand, so that another one can go on from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// A JSON array of [`OutputFile`]: the pieces of an archive, in order. Nobody but a sandbox opens it.
    pub listing: BlobRef,
    /// Where the repository in it began, so that its diff can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<WorkspaceStart>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceStart {
    /// The repository's folder inside the sandbox.
    pub dir: String,
    /// A commit id; none in a repository that was empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// Input of `call_model`: names hashes and positions, never a message list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    pub session_id: String,
    /// What was sealed before this run.
    pub manifest: Option<BlobRef>,
    /// Runs not in the manifest, oldest first; the last is the running one.
    pub runs: Vec<String>,
    pub from: u64,
    pub to: u64,
    /// Ranges before `from` that the strategy is given too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Range>,
    #[serde(default, skip_serializing_if = "Purpose::is_answer")]
    pub purpose: Purpose,
    pub agent: AgentFacts,
    pub strategy: StrategyRef,
    pub suffix: Vec<Value>,
    /// The open span, for deltas and logs.
    pub span_id: String,
    pub turn: u64,
    /// Requests that failed in a row before this one.
    pub tries: u32,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// Input of `execute`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteInput {
    pub session_id: String,
    pub hand: HandRef,
    pub call: Call,
    /// The agent as it is, for a call of an MCP server in the hand: it says how the server is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<BlobRef>,
    /// The hand goes on from a parked one, and the model has not been told what that means.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// Input of `read_log`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadLogInput {
    pub session_id: String,
    /// What is read ends here, so that every attempt reads the same.
    pub end: u64,
    pub call: Call,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// Input of `list_tools`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListInput {
    pub session_id: String,
    /// The agent as it is, with what it says of its servers.
    pub snapshot: BlobRef,
    /// Those that are to be asked.
    pub servers: Vec<String>,
    /// The hand that they live in; none for those that are reached through egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hand: Option<HandRef>,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// Input of `call_mcp`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct McpCallInput {
    pub session_id: String,
    pub server: String,
    /// As the server calls it.
    pub tool: String,
    pub call: Call,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// Input of `fetch_page`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageInput {
    pub session_id: String,
    /// The agent as it is, which says how much of a page it may see.
    pub snapshot: BlobRef,
    pub call: Call,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// Input of `provision`: the recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProvisionInput {
    pub session_id: String,
    /// The id the hand will have: the same for every attempt.
    pub hand: String,
    /// What its session calls it.
    #[serde(default, skip_serializing_if = "HandName::is_main")]
    pub name: HandName,
    pub environment_id: String,
    pub resources: Vec<Resource>,
    /// Of a hand that was parked: the new one begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Workspace>,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// Input of `collect`, `park` and `release`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HandInput {
    pub session_id: String,
    pub hand: HandRef,
    /// sha-256 of the listing that was collected last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_listing: Option<String>,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// One file of a hand's outputs, or the diff of its repository (`path` = `diff`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputFile {
    pub path: String,
    pub blob: BlobRef,
}

impl OutputFile {
    /// The path that stands for the diff.
    pub const DIFF: &str = "diff";
}

/// Input of `seal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SealInput {
    pub session_id: String,
    pub run_id: String,
    /// The manifest that this run's segments are added to.
    pub manifest: Option<BlobRef>,
    /// What the turn began with ([`crate::Summary::began`]): for traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_event: Option<String>,
}

/// One thing in the log with its private part, as readers and context strategies take it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    pub position: u64,
    /// The decision that committed it.
    pub commit: u64,
    pub event: Event,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<ModelPrivate>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_clears_the_title_survives_its_signal() {
        for title in [None, Some(None), Some(Some("new".to_owned()))] {
            let change = Change { title, ..Change::of("chg_1") };
            let sent = serde_json::to_string(&change).unwrap();
            assert_eq!(serde_json::from_str::<Change>(&sent).unwrap(), change);
        }
    }
}
