//! The session that was not: a shell without an engine. It decides, carries out what the record can answer, and says what it
//! cannot. Its commits are whole, as a reader of a log gets them.
//!
//! Its clock is the workflow's: it moves on by what is waited for, and nobody waits.

use super::{
    Answered, End, Input, Left, Pair, Record, Report, Totals, Words,
    compare::{self, Difference, Move, Origin, Origins, Side},
    record::{CallEnd, ModelEnd, Shape},
};
use crate::{
    SessionState,
    frame::{self, Ask},
    intake::{Closing, Intake, Outcome, Waiting},
    state::{Blocked, Blocker, Op, Pending, Slice},
};
use domain::{
    Commit, Committed, Content, Event, EventBody, PrivateEntry, Status, Step, Summary, Take, Time,
    agent::{AgentFacts, HarnessRef},
    commit::{Closed, Fork},
    committed::{ActivityResult, NamedResult},
    content::BlobRef,
    event::Confirmation,
    ids,
    limits::TRIAL_TURNS_TOLD_MAX,
    model::{Purpose, Recipe},
    outcome::{Call, CollectOutcome, ListOutcome, ModelDigest, ModelOutcome, ProvisionOutcome},
    session::{Attributes, HandRef, LogEntry, Mail},
};
use serde_json::json;
use std::collections::BTreeMap;

/// A decision that does nothing would be made for ever.
const STEPS_MAX: usize = 100_000;

pub struct Trial {
    pub state: SessionState,
    began: SessionState,
    record: Record,
    log: Vec<LogEntry>,
    committed: Vec<Committed>,
    mailbox: Vec<Mail>,
    closed: Vec<Closing>,
    results: BTreeMap<String, ActivityResult>,
    now: Time,
    turns_left: u64,
    moves: Vec<Move>,
    origins: Origins,
    answered: Answered,
    end: Option<End>,
    /// The last answer was a model's own failure: what the harness waits for has to be waited for.
    is_failing: bool,
}

/// What a trial cannot go on without.
#[derive(Debug)]
pub enum Need {
    /// A model's answer: [`Trial::recall`] first, then a model, or [`Trial::stop`].
    Request(Box<Asked>),
    /// A model that was really asked is to be left alone for so many milliseconds.
    Pause { ms: u64 },
    /// Nothing: it is over.
    Nothing,
}

/// A model request that is to be made.
#[derive(Clone, Debug)]
pub struct Asked {
    pub activity: String,
    pub shape: Shape,
    pub agent: AgentFacts,
    pub tries: u32,
    /// What of the log the strategy is given.
    pub entries: Vec<LogEntry>,
}

impl Trial {
    /// At the beginning of its turn, with what is to be otherwise already in `attributes` and `harness`.
    pub fn new(record: Record, input: &Input, mut attributes: Attributes, harness: HarnessRef) -> Self {
        // Nothing is in its hand, so nothing of it is kept.
        attributes.tuning.park_after_ms = 0;
        let before = record.before.clone();
        let now = before.summary.last_time;
        let turns_left = turns(&before.summary, input);
        let (parent, session_id) = (before.session_id.clone(), input.id.clone());
        let fork = Fork { parent, session_id, created_at: now, attributes, harness, goes_on: false };
        let began = before.forked(fork);
        let mut trial = Trial {
            state: began.clone(),
            began,
            log: record.log.clone(),
            record,
            committed: Vec::new(),
            mailbox: Vec::new(),
            closed: Vec::new(),
            results: BTreeMap::new(),
            now,
            turns_left,
            moves: Vec::new(),
            origins: Origins::new(),
            answered: Answered::default(),
            end: None,
            is_failing: false,
        };
        trial.next_turn();
        trial
    }

