//! The workflow task of a run: none, scheduled, or started; at most one. Attempts after the first are transient: their
//! scheduled and started events exist only in what the worker is sent, until one of them completes.

use super::state::WorkflowTask;
use super::versioning::{self, Poller};
use super::{Input, Refusal, Tx, Work, history, ids, terminate};
use crate::pb::enums::v1::{SuggestContinueAsNewReason, TaskQueueKind, TimeoutType, WorkflowTaskFailedCause};
use crate::pb::failure::v1::Failure;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    HistoryEvent, WorkflowTaskFailedEventAttributes, WorkflowTaskScheduledEventAttributes,
    WorkflowTaskStartedEventAttributes, WorkflowTaskTimedOutEventAttributes,
};
use crate::pb::taskqueue::v1::TaskQueue;
use crate::time::{Time, duration};

const SECOND: i64 = 1_000_000_000;
/// Attempts that keep the plain timeout; later ones wait longer, so that a task that always fails does not spin.
const PLAIN_ATTEMPTS: i32 = 3;
const BACKOFF_FIRST: i64 = 5 * SECOND;
const BACKOFF_MAX: i64 = 600 * SECOND;

/// Makes sure that the workflow will look at what happened: schedules a task unless one exists.
pub fn ensure(tx: &mut Tx<'_>) {
    if tx.state.is_open() && tx.state.task.is_none() && !tx.state.is_delayed(tx.now()) {
        schedule(tx, None);
    }
}

/// Schedules a task. `heartbeat_since` is set when it continues a chain of heartbeating tasks.
pub fn schedule(tx: &mut Tx<'_>, heartbeat_since: Option<Time>) {
    if tx.flush_buffered() {
        tx.state.task_attempt = 1;
    }
    let now = tx.now();
    let attempt = tx.state.task_attempt.max(1);
    let (queue, sticky) = match &tx.state.sticky {
        Some(sticky) => (sticky.queue.clone(), true),
        None => (tx.state.task_queue.clone(), false),
    };
    let scheduled_event_id = if attempt == 1 { append_scheduled(tx, 1) } else { tx.state.next_event_id };
    tx.state.task_stamp += 1;
    let stamp = tx.state.task_stamp;
    tx.state.task = Some(WorkflowTask {
        scheduled_event_id,
        attempt,
        scheduled_at: now.0,
        original_scheduled_at: heartbeat_since.unwrap_or(now).0,
        timeout: task_timeout(tx.state.task_timeout, attempt),
        stamp,
        sticky,
        ..Default::default()
    });
    let normal_queue = tx.state.task_queue.clone();
    tx.effects.work.push(Work::WorkflowTask { queue, sticky, normal_queue, stamp });
}

fn task_timeout(plain: i64, attempt: i32) -> i64 {
    if attempt <= PLAIN_ATTEMPTS {
        return plain;
    }
    let doublings = (attempt - PLAIN_ATTEMPTS - 1).min(20);
    plain.saturating_add((BACKOFF_FIRST << doublings).min(BACKOFF_MAX))
}

fn append_scheduled(tx: &mut Tx<'_>, attempt: i32) -> i64 {
    let attributes = scheduled_attributes(tx.state, attempt);
    tx.append(attributes)
}

fn scheduled_attributes(state: &super::state::RunState, attempt: i32) -> Attributes {
    let task_queue = match &state.sticky {
        Some(sticky) => TaskQueue {
            name: sticky.queue.clone(),
            kind: TaskQueueKind::Sticky as i32,
            normal_name: state.task_queue.clone(),
        },
        None => {
            TaskQueue { name: state.task_queue.clone(), kind: TaskQueueKind::Normal as i32, normal_name: String::new() }
        }
    };
    Attributes::WorkflowTaskScheduledEventAttributes(WorkflowTaskScheduledEventAttributes {
        task_queue: Some(task_queue),
        start_to_close_timeout: duration(state.task_timeout),
        attempt,
    })
}

fn started_attributes(task: &WorkflowTask, scheduled_event_id: i64) -> Attributes {
    Attributes::WorkflowTaskStartedEventAttributes(WorkflowTaskStartedEventAttributes {
        scheduled_event_id,
        identity: task.identity.clone(),
        request_id: task.request_id.clone(),
        suggest_continue_as_new: !task.suggest_reasons.is_empty(),
        suggest_continue_as_new_reasons: task.suggest_reasons.clone(),
        history_size_bytes: task.history_bytes,
        target_worker_deployment_version_changed: task.target_changed,
        ..Default::default()
    })
}

