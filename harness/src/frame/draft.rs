//! A commit in the making, and the state as it will be after it.

use crate::{
    intake::Intake,
    state::SessionState,
    view::{self, View},
};
use domain::{
    Commit, Event, EventBody, PrivateEntry, Status, Step, Take, Time,
    agent::ToolKind,
    commit::Closed,
    content::Content,
    event::{StopDetails, StopReason},
    ids,
    outcome::Call,
};

pub struct Draft<'a> {
    pub state: SessionState,
    pub intake: &'a Intake,
    pub now: Time,
    /// What the session was asking for before this commit, if it was idle for that.
    pub asked: Option<Vec<String>>,
    /// Whether the session was at rest before this commit.
    pub was_idle: bool,
    /// Builds before this one left a swap to the decision behind the one that ended the turn, whatever caused that.
    pub swaps_with_end: bool,
    /// As builds before this one had it: a turn began with the swap itself, and the old harness made its first step.
    pub turn_begins_with_swap: bool,
    takes: Vec<Take>,
    step: Step,
    memo: Option<String>,
    /// Version, hash and waiting inputs of the View that the harness saw.
    seen: Option<(u32, String, usize)>,
}

impl<'a> Draft<'a> {
    pub fn new(state: &SessionState, intake: &'a Intake) -> Self {
        let asked = (state.summary.status == Status::RequiresAction)
            .then(|| state.blocked.iter().map(|blocked| blocked.call.tool_use_id.clone()).collect());
        Draft {
            state: state.clone(),
            intake,
            asked,
            was_idle: state.summary.status.is_idle(),
            swaps_with_end: true,
            turn_begins_with_swap: false,
            now: intake.now.max(state.summary.last_time),
            takes: Vec::new(),
            step: Step::Continue {},
            memo: None,
            seen: None,
        }
    }

    pub fn take(&mut self, take: Take) {
        self.state.take(&take, self.now, self.intake);
        self.takes.push(take);
    }

    pub fn accept(&mut self, id: &str) {
        self.take(Take::Accepted { id: id.to_owned(), ignored: false });
    }

    pub fn ignore(&mut self, id: &str) {
        self.take(Take::Accepted { id: id.to_owned(), ignored: true });
    }

    /// An event that the decision makes, under the next derived id.
    pub fn emit(&mut self, body: EventBody) {
        let id = ids::decision_event(&self.state.session_id, self.state.summary.n, self.takes.len());
        self.emit_as(id, body, None);
    }

    pub fn emit_as(&mut self, id: String, body: EventBody, private: Option<String>) {
        let event = Event { id, body, processed_at: Some(self.now) };
        self.take(Take::Inline { event, private });
    }

    pub fn note(&mut self, entry: PrivateEntry) {
        self.take(Take::Private { entry });
    }

    pub fn closed(&mut self, activity: &str, how: Closed) {
        self.note(PrivateEntry::ActivityClosed { activity: activity.to_owned(), how });
    }

    /// A result that no hand produced: refused, denied, interrupted or lost.
    pub fn tool_error(&mut self, call: &Call, text: impl Into<String>) {
        let (tool_use_id, content, is_error) = (call.tool_use_id.clone(), Content::text(text), Some(true));
        self.emit(match call.kind {
            ToolKind::Mcp { .. } => EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, content, is_error },
            ToolKind::Builtin | ToolKind::Custom | ToolKind::Log | ToolKind::Web => {
                EventBody::AgentToolResult { tool_use_id, content, is_error }
            }
        });
    }

    pub fn running(&mut self) {
        self.emit(EventBody::SessionStatusRunning {});
        let (session_thread_id, agent_name) = self.thread();
        self.emit(EventBody::SessionThreadStatusRunning { session_thread_id, agent_name });
    }

    /// Idle events in the order that the API promises: thread, usage, session.
    pub fn idle(&mut self, stop_reason: StopReason, stop_details: Option<StopDetails>) {
        let (session_thread_id, agent_name) = self.thread();
        self.emit(EventBody::SessionThreadStatusIdle {
            session_thread_id,
            agent_name,
            stop_reason: stop_reason.clone(),
            stop_details: stop_details.clone(),
        });
        self.emit(EventBody::SessionUsage { usage: self.state.summary.usage });
        self.emit(EventBody::SessionStatusIdle { stop_reason, stop_details });
    }

    pub fn thread(&self) -> (String, String) {
        (ids::primary_thread(&self.state.session_id), self.state.summary.attributes.agent.name.clone())
    }

    /// Whether this commit has put another harness in the place of the one before.
    pub fn has_swapped(&self) -> bool {
        self.takes.iter().any(|take| matches!(take, Take::Private { entry: PrivateEntry::Swapped { .. } }))
    }

    pub fn has_taken(&self, id: &str) -> bool {
        self.takes.iter().any(|take| matches!(take, Take::Accepted { id: taken, .. } if taken == id))
    }

    /// A message waits that this commit did not take.
    pub fn has_input(&self) -> bool {
        self.intake.mail.iter().any(|waiting| waiting.is_input() && !self.has_taken(waiting.id()))
    }

    /// The one step of this commit.
    pub fn set_step(&mut self, step: Step) {
        self.step = step;
    }

    pub fn set_memo(&mut self, memo: String) {
        self.memo = Some(memo);
    }

    pub fn saw(&mut self, view: &View) {
        self.seen = Some((view.version, ids::content_hash(&view.to_json()), view.queued.len()));
    }

    pub fn finish(self) -> Commit {
        let (view_version, view_hash, queued) = match self.seen {
            Some((version, hash, queued)) => (version, Some(hash), queued),
            None => (view::VERSION, None, 0),
        };
        Commit {
            n: self.state.summary.n,
            now: self.now,
            takes: self.takes,
            step: self.step,
            memo: self.memo,
            view_version,
            view_hash,
            queued: u32::try_from(queued).unwrap_or(u32::MAX),
        }
    }
}
