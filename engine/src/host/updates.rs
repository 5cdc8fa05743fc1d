//! Updates on their way: who asked, and how far each request has come. In memory only: what a workflow accepted is in
//! its history, and a request that was not accepted when the engine stops is asked again by its client.

use super::{Error, Host, Most, Slot};
use crate::core::state::Run;
use crate::core::update::{self, Deliver, News};
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::protocol::v1::Message;
use crate::pb::update::v1::{Outcome, Request};
use crate::store::Durability;
use crate::time::Time;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;

/// How far an update has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    Admitted,
    Accepted,
    Completed(Box<Outcome>),
    /// Its run closed before it was accepted.
    Aborted,
}

/// How far somebody wants to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Admitted,
    Accepted,
    Completed,
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error(transparent)]
    Host(#[from] Error),
    #[error("update {0:?} not found")]
    Unknown(String),
    #[error("limit on number of concurrent in-flight updates has been reached ({0})")]
    TooManyInFlight(usize),
    #[error(
        "The limit on the total number of distinct updates in this workflow has been reached ({0}). Make sure any duplicate \
         updates share an Update ID so the server can deduplicate them, and consider rejecting updates that you aren't going to \
         process. You can also Continue-as-New to avoid this; we recommend you check Continue-as-New Suggested in your Workflow."
    )]
    TooMany(usize),
}

/// The updates of one run that are not answered yet, by their ids.
#[derive(Default)]
pub struct Updates(BTreeMap<String, Waiting>);

struct Waiting {
    /// What is still to be brought to the workflow.
    request: Option<Request>,
    /// Whether a workflow task had it.
    is_sent: bool,
    stage: watch::Sender<Stage>,
}

/// What became of a request: somebody asked for the same update before, or it is the first.
pub(super) enum Asked {
    Before(watch::Receiver<Stage>),
    Now(watch::Receiver<Stage>),
}

/// An update that the worker took no notice of.
pub struct Unanswered(watch::Sender<Stage>);

impl Unanswered {
    pub fn tell(self) {
        self.0.send_replace(Stage::Completed(Box::new(update::unprocessed())));
    }
}

impl Stage {
    fn is(&self, until: Until) -> bool {
        match self {
            Stage::Admitted => until == Until::Admitted,
            Stage::Accepted => until != Until::Completed,
            Stage::Completed(_) | Stage::Aborted => true,
        }
    }
}

impl Host {
    /// Asks for an update, or joins whoever asked for the same one, and waits until `deadline` for it to come so far;
    /// gives how far it has come.
    pub async fn update(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        request: Request,
        until: Until,
        deadline: Time,
    ) -> Result<Stage, UpdateError> {
        let id = request.meta.clone().unwrap_or_default().update_id;
        let stage = match self.join_or_admit(slot, &id, request)? {
            Asked::Before(stage) => stage,
            Asked::Now(stage) => {
                self.transact(slot, Deliver, Durability::Synced).await?;
                stage
            }
        };
        Ok(self.wait_for(stage, until, deadline).await)
    }

    /// Waits for an update that somebody asked for.
    pub async fn poll_update(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        id: &str,
        until: Until,
        deadline: Time,
    ) -> Result<Stage, UpdateError> {
        let known = self.known(slot, &slot.run.lock(), &mut slot.updates.lock(), id)?;
        match known {
            Some(stage) => Ok(self.wait_for(stage, until, deadline).await),
            None => Err(UpdateError::Unknown(id.to_owned())),
        }
    }

    /// The stage of an update that is known; also of one that was accepted before the engine started.
    fn known(
        &self,
        slot: &Slot,
        run: &Run,
        updates: &mut Updates,
        id: &str,
    ) -> Result<Option<watch::Receiver<Stage>>, Error> {
        if let Some(waiting) = updates.0.get(id) {
            return Ok(Some(waiting.stage.subscribe()));
        }
        let Some(recorded) = run.state.updates.get(id) else { return Ok(None) };
        // Only what is durable is shown: news of a newer answer comes through an entry.
        let is_answered = recorded.completed_event_id != 0 && recorded.completed_event_id < slot.seen().next_event_id;
        let stage = match (is_answered, run.state.is_open()) {
            (true, _) => Stage::Completed(Box::new(self.outcome(slot, recorded.completed_event_id)?)),
            (false, false) => Stage::Completed(Box::new(update::outlived())),
            (false, true) => {
                let (stage, joined) = watch::channel(Stage::Accepted);
                updates.0.insert(id.to_owned(), Waiting { request: None, is_sent: false, stage });
                return Ok(Some(joined));
            }
        };
        Ok(Some(watch::channel(stage).1))
    }

