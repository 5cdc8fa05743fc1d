//! `SessionState`: everything a session remembers between decisions, a pure fold over commits.
//!
//! It holds digests and references, never content, because it travels through every continue-as-new.
//! Nothing but [`SessionState::apply`] and [`SessionState::continued`] changes it; `frame` calls the same
//! code on its draft, so a decision and its replay cannot disagree.

use crate::{
    context,
    intake::{Intake, Outcome, Waiting},
    marks::{Cut, Marks},
};
use domain::{
    Commit, EventBody, Failure, HandName, PrivateEntry, Status, Step, Summary, Take, Time,
    agent::{HarnessRef, StrategyRef, ToolKind},
    commit::{Closed, Fork},
    event::Permission,
    failure::FailureKind,
    limits::SEEN_EVENT_IDS_MAX,
    model::Range,
    outcome::{Call, ModelDigest, ToolDigest},
    session::{Attributes, Give, HandRef, Handed, Swap},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    pub session_id: String,
    /// What readers of the log keep too.
    pub summary: Summary,
    pub memo: Option<String>,
    pub round: u32,
    /// Failed model requests in a row.
    pub tries: u32,
    /// What is to be done or being done: the shell starts what is here and stops what is not.
    pub pending: Vec<Pending>,
    /// Uses of the last answer that nothing was decided about.
    pub calls: Vec<Call>,
    /// Calls that wait for somebody outside.
    pub blocked: Vec<Blocked>,
    /// Since the last model request.
    pub results: Vec<ToolDigest>,
    /// The last model request, until a step answers it.
    pub last: Option<ModelDigest>,
    pub context: Context,
    #[serde(default)]
    pub marks: Marks,
    /// Hands made so far: the next one's number.
    pub hands: u64,
    #[serde(flatten)]
    pub main: Work,
    /// Of the other hands, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<HandName, Work>,
    pub swap: Option<Swap>,
    pub closing: bool,
    /// Ids of mail taken lately, so that a redelivered signal changes nothing.
    pub seen: VecDeque<String>,
    /// The context strategy of the turn that is on, or the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_strategy: Option<StrategyRef>,
    /// It goes on from another session, and has not decided anything yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<Fork>,
}

/// How it stands with one of the session's hands, beside what readers of the log keep of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// It worked since the last collection.
    pub uncollected: bool,
    /// It goes on from a parked one, and no call of it has ended yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restored: bool,
    /// What is in it goes to another session as soon as it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub giving: Option<Give>,
}

