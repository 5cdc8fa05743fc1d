//! What runs owe to other runs: starts of children, signals, requests to cancel, and what parents and children hear of
//! each other's end. The index on disk holds one entry for each; in memory is a line of the runs that have any. One task
//! for all, one errand after the other. An entry goes in the write that does what it stands for. What could not be done is
//! tried again, after longer and longer pauses.

use super::pair::{Asked, lock_both};
use super::{Change, Error, Host, Most, Slot, create, record};
use crate::core::cancel::RequestCancel;
use crate::core::child::{self, Ended};
use crate::core::errand::{self, Errand, Settled, What};
use crate::core::external::{Asker, CancelRequested, Signaled};
use crate::core::signal::Signal;
use crate::core::terminate::Terminate;
use crate::core::{self, At, Refusal, versioning};
use crate::pb::common::v1::WorkflowExecution;
use crate::pb::enums::v1::{
    CancelExternalWorkflowExecutionFailedCause as CancelFailed, ParentClosePolicy,
    SignalExternalWorkflowExecutionFailedCause as SignalFailed, StartChildWorkflowExecutionFailedCause as StartFailed,
    WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use crate::pb::history::v1::HistoryEvent;
use crate::pb::history::v1::StartChildWorkflowExecutionInitiatedEventAttributes as StartChild;
use crate::pb::history::v1::history_event::Attributes;
use crate::store::Durability;
use crate::store::keys::{self, RunKey};
use crate::time::Time;
use create::{Start, Verdict};
use futures::future::OptionFuture;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, OwnedMutexGuard};
use tracing::warn;

/// How events name whoever acts for a workflow.
const IDENTITY: &str = "history-service";

/// The pause after the first failure, in nanoseconds; each further one doubles it, up to the longest.
const PAUSE_NS: i64 = 1_000_000_000;
const PAUSE_NS_MAX: i64 = 60 * PAUSE_NS;

/// Runs that owe something, each once.
#[derive(Default)]
pub struct Errands {
    line: Mutex<Line>,
    news: Notify,
    closed: AtomicBool,
}

#[derive(Default)]
struct Line {
    order: VecDeque<RunKey>,
    there: HashSet<RunKey>,
    /// Runs that are tried again, and when.
    later: BTreeSet<(Time, RunKey)>,
    /// How often in a row it could not be done.
    failures: HashMap<RunKey, u32>,
}

impl Errands {
    pub fn push(&self, run: RunKey) {
        let mut line = self.line.lock();
        if line.there.insert(run) {
            line.order.push_back(run);
            self.news.notify_one();
        }
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.news.notify_one();
    }

    /// The next run, or when there will be one.
    fn pop(&self, now: Time) -> Result<RunKey, Option<Time>> {
        let mut line = self.line.lock();
        let later = line.later.first().copied();
        if let Some(first) = later.filter(|first| first.0 <= now) {
            line.later.remove(&first);
            return Ok(first.1);
        }
        let run = line.order.pop_front().ok_or(later.map(|(at, _)| at))?;
        line.there.remove(&run);
        Ok(run)
    }

    fn done(&self, run: &RunKey) {
        self.line.lock().failures.remove(run);
    }

    fn put_off(&self, run: RunKey, now: Time) {
        let mut line = self.line.lock();
        let failures = line.failures.entry(run).or_default();
        let pause = PAUSE_NS.saturating_mul(1 << (*failures).min(16)).min(PAUSE_NS_MAX);
        *failures += 1;
        line.later.insert((now.plus(pause), run));
    }
}

impl Host {
    /// Does errands until the engine closes. What is left then is done by the next engine over the same store.
    pub async fn run_errands(self: Arc<Self>) {
        while !self.errands.closed.load(Ordering::Acquire) {
            let run = match self.errands.pop(self.clock.now()) {
                Ok(run) => run,
                Err(next) => {
                    let again = next.map(|at| self.clock.sleep_until(at));
                    tokio::select! {
                        biased;
                        () = self.errands.news.notified() => {}
                        Some(()) = OptionFuture::from(again) => {}
                    }
                    continue;
                }
            };
            match self.run_errand(&run).await {
                Ok(()) => self.errands.done(&run),
                Err(error) => {
                    let run_id = keys::run_id(&run);
                    let error = &error as &dyn std::error::Error;
                    warn!(run_id, error, "what a run owes to another could not be done");
                    // A store that failed takes nothing more: the next engine over it begins with the index.
                    if !self.is_poisoned() {
                        self.errands.put_off(run, self.clock.now());
                    }
                }
            }
        }
    }

