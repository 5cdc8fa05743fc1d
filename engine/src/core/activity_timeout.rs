//! The four timeouts of an activity: schedule-to-close over all attempts; schedule-to-start, start-to-close and
//! heartbeat for each.

use super::state::Activity;
use super::{Tx, activity, retry, workflow_task};
use crate::pb::enums::v1::{RetryState, TimeoutType};
use crate::pb::failure::v1::failure::FailureInfo;
use crate::pb::failure::v1::{Failure, TimeoutFailureInfo};
use crate::pb::history::v1::ActivityTaskTimedOutEventAttributes;
use crate::pb::history::v1::history_event::Attributes;
use crate::time::Time;

const RETRY_DOES_NOT_FIT: &str =
    "Not enough time to schedule next retry before activity ScheduleToClose timeout, giving up retrying";

/// The timeout that strikes first, and when.
pub fn next(activity: &Activity) -> Option<(Time, TimeoutType)> {
    let after = |from: i64, limit: i64, kind| (limit > 0).then(|| (Time(from).plus(limit), kind));
    let mut timeouts =
        vec![after(activity.first_scheduled_at, activity.schedule_to_close, TimeoutType::ScheduleToClose)];
    if activity.is_started() {
        let beat = activity.last_heartbeat_at.max(activity.started_at);
        timeouts.push(after(activity.started_at, activity.start_to_close, TimeoutType::StartToClose));
        timeouts.push(after(beat, activity.heartbeat, TimeoutType::Heartbeat));
    } else {
        timeouts.push(after(activity.attempt_scheduled_at, activity.schedule_to_start, TimeoutType::ScheduleToStart));
    }
    // Of those that strike together the server lets the one with the lowest number win.
    timeouts.into_iter().flatten().min_by_key(|timeout| (timeout.0, timeout.1 as i32))
}

/// Lets a timeout strike: the next attempt is armed, or the activity ends as timed out.
pub fn strike(tx: &mut Tx<'_>, scheduled_event_id: i64, kind: TimeoutType) {
    let Some(activity) = tx.state.activities.get(&scheduled_event_id).cloned() else { return };
    let server_side = matches!(kind, TimeoutType::ScheduleToClose | TimeoutType::ScheduleToStart);
    let mut failure = timeout_failure(format!("activity {} timeout", retry::name(kind)), kind);
    let retry_state = if activity.cancel_requested_event_id != 0 {
        Some(RetryState::CancelRequested)
    } else if server_side {
        Some(RetryState::Timeout)
    } else {
        activity::retry_or_stop(tx, &activity, &failure)
    };
    let Some(retry_state) = retry_state else { return };
    if retry_state == RetryState::Timeout && kind != TimeoutType::ScheduleToStart {
        failure = timeout_failure(RETRY_DOES_NOT_FIT.to_owned(), TimeoutType::ScheduleToClose);
    }
    if let Some(FailureInfo::TimeoutFailureInfo(info)) = &mut failure.failure_info {
        info.last_heartbeat_details = activity.heartbeat_details.clone();
    }
    failure.cause = activity.last_failure.clone().map(Box::new);
    let closed = Attributes::ActivityTaskTimedOutEventAttributes(ActivityTaskTimedOutEventAttributes {
        failure: Some(failure),
        scheduled_event_id,
        started_event_id: 0,
        retry_state: retry_state as i32,
    });
    activity::close(tx, activity, closed);
    workflow_task::ensure(tx);
}

fn timeout_failure(message: String, kind: TimeoutType) -> Failure {
    Failure {
        message,
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: kind as i32,
            ..Default::default()
        })),
        ..Default::default()
    }
}
