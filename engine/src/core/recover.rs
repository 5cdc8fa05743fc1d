//! A run after a restart of the engine. Queues are gone and the workers may be: what stood in a queue is queued again,
//! a workflow task that a worker had is ended at once, and nobody is trusted to hold the run in a cache. Started
//! activities go on: their timeouts tell whether their workers live.

use super::state::RunState;
use super::{Input, Refusal, Tx, Work, workflow_task};

pub struct Recover;

impl Input for Recover {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        if !tx.state.is_open() {
            return Ok(());
        }
        if tx.state.started_task().is_some() {
            let attempt = tx.state.task.as_ref().map_or(1, |task| task.attempt);
            workflow_task::time_out(tx);
            tx.state.task_attempt = attempt; // the engine stopped, not the task failed
            workflow_task::again(tx);
        } else if tx.state.task.is_some() {
            workflow_task::ForgetSticky.apply(tx)?;
            let waiting = queued_task(tx.state);
            tx.effects.work = waiting.into_iter().collect();
        }
        tx.state.sticky = None;
        let activities: Vec<_> =
            tx.state.activities.values().filter(|a| a.queued && !a.is_started()).cloned().collect();
        for activity in activities {
            tx.effects.work.push(Work::Activity {
                queue: activity.task_queue,
                scheduled_event_id: activity.scheduled_event_id,
                attempt: activity.attempt,
            });
        }
        Ok(())
    }
}

fn queued_task(state: &RunState) -> Option<Work> {
    let task = state.task.as_ref().filter(|task| task.started_event_id == 0)?;
    let queue = state.task_queue.clone();
    Some(Work::WorkflowTask { normal_queue: queue.clone(), queue, sticky: false, stamp: task.stamp })
}
