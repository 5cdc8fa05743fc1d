//! Activities: scheduled by a command, started by a worker, ended by an answer. While they are retried nothing stands in
//! history; the started event is written together with the closing one.

use super::retry::{self, Verdict};
use super::state::Activity;
use super::versioning::{self, Poller, Version};
use super::{Input, Refusal, Tx, Work, ids, workflow_task};
use crate::pb::common::v1::Payloads;
use crate::pb::enums::v1::RetryState;
use crate::pb::failure::v1::Failure;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    ActivityTaskCanceledEventAttributes, ActivityTaskCompletedEventAttributes, ActivityTaskFailedEventAttributes,
    ActivityTaskStartedEventAttributes,
};
use crate::time::Time;

/// How an answer names its activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActivityRef {
    /// By task token: exactly this attempt.
    Attempt { scheduled_event_id: i64, attempt: i32 },
    /// By the id that the workflow gave it: whatever attempt it is in.
    Id(String),
}

impl ActivityRef {
    /// The pending activity that this names.
    fn find(&self, tx: &Tx<'_>) -> Result<Activity, Refusal> {
        if !tx.state.is_open() {
            return Err(Refusal::ActivityNotFound);
        }
        let found = match self {
            ActivityRef::Attempt { scheduled_event_id, attempt } => tx
                .state
                .activities
                .get(scheduled_event_id)
                .filter(|activity| activity.attempt == *attempt && activity.is_started()),
            ActivityRef::Id(id) => {
                let found = tx.state.activities.values().find(|activity| activity.activity_id == *id);
                return found.cloned().ok_or_else(|| Refusal::NoActivityOfThatId(id.clone()));
            }
        };
        found.cloned().ok_or(Refusal::ActivityNotFound)
    }

    /// The same, and that a worker has it.
    fn find_started(&self, tx: &Tx<'_>) -> Result<Activity, Refusal> {
        self.find(tx).and_then(|activity| activity.is_started().then_some(activity).ok_or(Refusal::ActivityNotFound))
    }
}

/// A worker takes an attempt out of its queue.
pub struct Start {
    pub scheduled_event_id: i64,
    pub attempt: i32,
    pub identity: String,
    pub poller: Poller,
}

impl Input for Start {
    /// None: the run goes to the worker's version first, and the activity comes again then.
    type Reply = Option<Activity>;

    fn apply(self, tx: &mut Tx<'_>) -> Result<Option<Activity>, Refusal> {
        let waiting = tx.state.activities.get(&self.scheduled_event_id);
        let is_open = tx.state.is_open();
        if !is_open || waiting.is_none_or(|a| a.attempt != self.attempt || a.is_started() || !a.queued) {
            return Err(Refusal::ActivityNotFound);
        }
        if tx.state.is_in_transition() {
            return Err(Refusal::ActivityNotFound); // it is queued again at the end of the transition
        }
        if versioning::moves_before(tx, &self.poller) {
            return Ok(None);
        }
        Ok(Some(start(tx, self.scheduled_event_id, self.identity, self.poller.version)))
    }
}

/// Starts a pending activity; it must exist.
pub fn start(tx: &mut Tx<'_>, scheduled_event_id: i64, identity: String, version: Option<Version>) -> Activity {
    let now = tx.now().0;
    let request_id = ids::request(tx.state);
    let activity = tx.state.activities.get_mut(&scheduled_event_id).expect("a pending activity");
    activity.started_at = now;
    activity.started_by = identity;
    activity.request_id = request_id;
    activity.last_heartbeat_at = 0;
    activity.version = version;
    activity.queued = false;
    activity.clone()
}

/// The poll that took the attempt went away before the worker had it: it goes back into its queue.
pub struct Lost {
    pub scheduled_event_id: i64,
    pub attempt: i32,
}

impl Input for Lost {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let (id, attempt) = (self.scheduled_event_id, self.attempt);
        ActivityRef::Attempt { scheduled_event_id: id, attempt }.find(tx)?;
        put_in_queue(tx, id);
        Ok(())
    }
}

/// Hands the current attempt to its queue.
pub fn put_in_queue(tx: &mut Tx<'_>, scheduled_event_id: i64) {
    let Some(activity) = tx.state.activities.get_mut(&scheduled_event_id) else { return };
    activity.started_at = 0;
    activity.queued = true;
    let (queue, attempt) = (activity.task_queue.clone(), activity.attempt);
    tx.effects.work.push(Work::Activity { queue, scheduled_event_id, attempt });
}

/// Hands those attempts to their queues again that stand there: what is right for the run has changed.
pub fn requeue(tx: &mut Tx<'_>) {
    let waiting = tx.state.activities.values().filter(|activity| activity.queued && !activity.is_started());
    let waiting: Vec<i64> = waiting.map(|activity| activity.scheduled_event_id).collect();
    waiting.into_iter().for_each(|id| put_in_queue(tx, id));
}

/// The worker is alive and may have news; tells it whether its cancellation is asked for.
pub struct Heartbeat {
    pub activity: ActivityRef,
    pub details: Option<Payloads>,
}

impl Input for Heartbeat {
    type Reply = bool;