/// A worker takes the task out of its queue.
pub struct Start {
    pub stamp: i64,
    pub identity: String,
    /// Taken from the sticky queue: the worker may have the run in its cache.
    pub from_sticky: bool,
    pub poller: Poller,
}

/// A started task, as a worker must be told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    pub task: WorkflowTask,
    pub previous_started_event_id: i64,
    /// Whether the worker gets only what is new to it.
    pub partial_history: bool,
    /// Events that are part of the task but not of history (yet).
    pub transient: Vec<HistoryEvent>,
}

impl Input for Start {
    type Reply = Started;

    fn apply(self, tx: &mut Tx<'_>) -> Result<Started, Refusal> {
        let current = tx.state.task.as_ref();
        if !tx.state.is_open() || current.is_none_or(|task| task.stamp != self.stamp || task.started_event_id != 0) {
            return Err(Refusal::WorkflowTaskNotFound);
        }
        versioning::meet(tx, &self.poller)?;
        versioning::notice(tx, &self.poller.target);
        if !self.from_sticky {
            tx.state.sticky = None;
        }
        Ok(start(tx, self.identity))
    }
}

/// Starts the scheduled task; there must be one.
pub fn start(tx: &mut Tx<'_>, identity: String) -> Started {
    let mut task = tx.state.task.take().expect("a task is started only when one is scheduled");
    if task.attempt > 1 && task.scheduled_event_id != tx.state.next_event_id {
        // News came since the failed attempt: this is an ordinary task again.
        task.attempt = 1;
        task.timeout = tx.state.task_timeout;
        tx.state.task_attempt = 1;
        task.scheduled_event_id = append_scheduled(tx, 1);
    }
    task.identity = identity;
    task.request_id = ids::request(tx.state);
    task.started_at = tx.now().0;
    task.sticky = false;
    task.history_bytes = tx.state.history_bytes;
    task.suggest_reasons = suggestions(tx);
    task.target_changed = versioning::is_notified(tx.state);
    task.started_event_id = if task.attempt == 1 {
        tx.append(started_attributes(&task, task.scheduled_event_id))
    } else {
        task.scheduled_event_id + 1
    };
    tx.state.task = Some(task.clone());
    Started {
        transient: transient_events(tx.state),
        previous_started_event_id: tx.state.previous_started_event_id,
        partial_history: tx.state.sticky.is_some(),
        task,
    }
}

fn suggestions(tx: &Tx<'_>) -> Vec<i32> {
    let mut reasons = Vec::new();
    if tx.state.history_bytes >= tx.at.limits.suggest_history_bytes {
        reasons.push(SuggestContinueAsNewReason::HistorySizeTooLarge as i32);
    }
    if tx.state.next_event_id >= tx.at.limits.suggest_history_events {
        reasons.push(SuggestContinueAsNewReason::TooManyHistoryEvents as i32);
    }
    if tx.state.updates.len() * 10 > tx.at.limits.updates_max * 9 {
        reasons.push(SuggestContinueAsNewReason::TooManyUpdates as i32);
    }
    reasons
}

/// The events of a task that history does not hold: those of a repeated attempt.
pub fn transient_events(state: &super::state::RunState) -> Vec<HistoryEvent> {
    let Some(task) = state.task.as_ref().filter(|task| task.attempt > 1 && task.started_event_id != 0) else {
        return Vec::new();
    };
    let event = |id, at: i64, attributes: Attributes| HistoryEvent {
        event_id: id,
        event_time: Time(at).timestamp(),
        event_type: attributes.event_type() as i32,
        attributes: Some(attributes),
        ..Default::default()
    };
    vec![
        event(task.scheduled_event_id, task.scheduled_at, scheduled_attributes(state, task.attempt)),
        event(task.started_event_id, task.started_at, started_attributes(task, task.scheduled_event_id)),
    ]
}

/// Writes the events that a transient task owes to history, now that it completes, and returns the ids
/// (scheduled, started) that its completion refers to.
pub fn materialize(tx: &mut Tx<'_>, task: &WorkflowTask) -> (i64, i64) {
    if task.attempt == 1 {
        return (task.scheduled_event_id, task.started_event_id);
    }
    let scheduled = append_scheduled(tx, task.attempt);
    let started = tx.append(started_attributes(task, scheduled));
    (scheduled, started)
}

/// A worker reports that it could not process the task.
pub struct Fail {
    pub token: TaskRef,
    pub cause: WorkflowTaskFailedCause,
    pub failure: Option<Failure>,
    pub identity: String,
}