/// Something outside the workflow that is under way, or will be as soon as the shell gets to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// The activity's id, unique in the whole session.
    pub activity: String,
    pub op: Op,
    /// It was told to stop; its end is awaited.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancelling: bool,
    /// A call that was given to a hand: it may have taken effect, whatever became of the hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dispatched: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    CallModel {
        span_id: String,
        #[serde(flatten)]
        slice: Slice,
        strategy: StrategyRef,
        suffix: Vec<Value>,
    },
    /// The model is asked for a summary of the slice.
    Compact {
        span_id: String,
        #[serde(flatten)]
        slice: Slice,
        strategy: StrategyRef,
    },
    /// Waits for a hand while the session has none, if a hand runs it.
    Execute {
        call: Call,
    },
    Provision {
        hand: String,
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    Timer {
        until: Time,
    },
    /// MCP servers are asked which tools they have: those in this hand, or those that need none. Each adds to what the one before
    /// brought, so there is one at a time.
    ListTools {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hand: Option<HandName>,
    },
    Seal {
        run_id: String,
    },
    Collect {
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    /// Nothing is done with any hand until then.
    Rest {
        until: Time,
    },
    /// Calls of this hand wait until it is over.
    Park {
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
    /// A parked hand is let go; the session has nothing to do with it any more.
    Discard {
        hand: HandRef,
    },
    /// Another session is told what it has now.
    Hand {
        to: String,
        handed: Handed,
    },
    Release {
        #[serde(default, skip_serializing_if = "HandName::is_main")]
        name: HandName,
    },
}

/// What of the log a model request is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    #[serde(default)]
    pub from: u64,
    pub to: u64,
    /// Ranges before `from`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Range>,
}

impl Op {
    /// Something that is done in a hand.
    pub fn needs_hand(&self) -> bool {
        self.waits_for().is_some()
    }

    /// The hand in which it is done.
    pub fn waits_for(&self) -> Option<&HandName> {
        match self {
            Op::Execute { call } if is_hands(call) => Some(&call.hand),
            Op::ListTools { hand } => hand.as_ref(),
            _ => None,
        }
    }

    /// Whether the turn waits for it.
    pub fn holds_turn(&self) -> bool {
        !matches!(
            self,
            Op::Seal { .. }
                | Op::Collect { .. }
                | Op::Rest { .. }
                | Op::Park { .. }
                | Op::Discard { .. }
                | Op::Hand { .. }
                | Op::Release { .. }
        )
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Blocked {
    pub call: Call,
    pub on: Blocker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocker {
    /// A confirmation.
    Ask,
    /// `user.custom_tool_result`.
    Custom,
    /// `user.tool_result` from a worker of a self-hosted environment.
    SelfHosted,
    /// Nobody any more: it was allowed, and runs when the others are answered.
    Allowed,
}

/// How full the model's window is, as far as the last answer told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub tokens: u64,
    pub bytes_since: u64,
}

impl SessionState {
    pub fn created(session_id: &str, created_at: Time, attributes: Attributes, harness: HarnessRef) -> Self {
        SessionState {
            session_id: session_id.to_owned(),
            summary: Summary::created(created_at, attributes, harness),
            memo: None,
            round: 0,
            tries: 0,
            pending: Vec::new(),
            calls: Vec::new(),
            blocked: Vec::new(),
            results: Vec::new(),
            last: None,
            context: Context::default(),
            marks: Marks::default(),
            hands: 0,
            main: Work::default(),
            others: BTreeMap::new(),
            swap: None,
            closing: false,
            seen: VecDeque::new(),
            turn_strategy: None,
            fork: None,
        }
    }

    /// The state with which a session begins that goes on from here. Its hand, what it used and what it was asked to become are the
    /// other session's, and so is what is under way, unless that is to go on here; the first decision says so in the log.
    /// Forked again in the same way, it stays as it is.
    pub fn forked(mut self, fork: Fork) -> Self {
        let Fork { session_id, created_at, attributes, harness, goes_on, .. } = fork.clone();
        if self.summary.harness.name != harness.name {
            self.memo = None;
        }
        self.session_id = session_id;
        self.pending.retain(|pending| pending.op.holds_turn());
        for pending in &mut self.pending {
            (pending.cancelling, pending.dispatched) = (false, false);
        }
        (self.main, self.swap, self.closing) = (Work::default(), None, false);
        self.others.clear();
        if !goes_on {
            (self.tries, self.turn_strategy) = (0, None);
        }
        self.summary = Summary {
            last_time: self.summary.last_time,
            n: self.summary.n,
            position: self.summary.position,
            turn: self.summary.turn,
            began: self.summary.began,
            status: match self.summary.status {
                // What ended it did not end the fork.
                Status::Terminated => Status::Idle,
                // Nobody is asked for anything here: the first decision closes what was asked for.
                Status::RequiresAction if !goes_on => Status::Running,
                other => other,
            },
            running_since: self.summary.running_since.map(|_| created_at),
            ..Summary::created(created_at, attributes, harness)
        };
        self.fork = Some(fork);
        if goes_on {
            self.provision_if_needed(self.summary.n);
        }
        self
    }

    /// The state a later run begins with: the run before it wants sealing.
    pub fn continued(mut self, previous_run_id: &str) -> Self {
        self.summary.unsealed.push(previous_run_id.to_owned());
        self.pending.push(Pending {
            activity: format!("seal-{previous_run_id}"),
            op: Op::Seal { run_id: previous_run_id.to_owned() },
            cancelling: false,
            dispatched: false,
        });
        self
    }

    /// The state as a decision is given it: without the ids that only the mailbox asks for. Of a long session they are most of it,
    /// and every decision is given the state as JSON.
    pub fn to_decide_on(&mut self) -> Self {
        let seen = std::mem::take(&mut self.seen);
        let state = self.clone();
        self.seen = seen;
        state
    }

    /// Something is under way that the turn waits for.
    pub fn is_busy(&self) -> bool {
        self.pending.iter().any(|pending| pending.op.holds_turn())
    }

    /// A turn is on, and it is the harness's move.
    pub fn is_harness_due(&self) -> bool {
        self.summary.status == Status::Running && !self.is_busy() && self.blocked.is_empty()
    }

    /// There is that hand, and calls can be given to it.
    pub fn has_hand(&self, name: &HandName) -> bool {
        self.hand(name).is_some() && !self.is_pending(|op| matches!(op, Op::Park { name: parked } if parked == name))
    }

    /// Nothing of it waits for a hand that is not there, or for another list.
    pub fn is_startable(&self, op: &Op) -> bool {
        let is_list = |op: &Op| matches!(op, Op::ListTools { .. });
        let first = || self.pending.iter().map(|pending| &pending.op).find(|op| is_list(op));
        op.waits_for().is_none_or(|name| self.has_hand(name)) && (!is_list(op) || first() == Some(op))
    }

    pub fn hand(&self, name: &HandName) -> Option<&HandRef> {
        self.summary.held(name).and_then(|held| held.hand.as_ref())
    }

    /// Names of the hands that there are.
    pub fn hand_names(&self) -> Vec<HandName> {
        let held = self.summary.all_held();
        held.filter(|(_, held)| held.hand.is_some()).map(|(name, _)| name).collect()
    }

    pub fn is_pending(&self, is_meant: impl Fn(&Op) -> bool) -> bool {
        self.pending.iter().any(|pending| is_meant(&pending.op))
    }

    pub fn work(&self, name: &HandName) -> Work {
        let known = if name.is_main() { Some(&self.main) } else { self.others.get(name) };
        known.cloned().unwrap_or_default()
    }

    fn work_mut(&mut self, name: &HandName) -> &mut Work {
        if name.is_main() { &mut self.main } else { self.others.entry(name.clone()).or_default() }
    }

    pub fn pending(&self, activity: &str) -> Option<&Pending> {
        self.pending.iter().find(|pending| pending.activity == activity)
    }

    /// Folds one commit into the state. `intake` resolves the ids that the commit takes.
    pub fn apply(&mut self, commit: &Commit, intake: &Intake) {
        for take in &commit.takes {
            self.take(take, commit.now, intake);
        }
        self.step(&commit.step, commit.n, commit.now);
        let started: Vec<bool> = self.pending.iter().map(|pending| self.is_startable(&pending.op)).collect();
        for (pending, is_started) in self.pending.iter_mut().zip(started) {
            pending.dispatched |=
                is_started && matches!(pending.op, Op::Execute { .. } | Op::ListTools { hand: Some(_) });
        }
        if let Some(memo) = &commit.memo {
            self.memo = Some(memo.clone());
        }
        self.summary.committed(commit.n, commit.now);
    }

    /// One take of a commit.
    pub fn take(&mut self, take: &Take, now: Time, intake: &Intake) {
        if let Some(id) = take.mail() {
            self.seen.push_back(id.to_owned());
            if self.seen.len() > SEEN_EVENT_IDS_MAX {
                self.seen.pop_front();
            }
        }
        let harness = self.summary.harness.name.clone();
        let restored = self.restored_by(take);
        self.summary.take(take, now, |id| match intake.mail(id) {
            Some(Waiting::Change { change }) => Some(change),
            _ => None,
        });
        match take {
            Take::Accepted { id, ignored: false } => {
                if let Some(waiting) = intake.mail(id) {
                    self.accepted(waiting);
                }
            }
            Take::Inline { event, .. } => self.inline(&event.body),
            Take::Private { entry } => {
                if let Some(name) = restored {
                    self.work_mut(&name).restored = true;
                }
                self.private(entry, &harness, intake);
            }
            Take::Accepted { ignored: true, .. } | Take::Result { .. } => {}
        }
    }

    /// The hand that is made by this from one that was parked.
    fn restored_by(&self, take: &Take) -> Option<HandName> {
        match take {
            Take::Private { entry: PrivateEntry::HandProvisioned { name, .. } } => {
                self.summary.held(name).is_some_and(|held| held.parked.is_some()).then(|| name.clone())
            }
            _ => None,
        }
    }

    fn accepted(&mut self, waiting: &Waiting) {
        match waiting {
            Waiting::Message { bytes, .. } | Waiting::System { bytes, .. } => {
                self.context.bytes_since += bytes;
                // A new input: what the model said last is answered.
                self.last = None;
            }
            Waiting::Confirmation { tool_use_id, allow: true, .. } => {
                for blocked in self.blocked.iter_mut().filter(|blocked| blocked.call.tool_use_id == *tool_use_id) {
                    blocked.on = Blocker::Allowed;
                }
            }
            // The refusal is an inline result that follows.
            Waiting::Confirmation { .. } | Waiting::Interrupt { .. } => {}
            Waiting::Answer { digest, .. } => self.answered(digest.clone()),
            Waiting::Change { .. }
            | Waiting::Swap { .. }
            | Waiting::Give { .. }
            | Waiting::Handed { .. }
            | Waiting::Close { .. } => {}
        }
    }

    fn inline(&mut self, body: &EventBody) {
        match body {
            EventBody::AgentToolResult { tool_use_id, content, is_error }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, content, is_error } => {
                self.answered(crate::intake::result_digest(tool_use_id, content, is_error.unwrap_or(false)));
            }
            EventBody::SessionStatusIdle { .. } if self.summary.status == Status::Idle => self.turn_strategy = None,
            EventBody::AgentThreadContextCompacted {} => {
                let summarized = self.pending.iter().find_map(|pending| match &pending.op {
                    Op::Compact { slice, .. } => Some(slice.to),
                    _ => None,
                });
                if let Some(from) = summarized {
                    self.marks.compacted(Cut { at: self.summary.position - 1, from });
                }
            }
            _ => {}
        }
    }

    fn answered(&mut self, digest: ToolDigest) {
        let id = &digest.tool_use_id;
        self.blocked.retain(|blocked| blocked.call.tool_use_id != *id);
        self.calls.retain(|call| call.tool_use_id != *id);
        self.pending.retain(|pending| !matches!(&pending.op, Op::Execute { call } if call.tool_use_id == *id));
        self.context.bytes_since += digest.bytes;
        self.results.push(digest);
    }

    fn private(&mut self, entry: &PrivateEntry, old_harness: &str, intake: &Intake) {
        match entry {
            PrivateEntry::ActivityClosed { activity, how } => self.closed(activity, how, intake),
            PrivateEntry::Cancelling { activities } => {
                for pending in self.pending.iter_mut().filter(|pending| activities.contains(&pending.activity)) {
                    pending.cancelling = true;
                }
            }
            PrivateEntry::SwapRequested { id, harness } => {
                self.swap = Some(Swap { id: id.clone(), harness: harness.clone() });
            }
            PrivateEntry::Swapped { to, .. } => {
                if old_harness != to.name {
                    self.memo = None;
                }
                self.swap = None;
            }
            PrivateEntry::CloseRequested { .. } => self.closing = true,
            PrivateEntry::TurnBegun {} => {
                if self.summary.status == Status::Running {
                    // Right behind a turn that never came to rest.
                    self.turn_strategy = None;
                }
                self.round = 0;
                self.marks.turn_begun(self.summary.position);
            }
            PrivateEntry::Resumed {} => self.release_allowed(),
            PrivateEntry::Collecting { activity, name } => {
                self.work_mut(name).uncollected = false;
                self.start(activity.clone(), Op::Collect { name: name.clone() });
            }
            PrivateEntry::Resting { activity, until } => self.start(activity.clone(), Op::Rest { until: *until }),
            PrivateEntry::Parking { activity, name } => self.start(activity.clone(), Op::Park { name: name.clone() }),
            PrivateEntry::HandParked { hand, release, .. } => {
                self.start(release.clone(), Op::Discard { hand: hand.clone() });
                // Calls may have come meanwhile.
                self.provision_if_needed(self.summary.n);
            }
            PrivateEntry::Listing { activity, hand } => {
                self.start(activity.clone(), Op::ListTools { hand: hand.clone() });
                self.provision_if_needed(self.summary.n);
            }
            PrivateEntry::Releasing { activity, name } => {
                self.start(activity.clone(), Op::Release { name: name.clone() });
            }
            PrivateEntry::Forked { .. } => self.fork = None,
            PrivateEntry::Changed { id, dropped: false } => {
                if let Some(Waiting::Change { change }) = intake.mail(id)
                    && let Some(change) = change.strategy.as_ref().filter(|change| change.turn)
                {
                    self.turn_strategy = Some(change.strategy.clone());
                }
            }
            PrivateEntry::Giving { give } => self.work_mut(&give.name).giving = Some(give.clone()),
            PrivateEntry::NotGiven { name, .. } => self.work_mut(name).giving = None,
            PrivateEntry::HandGiven { to, handed, activity } => {
                self.work_mut(&handed.from_name).giving = None;
                self.start(activity.clone(), Op::Hand { to: to.clone(), handed: handed.clone() });
            }
            PrivateEntry::HandRefused { handed, activity: Some(activity) } => {
                let (name, from_name) = (handed.from_name.clone(), handed.name.clone());
                let returned = Handed { returned: true, name, from_name, ..handed.clone() };
                self.start(activity.clone(), Op::Hand { to: handed.from.clone(), handed: returned });
            }
            // What was given to no hand yet needs another one.
            PrivateEntry::HandLost { .. } => {
                let waits = |pending: &Pending| pending.op.waits_for().filter(|_| !pending.dispatched).cloned();
                let waited: BTreeSet<HandName> = self.pending.iter().filter_map(waits).collect();
                for name in &waited {
                    if self.hand(name).is_none() {
                        self.provision(name, self.summary.n);
                    }
                }
            }
            // In the summary.
            PrivateEntry::Changed { .. }
            | PrivateEntry::HandProvisioned { .. }
            | PrivateEntry::HandBack { .. }
            | PrivateEntry::HandTaken { .. }
            | PrivateEntry::HandRefused { activity: None, .. }
            | PrivateEntry::HandReleased { .. }
            | PrivateEntry::RunSealed { .. }
            | PrivateEntry::ToolsListed { .. }
            | PrivateEntry::Outputs { .. } => {}
        }
    }

    fn start(&mut self, activity: String, op: Op) {
        self.pending.push(Pending { activity, op, cancelling: false, dispatched: false });
    }

    fn closed(&mut self, activity: &str, how: &Closed, intake: &Intake) {
        let Some(at) = self.pending.iter().position(|pending| pending.activity == activity) else { return };
        let pending = self.pending.remove(at);
        let outcome = intake.closing(activity).and_then(|closing| closing.outcome.as_ref());
        match (pending.op, how, outcome) {
            (Op::CallModel { .. }, Closed::Finished, Some(Outcome::Model { digest, .. })) => self.model_closed(digest),
            (Op::Compact { .. }, Closed::Finished, Some(Outcome::Model { digest, .. })) => self.compacted(digest),
            (Op::CallModel { .. } | Op::Compact { .. }, Closed::Failed { message }, _) => {
                let failure = Failure::transient(FailureKind::Lost, message.clone());
                self.model_closed(&ModelDigest::Failed { failure });
            }
            (Op::Execute { call }, Closed::Finished, Some(Outcome::Tool { digest })) => {
                if is_hands(&call) {
                    let work = self.work_mut(&call.hand);
                    (work.uncollected, work.restored) = (true, false);
                }
                self.answered(digest.clone());
            }
            _ => {}
        }
    }

    fn model_closed(&mut self, digest: &ModelDigest) {
        match digest {
            ModelDigest::Answer { usage, calls, .. } => {
                self.tries = 0;
                self.calls.clone_from(calls);
                self.results.clear();
                self.marks.compactions = 0;
                self.context = Context { tokens: usage.context_tokens() + usage.output_tokens, bytes_since: 0 };
            }
            ModelDigest::Failed { .. } => self.tries += 1,
        }
        self.last = Some(digest.clone());
    }

    /// How much the kept rounds hold is told by the next answer.
    fn compacted(&mut self, digest: &ModelDigest) {
        match digest {
            ModelDigest::Answer { usage, .. } if context::is_summary(digest) => {
                self.tries = 0;
                self.context = Context { tokens: usage.output_tokens, bytes_since: 0 };
            }
            ModelDigest::Answer { .. } => {
                let failure =
                    Failure::transient(FailureKind::Provider, "the model was asked for a summary and wrote none");
                self.model_closed(&ModelDigest::Failed { failure });
            }
            ModelDigest::Failed { .. } => self.model_closed(digest),
        }
    }

    /// The step of a commit: what is to be done becomes pending.
    pub fn step(&mut self, step: &Step, n: u64, now: Time) {
        match step {
            Step::CallModel { strategy, suffix } => {
                self.round += 1;
                self.last = None;
                let strategy = self.strategy(strategy.as_ref());
                let to = self.summary.position;
                let from = context::reach(&strategy, &self.marks);
                let slice = Slice { from, to, keep: self.marks.keep(from) };
                self.marks.asked(to);
                let span_id = span_start_id(&self.session_id, n);
                let op = Op::CallModel { span_id, slice, strategy, suffix: suffix.clone() };
                self.start(format!("model-{n}"), op);
            }
            Step::Compact { strategy } => {
                self.last = None;
                let strategy = self.strategy(strategy.as_ref());
                let from = context::reach(&strategy, &self.marks);
                let to = context::summary_end(&strategy, &self.marks, self.summary.position);
                let slice = Slice { from, to, keep: self.marks.keep(from) };
                let op = Op::Compact { span_id: span_start_id(&self.session_id, n), slice, strategy };
                self.start(format!("compact-{n}"), op);
            }
            Step::Execute { calls } => {
                let (chosen, rest): (Vec<_>, Vec<_>) =
                    std::mem::take(&mut self.calls).into_iter().partition(|call| calls.contains(&call.tool_use_id));
                self.calls = rest;
                for call in chosen {
                    self.dispatch(call, n);
                }
                self.provision_if_needed(n);
            }
            Step::Provision {} => {
                let main = HandName::default();
                if self.hand(&main).is_none() {
                    self.provision(&main, n);
                }
            }
            Step::Wait { until } => {
                // A failure that is waited out is answered; an answer stays until a step uses it.
                if matches!(self.last, Some(ModelDigest::Failed { .. })) {
                    self.last = None;
                }
                self.start(format!("timer-{n}"), Op::Timer { until: (*until).max(now) });
            }
            Step::Idle { .. } => {
                self.last = None;
                self.tries = 0;
            }
            Step::Fail { .. } => self.last = None,
            Step::Continue {} => {}
        }
    }

    /// The one that a step names, or the one that holds now.
    pub fn strategy(&self, named: Option<&StrategyRef>) -> StrategyRef {
        named.unwrap_or_else(|| self.strategy_now()).clone()
    }

    /// The turn's, or the agent's.
    pub fn strategy_now(&self) -> &StrategyRef {
        self.turn_strategy.as_ref().unwrap_or(&self.summary.attributes.agent.strategy)
    }

    /// Puts one call where it belongs: to a hand, or to whoever has to answer.
    fn dispatch(&mut self, call: Call, n: u64) {
        let on = match (&call.kind, call.permission) {
            (ToolKind::Custom, _) => Some(Blocker::Custom),
            (_, Permission::Ask) => Some(Blocker::Ask),
            (ToolKind::Builtin, _) if self.summary.attributes.self_hosted => Some(Blocker::SelfHosted),
            _ => None,
        };
        match on {
            Some(on) => self.blocked.push(Blocked { call, on }),
            None => self.execute(call, n),
        }
    }

    fn execute(&mut self, call: Call, n: u64) {
        let index = self.pending.iter().filter(|pending| matches!(pending.op, Op::Execute { .. })).count();
        self.start(format!("execute-{n}-{index}"), Op::Execute { call });
    }

    /// All blockers are answered: the allowed calls go on their way.
    fn release_allowed(&mut self) {
        let n = self.summary.n;
        for blocked in std::mem::take(&mut self.blocked) {
            match blocked.on {
                Blocker::Allowed if self.summary.attributes.self_hosted && blocked.call.kind == ToolKind::Builtin => {
                    self.blocked.push(Blocked { call: blocked.call, on: Blocker::SelfHosted });
                }
                Blocker::Allowed => self.execute(blocked.call, n),
                _ => self.blocked.push(blocked),
            }
        }
        self.provision_if_needed(n);
    }

    fn provision_if_needed(&mut self, n: u64) {
        let waited: BTreeSet<HandName> =
            self.pending.iter().filter_map(|pending| pending.op.waits_for()).cloned().collect();
        for name in &waited {
            if self.hand(name).is_none() {
                self.provision(name, n);
            }
        }
    }

    fn provision(&mut self, name: &HandName, n: u64) {
        if self.is_pending(|op| matches!(op, Op::Provision { name: made, .. } if made == name)) {
            return;
        }
        let hand = domain::ids::derive(domain::ids::prefix::HAND, &[&self.session_id, &self.hands.to_string()]);
        self.hands += 1;
        self.start(name.activity(&format!("provision-{n}")), Op::Provision { hand, name: name.clone() });
    }
}

/// Run in a hand: not by an MCP server out in the network, nor by the worker that reads the log or fetches a page.
pub fn is_hands(call: &Call) -> bool {
    !matches!(call.kind, ToolKind::Mcp { inside: None, .. } | ToolKind::Log | ToolKind::Web)
}

/// Id of the span that a decision opens with `CallModel` or `Compact`.
pub fn span_start_id(session_id: &str, n: u64) -> String {
    domain::ids::derive(domain::ids::prefix::EVENT, &[session_id, "span", &n.to_string()])
}
