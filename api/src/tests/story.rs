//! What a brain would record of a session, told commit by commit.

use domain::commit::Closed;
use domain::content::Json;
use domain::event::{Permission, StopReason};
use domain::{Commit, Content, Event, EventBody, PrivateEntry, Step, Take, Time, Usage, ids};
use serde_json::{Value, json};

use super::engine::FakeEngine;

pub struct Story {
    engine: FakeEngine,
    pub session_id: String,
    n: u64,
    now: Time,
}

impl Story {
    pub fn of(engine: &FakeEngine, session_id: &str) -> Self {
        let now = Time::parse("2026-11-22T13:00:00Z").unwrap();
        Self { engine: engine.clone(), session_id: session_id.to_owned(), n: 0, now }
    }

    pub fn commit(&mut self, takes: Vec<Take>) {
        self.now = self.now.plus_ms(1000);
        let commit = Commit {
            n: self.n,
            now: self.now,
            takes: takes.into_iter().map(|take| self.stamped(take)).collect(),
            step: Step::Continue {},
            memo: None,
            view_version: 1,
            view_hash: None,
            queued: 0,
        };
        self.n += 1;
        self.engine.commit(&self.session_id, &commit);
    }

    fn stamped(&self, mut take: Take) -> Take {
        if let Take::Inline { event, .. } = &mut take {
            event.processed_at = Some(self.now);
        }
        take
    }

    /// Takes the messages and asks the model.
    pub fn begin(&mut self, accepted: &[&str]) {
        let mut takes = vec![Take::Private { entry: PrivateEntry::TurnBegun {} }];
        takes.extend(accepted.iter().map(|id| self.accepted(id)));
        takes.push(self.inline("running", EventBody::SessionStatusRunning {}));
        takes.push(self.inline("span", EventBody::SpanModelRequestStart {}));
        self.commit(takes);
    }

    pub fn accepted(&self, id: &str) -> Take {
        Take::Accepted { id: id.to_owned(), ignored: false }
    }

    /// An event that the decision makes; `name` makes its id.
    pub fn inline(&self, name: &str, body: EventBody) -> Take {
        Take::Inline { event: Event { id: self.id(name), body, processed_at: None }, private: None }
    }

    pub fn id(&self, name: &str) -> String {
        ids::derive("sevt", &[&self.session_id, &self.n.to_string(), name])
    }

    /// The answer of the model, as an activity's result. Gives back the ids of its events.
    pub fn answer(&mut self, bodies: Vec<EventBody>) -> Vec<String> {
        let activity = format!("model-{}", self.n);
        let events: Vec<Event> = bodies
            .into_iter()
            .enumerate()
            .map(|(index, body)| Event { id: self.id(&format!("answer-{index}")), body, processed_at: None })
            .collect();
        let private = json!({"blocks": {"at": "inline", "value": []}, "tool_ids": {}, "recipe": {"from": 0, "to": 0,
            "strategy": {"name": "full", "version": 1}, "snapshot": {"blob": "", "bytes": 0}, "serializer": 1,
            "request_sha256": "secret"}});
        let result = json!({"digest": {}, "events": events, "private": private});
        self.engine.activity(&self.session_id, &activity, &result);
        let results = (0..events.len()).map(|index| Take::Result { activity: activity.clone(), index });
        let mut takes: Vec<Take> = results.collect();
        let how = Closed::Finished;
        takes.push(Take::Private { entry: PrivateEntry::ActivityClosed { activity: activity.clone(), how } });
        let model_usage = Usage { input_tokens: 10, output_tokens: 2, cache_creation_5m_tokens: 3, ..Usage::default() };
        let model_request_start_id = self.id("span");
        let end = EventBody::SpanModelRequestEnd { model_request_start_id, is_error: Some(false), model_usage };
        let Take::Inline { event, .. } = self.inline("end", end) else { unreachable!() };
        takes.push(Take::Inline { event, private: Some(activity) });
        self.commit(takes);
        events.into_iter().map(|event| event.id).collect()
    }

    pub fn idle(&mut self, stop_reason: StopReason) {
        let usage = Usage { input_tokens: 10, output_tokens: 2, cache_creation_5m_tokens: 3, ..Usage::default() };
        let takes = vec![
            self.inline("usage", EventBody::SessionUsage { usage }),
            self.inline("idle", EventBody::SessionStatusIdle { stop_reason, stop_details: None }),
        ];
        self.commit(takes);
    }

    /// A whole turn: the messages, one answer, idle. Seven positions and one for each message.
    pub fn turn(&mut self, accepted: &[&str], text: &str) -> Vec<String> {
        self.begin(accepted);
        let ids = self.answer(vec![message(text)]);
        self.idle(StopReason::EndTurn {});
        ids
    }

    /// The session's own end.
    pub fn terminate(&mut self) {
        let close = format!("close-{}", self.session_id);
        let takes = vec![
            Take::Private { entry: PrivateEntry::CloseRequested { id: close } },
            self.inline("terminated", EventBody::SessionStatusTerminated {}),
        ];
        self.commit(takes);
        self.engine.complete(&self.session_id);
    }

    /// Goes on in a new run, as the workflow would.
    pub fn continue_as_new(&mut self, summary: &Value, previous_run_id: &str, mailbox: &Value) {
        let input = json!({"session_id": self.session_id, "origin": "continued", "state": {"summary": summary},
            "previous_run_id": previous_run_id, "mailbox": mailbox});
        self.engine.continue_as_new(&self.session_id, &input);
    }
}

pub fn message(text: &str) -> EventBody {
    EventBody::AgentMessage { content: Content::text(text) }
}

pub fn bash(permission: Permission) -> EventBody {
    EventBody::AgentToolUse {
        name: "bash".to_owned(),
        input: Json::Inline { value: json!({"command": "ls"}) },
        evaluated_permission: Some(permission),
        evaluation: None,
    }
}

pub fn custom() -> EventBody {
    EventBody::AgentCustomToolUse { name: "lookup".to_owned(), input: Json::Inline { value: json!({"q": 1}) } }
}
