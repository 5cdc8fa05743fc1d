//! One run's history in, commits out. The only place where history becomes session events.
//!
//! Raw history order is not log order: a signal may be recorded after the commit of the task that was open,
//! a late completion may be recorded though nobody waits for it. Only commits say what is in the log.

use crate::payload::{self, Error};
use domain::{
    Commit, Committed, Summary, Take,
    committed::{ActivityResult, Genesis, NamedResult},
    session::{Mail, Origin, SessionInput, StateHead, signal},
};
use serde_json::Value;
use std::collections::BTreeMap;
use temporalio_common::protos::temporal::api::{
    enums::v1::EventType,
    history::v1::{HistoryEvent, history_event::Attributes as A},
};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEnd {
    Continued {
        run_id: String,
    },
    Completed,
    /// Terminated, timed out or failed: not by its own will.
    Cut {
        reason: String,
    },
}

/// Reads one run, history event by history event.
#[derive(Debug, Default)]
pub struct Projection {
    pub session_id: String,
    /// After the commits read so far; there from the first history event on.
    pub summary: Option<Summary>,
    /// What the session began with; there in its first run.
    pub genesis: Option<Genesis>,
    /// The state that the run began with, if it is not a session's first.
    pub began_with: Option<Value>,
    /// Accepted and not committed, in order of arrival.
    pub mail: Vec<Mail>,
    pub end: Option<RunEnd>,
    /// The last history event that was read.
    pub event_id: i64,
    /// Activity ids by the history event that scheduled them.
    scheduled: BTreeMap<i64, String>,
    results: BTreeMap<String, ActivityResult>,
    /// Fingerprints of the POSTs in this run and of late ones before it, with their event ids.
    pub posts: Vec<(String, Vec<String>)>,
}

impl Projection {
    /// What activities left and no commit names yet.
    pub fn unnamed_results(&self) -> impl Iterator<Item = &ActivityResult> {
        self.results.values()
    }

    /// The reader of the run after this one. The summary stays until the new run's start replaces it.
    pub fn next_run(self) -> Self {
        Projection { summary: self.summary, ..Projection::default() }
    }

    /// What there is to say of a session that is over, without any history.
    pub fn of_the_past(session_id: &str, summary: Option<Summary>, end: RunEnd, mail: Vec<Mail>) -> Self {
        Projection { session_id: session_id.to_owned(), summary, end: Some(end), mail, ..Projection::default() }
    }

    /// Takes in one history event; gives back the commit that it is, if it is one.
    pub fn feed(&mut self, event: &HistoryEvent) -> Result<Option<Committed>, Error> {
        self.event_id = event.event_id;
        let id = event.event_id;
        let Some(attributes) = &event.attributes else { return Ok(None) };
        match attributes {
            A::WorkflowExecutionStartedEventAttributes(started) => {
                let input: SessionInput = payload::first(started.input.as_ref(), "a session's input", id)?;
                if let Origin::Forked { state } | Origin::Continued { state, .. } = &input.from {
                    self.began_with = Some((**state).clone());
                }
                self.started(payload::first(started.input.as_ref(), "a session's input", id)?);
            }
            A::WorkflowExecutionSignaledEventAttributes(signaled) => {
                self.signaled(&signaled.signal_name, signaled, id)?
            }
            A::ActivityTaskScheduledEventAttributes(scheduled) => {
                self.scheduled.insert(id, scheduled.activity_id.clone());
            }
            A::ActivityTaskCompletedEventAttributes(completed) => {
                if let Some(activity) = self.scheduled.remove(&completed.scheduled_event_id) {
                    // A result of another shape than an object (`release` returns null) names nothing.
                    let value: Value = payload::first(completed.result.as_ref(), "an activity's result", id)?;
                    if value.is_object() {
                        let result = serde_json::from_value(value).map_err(|source| Error {
                            what: "an activity's result",
                            event_id: id,
                            source: Some(source),
                        })?;
                        self.results.insert(activity, result);
                    }
                }
            }
            A::ActivityTaskFailedEventAttributes(failed) => {
                self.scheduled.remove(&failed.scheduled_event_id);
            }
            A::ActivityTaskTimedOutEventAttributes(timed_out) => {
                self.scheduled.remove(&timed_out.scheduled_event_id);
            }
            A::ActivityTaskCanceledEventAttributes(canceled) => {
                self.scheduled.remove(&canceled.scheduled_event_id);
            }
            A::MarkerRecordedEventAttributes(marker) => {
                if let Some(commit) = payload::local_activity_result::<Commit>(marker, id)? {
                    return Ok(Some(self.committed(commit)));
                }
            }
            A::WorkflowExecutionContinuedAsNewEventAttributes(continued) => {
                self.end = Some(RunEnd::Continued { run_id: continued.new_execution_run_id.clone() });
            }
            A::WorkflowExecutionCompletedEventAttributes(_) => self.end = Some(RunEnd::Completed),
            A::WorkflowExecutionTerminatedEventAttributes(terminated) => {
                self.end = Some(RunEnd::Cut { reason: format!("terminated: {}", terminated.reason) });
            }
            A::WorkflowExecutionTimedOutEventAttributes(_)
            | A::WorkflowExecutionFailedEventAttributes(_)
            | A::WorkflowExecutionCanceledEventAttributes(_) => {
                let reason = EventType::try_from(event.event_type).map_or("unknown", |kind| kind.as_str_name());
                self.end = Some(RunEnd::Cut { reason: reason.to_owned() });
            }
            _ => {}
        }
        Ok(None)
    }

