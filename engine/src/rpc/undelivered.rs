//! Tasks that were started for a call whose caller may go away before it has them: then they are given back at once,
//! instead of after their timeouts.

use crate::core::state::Activity;
use crate::core::workflow_task::{self, TaskRef};
use crate::core::{Input, activity};
use crate::host::{Host, Slot};
use crate::store::Durability;
use std::sync::Arc;

/// Gives back what it holds when it is dropped before [`Undelivered::delivered`].
pub struct Undelivered {
    host: Arc<Host>,
    slot: Arc<Slot>,
    workflow_task: Option<TaskRef>,
    activities: Vec<(i64, i32)>,
}

impl Undelivered {
    pub fn new<'a>(
        host: &Arc<Host>,
        slot: &Arc<Slot>,
        workflow_task: Option<TaskRef>,
        activities: impl IntoIterator<Item = &'a Activity>,
    ) -> Undelivered {
        let activities = activities.into_iter().map(|a| (a.scheduled_event_id, a.attempt)).collect();
        Undelivered { host: host.clone(), slot: slot.clone(), workflow_task, activities }
    }

    /// The answer is on its way.
    pub fn delivered(mut self) {
        self.workflow_task = None;
        self.activities.clear();
    }

    fn give_back(&self, input: impl Input) {
        // Nobody waits: effects follow when it is durable, and if the store failed nothing matters any more. A refusal
        // means that the task has ended already.
        let _given_back = self.host.decide(&self.slot, input, Durability::Journaled);
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        for (scheduled_event_id, attempt) in std::mem::take(&mut self.activities) {
            self.give_back(activity::Lost { scheduled_event_id, attempt });
        }
        if let Some(token) = self.workflow_task.take() {
            self.give_back(workflow_task::Lost { token });
        }
    }
}
