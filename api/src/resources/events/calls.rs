//! The tool calls that a session's last answer made, and what became of each: what an answer of a client is checked
//! against.
//!
//! A model request closes every call before it, so calls that are still open stand in the last answer alone. They are
//! found from the end of the log backwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::event::{Confirmation, Permission};
use domain::session::Mail;
use domain::{Event, EventBody, Take};
use log::segment::Error;
use log::{Committed, SessionLog};
use store::Blobs;

/// Positions that are read at first, from the end of the log.
const WINDOW: u64 = 128;

#[derive(Clone, Debug, Default)]
pub struct Calls {
    calls: BTreeMap<String, Call>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Builtin,
    Custom,
    Mcp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    pub kind: Kind,
    pub permission: Permission,
    pub confirmed: Option<Confirmation>,
    /// It has a result, or will have one without anybody's doing.
    pub answered: bool,
}

impl Calls {
    /// Reads the log from its end to the last answer, then what was accepted since.
    pub async fn read(log: &mut SessionLog, blobs: &dyn Blobs) -> Result<Self, Error> {
        let mut calls = Calls::default();
        for committed in since_last_answer(log, blobs).await? {
            for entry in committed.entries().iter().filter(|entry| !entry.ignored) {
                calls.see(&entry.event);
            }
        }
        for mail in log.uncommitted() {
            if let Mail::Event { event } = mail {
                calls.see(event);
            }
        }
        Ok(calls)
    }

    /// Takes in one event, committed or accepted.
    pub fn see(&mut self, event: &Event) {
        self.see_body(&event.id, &event.body);
    }

    pub fn see_body(&mut self, id: &str, body: &EventBody) {
        let allowed = Permission::Allow;
        match body {
            EventBody::AgentToolUse { evaluated_permission, .. } => {
                self.open(id, Kind::Builtin, evaluated_permission.unwrap_or(allowed));
            }
            EventBody::AgentMcpToolUse { evaluated_permission, .. } => {
                self.open(id, Kind::Mcp, evaluated_permission.unwrap_or(allowed));
            }
            EventBody::AgentCustomToolUse { .. } => self.open(id, Kind::Custom, allowed),
            EventBody::UserToolConfirmation { tool_use_id, result, .. } => {
                if let Some(call) = self.calls.get_mut(tool_use_id) {
                    call.confirmed = Some(*result);
                    call.answered |= *result == Confirmation::Deny;
                }
            }
            // Every open call gets a result that says so.
            EventBody::UserInterrupt { .. } => self.calls.values_mut().for_each(|call| call.answered = true),
            other => {
                if let Some(call) = other.answers().and_then(|answered| self.calls.get_mut(answered)) {
                    call.answered = true;
                }
            }
        }
    }

    fn open(&mut self, id: &str, kind: Kind, permission: Permission) {
        // What is denied by policy is answered by the next decision.
        let answered = permission == Permission::Deny;
        self.calls.insert(id.to_owned(), Call { kind, permission, confirmed: None, answered });
    }

    pub fn get(&self, id: &str) -> Option<Call> {
        self.calls.get(id).copied()
    }

    /// Whether some call waits for somebody outside.
    pub fn wait(&self, self_hosted: bool) -> bool {
        self.calls.values().any(|call| call.waits(self_hosted))
    }

    /// Whether some call waits for a worker of a self-hosted environment, as far as anybody knows: it may have custom
    /// tools too. Nobody runs a call before it is confirmed.
    pub fn wait_for_worker(&self) -> bool {
        let is_held = |call: &Call| call.permission == Permission::Ask && call.confirmed.is_none();
        let runs = |call: &&Call| !call.answered && call.kind != Kind::Mcp && !is_held(call);
        self.calls.values().any(|call| runs(&call))
    }

    /// The ids of the calls that wait for somebody outside.
    pub fn waiting(&self, self_hosted: bool) -> Vec<&str> {
        let waiting = self.calls.iter().filter(|(_, call)| call.waits(self_hosted));
        waiting.map(|(id, _)| id.as_str()).collect()
    }
}

impl Call {
    fn waits(self, self_hosted: bool) -> bool {
        if self.answered {
            return false;
        }
        let unconfirmed = self.permission == Permission::Ask && self.confirmed.is_none();
        unconfirmed || self.kind == Kind::Custom || (self_hosted && self.kind == Kind::Builtin)
    }
}

async fn since_last_answer(log: &mut SessionLog, blobs: &dyn Blobs) -> Result<Vec<Arc<Committed>>, Error> {
    let end = log.end_position();
    let mut window = WINDOW;
    loop {
        let from = end.saturating_sub(window);
        let mut commits = log.commits(blobs, from, end).await?;
        if let Some(last) = commits.iter().rposition(|committed| is_answer(committed)) {
            return Ok(commits.split_off(last));
        }
        if from == 0 {
            return Ok(commits);
        }
        window *= 8;
    }
}

/// Whether a model request ended in this commit with an answer.
fn is_answer(committed: &Committed) -> bool {
    committed.commit.takes.iter().any(|take| {
        matches!(take, Take::Inline { event, .. }
            if matches!(event.body, EventBody::SpanModelRequestEnd { is_error, .. } if is_error != Some(true)))
    })
}
