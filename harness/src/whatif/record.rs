//! What a recorded session can answer: its inputs turn by turn, its model answers, its tool results.

use super::{
    Error, Move,
    compare::{self, Origin, Origins},
};
use crate::{
    SessionState,
    intake::{Closing, Outcome},
    replay::{self, Requested},
    state::{Op, Slice},
};
use domain::{
    Committed, EventBody, PrivateEntry, Status, Step, Take,
    agent::StrategyRef,
    commit::Closed,
    committed::{ActivityResult, Recording},
    content::BlobRef,
    event::Permission,
    model::Purpose,
    outcome::{Call, ListOutcome, ModelDigest, ToolDigest},
    session::{LogEntry, Mail},
};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

pub struct Record {
    /// Before the turn began, at rest.
    pub before: SessionState,
    /// The log up to there.
    pub log: Vec<LogEntry>,
    /// What was sent, turn by turn, from this one on.
    pub inputs: VecDeque<Vec<Mail>>,
    pub moves: Vec<Move>,
    pub origins: Origins,
    /// The commits from the turn on.
    pub commits: Vec<Committed>,
    /// Mail that is no input and no answer.
    pub left_out: u64,
    requests: VecDeque<Request>,
    calls: VecDeque<Recalled>,
    lists: VecDeque<Result<ListOutcome, Closed>>,
    /// Calls that have.
    ended: usize,
}

/// A model request and what became of it.
struct Request {
    made: Shape,
    /// Known of requests that were answered.
    sha256: Option<String>,
    end: Option<ModelEnd>,
}

/// What a request is made of. Two that are made of the same are the same as long as the logs before them are.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    pub purpose: Purpose,
    pub slice: Slice,
    pub strategy: StrategyRef,
    pub suffix: Vec<Value>,
    pub snapshot: BlobRef,
}

/// How an activity ended that asked a model.
#[derive(Clone, Debug)]
pub enum ModelEnd {
    Answered(Box<(ModelDigest, ActivityResult)>),
    /// Its worker was lost for good.
    Failed(Closed),
}

/// A tool call and what became of it.
pub struct Recalled {
    /// Which answer of the model it was in.
    answer: usize,
    name: String,
    input_sha256: String,
    tool_use_id: String,
    pub end: Option<CallEnd>,
    /// How many had ended before it.
    ended: usize,
    pub confirmation: Option<Mail>,
}

impl Recalled {
    fn was_run(&self) -> bool {
        self.end.is_some() || self.confirmation.is_some()
    }
}

/// How a tool call ended.
#[derive(Clone, Debug)]
pub enum CallEnd {
    Hand(Box<(ToolDigest, ActivityResult)>),
    /// Its hand's host was gone.
    Lost(Closed),
    /// Somebody outside answered.
    Client(Box<Mail>),
}

impl Record {
    /// From `turn` on, or from the turn before it that began at rest.
    pub fn of(recording: &Recording, turn: u64) -> Result<Self, Error> {
        let mut found: Option<Record> = None;
        let mut turns = 0;
        let requests = replay::requests(recording)?;
        let by_commit: BTreeMap<u64, &Requested> = requests.iter().map(|made| (made.commit, made)).collect();
        replay::walk(recording, |state, intake, committed| {
            let begins = begins(committed);
            turns = state.summary.turn + begins;
            let is_at_rest = state.summary.status == Status::Idle && begins == 1;
            if is_at_rest && turns <= turn {
                found = Some(Record::begin(state));
            }
            if let Some(record) = &mut found {
                record.note(state, &intake.closed, committed, by_commit.get(&committed.commit.n));
            }
            Ok(())
        })?;
        let session_id = recording.session_id.clone();
        let mut record =
            found.filter(|_| (1..=turns).contains(&turn)).ok_or(Error::NoTurn { session_id, turn, turns })?;
        let until = record.before.summary.position;
        let before = recording.commits.iter().take_while(|committed| committed.position < until);
        record.log = before.flat_map(Committed::entries).filter(|entry| entry.position < until).collect();
        Ok(record)
    }