    /// In one step: of two who ask for the same update at once, one is the first.
    pub(super) fn join_or_admit(&self, slot: &Slot, id: &str, request: Request) -> Result<Asked, UpdateError> {
        let run = slot.run.lock();
        let mut updates = slot.updates.lock();
        if let Some(stage) = self.known(slot, &run, &mut updates, id)? {
            return Ok(Asked::Before(stage));
        }
        if !run.state.is_open() {
            return Err(Error::Refused(crate::core::Refusal::Closed).into());
        }
        if updates.0.len() >= self.limits.in_flight_updates_max {
            return Err(UpdateError::TooManyInFlight(self.limits.in_flight_updates_max));
        }
        if run.state.updates.len() + updates.0.len() >= self.limits.updates_max {
            return Err(UpdateError::TooMany(self.limits.updates_max));
        }
        let (stage, joined) = watch::channel(Stage::Admitted);
        updates.0.insert(id.to_owned(), Waiting { request: Some(request), is_sent: false, stage });
        Ok(Asked::Now(joined))
    }

    async fn wait_for(&self, mut stage: watch::Receiver<Stage>, until: Until, deadline: Time) -> Stage {
        tokio::select! {
            biased;
            // An entry that goes away has said its last word.
            _ = stage.wait_for(|stage| stage.is(until)) => {}
            () = self.until(deadline) => {}
            () = self.closing() => {}
        }
        stage.borrow().clone()
    }

    fn outcome(&self, slot: &Slot, event_id: i64) -> Result<Outcome, Error> {
        let event = self.history(&slot.key, event_id, event_id + 1, Most::events(1))?.pop();
        match event.and_then(|event| event.attributes) {
            Some(Attributes::WorkflowExecutionUpdateCompletedEventAttributes(a)) => Ok(a.outcome.unwrap_or_default()),
            _ => Err(Error::NoRun),
        }
    }

    /// The requests that go with a workflow task, also those that an earlier attempt had. Called while the run is locked.
    pub fn attach_updates(&self, slot: &Slot, started_event_id: i64) -> Vec<Message> {
        let mut updates = slot.updates.lock();
        let message = |waiting: &mut Waiting| {
            let request = waiting.request.as_ref()?;
            waiting.is_sent = true;
            Some(update::request_message(request, started_event_id))
        };
        updates.0.values_mut().filter_map(message).collect()
    }

    /// A workflow task was completed with messages of these updates: they need not be sent again. Gives those that it
    /// was sent and said nothing of, to be told when the completion counts. Called while the run is locked.
    pub fn settle_updates(&self, slot: &Slot, spoken_of: &HashSet<String>) -> Vec<Unanswered> {
        let mut updates = slot.updates.lock();
        for waiting in updates.0.iter_mut().filter(|entry| spoken_of.contains(entry.0)).map(|entry| entry.1) {
            waiting.request = None;
        }
        let unanswered = |_: &String, waiting: &mut Waiting| waiting.request.is_some() && waiting.is_sent;
        updates.0.extract_if(.., unanswered).map(|(_, waiting)| Unanswered(waiting.stage)).collect()
    }

    /// Tells those who wait what a durable transition brought.
    pub fn tell_updates(&self, slot: &Slot, news: Vec<(String, News)>) {
        let mut updates = slot.updates.lock();
        for (id, news) in news {
            match news {
                News::Accepted => {
                    if let Some(waiting) = updates.0.get(&id) {
                        waiting.stage.send_replace(Stage::Accepted);
                    }
                }
                News::Completed(outcome) => {
                    if let Some(waiting) = updates.0.remove(&id) {
                        waiting.stage.send_replace(Stage::Completed(outcome));
                    }
                }
            }
        }
        if !slot.seen().is_open {
            for waiting in std::mem::take(&mut updates.0).into_values() {
                waiting.stage.send_modify(|stage| match stage {
                    Stage::Accepted => *stage = Stage::Completed(Box::new(update::outlived())),
                    Stage::Admitted => *stage = Stage::Aborted,
                    Stage::Completed(_) | Stage::Aborted => {}
                });
            }
        }
    }

    /// Sees that requests which no workflow task carries get one.
    pub(super) fn dispatch_updates(self: &Arc<Self>, slot: &Arc<Slot>) {
        let any_wait = || slot.updates.lock().0.values().any(|waiting| waiting.request.is_some());
        if !any_wait() {
            return;
        }
        let needs_one = {
            let run = slot.run.lock();
            let could = run.state.is_open() && run.state.task.is_none() && !run.state.is_delayed(self.clock.now());
            // Asked again while nothing can happen to the run: a task may just have been completed with the last of them.
            could && any_wait()
        };
        if needs_one {
            // Not waited for: if it fails, so does everything else.
            let _done = self.decide(slot, Deliver, Durability::Synced);
        }
    }
}
