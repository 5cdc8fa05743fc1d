//! Starting workflows: what the newest run of the same workflow id means for a new one. Starts of one workflow id are
//! decided one after the other, each against the durable outcome of the one before.

use super::{Done, Error, Host, Published, Seen, Slot, record, wait};
use crate::core::begin::{Begin, begin};
use crate::core::signal::Signal;
use crate::core::state::{Run, RunState};
use crate::core::terminate::Terminate;
use crate::core::{self, At, Effects, ids};
use crate::pb::enums::v1::{WorkflowExecutionStatus, WorkflowIdConflictPolicy, WorkflowIdReusePolicy};
use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
use crate::pb::sdk::v1::UserMetadata;
use crate::store::{self, Batch, Durability, keys};
use crate::time::Time;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

/// A workflow to start, or to signal if it runs.
pub struct Start {
    pub namespace: String,
    pub request_id: String,
    pub started: WorkflowExecutionStartedEventAttributes,
    pub user_metadata: Option<UserMetadata>,
    pub reuse: WorkflowIdReusePolicy,
    pub conflict: WorkflowIdConflictPolicy,
    pub signal: Option<Signal>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    Started {
        run_id: String,
    },
    /// The run that was there already is the answer.
    Existing {
        run_id: String,
        first_run_id: String,
        status: i32,
    },
    /// The run that was there already is in the way.
    Refused {
        run_id: String,
        first_run_id: String,
        start_request_id: String,
        is_open: bool,
    },
}

/// One lock for many workflow ids.
pub struct StartLocks {
    locks: Vec<Arc<Mutex<()>>>,
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Default for StartLocks {
    fn default() -> Self {
        StartLocks { locks: (0..256).map(|_| Arc::default()).collect(), hasher: BuildHasherDefault::default() }
    }
}

impl StartLocks {
    pub async fn lock(&self, namespace: &str, workflow_id: &str) -> OwnedMutexGuard<()> {
        let hash = self.hasher.hash_one((namespace, workflow_id));
        self.locks[hash as usize % self.locks.len()].clone().lock_owned().await
    }
}

/// What to do about the newest run.
pub(super) enum Verdict {
    Start,
    TerminateThenStart(Arc<Slot>),
    Signal(Arc<Slot>),
    Answer(StartOutcome, Arc<Slot>),
}

/// What became of an open run that a start is to replace.
enum Replaced {
    Now(String, Done),
    /// It closed by itself meanwhile.
    Closed(Box<Start>, OwnedMutexGuard<()>),
}

impl Host {
    /// Starts a workflow as its policies allow.
    pub async fn start(self: &Arc<Self>, start: Start) -> Result<StartOutcome, Error> {
        let lock = self.starts.lock(&start.namespace, &start.started.workflow_id).await;
        match self.judge(&start)? {
            Verdict::Answer(outcome, slot) => {
                // What a failed write left behind can be read, and may be gone after the next start.
                self.check_writable()?;
                // The run may have been continued as this one a moment ago: nobody may hear of it before it counts.
                if slot.seen() == Seen::nothing() {
                    self.sync().await?;
                }
                Ok(outcome)
            }
            Verdict::Start => self.create(start, lock).await,
            Verdict::TerminateThenStart(slot) => match self.replace(&slot, replaced(), start, lock)? {
                Replaced::Now(run_id, done) => {
                    wait(done).await?;
                    Ok(StartOutcome::Started { run_id })
                }
                Replaced::Closed(start, lock) => self.create(*start, lock).await,
            },
            Verdict::Signal(slot) => {
                let Start { signal: Some(signal), .. } = start else { return Err(Error::NoRun) };
                let outcome = existing(&slot.run.lock().state);
                self.transact(&slot, signal, Durability::Synced).await?;
                Ok(outcome)
            }
        }
    }

