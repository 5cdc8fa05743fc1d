//! One run in memory: its state behind its own lock, what of it is durable, and the queries and updates that wait for it.

use super::query::Queries;
use super::updates::Updates;
use crate::core::state::{Run, RunState};
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{HistoryEvent, WorkflowExecutionStartedEventAttributes};
use crate::store::keys::{self, RunKey};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;

pub struct Slot {
    pub key: RunKey,
    pub run: Mutex<Run>,
    pub(super) queries: Mutex<Queries>,
    pub(super) updates: Mutex<Updates>,
    seen: watch::Sender<Seen>,
    /// How the run began, where a retry repeats it, until the store has it.
    beginning: Mutex<Option<WorkflowExecutionStartedEventAttributes>>,
    deleted: AtomicBool,
}

/// How far a run is durable: what readers may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub next_event_id: i64,
    pub is_open: bool,
    pub is_deleted: bool,
}

impl Seen {
    /// Of a run that is not stored yet.
    pub fn nothing() -> Self {
        Seen { next_event_id: 1, is_open: true, is_deleted: false }
    }

    pub fn of(state: &RunState) -> Self {
        Seen { next_event_id: state.next_event_id, is_open: state.is_open(), is_deleted: false }
    }
}

impl Slot {
    /// A run as it was read from the store.
    pub fn stored(key: RunKey, run: Run) -> Self {
        let seen = Seen::of(&run.state);
        Slot::with(key, run, seen)
    }

    /// A run that is about to be stored with its first events: readers see nothing of it yet.
    pub fn unwritten(run: Run, events: &[HistoryEvent]) -> Option<Self> {
        let key = keys::run(&run.state.run_id)?;
        let first = events.first().and_then(|event| event.attributes.as_ref());
        let beginning = match (&run.state.retry_policy, first) {
            (Some(_), Some(Attributes::WorkflowExecutionStartedEventAttributes(started))) => Some(started.clone()),
            _ => None,
        };
        Some(Slot { beginning: Mutex::new(beginning), ..Slot::with(key, run, Seen::nothing()) })
    }

    fn with(key: RunKey, run: Run, seen: Seen) -> Self {
        Slot {
            key,
            run: Mutex::new(run),
            queries: Mutex::default(),
            updates: Mutex::default(),
            seen: watch::Sender::new(seen),
            beginning: Mutex::default(),
            deleted: AtomicBool::new(false),
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    pub(super) fn publish(&self, seen: Seen) {
        self.seen.send_replace(seen);
        self.beginning.lock().take();
    }

    pub(super) fn beginning(&self) -> Option<WorkflowExecutionStartedEventAttributes> {
        self.beginning.lock().clone()
    }

    pub(super) fn mark_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
        self.seen.send_modify(|seen| seen.is_deleted = true);
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }
}
