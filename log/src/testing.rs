//! Histories told event by event, for tests of their readers.

use crate::history::{Error, HistoryReader, Page, Run};
use async_trait::async_trait;
use domain::{
    Commit, Step, Take, Time,
    session::{Attributes, Mail, Origin, SessionInput, StateHead},
};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::json;
use temporalio_common::protos::{
    constants::LOCAL_ACTIVITY_MARKER_NAME,
    temporal::api::{
        common::v1::{Payload, Payloads},
        history::v1::{
            HistoryEvent, MarkerRecordedEventAttributes, WorkflowExecutionContinuedAsNewEventAttributes,
            WorkflowExecutionStartedEventAttributes, WorkflowExecutionTerminatedEventAttributes,
            history_event::Attributes as A,
        },
    },
};

pub const SESSION: &str = "s1";

/// A commit that leaves the session as it is, but for what it takes.
pub fn commit(n: u64, takes: Vec<Take>) -> Commit {
    let now = Time::from_ms(n as i64);
    Commit { n, now, takes, step: Step::Continue {}, memo: None, view_version: 1, view_hash: None, queued: 0 }
}

/// The runs of one session, oldest first.
#[derive(Default)]
pub struct Told {
    runs: Mutex<Vec<(String, Vec<HistoryEvent>)>>,
}

impl Told {
    /// A session whose first run began.
    pub fn begun() -> Self {
        let told = Told::default();
        let from = Origin::<StateHead>::Created {
            created_at: Time::from_ms(0),
            attributes: attributes(),
            harness: serde_json::from_value(json!({"name": "loop", "version": 1, "sha256": "00"})).unwrap(),
            events: Vec::new(),
        };
        told.start("r0", &SessionInput { session_id: SESSION.into(), from });
        told
    }

    fn start(&self, run_id: &str, input: &impl Serialize) {
        self.runs.lock().push((run_id.to_owned(), Vec::new()));
        let started = WorkflowExecutionStartedEventAttributes { input: Some(payloads(input)), ..Default::default() };
        self.tell(A::WorkflowExecutionStartedEventAttributes(started));
    }

    fn tell(&self, attributes: A) -> i64 {
        let mut runs = self.runs.lock();
        let events = &mut runs.last_mut().unwrap().1;
        let event_id = events.len() as i64 + 1;
        events.push(HistoryEvent { event_id, attributes: Some(attributes), ..Default::default() });
        event_id
    }

    pub fn commit(&self, n: u64, takes: Vec<Take>) {
        let commit = commit(n, takes);
        let details = [("result".to_owned(), payloads(&commit))].into();
        let marker = MarkerRecordedEventAttributes {
            marker_name: LOCAL_ACTIVITY_MARKER_NAME.into(),
            details,
            ..Default::default()
        };
        self.tell(A::MarkerRecordedEventAttributes(marker));
    }

    /// The next run, as the session stands in `state`.
    pub fn continue_as(&self, run_id: &str, state: StateHead, mailbox: Vec<Mail>) {
        let previous_run_id = self.runs.lock().last().unwrap().0.clone();
        let continued = WorkflowExecutionContinuedAsNewEventAttributes {
            new_execution_run_id: run_id.into(),
            ..Default::default()
        };
        self.tell(A::WorkflowExecutionContinuedAsNewEventAttributes(continued));
        let from = Origin::Continued { state: Box::new(state), previous_run_id, mailbox, posts: Vec::new() };
        self.start(run_id, &SessionInput { session_id: SESSION.into(), from });
    }

    /// The end of the current run, not by its own will.
    pub fn terminate(&self, reason: &str) {
        let terminated = WorkflowExecutionTerminatedEventAttributes { reason: reason.into(), ..Default::default() };
        self.tell(A::WorkflowExecutionTerminatedEventAttributes(terminated));
    }

    /// As a server that keeps closed runs no longer.
    pub fn drop_run(&self, run_id: &str) {
        self.runs.lock().retain(|(known, _)| known != run_id);
    }

    fn events(&self, run: &Run) -> Result<Vec<HistoryEvent>, Error> {
        let runs = self.runs.lock();
        let found = runs.iter().find(|(run_id, _)| *run_id == run.run_id);
        found.map(|(_, events)| events.clone()).ok_or_else(|| missing(&run.session_id))
    }
}

#[async_trait]
impl HistoryReader for Told {
    async fn page(&self, run: &Run, _next: Vec<u8>, _wait: bool) -> Result<Page, Error> {
        Ok(Page { events: self.events(run)?, ..Page::default() })
    }

    async fn newer(&self, run: &Run, known: i64) -> Result<Page, Error> {
        let events = self.events(run)?.into_iter().filter(|event| event.event_id > known).collect();
        Ok(Page { events, ..Page::default() })
    }

    async fn latest_run(&self, session_id: &str) -> Result<(Run, i64), Error> {
        let runs = self.runs.lock();
        let (run_id, events) = runs.last().ok_or_else(|| missing(session_id))?;
        Ok((Run { session_id: session_id.to_owned(), run_id: run_id.clone() }, events.len() as i64))
    }
}

fn missing(session_id: &str) -> Error {
    Error::NotFound { session_id: session_id.to_owned() }
}

pub fn attributes() -> Attributes {
    let agent = json!({"agent_id": "agent_1", "version": 1, "name": "a", "model": "m", "window_tokens": 1000,
        "max_tokens": 100, "tools": [], "strategy": {"name": "s", "version": 1}, "snapshot": {"blob": "00", "bytes": 1}});
    serde_json::from_value(json!({"title": null, "environment_id": "env_1", "agent": agent})).unwrap()
}

fn payloads(value: &impl Serialize) -> Payloads {
    let data = serde_json::to_vec(value).unwrap();
    Payloads { payloads: vec![Payload { data, ..Default::default() }] }
}