    /// As far as it goes without a model.
    pub fn go_on(&mut self, ask: &mut dyn Ask) -> Need {
        for _ in 0..STEPS_MAX {
            if self.end.is_some() {
                return Need::Nothing;
            }
            let intake = self.intake();
            if frame::is_due(&self.state, &intake) {
                self.decide(&intake, ask);
                continue;
            }
            // A call waits for its hand here too: what is answered before it was given to anybody was not run.
            let is_started = |pending: &&Pending| self.state.is_startable(&pending.op);
            let started = self.state.pending.iter().filter(is_started);
            // Calls that ran side by side end in the order in which they ended then: requests name their results so.
            let place = |pending: &&Pending| match &pending.op {
                Op::Execute { call } => self.record.place(call),
                _ => 0,
            };
            let pending = started.filter(|pending| !self.is_closed(&pending.activity)).min_by_key(place).cloned();
            match pending {
                Some(Pending { activity, op: op @ (Op::CallModel { .. } | Op::Compact { .. }), .. }) => {
                    return Need::Request(Box::new(self.asked(activity, op)));
                }
                Some(Pending { activity, op: Op::Timer { until }, .. }) => {
                    let ms = until.since(self.now);
                    self.now = self.now.max(until);
                    self.finish(&activity, Ok(Outcome::Done {}));
                    if self.is_failing && ms > 0 {
                        return Need::Pause { ms };
                    }
                }
                Some(pending) => self.carry_out(pending),
                None if self.state.summary.status == Status::RequiresAction => self.answer_from_outside(),
                None if self.state.summary.status == Status::Idle && self.turns_left > 0 && self.next_turn() => {}
                None => self.end = Some(End::Complete {}),
            }
        }
        self.end = Some(End::Limit { turn: self.state.summary.turn });
        Need::Nothing
    }

    fn next_turn(&mut self) -> bool {
        self.turns_left = self.turns_left.saturating_sub(1);
        let inputs = self.record.inputs.pop_front().unwrap_or_default();
        self.mailbox.extend(inputs);
        !self.mailbox.is_empty()
    }

    fn intake(&self) -> Intake {
        Intake { now: self.now, mail: self.mailbox.iter().map(Waiting::of).collect(), closed: self.closed.clone() }
    }

    fn is_closed(&self, activity: &str) -> bool {
        self.closed.iter().any(|closing| closing.activity == activity)
    }

    fn decide(&mut self, intake: &Intake, ask: &mut dyn Ask) {
        let commit = frame::decide(&self.state, intake, ask);
        let open: Vec<Call> = self.state.calls.iter().chain(intake.closed.iter().flat_map(calls)).cloned().collect();
        let found = |ids: &[String]| open.iter().filter(|call| ids.contains(&call.tool_use_id)).cloned().collect();
        self.keep(&commit);
        self.state.apply(&commit, intake);
        let (turn, round) = (self.state.summary.turn, self.state.round);
        if let Step::Execute { calls } = &commit.step {
            self.origins.insert(self.moves.len(), Origin::Calls(calls.clone()));
        }
        self.moves.extend(compare::moved(turn, round, &commit.step, found));
        self.closed.clear();
        self.mailbox.retain(|mail| !commit.takes.iter().any(|take| take.mail() == Some(mail.id())));
    }

    /// The commit with everything that it names.
    fn keep(&mut self, commit: &Commit) {
        let is_taken = |mail: &&Mail| commit.takes.iter().any(|take| take.mail() == Some(mail.id()));
        let closed = commit.takes.iter().filter_map(|take| match take {
            Take::Private { entry: PrivateEntry::ActivityClosed { activity, .. } } => Some(activity),
            _ => None,
        });
        let results = closed.filter_map(|activity| {
            Some(NamedResult { activity: activity.clone(), result: self.results.get(activity)?.clone() })
        });
        let committed = Committed {
            commit: commit.clone(),
            position: self.state.summary.position,
            mail: self.mailbox.iter().filter(is_taken).cloned().collect(),
            results: results.collect(),
        };
        self.log.extend(committed.entries());
        self.committed.push(committed);
    }

    fn finish(&mut self, activity: &str, outcome: Result<Outcome, Closed>) {
        let activity = activity.to_owned();
        self.closed.push(match outcome {
            Ok(outcome) => Closing { activity, how: Closed::Finished, outcome: Some(outcome) },
            Err(how) => Closing { activity, how, outcome: None },
        });
    }

    fn asked(&self, activity: String, op: Op) -> Asked {
        let agent = self.state.summary.attributes.agent.clone();
        let (purpose, slice, strategy, suffix) = match op {
            Op::CallModel { slice, strategy, suffix, .. } => (Purpose::Answer, slice, strategy, suffix),
            Op::Compact { slice, strategy, .. } => (Purpose::Summary, slice, strategy, Vec::new()),
            other => unreachable!("only requests are asked for: {other:?}"),
        };
        let entries = crate::context::entries(&self.log, &slice);
        let shape = Shape { purpose, slice, strategy, suffix, snapshot: agent.snapshot.clone() };
        Asked { activity, shape, agent, tries: self.state.tries, entries }
    }