    fn begin(before: &SessionState) -> Self {
        Record {
            before: before.clone(),
            log: Vec::new(),
            inputs: VecDeque::new(),
            moves: Vec::new(),
            origins: Origins::new(),
            commits: Vec::new(),
            left_out: 0,
            requests: VecDeque::new(),
            calls: VecDeque::new(),
            lists: VecDeque::new(),
            ended: 0,
        }
    }

    fn note(&mut self, state: &SessionState, closed: &[Closing], committed: &Committed, made: Option<&&Requested>) {
        self.mail(committed);
        for closing in closed {
            let result = committed.result(&closing.activity).cloned().unwrap_or_default();
            match (state.pending(&closing.activity).map(|pending| &pending.op), &closing.outcome) {
                (Some(Op::CallModel { .. } | Op::Compact { .. }), outcome) => {
                    self.model_ended(closing, outcome.as_ref(), result)
                }
                (Some(Op::Execute { call }), outcome) => {
                    let end = match outcome {
                        Some(Outcome::Tool { digest }) => Some(CallEnd::Hand(Box::new((digest.clone(), result)))),
                        _ => Some(closing.how.clone()).filter(|how| *how != Closed::Cancelled).map(CallEnd::Lost),
                    };
                    self.ended(&call.tool_use_id, end);
                }
                (Some(Op::ListTools { .. }), Some(Outcome::List { outcome })) => {
                    self.lists.push_back(Ok(outcome.clone()))
                }
                (Some(Op::ListTools { .. }), _) if closing.how != Closed::Cancelled => {
                    self.lists.push_back(Err(closing.how.clone()));
                }
                _ => {}
            }
        }
        let calls = |ids: &[String]| {
            let open = state.calls.iter().chain(closed.iter().filter_map(answer_of).flatten());
            open.filter(|call| ids.contains(&call.tool_use_id)).cloned().collect::<Vec<Call>>()
        };
        if let Some(Requested { purpose, slice, strategy, suffix, agent, .. }) = made {
            let made = Shape {
                purpose: *purpose,
                slice: slice.clone(),
                strategy: strategy.clone(),
                suffix: suffix.clone(),
                snapshot: agent.snapshot.clone(),
            };
            self.origins.insert(self.moves.len(), Origin::Request(made.clone()));
            self.requests.push_back(Request { made, sha256: None, end: None });
        }
        if let Step::Execute { calls } = &committed.commit.step {
            self.origins.insert(self.moves.len(), Origin::Calls(calls.clone()));
        }
        let (turn, round) =
            made.map_or((state.summary.turn + begins(committed), state.round), |made| (made.turn, made.round));
        self.moves.extend(compare::moved(turn, round, &committed.commit.step, calls));
        self.commits.push(committed.clone());
    }

    fn mail(&mut self, committed: &Committed) {
        let mut is_beginning = false;
        for take in &committed.commit.takes {
            match take {
                Take::Private { entry: PrivateEntry::TurnBegun {} } => {
                    self.inputs.push_back(Vec::new());
                    is_beginning = true;
                }
                Take::Accepted { id, ignored: false } => {
                    let Some(mail) = committed.mail.iter().find(|mail| mail.id() == id) else { continue };
                    let Mail::Event { event } = mail else { continue };
                    match &event.body {
                        EventBody::UserMessage { .. } | EventBody::SystemMessage { .. } if is_beginning => {
                            self.inputs.back_mut().into_iter().for_each(|turn| turn.push(mail.clone()));
                        }
                        EventBody::UserToolConfirmation { tool_use_id, .. } => {
                            if let Some(known) = self.recalled(tool_use_id) {
                                known.confirmation = Some(mail.clone());
                            }
                        }
                        EventBody::UserCustomToolResult { custom_tool_use_id: id, .. }
                        | EventBody::UserToolResult { tool_use_id: id, .. } => {
                            self.ended(id, Some(CallEnd::Client(Box::new(mail.clone()))));
                        }
                        _ => self.left_out += 1,
                    }
                }
                other => self.left_out += u64::from(other.mail().is_some()),
            }
        }
    }

