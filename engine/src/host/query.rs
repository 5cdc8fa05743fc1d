//! Queries: answered by a worker that has, or replays, the run; never part of history. One that is asked while a
//! workflow task is on its way goes with that task, so that it sees everything acknowledged before it.

use super::{Host, Slot};
use crate::core::workflow_task::ForgetSticky;
use crate::dispatch::{Task, What};
use crate::pb::common::v1::Payloads;
use crate::pb::enums::v1::QueryResultType;
use crate::pb::failure::v1::Failure;
use crate::pb::query::v1::{WorkflowQuery, WorkflowQueryResult};
use crate::store::Durability;
use crate::time::Time;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a worker answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Result(Option<Payloads>),
    Failed { message: String, failure: Option<Box<Failure>> },
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("no worker answered in time")]
    Deadline,
    #[error(
        "consistent query buffer is full, this may be caused by too many queries and workflow not able to process query fast \
         enough"
    )]
    TooMany,
    #[error("the engine is shutting down")]
    Gone,
}

/// The queries that wait for one run, by their ids, which are in the order of asking.
#[derive(Default)]
pub struct Queries(BTreeMap<String, Waiting>);

struct Waiting {
    query: WorkflowQuery,
    answer: oneshot::Sender<Answer>,
    way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// For the next workflow task.
    Buffered,
    /// With the workflow task that a worker has.
    Attached,
    /// In a queue of its own; `taken` by a worker or not yet.
    Direct { taken: bool },
}

impl Host {
    /// Asks and waits for the answer until `deadline`.
    pub async fn query(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        query: WorkflowQuery,
        deadline: Time,
    ) -> Result<Answer, QueryError> {
        let id = self.fresh_id();
        let (answer, mut answered) = oneshot::channel();
        {
            let mut queries = slot.queries.lock();
            if queries.0.len() >= self.limits.buffered_queries_max {
                return Err(QueryError::TooMany);
            }
            queries.0.insert(id.clone(), Waiting { query, answer, way: Way::Buffered });
        }
        let _forget = Forget { slot: slot.clone(), id: id.clone() };
        self.dispatch_queries(slot);
        let sticky_wait = slot.run.lock().state.sticky.as_ref().map(|sticky| sticky.schedule_to_start);
        if let Some(wait) = sticky_wait {
            let patience = self.clock.now().plus(wait).min(deadline);
            tokio::select! {
                biased;
                answer = &mut answered => return answer.map_err(|_| QueryError::Gone),
                () = self.until(patience) => self.give_up_sticky(slot, &id),
            }
        }
        tokio::select! {
            biased;
            answer = answered => answer.map_err(|_| QueryError::Gone),
            () = self.until(deadline) => Err(QueryError::Deadline),
            () = self.closing() => Err(QueryError::Gone),
        }
    }

    pub(super) async fn until(&self, deadline: Time) {
        while self.clock.now() < deadline {
            self.clock.sleep_until(deadline).await;
        }
    }

    /// Nobody took the query from the sticky queue: its worker is gone.
    fn give_up_sticky(self: &Arc<Self>, slot: &Arc<Slot>, id: &str) {
        let waits = slot.queries.lock().0.get(id).is_some_and(|waiting| waiting.way == Way::Direct { taken: false });
        if !waits {
            return;
        }
        // Not waited for: if it fails, so does everything else.
        let _done = self.decide(slot, ForgetSticky, Durability::Journaled);
        self.redirect_queries(slot);
    }

    /// Sends the queries that no workflow task will carry on their own way.
    pub(super) fn dispatch_queries(&self, slot: &Arc<Slot>) {
        if !slot.queries.lock().0.values().any(|waiting| waiting.way == Way::Buffered) {
            return;
        }
        let (namespace, sticky, queue, route) = {
            let run = slot.run.lock();
            let state = &run.state;
            let has_been_run = state.previous_started_event_id > 0;
            if state.is_open() && (state.task.is_some() || !has_been_run) {
                return;
            }
            let sticky = state.sticky.as_ref().map(|sticky| sticky.queue.clone());
            (state.namespace.clone(), sticky, state.task_queue.clone(), state.route())
        };
        let mut queries = slot.queries.lock();
        for (id, waiting) in queries.0.iter_mut().filter(|entry| entry.1.way == Way::Buffered) {
            waiting.way = Way::Direct { taken: false };
            let (what, queue, route) = (What::Query { id: id.clone() }, queue.clone(), route.clone());
            self.queues.push_workflow(&namespace, sticky.clone(), Task { run: slot.key, what, queue, route });
        }
    }

    /// The worker that queries waited for is gone: those that it did not take go another way.
    pub fn redirect_queries(&self, slot: &Arc<Slot>) {
        for waiting in slot.queries.lock().0.values_mut().filter(|w| w.way == Way::Direct { taken: false }) {
            waiting.way = Way::Buffered;
        }
        self.dispatch_queries(slot);
    }

    /// A worker takes a query out of its queue. `None`: nobody waits for it any more.
    pub fn take_query(&self, slot: &Slot, id: &str) -> Option<WorkflowQuery> {
        let mut queries = slot.queries.lock();
        let waiting = queries.0.get_mut(id)?;
        waiting.way = Way::Direct { taken: true };
        Some(waiting.query.clone())
    }

    /// The queries that go with a workflow task, also those that an earlier attempt left unanswered. Called while the
    /// run is locked: a query that is asked after a signal must not go with a task from before it.
    pub fn attach_queries(&self, slot: &Slot) -> HashMap<String, WorkflowQuery> {
        let mut queries = slot.queries.lock();
        let waiting = queries.0.iter_mut().filter(|entry| !matches!(entry.1.way, Way::Direct { .. }));
        waiting
            .map(|(id, waiting)| {
                waiting.way = Way::Attached;
                (id.clone(), waiting.query.clone())
            })
            .collect()
    }

    /// A workflow task ended with answers to these queries, which are on their way; what it left unanswered goes on
    /// with another task. Called while the run is locked.
    pub fn detach_queries<'a>(&self, slot: &Slot, answered: impl IntoIterator<Item = &'a String>) {
        let mut queries = slot.queries.lock();
        for waiting in queries.0.values_mut().filter(|waiting| waiting.way == Way::Attached) {
            waiting.way = Way::Buffered;
        }
        for id in answered {
            if let Some(waiting) = queries.0.get_mut(id) {
                waiting.way = Way::Direct { taken: true };
            }
        }
    }

    /// Delivers an answer; whether anybody still waited for it.
    pub fn answer_query(&self, slot: &Slot, id: &str, answer: Answer) -> bool {
        let waiting = slot.queries.lock().0.remove(id);
        waiting.is_some_and(|waiting| waiting.answer.send(answer).is_ok())
    }
}

impl Answer {
    pub fn of(result: WorkflowQueryResult) -> Answer {
        if result.result_type == QueryResultType::Answered as i32 {
            Answer::Result(result.answer)
        } else {
            Answer::Failed { message: result.error_message, failure: result.failure.map(Box::new) }
        }
    }
}

/// Forgets a query when its asker goes, answered or not.
struct Forget {
    slot: Arc<Slot>,
    id: String,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.slot.queries.lock().0.remove(&self.id);
    }
}
