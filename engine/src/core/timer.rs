//! Timers that a workflow starts. All that are due fire in one transition, in order of time and then of their start.

use super::command::{CommandError, id_within};
use super::state::Timer;
use super::{Tx, workflow_task};
use crate::pb::command::v1::{CancelTimerCommandAttributes, StartTimerCommandAttributes};
use crate::pb::enums::v1::WorkflowTaskFailedCause;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{TimerCanceledEventAttributes, TimerFiredEventAttributes, TimerStartedEventAttributes};
use crate::pb::sdk::v1::UserMetadata;
use crate::time::nanos;

pub fn start(
    tx: &mut Tx<'_>,
    command: StartTimerCommandAttributes,
    completed_event_id: i64,
    user_metadata: Option<UserMetadata>,
) -> Result<(), CommandError> {
    let bad = |message: &str| CommandError::new(WorkflowTaskFailedCause::BadStartTimerAttributes, message);
    if command.timer_id.is_empty() {
        return Err(bad("TimerId is not set on StartTimerCommand."));
    }
    let id = &command.timer_id;
    let too_long = |length| format!("TimerId on StartTimerCommand exceeds length limit. TimerId={id} {length}");
    id_within(id, tx.at.limits).map_err(|length| bad(&too_long(length)))?;
    let Some(length) = &command.start_to_fire_timeout else {
        return Err(bad("An invalid StartToFireTimeout is set on StartTimerCommand."));
    };
    if length.seconds < 0 || length.nanos < 0 {
        return Err(bad("An invalid StartToFireTimeout is set on StartTimerCommand."));
    }
    if tx.state.timers.contains_key(&command.timer_id) {
        let message = format!("timer {} is already running", command.timer_id);
        return Err(CommandError::new(WorkflowTaskFailedCause::StartTimerDuplicateId, message));
    }
    let fires_at = tx.now().plus(nanos(Some(length))).0;
    let started_event_id = tx.append_with(
        Attributes::TimerStartedEventAttributes(TimerStartedEventAttributes {
            timer_id: command.timer_id.clone(),
            start_to_fire_timeout: command.start_to_fire_timeout,
            workflow_task_completed_event_id: completed_event_id,
        }),
        user_metadata,
    );
    tx.state.timers.insert(command.timer_id, Timer { started_event_id, fires_at });
    Ok(())
}

/// Cancels a timer, also one whose firing still waits in the buffer.
pub fn cancel(
    tx: &mut Tx<'_>,
    command: CancelTimerCommandAttributes,
    completed_event_id: i64,
    identity: &str,
) -> Result<(), CommandError> {
    let started_event_id = match tx.state.timers.remove(&command.timer_id) {
        Some(timer) => timer.started_event_id,
        None => take_buffered_firing(tx, &command.timer_id).ok_or_else(|| {
            let message = format!("timer {} is not running", command.timer_id);
            CommandError::new(WorkflowTaskFailedCause::BadCancelTimerAttributes, message)
        })?,
    };
    tx.append(Attributes::TimerCanceledEventAttributes(TimerCanceledEventAttributes {
        timer_id: command.timer_id,
        started_event_id,
        workflow_task_completed_event_id: completed_event_id,
        identity: identity.to_owned(),
    }));
    Ok(())
}

fn take_buffered_firing(tx: &mut Tx<'_>, timer_id: &str) -> Option<i64> {
    let fired = |attributes: &Option<Attributes>| match attributes {
        Some(Attributes::TimerFiredEventAttributes(fired)) if fired.timer_id == timer_id => {
            Some(fired.started_event_id)
        }
        _ => None,
    };
    let found = tx.state.buffered.iter().position(|event| fired(&event.attributes).is_some())?;
    fired(&tx.state.buffered.remove(found).attributes)
}

/// Fires every timer that is due.
pub fn fire_due(tx: &mut Tx<'_>) {
    let now = tx.now().0;
    let mut due: Vec<(i64, i64, String)> = tx
        .state
        .timers
        .iter()
        .filter(|(_, timer)| timer.fires_at <= now)
        .map(|(id, timer)| (timer.fires_at, timer.started_event_id, id.clone()))
        .collect();
    if due.is_empty() {
        return;
    }
    due.sort();
    for (_, started_event_id, timer_id) in due {
        tx.state.timers.remove(&timer_id);
        tx.occur(Attributes::TimerFiredEventAttributes(TimerFiredEventAttributes { timer_id, started_event_id }));
    }
    workflow_task::ensure(tx);
}