    /// Lets the record answer. False if it cannot.
    pub fn recall(&mut self, asked: &Asked, sha256: &str) -> bool {
        if let Some(last) = self.moves.last_mut() {
            last.know(Some(sha256));
            self.origins.insert(self.moves.len() - 1, Origin::Request(asked.shape.clone()));
        }
        let parting = compare::part(&self.record.moves, &self.moves);
        let is_same_so_far = parting.step.is_none() && parting.request.is_none() && parting.same == self.moves.len();
        let Some(end) = self.record.answer(&asked.shape, sha256, is_same_so_far) else { return false };
        self.answered.requests_recorded += 1;
        self.is_failing = false;
        match end {
            ModelEnd::Answered(answered) => {
                let (digest, mut result) = *answered;
                if let Some(private) = &mut result.private {
                    // The bytes are the same, and here they were made like this.
                    let Shape { purpose, slice, strategy, suffix, snapshot } = asked.shape.clone();
                    let Slice { from, to, keep } = slice;
                    let known = private.recipe.clone();
                    private.recipe = Recipe { from, to, keep, purpose, strategy, suffix, snapshot, ..known };
                }
                let events = result.events.len();
                self.results.insert(asked.activity.clone(), result);
                self.finish(&asked.activity, Ok(Outcome::Model { digest, events }));
            }
            ModelEnd::Failed(how) => self.finish(&asked.activity, Err(how)),
        }
        true
    }

    /// What a model really said.
    pub fn told(&mut self, asked: &Asked, outcome: ModelOutcome) {
        let ModelOutcome { digest, events, private } = outcome;
        self.answered.requests_live += 1;
        self.is_failing = matches!(digest, ModelDigest::Failed { .. });
        let count = events.len();
        let result = ActivityResult { events, private, rest: json!({"digest": digest}) };
        self.results.insert(asked.activity.clone(), result);
        self.finish(&asked.activity, Ok(Outcome::Model { digest, events: count }));
    }

    /// Neither the record nor a model answers this request.
    pub fn stop(&mut self, bytes: u64) {
        let (turn, round) = (self.state.summary.turn, self.state.round);
        self.end = Some(End::Request { turn, round, bytes });
    }

    /// A model was asked as often as it may be.
    pub fn exhaust(&mut self) {
        self.end = Some(End::Limit { turn: self.state.summary.turn });
    }

    /// How often a model was really asked.
    pub fn requests_live(&self) -> u64 {
        self.answered.requests_live
    }

    fn carry_out(&mut self, pending: Pending) {
        let activity = pending.activity.as_str();
        match pending.op {
            Op::Execute { call } => self.execute(activity, &call),
            // Nothing runs in it.
            Op::Provision { hand, .. } => {
                let hand = HandRef { hand, host: "record".to_owned(), epoch: 1 };
                let outcome = ProvisionOutcome::Ready { hand, problems: Vec::new() };
                self.results.insert(activity.to_owned(), ActivityResult { rest: json!(outcome), ..Default::default() });
                self.finish(activity, Ok(Outcome::Provision { outcome }));
            }
            Op::Collect { .. } => {
                let outcome = CollectOutcome { listing: None };
                self.results.insert(activity.to_owned(), ActivityResult { rest: json!(outcome), ..Default::default() });
                self.finish(activity, Ok(Outcome::Collect { outcome }));
            }
            Op::ListTools { .. } => match self.record.listed() {
                Some(Err(how)) => self.finish(activity, Err(how)),
                known => {
                    // No server is asked: what the session knows of them by now is all there is.
                    let nothing = || ListOutcome { listed: None, problems: Vec::new(), hand_lost: false };
                    let outcome = known.and_then(Result::ok).unwrap_or_else(nothing);
                    let result = ActivityResult { rest: json!(outcome), ..Default::default() };
                    self.results.insert(activity.to_owned(), result);
                    self.finish(activity, Ok(Outcome::List { outcome }));
                }
            },
            Op::Release { .. }
            | Op::Rest { .. }
            | Op::Park { .. }
            | Op::Discard { .. }
            | Op::Hand { .. }
            | Op::Seal { .. }
            | Op::Timer { .. }
            | Op::CallModel { .. }
            | Op::Compact { .. } => {
                self.finish(activity, Ok(Outcome::Done {}));
            }
        }
    }