    fn started(&mut self, input: SessionInput<StateHead>) {
        self.session_id = input.session_id;
        match input.from {
            Origin::Created { created_at, attributes, harness, events } => {
                self.summary = Some(Summary::created(created_at, attributes.clone(), harness.clone()));
                self.genesis = Some(Genesis { created_at, attributes, harness });
                self.mail = events.into_iter().map(|event| Mail::Event { event }).collect();
            }
            Origin::Forked { state } => self.summary = Some(state.summary),
            Origin::Continued { state, previous_run_id, mailbox, posts } => {
                let mut summary = state.summary;
                summary.unsealed.push(previous_run_id);
                self.summary = Some(summary);
                self.mail = mailbox;
                self.posts = posts;
            }
        }
    }

    fn signaled(
        &mut self,
        name: &str,
        signaled: &temporalio_common::protos::temporal::api::history::v1::WorkflowExecutionSignaledEventAttributes,
        id: i64,
    ) -> Result<(), Error> {
        let input = signaled.input.as_ref();
        match name {
            signal::EVENTS => {
                let posted: domain::session::Posted = payload::first(input, "a POST", id)?;
                if let Some(fingerprint) = posted.fingerprint {
                    self.posts.push((fingerprint, posted.events.iter().map(|event| event.id.clone()).collect()));
                }
                for event in posted.events {
                    self.receive(Mail::Event { event });
                }
            }
            signal::CHANGE => self.receive(Mail::Change { change: payload::first(input, "a change", id)? }),
            signal::SWAP => self.receive(Mail::Swap { swap: payload::first(input, "a swap", id)? }),
            signal::GIVE => self.receive(Mail::Give { give: payload::first(input, "a transfer", id)? }),
            signal::HANDED => self.receive(Mail::Handed { handed: payload::first(input, "a hand", id)? }),
            signal::CLOSE => self.receive(Mail::Close { close: payload::first(input, "a close", id)? }),
            // Somebody else's signal: the workflow has no handler for it either.
            _ => {}
        }
        Ok(())
    }

    fn receive(&mut self, mail: Mail) {
        if !self.mail.iter().any(|known| known.id() == mail.id()) {
            self.mail.push(mail);
        }
    }

    fn committed(&mut self, commit: Commit) -> Committed {
        let position = self.summary.as_ref().map_or(0, |summary| summary.position);
        let mut mail = Vec::new();
        for id in commit.takes.iter().filter_map(Take::mail) {
            if let Some(at) = self.mail.iter().position(|known| known.id() == id) {
                mail.push(self.mail.remove(at));
            }
        }
        let mut results: Vec<NamedResult> = Vec::new();
        for activity in commit.takes.iter().filter_map(named_activity) {
            if let Some(result) = self.results.remove(activity) {
                results.push(NamedResult { activity: activity.to_owned(), result });
            }
        }
        let committed = Committed { commit, position, mail, results };
        if let Some(summary) = &mut self.summary {
            committed.fold_into(summary);
        }
        committed
    }
}

fn named_activity(take: &Take) -> Option<&str> {
    match take {
        Take::Result { activity, .. } | Take::Inline { private: Some(activity), .. } => Some(activity),
        Take::Private { entry: domain::PrivateEntry::ActivityClosed { activity, .. } } => Some(activity),
        _ => None,
    }
}