/// Names one started task; every field is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRef {
    pub scheduled_event_id: i64,
    pub started_event_id: i64,
    pub attempt: i32,
    pub started_at: i64,
    /// Attempts that are not in history share their event ids, and two may start at the same moment of a coarse clock.
    pub stamp: i64,
}

impl TaskRef {
    pub fn of(task: &WorkflowTask) -> Self {
        TaskRef {
            scheduled_event_id: task.scheduled_event_id,
            started_event_id: task.started_event_id,
            attempt: task.attempt,
            started_at: task.started_at,
            stamp: task.stamp,
        }
    }

    /// The started task that this names.
    pub fn check(&self, tx: &Tx<'_>) -> Result<WorkflowTask, Refusal> {
        let task = tx.state.started_task().filter(|task| tx.state.is_open() && TaskRef::of(task) == *self);
        task.cloned().ok_or(Refusal::WorkflowTaskNotFound)
    }
}

impl Input for Fail {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        self.token.check(tx)?;
        fail(tx, self.cause, self.failure, self.identity);
        again(tx);
        Ok(())
    }
}

/// Ends the started task as failed; the caller decides what comes next.
pub fn fail(tx: &mut Tx<'_>, cause: WorkflowTaskFailedCause, failure: Option<Failure>, identity: String) {
    let Some(task) = tx.state.task.take() else { return };
    if task.attempt == 1 {
        tx.append(Attributes::WorkflowTaskFailedEventAttributes(WorkflowTaskFailedEventAttributes {
            scheduled_event_id: task.scheduled_event_id,
            started_event_id: task.started_event_id,
            cause: cause as i32,
            failure,
            identity,
            ..Default::default()
        }));
    }
    count_attempt(tx, &task);
}

/// Ends the task as timed out. A task that no worker took can only have been on a sticky queue.
pub fn time_out(tx: &mut Tx<'_>) {
    let Some(task) = tx.state.task.take() else { return };
    let timeout_type =
        if task.started_event_id == 0 { TimeoutType::ScheduleToStart } else { TimeoutType::StartToClose };
    if task.attempt == 1 {
        tx.append(Attributes::WorkflowTaskTimedOutEventAttributes(WorkflowTaskTimedOutEventAttributes {
            scheduled_event_id: task.scheduled_event_id,
            started_event_id: task.started_event_id,
            timeout_type: timeout_type as i32,
        }));
    }
    count_attempt(tx, &task);
}

/// A failure on the sticky queue says nothing of the task itself, so it costs no attempt.
fn count_attempt(tx: &mut Tx<'_>, task: &WorkflowTask) {
    let was_sticky = tx.state.sticky.take().is_some();
    tx.state.task_attempt = if was_sticky { task.attempt } else { task.attempt + 1 };
}

/// Schedules the next attempt, with what was buffered before it.
pub fn again(tx: &mut Tx<'_>) {
    if tx.flush_buffered() {
        tx.state.task_attempt = 1;
    }
    ensure(tx);
}

/// Too much may not wait behind one task: it is failed, and what waited is appended.
pub fn bound_buffer(tx: &mut Tx<'_>) {
    let limits = tx.at.limits;
    if tx.state.buffered.len() <= limits.buffered_events_max
        && history::buffered_bytes(tx.state) <= limits.buffered_bytes_max
    {
        return;
    }
    fail(tx, WorkflowTaskFailedCause::ForceCloseCommand, None, terminate::BY_THE_ENGINE.to_owned());
    again(tx);
}

/// The worker that polls the sticky queue is gone.
pub struct ForgetSticky;

impl Input for ForgetSticky {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        tx.state.sticky = None;
        if tx.state.task.as_ref().is_some_and(|task| task.sticky) {
            requeue(tx);
        }
        Ok(())
    }
}

/// Puts a task that no worker has into the queue of everybody, in place of wherever it stands.
pub fn requeue(tx: &mut Tx<'_>) {
    if !tx.state.is_open() {
        return;
    }
    let Some(task) = tx.state.task.as_mut().filter(|task| task.started_event_id == 0) else { return };
    tx.state.task_stamp += 1;
    let stamp = tx.state.task_stamp;
    task.sticky = false;
    task.stamp = stamp;
    let queue = tx.state.task_queue.clone();
    tx.effects.work.push(Work::WorkflowTask { normal_queue: queue.clone(), queue, sticky: false, stamp });
}

/// The poll that took the task went away before the worker had it. Ends that attempt at once instead of after its
/// timeout.
pub struct Lost {
    pub token: TaskRef,
}

impl Input for Lost {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let task = self.token.check(tx)?;
        time_out(tx);
        tx.state.task_attempt = task.attempt;
        again(tx);
        Ok(())
    }
}
