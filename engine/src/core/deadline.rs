//! Time passing over a run. All its deadlines follow from its state, so the timer index holds one entry a run: the
//! earliest, or one before it. Waking too early is harmless, and so most transitions leave the index alone.

use super::state::RunState;
use super::{Input, Refusal, Tx, activity, activity_timeout, close, timer, workflow_task};
use crate::pb::enums::v1::TimeoutType;
use crate::time::Time;

/// What is due next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Run,
    FirstTask,
    Timers,
    Retry(i64),
    Activity(i64, i32),
    WorkflowTask,
}

/// The earliest deadline of a run.
pub fn earliest(state: &RunState) -> Option<Time> {
    next(state).map(|due| due.0)
}

fn next(state: &RunState) -> Option<(Time, Due)> {
    if !state.is_open() {
        return None;
    }
    let fixed = [(state.run_expires_at, Due::Run), (state.first_task_at, Due::FirstTask)];
    let fixed = fixed.into_iter().filter(|deadline| deadline.0 > 0).map(|(at, due)| (Time(at), due));
    let timers = state.timers.values().map(|timer| (Time(timer.fires_at), Due::Timers));
    let activities = state.activities.values().flat_map(|activity| {
        let id = activity.scheduled_event_id;
        let retry = (!activity.is_started() && !activity.queued)
            .then_some((Time(activity.attempt_scheduled_at), Due::Retry(id)));
        let timeout = activity_timeout::next(activity).map(|(at, kind)| (at, Due::Activity(id, kind as i32)));
        retry.into_iter().chain(timeout)
    });
    let task = state.task.as_ref().and_then(|task| {
        let deadline = if task.started_event_id != 0 {
            Time(task.started_at).plus(task.timeout)
        } else {
            let sticky = state.sticky.as_ref().filter(|_| task.sticky)?;
            Time(task.scheduled_at).plus(sticky.schedule_to_start)
        };
        Some((deadline, Due::WorkflowTask))
    });
    fixed.chain(timers).chain(activities).chain(task).min()
}

/// Sets when the timer index wakes the run: never later than its first deadline.
pub fn arm(state: &mut RunState) {
    state.wake_at = match earliest(state) {
        None if state.is_open() => state.wake_at,
        None => 0,
        Some(deadline) if state.wake_at == 0 => deadline.0,
        Some(deadline) => state.wake_at.min(deadline.0),
    };
}

/// The timer index woke the run.
pub struct Wake;

impl Input for Wake {
    /// Whether anything was due.
    type Reply = bool;

    fn apply(self, tx: &mut Tx<'_>) -> Result<bool, Refusal> {
        tx.state.wake_at = 0;
        let mut any = false;
        while let Some((at, due)) = next(tx.state) {
            if at > tx.now() {
                break;
            }
            any = true;
            match due {
                Due::Run => close::time_out(tx),
                Due::FirstTask => {
                    tx.state.first_task_at = 0;
                    workflow_task::ensure(tx);
                }
                Due::Timers => timer::fire_due(tx),
                Due::Retry(id) => activity::put_in_queue(tx, id),
                Due::Activity(id, kind) => {
                    let kind = TimeoutType::try_from(kind).unwrap_or_default();
                    activity_timeout::strike(tx, id, kind);
                }
                Due::WorkflowTask => {
                    workflow_task::time_out(tx);
                    workflow_task::again(tx);
                }
            }
        }
        Ok(any)
    }
}