    fn apply(self, tx: &mut Tx<'_>) -> Result<bool, Refusal> {
        let id = self.activity.find_started(tx)?.scheduled_event_id;
        let now = tx.now().0;
        let activity = tx.state.activities.get_mut(&id).ok_or(Refusal::ActivityNotFound)?;
        activity.last_heartbeat_at = now;
        activity.heartbeat_details = self.details;
        Ok(activity.cancel_requested_event_id != 0)
    }
}

/// The activity returned.
pub struct Complete {
    pub activity: ActivityRef,
    pub result: Option<Payloads>,
    pub identity: String,
}

impl Input for Complete {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let activity = started_or_named(&self.activity, tx, &self.identity)?;
        let closed = Attributes::ActivityTaskCompletedEventAttributes(ActivityTaskCompletedEventAttributes {
            result: self.result,
            scheduled_event_id: activity.scheduled_event_id,
            identity: self.identity,
            ..Default::default()
        });
        close(tx, activity, closed);
        workflow_task::ensure(tx);
        Ok(())
    }
}

/// The attempt failed.
pub struct Fail {
    pub activity: ActivityRef,
    pub failure: Option<Failure>,
    pub last_heartbeat_details: Option<Payloads>,
    pub identity: String,
}

impl Input for Fail {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let mut activity = started_or_named(&self.activity, tx, &self.identity)?;
        if self.last_heartbeat_details.is_some() {
            activity.heartbeat_details = self.last_heartbeat_details;
        }
        let failure = self.failure.unwrap_or_default();
        match retry_or_stop(tx, &activity, &failure) {
            None => {
                if let Some(pending) = tx.state.activities.get_mut(&activity.scheduled_event_id) {
                    pending.heartbeat_details = activity.heartbeat_details;
                }
            }
            Some(retry_state) => {
                let closed = Attributes::ActivityTaskFailedEventAttributes(ActivityTaskFailedEventAttributes {
                    failure: Some(failure),
                    scheduled_event_id: activity.scheduled_event_id,
                    identity: self.identity,
                    retry_state: retry_state as i32,
                    ..Default::default()
                });
                close(tx, activity, closed);
                workflow_task::ensure(tx);
            }
        }
        Ok(())
    }
}

/// The activity gave in to a cancellation that was asked for.
pub struct Canceled {
    pub activity: ActivityRef,
    pub details: Option<Payloads>,
    pub identity: String,
}

impl Input for Canceled {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let activity = self.activity.find_started(tx)?;
        if activity.cancel_requested_event_id == 0 {
            return Err(Refusal::Invalid("activity cancellation was not requested".to_owned()));
        }
        let closed = Attributes::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
            details: self.details,
            latest_cancel_requested_event_id: activity.cancel_requested_event_id,
            scheduled_event_id: activity.scheduled_event_id,
            identity: self.identity,
            ..Default::default()
        });
        close(tx, activity, closed);
        workflow_task::ensure(tx);
        Ok(())
    }
}

/// An activity that is answered by id may not have been started yet: then whoever answers counts as having started it.
fn started_or_named(named: &ActivityRef, tx: &Tx<'_>, identity: &str) -> Result<Activity, Refusal> {
    let mut activity = named.find(tx)?;
    if !activity.is_started() {
        activity.started_at = tx.now().0;
        activity.started_by = identity.to_owned();
    }
    Ok(activity)
}

/// Arms the next attempt, or says why there is none.
pub fn retry_or_stop(tx: &mut Tx<'_>, activity: &Activity, failure: &Failure) -> Option<RetryState> {
    if activity.cancel_requested_event_id != 0 {
        return Some(RetryState::CancelRequested);
    }
    let policy = activity.retry_policy.clone().unwrap_or_default();
    match retry::decide(&policy, activity.attempt, failure, tx.now(), expires_at(activity)) {
        Verdict::Stop(state) => Some(state),
        Verdict::Retry(wait) => {
            let now = tx.now();
            if let Some(pending) = tx.state.activities.get_mut(&activity.scheduled_event_id) {
                pending.attempt += 1;
                pending.started_at = 0;
                pending.queued = false;
                pending.attempt_scheduled_at = now.plus(wait).0;
                pending.last_attempt_completed_at = now.0;
                pending.last_failure = Some(failure.clone());
            }
            if wait == 0 {
                put_in_queue(tx, activity.scheduled_event_id);
            }
            None
        }
    }
}

/// When the time for all attempts together is over.
pub fn expires_at(activity: &Activity) -> Time {
    match activity.schedule_to_close {
        0 => Time::UNSET,
        limit => Time(activity.first_scheduled_at).plus(limit),
    }
}

/// Takes the activity out of the run and records its end, after its start if it was started.
pub fn close(tx: &mut Tx<'_>, activity: Activity, closed: Attributes) {
    tx.state.activities.remove(&activity.scheduled_event_id);
    let started = activity.is_started().then(|| {
        Attributes::ActivityTaskStartedEventAttributes(ActivityTaskStartedEventAttributes {
            scheduled_event_id: activity.scheduled_event_id,
            identity: activity.started_by.clone(),
            request_id: activity.request_id.clone(),
            attempt: activity.attempt,
            last_failure: activity.last_failure.clone(),
            ..Default::default()
        })
    });
    tx.occur_closed(started, closed);
}
