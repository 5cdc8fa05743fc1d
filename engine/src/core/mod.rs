//! The rules of a run, as a pure function of its state, what happened, and the time: no IO, no clock, no async, and ids
//! from a seed. One machine a file; each input implements [`Input`], and [`apply`] is the only way in.
//!
//! What a transition must store and set in motion is returned in [`Effects`]; nothing here performs it.

pub mod activity;
pub mod activity_timeout;
pub mod begin;
pub mod cancel;
pub mod child;
pub mod close;
pub mod command;
pub mod completion;
pub mod deadline;
pub mod errand;
pub mod external;
pub mod history;
pub mod ids;
pub mod ledger;
pub mod recover;
pub mod retry;
pub mod signal;
pub mod state;
pub mod terminate;
pub mod timer;
pub mod update;
pub mod versioning;
pub mod workflow_task;

#[cfg(test)]
mod tests;

use crate::options::Limits;
use crate::pb::failure::v1::Failure;
use crate::pb::history::v1::{HistoryEvent, WorkflowExecutionStartedEventAttributes};
use crate::time::Time;
use state::{Run, RunState};

/// Something that happens to a run.
pub trait Input {
    /// What whoever caused it gets back.
    type Reply;

    /// Changes the run. A refusal must leave it as it was.
    fn apply(self, tx: &mut Tx<'_>) -> Result<Self::Reply, Refusal>;
}

/// What a transition is given besides the run and the input.
pub struct At<'a> {
    pub now: Time,
    pub limits: &'a Limits,
    /// How the run was started; needed only where a retry of the workflow may begin a new run.
    pub started: Option<&'a WorkflowExecutionStartedEventAttributes>,
}

/// What a transition leaves to be done. Events and state are stored together; only then is the rest performed.
#[derive(Debug, Default)]
pub struct Effects {
    /// Appended to history, with ids and times.
    pub events: Vec<HistoryEvent>,
    /// Handed to the task queues.
    pub work: Vec<Work>,
    /// Request ids of signals, to be remembered.
    pub signal_ids: Vec<String>,
    /// A new run of the same workflow id, stored in the same write.
    pub successor: Option<Box<(Run, Effects)>>,
    /// What became of updates.
    pub updates: Vec<(String, update::News)>,
    /// Whether what a list shows of this run changed.
    pub listed: bool,
}

/// A task for a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    WorkflowTask { queue: String, sticky: bool, normal_queue: String, stamp: i64 },
    Activity { queue: String, scheduled_event_id: i64, attempt: i32 },
}

/// Why an input does not apply. The run is unchanged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("workflow task not found")]
    WorkflowTaskNotFound,
    #[error("activity not found")]
    ActivityNotFound,
    #[error("no activity with the id {0} is pending")]
    NoActivityOfThatId(String),
    #[error("run is closed")]
    Closed,
    #[error("run does not belong to the chain that was named")]
    OtherChain,
    #[error("what was to be recorded is not waited for")]
    NotAwaited,
    #[error("run is not a child of the one that asks")]
    OtherParent,
    #[error("signal limit of the run is reached")]
    TooManySignals,
    #[error("run is not pinned to a version")]
    NotPinned,
    #[error("{0}")]
    Invalid(String),
}

/// One transition in the making.
pub struct Tx<'a> {
    pub state: &'a mut RunState,
    pub at: &'a At<'a>,
    pub effects: Effects,
    signal_ids: &'a std::collections::HashSet<String>,
}

impl Tx<'_> {
    pub fn now(&self) -> Time {
        self.at.now
    }

    /// Whether a signal with this request id was taken before.
    pub fn has_signal(&self, request_id: &str) -> bool {
        self.signal_ids.contains(request_id)
    }
}

/// Applies `input` to `run` at the given moment.
pub fn apply<I: Input>(run: &mut Run, input: I, at: &At<'_>) -> Result<(I::Reply, Effects), Refusal> {
    #[cfg(debug_assertions)]
    let before = run.state.clone();
    let mut tx = Tx { state: &mut run.state, at, effects: Effects::default(), signal_ids: &run.signal_ids };
    match input.apply(&mut tx) {
        Ok(reply) => {
            settle(&mut tx);
            let effects = tx.effects;
            #[cfg(debug_assertions)]
            ledger::check(ledger::Ledger::of(&before), &effects.events, &run.state);
            run.signal_ids.extend(effects.signal_ids.iter().cloned());
            Ok((reply, effects))
        }
        Err(refusal) => {
            #[cfg(debug_assertions)]
            assert!(run.state == before, "a refused input changed the run: {refusal}");
            Err(refusal)
        }
    }
}

/// What holds after every transition, whatever its input was.
fn settle(tx: &mut Tx<'_>) {
    workflow_task::bound_buffer(tx);
    close::bound_history(tx);
    if tx.state.is_open() || !tx.effects.events.is_empty() {
        tx.state.transitions += 1;
    }
    deadline::arm(tx.state);
    if let Some(successor) = &mut tx.effects.successor {
        deadline::arm(&mut successor.0.state);
    }
}

/// A failure made by the engine itself.
pub(crate) fn server_failure(message: impl Into<String>) -> Failure {
    use crate::pb::failure::v1::{ServerFailureInfo, failure::FailureInfo};
    Failure {
        message: message.into(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ServerFailureInfo(ServerFailureInfo { non_retryable: true })),
        ..Default::default()
    }
}