    /// Does the first thing that a run owes, and puts it behind the others if there is more.
    async fn run_errand(self: &Arc<Self>, run: &RunKey) -> Result<(), Error> {
        let Some(slot) = self.slot(run)? else { return Ok(()) };
        let Some(errand) = owed(&slot) else { return Ok(()) };
        match errand.what {
            What::StartChild => self.start_child(&slot, errand).await?,
            What::Signal => self.signal_other(&slot, errand)?,
            What::Cancel => self.cancel_other(&slot, errand)?,
            What::TellParent => self.tell_parent(&slot, errand)?,
            What::ClosePolicy => self.close_child(&slot, errand)?,
        }
        if owed(&slot).is_some() {
            self.errands.push(*run);
        }
        Ok(())
    }

    /// Does everything that a closed run owes, now.
    pub(super) fn settle(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), Error> {
        while let Some(errand) = owed(slot) {
            match errand.what {
                What::TellParent => self.tell_parent(slot, errand)?,
                What::ClosePolicy => self.close_child(slot, errand)?,
                What::StartChild | What::Signal | What::Cancel => break,
            }
        }
        Ok(())
    }

    async fn start_child(self: &Arc<Self>, slot: &Arc<Slot>, errand: Errand) -> Result<(), Error> {
        let event = self.event(slot, errand)?;
        let Some(Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(initiated)) = &event.attributes else {
            return Err(disagrees(slot, errand));
        };
        if !self.may_override(initiated) {
            return self.cannot_start(slot, errand, initiated, StartFailed::InvalidVersioningOverride);
        }
        let mut lock = self.starts.lock(&initiated.namespace, &initiated.workflow_id).await;
        loop {
            let Some(start) = self.child_to_start(slot, errand, &event, initiated) else { return Ok(()) };
            let replaced = match self.judge(&start)? {
                Verdict::Start => None,
                Verdict::TerminateThenStart(other) if other.key != slot.key => Some(other),
                _ => return self.cannot_start(slot, errand, initiated, StartFailed::WorkflowAlreadyExists),
            };
            match self.bear(slot, errand, initiated, start, replaced.as_ref(), lock)? {
                None => return Ok(()),
                // The run that was to be replaced closed by itself meanwhile.
                Some(back) => lock = back,
            }
        }
    }

    /// Tells a parent why its child is not started.
    fn cannot_start(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        errand: Errand,
        initiated: &StartChild,
        cause: StartFailed,
    ) -> Result<(), Error> {
        let (initiated, outcome) = (initiated.clone(), Err(cause));
        let failed = child::Start { initiated_event_id: errand.event_id, initiated, outcome };
        not_owed_is_fine(self.decide(slot, failed, Durability::Synced).map(|_| ()))
    }

    /// Whether a child can have the version that its parent wants for it, if that wants one.
    fn may_override(&self, initiated: &StartChild) -> bool {
        let Some(given) = &initiated.versioning_override else { return true };
        let queue = initiated.task_queue.as_ref().map_or("", |queue| &queue.name);
        match versioning::named_version(given) {
            Ok(Some(version)) => self.queues.deployments.read().polls(&initiated.namespace, &version, queue, false),
            Ok(None) => !versioning::is_pinned(given),
            Err(_) => false,
        }
    }

    /// Starts a child and tells its parent, in one write, which also ends the run that it replaces. Gives the lock back
    /// if that is not open any more.
    fn bear(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        errand: Errand,
        initiated: &StartChild,
        start: Start,
        replaced: Option<&Arc<Slot>>,
        lock: OwnedMutexGuard<()>,
    ) -> Result<Option<OwnedMutexGuard<()>>, Error> {
        self.check_writable()?;
        let (mut parent, mut replaced) = match replaced {
            Some(other) => {
                let (parent, old) = lock_both(slot, other);
                (parent, Some((other, old)))
            }
            None => (slot.run.lock(), None),
        };
        if slot.is_deleted() || !errand::owes(&parent.state, errand) {
            return Ok(None);
        }
        if let Some((other, old)) = &replaced
            && (!old.state.is_open() || other.is_deleted())
        {
            return Ok(Some(lock));
        }
        let at = At { now: self.clock.now(), limits: &self.limits, started: None };
        let born = self.begin(start, at.now);
        let run_id = born.0.state.run_id.clone();
        let before = record::Before::of(&parent.state);
        let outcome = Ok(run_id.clone());
        let started = child::Start { initiated_event_id: errand.event_id, initiated: initiated.clone(), outcome };
        let mut born = Some(Box::new(born));
        let mut changes = Vec::new();
        if let Some((other, old)) = &mut replaced {
            let before = record::Before::of(&old.state);
            let ((), mut effects) = core::apply(old, create::replaced(), &at)?;
            old.state.successor = run_id;
            effects.successor = born.take();
            changes.push(Change { slot: other, run: old, effects, before });
        }
        // It owes the start, and nothing else was checked: a refusal would leave half of it done.
        let ((), mut effects) = core::apply(&mut parent, started, &at).expect("a parent takes the child that it wants");
        if born.is_some() {
            effects.successor = born;
        }
        changes.push(Change { slot, run: &parent, effects, before });
        // The next start of this workflow id reads the pointer that is written now.
        let _done = self.commit_all(changes, Durability::Synced, Some(lock));
        Ok(None)
    }