    fn model_ended(&mut self, closing: &Closing, outcome: Option<&Outcome>, result: ActivityResult) {
        let end = match outcome {
            Some(Outcome::Model { digest, .. }) => {
                if let ModelDigest::Answer { calls, .. } = digest {
                    let answer = self.requests.len();
                    // The frame itself answers what is refused.
                    let run = calls.iter().filter(|call| call.refused.is_none() && call.permission != Permission::Deny);
                    self.calls.extend(run.map(|call| Recalled {
                        answer,
                        name: call.name.clone(),
                        input_sha256: call.input_sha256.clone(),
                        tool_use_id: call.tool_use_id.clone(),
                        end: None,
                        ended: 0,
                        confirmation: None,
                    }));
                }
                Some(ModelEnd::Answered(Box::new((digest.clone(), result))))
            }
            // Interrupted: nobody knows what it would have said.
            _ => Some(closing.how.clone()).filter(|how| *how != Closed::Cancelled).map(ModelEnd::Failed),
        };
        let Some(request) = self.requests.back_mut() else { return };
        if let Some(ModelEnd::Answered(answered)) = &end {
            request.sha256 = answered.1.private.as_ref().map(|private| private.recipe.request_sha256.clone());
            let Some(last) = self.moves.iter_mut().rfind(|made| matches!(made.what, compare::What::Request { .. }))
            else {
                return;
            };
            last.know(request.sha256.as_deref());
        }
        request.end = end;
    }

    fn ended(&mut self, tool_use_id: &str, end: Option<CallEnd>) {
        let before = self.ended;
        if let Some(known) = self.recalled(tool_use_id) {
            (known.end, known.ended) = (end, before);
            self.ended += 1;
        }
    }

    fn recalled(&mut self, tool_use_id: &str) -> Option<&mut Recalled> {
        self.calls.iter_mut().rfind(|known| known.tool_use_id == tool_use_id)
    }

    /// The whole log, as it went on then.
    pub fn log_to_its_end(&self) -> Vec<LogEntry> {
        self.log.iter().cloned().chain(self.commits.iter().flat_map(Committed::entries)).collect()
    }

    /// What became of this very request. `is_same_so_far`: everything before it was as it was then.
    pub fn answer(&mut self, shape: &Shape, sha256: &str, is_same_so_far: bool) -> Option<ModelEnd> {
        let is_next = self.requests.front().is_some_and(|next| match &next.sha256 {
            Some(known) => known == sha256,
            None => is_same_so_far && next.made == *shape,
        });
        let at = match is_next {
            true => 0,
            false => self.requests.iter().position(|known| known.sha256.as_deref() == Some(sha256))?,
        };
        self.requests.drain(..=at).next_back()?.end
    }

    /// What became of this call, if it is the next one; calls of one answer may come in any order.
    pub fn result(&mut self, call: &Call) -> Option<Recalled> {
        let is_it = |known: &Recalled| known.name == call.name && known.input_sha256 == call.input_sha256;
        // What was never run then, and is not run now, stands in nobody's way.
        while self.calls.front().is_some_and(|known| !known.was_run() && !is_it(known)) {
            self.calls.pop_front();
        }
        let answer = self.calls.front()?.answer;
        let at = self.calls.iter().take_while(|known| known.answer == answer).position(is_it)?;
        self.calls.remove(at)
    }

    /// Where in the order of ends this call's was. What is not known comes last.
    pub fn place(&self, call: &Call) -> usize {
        let mut known = self.calls.iter().filter(|known| known.end.is_some());
        let known = known.find(|known| known.name == call.name && known.input_sha256 == call.input_sha256);
        known.map_or(usize::MAX, |known| known.ended)
    }

    /// What MCP servers said when they were asked next, or how asking them failed.
    pub fn listed(&mut self) -> Option<Result<ListOutcome, Closed>> {
        self.lists.pop_front()
    }

    /// It was asked about, and is still to be run.
    pub fn put_back(&mut self, known: Recalled) {
        self.calls.push_front(known);
    }
}

fn begins(committed: &Committed) -> u64 {
    let begun = |take: &&Take| matches!(take, Take::Private { entry: PrivateEntry::TurnBegun {} });
    committed.commit.takes.iter().filter(begun).count() as u64
}

/// Calls of an answer that came with this very decision.
fn answer_of(closing: &Closing) -> Option<&[Call]> {
    match &closing.outcome {
        Some(Outcome::Model { digest: ModelDigest::Answer { calls, .. }, .. }) => Some(calls),
        _ => None,
    }
}