    fn execute(&mut self, activity: &str, call: &Call) {
        match self.record.result(call).and_then(|known| known.end) {
            Some(CallEnd::Hand(known)) => {
                let (mut digest, mut result) = *known;
                digest.tool_use_id.clone_from(&call.tool_use_id);
                result.rest = json!({"digest": digest});
                result.events = result.events.into_iter().map(|event| to(event, &call.tool_use_id)).collect();
                self.answered.calls_recorded += 1;
                self.results.insert(activity.to_owned(), result);
                self.finish(activity, Ok(Outcome::Tool { digest }));
            }
            Some(CallEnd::Lost(how)) => {
                self.answered.calls_recorded += 1;
                self.finish(activity, Err(how));
            }
            Some(CallEnd::Client(_)) | None => self.miss(call),
        }
    }

    /// Confirmations and results of clients, as they came then.
    fn answer_from_outside(&mut self) {
        let waits = self.state.blocked.iter().filter(|blocked| blocked.on != Blocker::Allowed);
        let waits = waits.min_by_key(|blocked| self.record.place(&blocked.call)).cloned();
        let Some(blocked) = waits else { return self.end = Some(End::Complete {}) };
        match self.known_answer(&blocked) {
            Some(answer) => self.mailbox.push(answer),
            None => self.miss(&blocked.call),
        }
    }

    /// What the record has from outside for a call.
    fn known_answer(&mut self, blocked: &Blocked) -> Option<Mail> {
        let known = self.record.result(&blocked.call)?;
        let mail = match blocked.on {
            Blocker::Ask => {
                let confirmation = known.confirmation.clone()?;
                // The call itself is asked for next.
                if is_allowed(&confirmation) {
                    self.record.put_back(known);
                }
                Some(confirmation)
            }
            Blocker::Custom | Blocker::SelfHosted => match known.end {
                Some(CallEnd::Client(mail)) => Some(*mail),
                _ => None,
            },
            Blocker::Allowed => None,
        };
        let Some(Mail::Event { event }) = mail else { return None };
        self.answered.calls_recorded += u64::from(blocked.on != Blocker::Ask);
        Some(Mail::Event { event: to(event, &blocked.call.tool_use_id) })
    }

    /// The record does not answer a call. Whoever goes on is not to wait for what it does answer beside it.
    fn miss(&mut self, call: &Call) {
        for blocked in self.state.blocked.clone() {
            if let Some(answer) = self.known_answer(&blocked) {
                return self.mailbox.push(answer);
            }
        }
        let (turn, round) = (self.state.summary.turn, self.state.round);
        self.end = Some(End::Call { turn, round, name: call.name.clone() });
    }

    /// What a session needs that makes the call which the record could not answer. `words`: as for [`Trial::report`].
    pub fn left(&self, input: &Input, words: &BTreeMap<String, bool>) -> Option<Left> {
        let Some(End::Call { .. }) = self.end else { return None };
        let turns = usize::try_from(self.turns_left).unwrap_or(usize::MAX);
        let words = Words { expected: input.expect.as_deref(), kept: words };
        let pairs = self.pairs(input, &mut |last| words.say(last));
        Some(Left {
            began: self.began.clone(),
            state: self.state.clone(),
            commits: self.committed.clone(),
            inputs: self.record.inputs.iter().take(turns).cloned().collect(),
            recorded: pairs.into_iter().map(|pair| pair.recorded).collect(),
            kept: Vec::new(),
        })
    }

    /// Both sides turn by turn. `says`: what of what was expected the last message of a turn says.
    fn pairs(&self, input: &Input, says: &mut dyn FnMut(Option<&Content>) -> Option<bool>) -> Vec<Pair> {
        let before = &self.record.before.summary;
        let last = before.turn.saturating_add(turns(before, input));
        let [recorded, tried] =
            [&self.record.commits, &self.committed].map(|commits| compare::sums(commits, before.turn, last, says));
        compare::pairs(&recorded, &tried)
    }