    fn signal_other(self: &Arc<Self>, slot: &Arc<Slot>, errand: Errand) -> Result<(), Error> {
        let initiated = match self.event(slot, errand)?.attributes {
            Some(Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(initiated)) => initiated,
            _ => return Err(disagrees(slot, errand)),
        };
        let Some(request_id) = request_id(slot, errand) else { return Ok(()) };
        let target = initiated.workflow_execution.clone().unwrap_or_default();
        let signal = |from| Signal {
            name: initiated.signal_name.clone(),
            input: initiated.input.clone(),
            identity: IDENTITY.to_owned(),
            header: initiated.header.clone(),
            request_id: request_id.clone(),
            from: Some(from),
        };
        let answer = |outcome: Result<(), Refusal>| Signaled {
            initiated_event_id: errand.event_id,
            initiated: initiated.clone(),
            outcome: outcome.map_err(|refusal| match refusal {
                Refusal::TooManySignals => SignalFailed::SignalCountLimitExceeded,
                _ => SignalFailed::ExternalWorkflowExecutionNotFound,
            }),
        };
        self.reach(slot, errand, (&target, initiated.child_workflow_only), signal, answer)
    }

    fn cancel_other(self: &Arc<Self>, slot: &Arc<Slot>, errand: Errand) -> Result<(), Error> {
        let initiated = match self.event(slot, errand)?.attributes {
            Some(Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(initiated)) => initiated,
            _ => return Err(disagrees(slot, errand)),
        };
        let target = initiated.workflow_execution.clone().unwrap_or_default();
        let cancel = |from| RequestCancel {
            reason: initiated.reason.clone(),
            identity: IDENTITY.to_owned(),
            first_run_id: String::new(),
            from: Some(from),
        };
        let answer = |outcome: Result<(), Refusal>| CancelRequested {
            initiated_event_id: errand.event_id,
            initiated: initiated.clone(),
            outcome: outcome.map_err(|_| CancelFailed::ExternalWorkflowExecutionNotFound),
        };
        self.reach(slot, errand, (&target, initiated.child_workflow_only), cancel, answer)
    }

    /// Asks the run that `target` means, wherever its chain has come to.
    fn reach<I: core::Input, D: core::Input>(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        errand: Errand,
        (target, child_only): (&WorkflowExecution, bool),
        input: impl Fn(Asker) -> I,
        answer: impl Fn(Result<(), Refusal>) -> D,
    ) -> Result<(), Error> {
        let (execution, namespace) = {
            let run = slot.run.lock();
            (run.state.execution(), run.state.namespace.clone())
        };
        let mut last = None;
        loop {
            // A workflow that means itself is not found, whichever run it names.
            let found = match target.workflow_id == execution.workflow_id {
                true => Err(Error::NoRun),
                false => self.resolve(&namespace, target),
            };
            let found = match found {
                Ok(found) => found,
                Err(Error::NoRun) => {
                    let nobody = answer(Err(Refusal::Closed));
                    return not_owed_is_fine(self.decide(slot, nobody, Durability::Synced).map(|_| ()));
                }
                Err(error) => return Err(error),
            };
            let follows = target.run_id.is_empty() && last != Some(found.key);
            last = Some(found.key);
            let from = Asker { execution: execution.clone(), initiated_event_id: errand.event_id, child_only };
            match self.ask((slot, errand), (&found, input(from)), follows, &answer)? {
                Asked::MovedOn => {}
                Asked::Settled => return Ok(()),
            }
        }
    }

    fn tell_parent(self: &Arc<Self>, slot: &Arc<Slot>, errand: Errand) -> Result<(), Error> {
        let event = self.event(slot, errand)?;
        let (execution, first_run_id, parent) = {
            let run = slot.run.lock();
            (run.state.execution(), run.state.first_run_id.clone(), run.state.parent.clone().unwrap_or_default())
        };
        let key = keys::run(&parent.run_id).filter(|key| *key != slot.key);
        let (Some(found), Some(closing)) = (key.map(|key| self.slot(&key)).transpose()?.flatten(), event.attributes)
        else {
            return not_owed_is_fine(self.decide(slot, Settled(errand), Durability::Synced).map(|_| ()));
        };
        let ended = Ended { initiated_event_id: parent.initiated_event_id, first_run_id, execution, closing };
        self.ask((slot, errand), (&found, ended), false, |_| Settled(errand)).map(|_| ())
    }

