//! A test kit: a session without engine, model or clock. It plays the shell (mailbox, operations in flight) and
//! keeps the log as readers see it, so that a harness or the frame can be driven through any schedule.
//! [`moment`] is for a harness alone: one View in, one decision out.

pub mod moment;

use crate::{
    SessionState,
    context::{self, Shape},
    frame::{self, Ask, HarnessError, Views},
    intake::{Closing, Intake, Outcome, Waiting, result_digest},
    registry,
    replay::Recording,
    state::Op,
    view::{Decision, VERSION, View},
};
use domain::{
    Commit, Committed, Content, Event, EventBody, Failure, HandName, PrivateEntry, Take, Time, Usage,
    agent::{AgentFacts, AgentSnapshot, HarnessRef, McpFact, ModelParams, Policy, ToolFact, ToolKind},
    commit::Closed,
    committed::{ActivityResult, Genesis, NamedResult},
    content::{BlobRef, Json},
    event::{Confirmation, ErrorBody, ErrorKind, Permission, RetryStatus},
    failure::FailureKind,
    ids,
    model::{ModelPrivate, Purpose, Recipe},
    outcome::{
        BlockDigest, Call, CollectOutcome, ListOutcome, Listed, ModelDigest, ParkOutcome, ProvisionOutcome, ToolDigest,
    },
    session::{Attributes, Change, Close, Give, HandRef, Handed, LogEntry, Mail, Swap, Tuning, Workspace},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const SESSION: &str = "sesn_test";

/// Tools of the kit's agent: `bash` runs, `write` asks first, `lookup` is the client's.
fn tools() -> Vec<ToolFact> {
    let tool = |name: &str, kind, policy| ToolFact { name: name.to_owned(), kind, policy };
    vec![
        tool("bash", ToolKind::Builtin, Policy::AlwaysAllow),
        tool("write", ToolKind::Builtin, Policy::AlwaysAsk),
        tool("lookup", ToolKind::Custom, Policy::AlwaysAllow),
    ]
}

/// Of an MCP server, for sessions whose agent has [`with_server`].
pub const MCP_TOOL: &str = "mcp__docs__search";

fn mcp_tool() -> ToolFact {
    let kind = ToolKind::Mcp { server: "docs".to_owned(), tool: "search".to_owned(), inside: None };
    ToolFact { name: MCP_TOOL.to_owned(), kind, policy: Policy::AlwaysAllow }
}

/// The agent has an MCP server that nobody has asked yet.
pub fn with_server(mut attributes: Attributes) -> Attributes {
    attributes.agent.mcp = vec![McpFact { server: "docs".to_owned(), listed: false, inside: None }];
    attributes
}

/// Of an MCP server in a hand, for sessions whose agent has [`with_server_in`]; `INSIDE_TOOL@build` where that is not the main one.
pub const INSIDE_TOOL: &str = "mcp__local__count";

pub fn inside_tool(hand: &HandName) -> ToolFact {
    let kind = ToolKind::Mcp { server: "local".to_owned(), tool: "count".to_owned(), inside: Some(hand.clone()) };
    ToolFact { name: INSIDE_TOOL.to_owned(), kind, policy: Policy::AlwaysAllow }
}

/// The agent has an MCP server in that hand too, and nobody has asked it yet.
pub fn with_server_in(mut attributes: Attributes, hand: &HandName) -> Attributes {
    let inside = Some(hand.clone());
    attributes.agent.mcp.push(McpFact { server: "local".to_owned(), listed: false, inside });
    attributes
}

pub fn attributes() -> Attributes {
    Attributes {
        title: None,
        metadata: BTreeMap::new(),
        environment_id: "env_test".to_owned(),
        self_hosted: false,
        vault_ids: Vec::new(),
        resources: Vec::new(),
        agent: AgentFacts {
            agent_id: "agent_test".to_owned(),
            version: 1,
            name: "tester".to_owned(),
            model: "model".to_owned(),
            window_tokens: 200_000,
            max_tokens: 1_000,
            tools: tools(),
            strategy: context::default_strategy(),
            mcp: Vec::new(),
            hands: Vec::new(),
            shims_off: Vec::new(),
            snapshot: BlobRef { blob: "0".repeat(64), bytes: 0 },
        },
        tuning: Tuning::default(),
    }
}

/// A session under test.
pub struct Session {
    pub genesis: Genesis,
    pub state: SessionState,
    pub mailbox: Vec<Mail>,
    /// Over and not yet decided about.
    closed: Vec<Closing>,
    /// In flight, by activity id.
    pub flying: Vec<(String, Op)>,
    pub log: Vec<LogEntry>,
    pub commits: Vec<(Commit, Intake)>,
    /// The commits as a reader of the log gets them.
    pub committed: Vec<Committed>,
    /// Input tokens that the model's next answers tell of.
    pub input_tokens: u64,
    now: Time,
    /// What was ever started, by activity.
    ops: BTreeMap<String, Op>,
    /// Results that were delivered, by activity, as history holds them.
    results: BTreeMap<String, ActivityResult>,
    next_id: u64,
}

impl Default for Session {
    fn default() -> Self {
        Session::new(attributes(), registry::default_harness())
    }
}

impl Session {
    pub fn new(attributes: Attributes, harness: HarnessRef) -> Self {
        let now = Time::from_ms(1_000);
        Session {
            genesis: Genesis { created_at: now, attributes: attributes.clone(), harness: harness.clone() },
            state: SessionState::created(SESSION, now, attributes, harness),
            mailbox: Vec::new(),
            closed: Vec::new(),
            flying: Vec::new(),
            log: Vec::new(),
            commits: Vec::new(),
            committed: Vec::new(),
            input_tokens: 10,
            now,
            ops: BTreeMap::new(),
            results: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// A session that goes on from the first `commits` of a recorded one.
    pub fn of(state: SessionState, recording: Recording, commits: usize) -> Self {
        let committed: Vec<Committed> = recording.commits.into_iter().take(commits).collect();
        let mut session = Session::new(recording.genesis.attributes.clone(), recording.genesis.harness.clone());
        session.genesis = recording.genesis;
        session.log = committed.iter().flat_map(Committed::entries).collect();
        session.now = state.summary.last_time;
        session.next_id = 1_000;
        (session.state, session.committed) = (state, committed);
        session
    }

    fn fresh_id(&mut self) -> String {
        self.next_id += 1;
        format!("sevt_{}", self.next_id)
    }

    fn send(&mut self, body: EventBody) -> String {
        let id = self.fresh_id();
        self.mailbox.push(Mail::Event { event: Event { id: id.clone(), body, processed_at: None } });
        id
    }

    pub fn message(&mut self, text: &str) -> String {
        self.send(EventBody::UserMessage { content: Content::text(text) })
    }

    pub fn interrupt(&mut self) -> String {
        self.send(EventBody::UserInterrupt { session_thread_id: None })
    }

    pub fn confirm(&mut self, tool_use_id: &str, allow: bool) -> String {
        self.send(EventBody::UserToolConfirmation {
            tool_use_id: tool_use_id.to_owned(),
            result: if allow { Confirmation::Allow } else { Confirmation::Deny },
            deny_message: None,
        })
    }

    pub fn answer(&mut self, tool_use_id: &str, text: &str) -> String {
        self.send(EventBody::UserCustomToolResult {
            custom_tool_use_id: tool_use_id.to_owned(),
            content: Content::text(text),
            is_error: None,
        })
    }

    pub fn close(&mut self) {
        let id = self.fresh_id();
        self.mailbox.push(Mail::Close { close: Close { id } });
    }

    pub fn change(&mut self, change: Change) {
        self.mailbox.push(Mail::Change { change });
    }

    /// To a session that is not part of this.
    pub fn give(&mut self) {
        self.give_as(&HandName::default(), &HandName::default());
    }

    /// One of its hands, which the other session will call so.
    pub fn give_as(&mut self, name: &HandName, to_name: &HandName) {
        let (id, to, name, to_name) = (self.fresh_id(), "sesn_other".to_owned(), name.clone(), to_name.clone());
        self.mailbox.push(Mail::Give { give: Give { id, to, name, to_name } });
    }

    /// From a session that is not part of this.
    pub fn handed(&mut self, returned: bool) {
        self.handed_as(&HandName::default(), returned);
    }

    pub fn handed_as(&mut self, name: &HandName, returned: bool) {
        let listing = BlobRef { blob: "3".repeat(64), bytes: 0 };
        let (id, hand) = (self.fresh_id(), "hand_other".to_owned());
        let workspace = Workspace { listing, start: None };
        let (from, name, from_name) = ("sesn_other".to_owned(), name.clone(), HandName::default());
        self.mailbox.push(Mail::Handed { handed: Handed { id, from, hand, name, from_name, workspace, returned } });
    }

    pub fn swap(&mut self, harness: HarnessRef) {
        let id = self.fresh_id();
        self.mailbox.push(Mail::Swap { swap: Swap { id, harness } });
    }

    fn intake(&self) -> Intake {
        Intake { now: self.now, mail: self.mailbox.iter().map(Waiting::of).collect(), closed: self.closed.clone() }
    }

    pub fn is_due(&self) -> bool {
        frame::is_due(&self.state, &self.intake())
    }

    /// One decision with the session's own harness, folded and carried out as the shell would.
    pub fn decide(&mut self) -> Commit {
        match registry::find(&self.state.summary.harness) {
            Some(mut harness) => self.decide_with(&mut harness),
            None => self.decide_with(&mut Gone(self.state.summary.harness.to_string())),
        }
    }

    pub fn decide_with(&mut self, ask: &mut dyn Ask) -> Commit {
        self.now = self.now.plus_ms(7);
        let intake = self.intake();
        let commit = frame::decide(&self.state, &intake, ask);
        self.record(&commit);
        self.state.apply(&commit, &intake);
        self.closed.clear();
        self.mailbox.retain(|mail| !commit.takes.iter().any(|take| take.mail() == Some(mail.id())));
        self.flying.retain(|(activity, _)| self.state.pending(activity).is_some());
        self.start();
        self.commits.push((commit.clone(), intake));
        commit
    }

    /// Decides as long as there is something to decide.
    pub fn settle(&mut self) {
        while self.is_due() {
            let (commits, position) = (self.commits.len(), self.state.summary.position);
            let commit = self.decide();
            let did_something = !commit.takes.is_empty() || commit.step != (domain::Step::Continue {});
            assert!(did_something, "decision {commits} at position {position} was due and did nothing");
        }
    }

    /// What the shell would start.
    fn start(&mut self) {
        for pending in &self.state.pending {
            let is_known = self.flying.iter().any(|(activity, _)| *activity == pending.activity);
            if !is_known && self.state.is_startable(&pending.op) {
                self.flying.push((pending.activity.clone(), pending.op.clone()));
                self.ops.insert(pending.activity.clone(), pending.op.clone());
            }
        }
    }

    fn record(&mut self, commit: &Commit) {
        let is_taken = |mail: &&Mail| commit.takes.iter().any(|take| take.mail() == Some(mail.id()));
        let closed = commit.takes.iter().filter_map(|take| match take {
            Take::Private { entry: PrivateEntry::ActivityClosed { activity, .. } } => Some(activity),
            _ => None,
        });
        let results = closed.filter_map(|activity| {
            let result = self.results.get(activity)?.clone();
            Some(NamedResult { activity: activity.clone(), result })
        });
        let committed = Committed {
            commit: commit.clone(),
            position: self.log.len() as u64,
            mail: self.mailbox.iter().filter(is_taken).cloned().collect(),
            results: results.collect(),
        };
        self.log.extend(committed.entries());
        self.committed.push(committed);
    }

    /// Ends an operation that is in flight, or one that no longer is: a late completion.
    pub fn finish(&mut self, activity: &str, outcome: Result<Outcome, Closed>) {
        self.flying.retain(|(flying, _)| flying != activity);
        self.closed.push(match outcome {
            Ok(outcome) => Closing { activity: activity.to_owned(), how: Closed::Finished, outcome: Some(outcome) },
            Err(how) => Closing { activity: activity.to_owned(), how, outcome: None },
        });
    }

    /// A model's answer: some text, and calls of the named tools.
    pub fn model_answers(&mut self, activity: &str, text: &str, calls: &[&str]) {
        let mut events = vec![];
        let mut blocks = vec![];
        if !text.is_empty() {
            blocks.push(json!({"type": "text", "text": text}));
            let id = ids::activity_event(SESSION, activity, 1, 0);
            let body = EventBody::AgentMessage { content: Content::text(text) };
            events.push(Event { id, body, processed_at: None });
        }
        let mut made = Vec::new();
        let mut tool_ids = BTreeMap::new();
        for (index, name) in calls.iter().enumerate() {
            let call = call(activity, index + 1, name);
            let model_id = format!("toolu_{activity}_{index}");
            blocks.push(json!({"type": "tool_use", "id": model_id, "name": name, "input": {}}));
            tool_ids.insert(call.tool_use_id.clone(), model_id);
            let (name, input) = (call.name.clone(), call.input.clone());
            let body = match call.kind {
                ToolKind::Custom => EventBody::AgentCustomToolUse { name, input },
                ToolKind::Builtin | ToolKind::Log | ToolKind::Web => EventBody::AgentToolUse {
                    name,
                    input,
                    evaluated_permission: Some(call.permission),
                    evaluation: None,
                },
                ToolKind::Mcp { ref server, ref tool, .. } => EventBody::AgentMcpToolUse {
                    name: tool.clone(),
                    mcp_server_name: server.clone(),
                    input,
                    evaluated_permission: Some(call.permission),
                    evaluation: None,
                },
            };
            events.push(Event { id: call.tool_use_id.clone(), body, processed_at: None });
            made.push(call);
        }
        let digest = ModelDigest::Answer {
            stop_reason: if calls.is_empty() { "end_turn" } else { "tool_use" }.to_owned(),
            usage: Usage { input_tokens: self.input_tokens, output_tokens: 5, ..Usage::default() },
            blocks: blocks.iter().map(block_digest).collect(),
            calls: made,
            refusal: None,
        };
        let private = self.private(activity, blocks, tool_ids);
        self.model_closed(activity, digest, events, Some(private));
    }

    pub fn model_fails(&mut self, activity: &str, failure: Failure) {
        self.model_closed(activity, ModelDigest::Failed { failure }, Vec::new(), None);
    }

    fn model_closed(&mut self, activity: &str, digest: ModelDigest, events: Vec<Event>, private: Option<ModelPrivate>) {
        let count = events.len();
        let rest = json!({"digest": digest});
        self.results.insert(activity.to_owned(), ActivityResult { events, private, rest });
        self.finish(activity, Ok(Outcome::Model { digest, events: count }));
    }

    /// The recipe is the one by which the activity was started.
    fn private(&self, activity: &str, blocks: Vec<Value>, tool_ids: BTreeMap<String, String>) -> ModelPrivate {
        let request = self.ops.get(activity).and_then(|op| self.request(op)).expect("it is a model request");
        let (slice, strategy, suffix, purpose) = match self.ops.get(activity) {
            Some(Op::CallModel { slice, strategy, suffix, .. }) => {
                (slice.clone(), strategy.clone(), suffix.clone(), Purpose::Answer)
            }
            Some(Op::Compact { slice, strategy, .. }) => {
                (slice.clone(), strategy.clone(), Vec::new(), Purpose::Summary)
            }
            other => panic!("{activity} is no model request: {other:?}"),
        };
        ModelPrivate {
            blocks: Json::Inline { value: Value::Array(blocks) },
            tool_ids,
            recipe: Recipe {
                from: slice.from,
                to: slice.to,
                keep: slice.keep,
                purpose,
                strategy,
                snapshot: BlobRef { blob: "0".repeat(64), bytes: 0 },
                serializer: context::SERIALIZER,
                suffix,
                request_sha256: ids::content_hash(&context::serialize(&request)),
            },
        }
    }

    pub fn tool_returns(&mut self, activity: &str, call: &Call, text: &str, hand_lost: bool) {
        let content = Content::text(text);
        let digest = ToolDigest { hand_lost, lost: hand_lost, ..result_digest(&call.tool_use_id, &content, hand_lost) };
        let (tool_use_id, is_error) = (call.tool_use_id.clone(), Some(hand_lost));
        let body = match call.kind {
            ToolKind::Mcp { .. } => EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, content, is_error },
            _ => EventBody::AgentToolResult { tool_use_id, content, is_error },
        };
        let id = ids::derive("sevt", &[activity, "result"]);
        let events = vec![Event { id, body, processed_at: None }];
        let result = ActivityResult { events, private: None, rest: json!({"digest": digest}) };
        self.results.insert(activity.to_owned(), result);
        self.finish(activity, Ok(Outcome::Tool { digest }));
    }

    pub fn hand_is_ready(&mut self, activity: &str, hand: &str) {
        let hand = HandRef { hand: hand.to_owned(), host: "host".to_owned(), epoch: 1 };
        self.provisioned(activity, ProvisionOutcome::Ready { hand, problems: Vec::new() });
    }

    pub fn hand_fails(&mut self, activity: &str) {
        let failure = Failure::permanent(FailureKind::Request, "no sandbox here");
        self.provisioned(activity, ProvisionOutcome::Failed { failure });
    }

    fn provisioned(&mut self, activity: &str, outcome: ProvisionOutcome) {
        let rest = json!(outcome);
        self.results.insert(activity.to_owned(), ActivityResult { events: Vec::new(), private: None, rest });
        self.finish(activity, Ok(Outcome::Provision { outcome }));
    }

    /// The MCP server says what it has, or cannot be asked.
    pub fn tools_listed(&mut self, activity: &str, is_there: bool) {
        let tools = self.state.summary.attributes.agent.tools.iter().cloned().chain([mcp_tool()]).collect();
        let snapshot = BlobRef { blob: "1".repeat(64), bytes: 0 };
        let outcome = match is_there {
            true => {
                let servers = vec!["docs".to_owned()];
                ListOutcome {
                    listed: Some(Listed { servers, tools, snapshot }),
                    problems: Vec::new(),
                    hand_lost: false,
                }
            }
            false => {
                let kind = ErrorKind::McpConnectionFailed { mcp_server_name: "docs".to_owned() };
                let problem = ErrorBody { kind, message: "down".to_owned(), retry_status: RetryStatus::Retrying };
                ListOutcome { listed: None, problems: vec![problem], hand_lost: false }
            }
        };
        self.list_ends(activity, outcome);
    }

    /// The MCP server in that hand says what it has.
    pub fn inside_listed(&mut self, activity: &str, hand: &HandName) {
        let tools = self.state.summary.attributes.agent.tools.iter().cloned().chain([inside_tool(hand)]).collect();
        let listed =
            Listed { servers: vec!["local".to_owned()], tools, snapshot: BlobRef { blob: "3".repeat(64), bytes: 0 } };
        self.list_ends(activity, ListOutcome { listed: Some(listed), problems: Vec::new(), hand_lost: false });
    }

    pub fn list_ends(&mut self, activity: &str, outcome: ListOutcome) {
        let rest = json!(outcome);
        self.results.insert(activity.to_owned(), ActivityResult { events: Vec::new(), private: None, rest });
        self.finish(activity, Ok(Outcome::List { outcome }));
    }

    /// What is in the hand is kept.
    pub fn parked(&mut self, activity: &str) {
        let listing = BlobRef { blob: "2".repeat(64), bytes: 0 };
        self.park_ends(activity, ParkOutcome::Parked { workspace: Workspace { listing, start: None } });
    }

    pub fn park_ends(&mut self, activity: &str, outcome: ParkOutcome) {
        let rest = json!(outcome);
        self.results.insert(activity.to_owned(), ActivityResult { events: Vec::new(), private: None, rest });
        self.finish(activity, Ok(Outcome::Park { outcome }));
    }

    pub fn collected(&mut self, activity: &str) {
        let outcome = CollectOutcome { listing: None };
        let rest = json!(outcome);
        self.results.insert(activity.to_owned(), ActivityResult { events: Vec::new(), private: None, rest });
        self.finish(activity, Ok(Outcome::Collect { outcome }));
    }

    pub fn recording(&self) -> Recording {
        Recording {
            session_id: SESSION.to_owned(),
            genesis: self.genesis.clone(),
            commits: self.committed.clone(),
            waiting: self.mailbox.clone(),
        }
    }

    pub fn types(&self) -> Vec<&'static str> {
        self.log.iter().map(|entry| entry.event.body.type_name()).collect()
    }

    /// The request that a model request in flight is: `None` for anything else.
    pub fn request(&self, op: &Op) -> Option<Value> {
        let (slice, strategy, suffix, purpose) = match op {
            Op::CallModel { slice, strategy, suffix, .. } => (slice, strategy, suffix.as_slice(), Purpose::Answer),
            Op::Compact { slice, strategy, .. } => (slice, strategy, [].as_slice(), Purpose::Summary),
            _ => return None,
        };
        let entries = context::entries(&self.log, slice);
        Some(body(&entries, Shape { strategy, suffix, purpose }))
    }
}

/// A request of the kit's agent.
pub fn body(entries: &[LogEntry], shape: Shape<'_>) -> Value {
    let agent = AgentSnapshot {
        public: Value::Null,
        model: ModelParams { id: "model".to_owned(), effort: None, speed: None, max_tokens: 10 },
        system: None,
        tools: Vec::new(),
        mcp: Vec::new(),
        web_fetch: None,
    };
    context::request(entries, &agent, shape).expect("the strategy is there")
}

/// The harness that is not there.
pub struct Gone(pub String);

impl Ask for Gone {
    fn view_version(&self) -> u32 {
        VERSION
    }

    fn ask(&mut self, _view: &View, _views: &Views) -> Result<Decision, HarnessError> {
        Err(HarnessError { harness: self.0.clone(), what: "is gone".to_owned() })
    }
}

/// `bash@build` is `bash` in the hand of that name.
fn call(activity: &str, index: usize, wanted: &str) -> Call {
    let (name, hand) = match wanted.split_once('@') {
        Some((name, hand)) => (name, HandName::parse(hand).expect("a hand's name")),
        None => (wanted, HandName::default()),
    };
    let fact = tools().into_iter().chain([mcp_tool(), inside_tool(&hand)]).find(|tool| tool.name == name);
    let permission = match fact.as_ref().map(|tool| tool.policy) {
        Some(Policy::AlwaysAllow) => Permission::Allow,
        Some(Policy::AlwaysAsk | Policy::Auto) => Permission::Ask,
        None => Permission::Deny,
    };
    Call {
        tool_use_id: ids::activity_event(SESSION, activity, 1, index),
        name: name.to_owned(),
        kind: fact.map_or(ToolKind::Builtin, |tool| tool.kind),
        input: Json::Inline { value: json!({}) },
        input_sha256: ids::content_hash(b"{}"),
        permission,
        hand,
        refused: None,
    }
}

fn block_digest(block: &Value) -> BlockDigest {
    BlockDigest {
        kind: block["type"].as_str().unwrap_or_default().to_owned(),
        bytes: 10,
        head: block["text"].as_str().unwrap_or_default().to_owned(),
        tail: String::new(),
        tool: None,
        input_sha256: None,
    }
}