    /// Last messages of turns that are kept by reference. Whether they say what was expected, [`Trial::report`] is told.
    pub fn last_words(&self, input: &Input) -> BTreeMap<String, BlobRef> {
        let mut words = BTreeMap::new();
        self.pairs(input, &mut |last| {
            words.extend(compare::by_reference(last));
            None
        });
        words
    }

    /// Both sides of the first other step and of the first other request, where both sides do the same kind of thing: of a
    /// [`Report`], what `changes` are made of.
    pub fn sides(&self) -> [Option<(Side, Side)>; 2] {
        let parting = compare::part(&self.record.moves, &self.moves);
        if parting.step.is_none() && parting.request.is_none() {
            return [None, None];
        }
        let log = self.record.log_to_its_end();
        [parting.step, parting.request].map(|at| {
            let at = at?;
            let recorded = Side::of(self.record.origins.get(&at)?, &log);
            let tried = Side::of(self.origins.get(&at)?, &self.log);
            recorded.is_like(&tried).then_some((recorded, tried))
        })
    }

    /// By which strategies requests were made, in the order in which they came up.
    fn strategies(&self) -> Vec<String> {
        let mut strategies: Vec<String> = Vec::new();
        for origin in self.origins.values() {
            let Origin::Request(Shape { strategy, .. }) = origin else { continue };
            let named = format!("{}@{}", strategy.name, strategy.version);
            if !strategies.contains(&named) {
                strategies.push(named);
            }
        }
        strategies
    }

    /// `words`: of [`Trial::last_words`], which say what was expected. Of one that is not among them nobody knows.
    pub fn report(&self, input: &Input, words: &BTreeMap<String, bool>) -> Report {
        let before = &self.record.before.summary;
        let parting = compare::part(&self.record.moves, &self.moves);
        let difference = |at: usize| Difference::of(&self.record.moves, &self.moves, at);
        let words = Words { expected: input.expect.as_deref(), kept: words };
        let mut turns = self.pairs(input, &mut |last| words.say(last));
        let totals = Totals::of(&turns);
        turns.truncate(TRIAL_TURNS_TOLD_MAX);
        let summary = &self.state.summary;
        let agent = &summary.attributes.agent;
        Report {
            session_id: input.session.session_id.clone(),
            turn: before.turn + 1,
            position: before.position,
            harness: summary.harness.clone(),
            model: agent.model.clone(),
            strategy: agent.strategy.clone(),
            strategies: self.strategies(),
            shims_off: agent.shims_off.clone(),
            turns,
            totals: Some(totals),
            same_steps: parting.same as u64,
            first_step: parting.step.map(difference),
            first_request: parting.request.map(difference),
            answered: self.answered,
            end: self.end.clone().unwrap_or(End::Complete {}),
            left_out: self.record.left_out,
            left: None,
        }
    }
}

/// How many turns are gone through: those that were asked for, and those before them that they cannot be parted from.
fn turns(before: &Summary, input: &Input) -> u64 {
    let early = input.turn.saturating_sub(before.turn + 1);
    input.turns.map_or(u64::MAX, |turns| turns.saturating_add(early))
}

fn calls(closing: &Closing) -> &[Call] {
    match &closing.outcome {
        Some(Outcome::Model { digest: ModelDigest::Answer { calls, .. }, .. }) => calls,
        _ => &[],
    }
}

fn is_allowed(confirmation: &Mail) -> bool {
    matches!(confirmation, Mail::Event { event } if matches!(
        event.body, EventBody::UserToolConfirmation { result: Confirmation::Allow, .. }
    ))
}

/// A result or confirmation that was one call's, as another one's.
fn to(event: Event, use_id: &str) -> Event {
    let Event { id, mut body, processed_at } = event;
    let known = match &mut body {
        EventBody::AgentToolResult { tool_use_id, .. }
        | EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, .. }
        | EventBody::UserToolResult { tool_use_id, .. }
        | EventBody::UserToolConfirmation { tool_use_id, .. }
        | EventBody::UserCustomToolResult { custom_tool_use_id: tool_use_id, .. } => tool_use_id,
        _ => return Event { id, body, processed_at },
    };
    if known == use_id {
        return Event { id, body, processed_at };
    }
    use_id.clone_into(known);
    Event { id: ids::derive(ids::prefix::EVENT, &[&id, use_id]), body, processed_at }
}