    /// What the newest run of its workflow id means for a start. Decided under the lock of the workflow id.
    pub(super) fn judge(&self, start: &Start) -> Result<Verdict, Error> {
        let Some(slot) = self.newest(&start.namespace, &start.started.workflow_id)? else { return Ok(Verdict::Start) };
        if slot.is_deleted() {
            return Ok(Verdict::Start);
        }
        let run = slot.run.lock();
        let state = &run.state;
        if !start.request_id.is_empty() && state.start_request_id == start.request_id && start.signal.is_none() {
            let outcome = StartOutcome::Started { run_id: state.run_id.clone() };
            return Ok(Verdict::Answer(outcome, slot.clone()));
        }
        let refused = || {
            let outcome = StartOutcome::Refused {
                run_id: state.run_id.clone(),
                first_run_id: state.first_run_id.clone(),
                start_request_id: state.start_request_id.clone(),
                is_open: state.is_open(),
            };
            Verdict::Answer(outcome, slot.clone())
        };
        if state.is_open() {
            return Ok(if start.conflict == WorkflowIdConflictPolicy::TerminateExisting {
                Verdict::TerminateThenStart(slot.clone())
            } else if start.signal.is_some() {
                Verdict::Signal(slot.clone())
            } else if start.conflict == WorkflowIdConflictPolicy::UseExisting {
                Verdict::Answer(existing(state), slot.clone())
            } else {
                refused()
            });
        }
        let failed = [
            WorkflowExecutionStatus::Failed,
            WorkflowExecutionStatus::Canceled,
            WorkflowExecutionStatus::Terminated,
            WorkflowExecutionStatus::TimedOut,
        ];
        let allowed = match start.reuse {
            WorkflowIdReusePolicy::RejectDuplicate => false,
            WorkflowIdReusePolicy::AllowDuplicateFailedOnly => failed.iter().any(|f| *f as i32 == state.status),
            _ => true,
        };
        Ok(if allowed { Verdict::Start } else { refused() })
    }

    /// Ends an open run and starts another in its place, both in one write; gives the start back if the run is closed.
    fn replace(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        terminate: Terminate,
        start: Start,
        lock: OwnedMutexGuard<()>,
    ) -> Result<Replaced, Error> {
        self.check_writable()?;
        let mut run = slot.run.lock();
        if !run.state.is_open() || slot.is_deleted() {
            return Ok(Replaced::Closed(Box::new(start), lock));
        }
        let at = At { now: self.clock.now(), limits: &self.limits, started: None };
        let before = record::Before::of(&run.state);
        let ((), mut effects) = core::apply(&mut run, terminate, &at)?;
        let next = self.begin(start, at.now);
        let run_id = next.0.state.run_id.clone();
        run.state.successor.clone_from(&run_id);
        effects.successor = Some(Box::new(next));
        Ok(Replaced::Now(run_id, self.commit(slot, &run, effects, before, Durability::Synced, Some(lock))))
    }

    /// The first state of a run that a client asked for.
    pub(super) fn begin(&self, start: Start, now: Time) -> (Run, Effects) {
        let (high, low) = self.draw();
        let begun = Begin {
            namespace: start.namespace,
            run_id: ids::ordered_from(now, high, low),
            seed: high ^ low,
            start_request_id: start.request_id,
            started: start.started,
            user_metadata: start.user_metadata,
            signal: start.signal,
            execution_expires_at: Time::UNSET,
        };
        begin(begun, &At { now, limits: &self.limits, started: None })
    }

    async fn create(self: &Arc<Self>, start: Start, lock: OwnedMutexGuard<()>) -> Result<StartOutcome, Error> {
        self.check_writable()?;
        let (run, mut effects) = self.begin(start, self.clock.now());
        let run_id = run.state.run_id.clone();
        let mut batch = Batch::default();
        let slot = self.cache.insert(&run, &effects.events);
        record::transition(&mut batch, &slot.key, &run, &mut effects, record::Before::nothing());
        record::make_current(&mut batch, &run);
        debug_assert_eq!(keys::run(&run_id), Some(slot.key));
        let published = Published::of(&run.state, effects.work, effects.updates);
        let (done, waits) = oneshot::channel();
        let host = self.clone();
        let after = move |result: Result<(), Arc<store::Error>>| {
            match &result {
                Ok(()) => host.publish(&slot, published),
                Err(_) => host.poison(),
            }
            // The next start of this workflow id reads the pointer that is written now.
            drop(lock);
            let _nobody_waits = done.send(result);
        };
        self.submit(batch, Durability::Synced, Box::new(after));
        wait(waits).await?;
        Ok(StartOutcome::Started { run_id })
    }
}

/// How a run ends that a start replaces.
pub(super) fn replaced() -> Terminate {
    Terminate {
        reason: "TerminateIfRunning WorkflowIdReusePolicy Policy".to_owned(),
        details: None,
        identity: "history-service".to_owned(),
        first_run_id: String::new(),
        from: None,
    }
}

fn existing(state: &RunState) -> StartOutcome {
    StartOutcome::Existing {
        run_id: state.run_id.clone(),
        first_run_id: state.first_run_id.clone(),
        status: state.status,
    }
}
