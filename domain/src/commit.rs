//! The commit: what one decision did. It is the result of the local activity `decide`, recorded by the
//! engine as one marker, and the only thing that changes a session's state (docs/decisions/001).

use crate::{
    Event, HandName, Time,
    agent::{HarnessRef, StrategyRef},
    content::BlobRef,
    outcome::Listed,
    session::{Attributes, Give, HandRef, Handed, Workspace},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One decision of a session, numbered densely from 0 over the whole life of the session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    pub n: u64,
    /// `processed_at` of everything this commit takes: max(previous, workflow time).
    pub now: Time,
    /// In log order.
    pub takes: Vec<Take>,
    pub step: Step,
    /// What the harness wants to remember; `None` leaves the memo as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memo: Option<String>,
    pub view_version: u32,
    /// sha-256 of the View that the harness saw; absent when the frame decided alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view_hash: Option<String>,
    /// Inputs that waited when the harness was asked. When they arrived is not in the log otherwise, and
    /// without it the View could not be made again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub queued: u32,
}

impl Commit {
    /// There in the first commit of a fork.
    pub fn fork(&self) -> Option<&Fork> {
        match self.takes.first() {
            Some(Take::Private { entry: PrivateEntry::Forked { fork } }) => Some(fork),
            _ => None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One thing that enters the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "take", rename_all = "snake_case")]
pub enum Take {
    /// An event the api accepted (signal, start or continue input), by id.
    Accepted {
        id: String,
        /// It lost a race: another answer came first. Kept in the log, skipped by context strategies.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        ignored: bool,
    },
    /// The event at `index` of an activity's result.
    Result { activity: String, index: usize },
    /// An event made by the decision itself.
    Inline {
        event: Event,
        /// The activity whose result holds the private part of this event.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        private: Option<String>,
    },
    /// Not an event of the API: no position, not listed; `session show` prints it.
    Private { entry: PrivateEntry },
}

impl Take {
    /// The id of the mail that this disposes of.
    pub fn mail(&self) -> Option<&str> {
        match self {
            Take::Accepted { id, .. } => Some(id),
            Take::Private {
                entry:
                    PrivateEntry::Changed { id, .. }
                    | PrivateEntry::SwapRequested { id, .. }
                    | PrivateEntry::CloseRequested { id },
            } => Some(id),
            Take::Private { entry: PrivateEntry::Giving { give } } => Some(&give.id),
            Take::Private { entry: PrivateEntry::HandTaken { handed } | PrivateEntry::HandRefused { handed, .. } } => {
                Some(&handed.id)
            }
            _ => None,
        }
    }

    /// Whether this is an event of the API and has a position.
    pub fn is_public(&self) -> bool {
        !matches!(self, Take::Private { .. })
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum PrivateEntry {
    /// A turn begins: the events that follow are its input.
    TurnBegun {},
    /// An activity or a timer is over; its result counts, or what became of it.
    ActivityClosed {
        activity: String,
        how: Closed,
    },
    /// These were told to stop; their end is awaited.
    Cancelling {
        activities: Vec<String>,
    },
    /// Every confirmation is there: the allowed calls go on their way.
    Resumed {},
    /// An attribute change that the api accepted, by id; `dropped` when it came too late to apply.
    Changed {
        id: String,
        dropped: bool,
    },
    SwapRequested {
        id: String,
        harness: HarnessRef,
    },
    Swapped {
        from: HarnessRef,
        to: HarnessRef,
    },
    CloseRequested {
        id: String,
    },
    HandProvisioned {
        hand: HandRef,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    HandLost {
        hand: String,
        reason: String,
    },
    HandReleased {
        hand: String,
    },
    RunSealed {
        run_id: String,
        manifest: BlobRef,
    },
    /// The hand is asked what the turn left in it.
    Collecting {
        activity: String,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    /// Files and the diff, as they were at idle.
    Outputs {
        listing: BlobRef,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    /// MCP servers are asked which tools they have.
    Listing {
        activity: String,
        /// The hand that they live in; none for those that are reached through egress.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hand: Option<HandName>,
    },
    /// They said so: from here on the agent has these.
    ToolsListed {
        listed: Listed,
    },
    /// The session rests and its hand with it: unless it is needed before, it is parked then.
    Resting {
        activity: String,
        until: Time,
    },
    /// What is in the hand is being kept, so that it can be let go.
    Parking {
        activity: String,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    /// The workspace is kept: the hand is let go by an activity of this name, and the next use has a new one.
    HandParked {
        hand: HandRef,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
        workspace: Workspace,
        release: String,
    },
    /// What is in the hand is to go to another session.
    Giving {
        give: Give,
    },
    /// It does not: the session goes on with it.
    NotGiven {
        reason: String,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    /// It is on its way, by an activity of this name, and no longer this session's.
    HandGiven {
        to: String,
        handed: Handed,
        activity: String,
    },
    /// The other session is over: it is this session's again.
    HandBack {
        handed: Handed,
    },
    /// The next use begins with what another session had.
    HandTaken {
        handed: Handed,
    },
    /// The session has a hand of its own; what came goes back, by an activity of this name.
    HandRefused {
        handed: Handed,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        activity: Option<String>,
    },
    /// The hand is given up for good.
    Releasing {
        activity: String,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    /// Everything before this is another session's; what was under way there is not under way here.
    Forked {
        fork: Box<Fork>,
    },
}

/// How a session began that goes on from another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fork {
    /// The session whose log it shares.
    pub parent: String,
    pub session_id: String,
    pub created_at: Time,
    pub attributes: Attributes,
    pub harness: HarnessRef,
    /// What was under way goes on here, with a hand of its own; otherwise it ends here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_on: bool,
}

/// How an activity ended, as far as the workflow is concerned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum Closed {
    /// Its result, in history, counts.
    Finished,
    /// The worker was lost for good or the activity failed.
    Failed { message: String },
    /// It was told to stop, and whatever it still sends is not part of the log.
    Cancelled,
}

/// What is to be done next. Decided by a harness, or `Continue` by the frame.
///
/// Unknown fields are ignored; an unknown variant is refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    CallModel {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<StrategyRef>,
        /// Synthetic messages after the strategy's last one.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        suffix: Vec<Value>,
    },
    /// Use events by id, out of the View's calls.
    Execute {
        calls: Vec<String>,
    },
    /// Puts a summary in the place of what came before: a model request of its own, by the strategy that will
    /// read the summary.
    Compact {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<StrategyRef>,
    },
    Provision {},
    Wait {
        until: Time,
    },
    Idle {
        reason: IdleReason,
    },
    Fail {
        message: String,
    },
    /// Nothing new to do: something is still pending, or nothing changed.
    Continue {},
}

/// Why a harness ends a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum IdleReason {
    EndTurn {},
    RetriesExhausted {},
    Refusal { category: Option<String>, explanation: Option<String> },
}