    /// The parent is closed: a child ends as its parent-close policy says.
    fn close_child(self: &Arc<Self>, slot: &Arc<Slot>, errand: Errand) -> Result<(), Error> {
        let (execution, namespace, child) = {
            let run = slot.run.lock();
            let Some(child) = run.state.children.get(&errand.event_id).cloned() else { return Ok(()) };
            (run.state.execution(), run.state.namespace.clone(), child)
        };
        let mut last = None;
        loop {
            let found = self.newest(&namespace, &child.workflow_id)?.filter(|found| found.key != slot.key);
            let Some(found) = found else {
                return not_owed_is_fine(self.decide(slot, Settled(errand), Durability::Synced).map(|_| ()));
            };
            let follows = last != Some(found.key);
            last = Some(found.key);
            let from = Some(Asker { execution: execution.clone(), initiated_event_id: 0, child_only: true });
            let (first_run_id, identity) = (child.run_id.clone(), IDENTITY.to_owned());
            let (source, settled) = ((slot, errand), |_| Settled(errand));
            let asked = match child.parent_close_policy() {
                ParentClosePolicy::RequestCancel => {
                    let cancel = RequestCancel { reason: String::new(), identity, first_run_id, from };
                    self.ask(source, (&found, cancel), follows, settled)?
                }
                _ => {
                    let reason = "by parent close policy".to_owned();
                    let terminate = Terminate { reason, details: None, identity, first_run_id, from };
                    self.ask(source, (&found, terminate), follows, settled)?
                }
            };
            if !matches!(asked, Asked::MovedOn) {
                return Ok(());
            }
        }
    }

    /// The start that a child's parent asks for, if it still does.
    fn child_to_start(
        &self,
        slot: &Slot,
        errand: Errand,
        event: &HistoryEvent,
        initiated: &StartChild,
    ) -> Option<Start> {
        #[expect(deprecated, reason = "SDKs still offer it")]
        const TERMINATE_IF_RUNNING: WorkflowIdReusePolicy = WorkflowIdReusePolicy::TerminateIfRunning;
        let (reuse, conflict) = match initiated.workflow_id_reuse_policy() {
            TERMINATE_IF_RUNNING => {
                (WorkflowIdReusePolicy::AllowDuplicate, WorkflowIdConflictPolicy::TerminateExisting)
            }
            given => (given, WorkflowIdConflictPolicy::Fail),
        };
        let run = slot.run.lock();
        let child = run.state.children.get(&errand.event_id)?;
        let in_version =
            self.is_in_version_of(&run.state, initiated.task_queue.as_ref().map_or("", |queue| &queue.name));
        Some(Start {
            namespace: initiated.namespace.clone(),
            request_id: child.request_id.clone(),
            started: child::started(&run.state, errand.event_id, initiated.clone(), in_version),
            user_metadata: event.user_metadata.clone(),
            reuse,
            conflict,
            signal: None,
        })
    }

    /// The event that made a run owe something.
    fn event(&self, slot: &Slot, errand: Errand) -> Result<HistoryEvent, Error> {
        let events = self.history(&slot.key, errand.event_id, errand.event_id + 1, Most::events(1))?;
        events.into_iter().next().ok_or_else(|| disagrees(slot, errand))
    }
}

/// The first thing that a run owes because of what is on disk.
fn owed(slot: &Slot) -> Option<Errand> {
    let run = slot.run.lock();
    let next_event_id = slot.seen().next_event_id;
    if slot.is_deleted() {
        return None;
    }
    errand::errands(&run.state).find(|errand| errand.event_id < next_event_id)
}

fn request_id(slot: &Slot, errand: Errand) -> Option<String> {
    slot.run.lock().state.externals.get(&errand.event_id).map(|external| external.request_id.clone())
}

/// The event that made a run owe something is another one than its state says.
fn disagrees(slot: &Slot, errand: Errand) -> Error {
    Error::Disagrees { run_id: keys::run_id(&slot.key), event_id: errand.event_id }
}

/// Somebody else did it, or the run that owed it closed.
fn not_owed_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Refused(Refusal::NotAwaited) | Error::NoRun) => Ok(()),
        other => other,
    }
}
