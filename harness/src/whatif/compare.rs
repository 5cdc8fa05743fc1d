//! Both sides of a what-if in the same words: steps in order, and sums turn by turn.

use super::{changes::Changes, record::Shape};
use crate::context;
use domain::{
    Committed, EventBody, PrivateEntry, Step, Take, Usage,
    commit::IdleReason,
    content::{BlobRef, Block, Content},
    event::StopReason,
    model::Purpose,
    outcome::Call,
    rollout::Price,
    session::LogEntry,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A step of a harness, as it is compared: what was asked for, not how it was put.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Move {
    pub turn: u64,
    pub round: u32,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum What {
    Request {
        purpose: Purpose,
        /// Of the strategy that makes it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        strategy: Option<String>,
        /// Messages that the harness adds.
        suffix: usize,
        /// Of its bytes; unknown of a recorded request that was never answered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    Execute {
        /// Tool and sha-256 of the input, in order.
        calls: Vec<(String, String)>,
    },
    Provision {},
    Wait {},
    Idle {
        reason: IdleReason,
    },
    Fail {},
}

impl Move {
    /// The bytes of the request are known now.
    pub fn know(&mut self, of: Option<&str>) {
        if let What::Request { sha256, .. } = &mut self.what {
            *sha256 = of.map(str::to_owned);
        }
    }

    /// The same step, whatever it sends.
    fn is_like(&self, other: &Move) -> bool {
        match (&self.what, &other.what) {
            (What::Request { purpose, .. }, What::Request { purpose: other, .. }) => purpose == other,
            (one, other) => one == other,
        }
    }

    fn sha256(&self) -> Option<&str> {
        match &self.what {
            What::Request { sha256, .. } => sha256.as_deref(),
            _ => None,
        }
    }
}

/// The step of one commit, if a harness decided it. `calls` finds open calls by id.
pub fn moved(turn: u64, round: u32, step: &Step, calls: impl Fn(&[String]) -> Vec<Call>) -> Option<Move> {
    let request = |purpose, strategy: &Option<domain::agent::StrategyRef>, suffix| What::Request {
        purpose,
        strategy: strategy.as_ref().map(|strategy| format!("{}@{}", strategy.name, strategy.version)),
        suffix,
        sha256: None,
    };
    let what = match step {
        Step::CallModel { strategy, suffix } => request(Purpose::Answer, strategy, suffix.len()),
        Step::Compact { strategy } => request(Purpose::Summary, strategy, 0),
        Step::Execute { calls: ids } => {
            What::Execute { calls: calls(ids).into_iter().map(|call| (call.name, call.input_sha256)).collect() }
        }
        Step::Provision {} => What::Provision {},
        Step::Wait { .. } => What::Wait {},
        Step::Idle { reason } => What::Idle { reason: reason.clone() },
        Step::Fail { .. } => What::Fail {},
        Step::Continue {} => return None,
    };
    Some(Move { turn, round, what })
}

/// One place at which both sides part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    pub turn: u64,
    pub round: u32,
    pub recorded: Option<Move>,
    pub tried: Move,
    /// What is otherwise in the request, or in the inputs of the calls; only where both sides make one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
}

impl Difference {
    /// At step `at` of those that were tried.
    pub fn of(recorded: &[Move], tried: &[Move], at: usize) -> Self {
        let tried = tried[at].clone();
        let recorded = recorded.get(at).cloned();
        Difference { turn: tried.turn, round: tried.round, recorded, tried, changes: None }
    }
}

/// Where both sides part, as places among the steps that were tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parting {
    /// How many steps are the same.
    pub same: usize,
    /// The first that is another one.
    pub step: Option<usize>,
    /// The first request with other bytes.
    pub request: Option<usize>,
}

pub fn part(recorded: &[Move], tried: &[Move]) -> Parting {
    let same = recorded.iter().zip(tried).take_while(|(one, other)| one.is_like(other)).count();
    let step = (same < tried.len()).then_some(same);
    // Behind the first other step, requests have no counterpart to be held against.
    let other_bytes =
        recorded.iter().zip(tried).take(same).position(|(one, other)| {
            one.sha256().is_some() && other.sha256().is_some() && one.sha256() != other.sha256()
        });
    let other_request = step.filter(|at| matches!(tried[*at].what, What::Request { .. }));
    Parting { same, step, request: other_bytes.or(other_request) }
}

/// What a step was made of, for whoever wants to see what is otherwise in it.
#[derive(Clone, Debug)]
pub enum Origin {
    Request(Shape),
    /// Ids of the calls.
    Calls(Vec<String>),
}

/// What steps were made of, by their place among the steps of their side.
pub type Origins = BTreeMap<usize, Origin>;

/// What one side did at a place where both do the same kind of thing.
#[derive(Clone, Debug)]
pub enum Side {
    Request {
        shape: Shape,
        /// What of the log the strategy is given.
        entries: Vec<LogEntry>,
    },
    /// The calls, as the log has them.
    Calls(Vec<LogEntry>),
}

impl Side {
    /// `log`: of that side.
    pub fn of(origin: &Origin, log: &[LogEntry]) -> Self {
        match origin {
            Origin::Request(shape) => {
                Side::Request { shape: shape.clone(), entries: context::entries(log, &shape.slice) }
            }
            Origin::Calls(ids) => {
                let entry = |id: &String| log.iter().find(|entry| entry.event.id == *id).cloned();
                Side::Calls(ids.iter().filter_map(entry).collect())
            }
        }
    }

    pub fn is_like(&self, other: &Side) -> bool {
        matches!((self, other), (Side::Request { .. }, Side::Request { .. }) | (Side::Calls(_), Side::Calls(_)))
    }
}

/// What one turn came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    pub turn: u64,
    /// Model requests that were answered or failed, summaries included.
    pub requests: u64,
    pub failed_requests: u64,
    pub usage: Usage,
    pub calls: u64,
    pub errors: u64,
    /// How it ended: `end_turn`, `retries_exhausted`, `refusal`; absent if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Whether its last message contains what was expected of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_expected: Option<bool>,
}

impl Sum {
    /// It ended by the model's own word.
    pub fn ended_well(&self) -> bool {
        self.ended.as_deref() == Some("end_turn")
    }
}

/// One turn on both sides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    pub turn: u64,
    pub recorded: Sum,
    /// Absent if the what-if ended before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<Sum>,
}

/// Both sides turn by turn, over the turns that the what-if began.
pub fn pairs(recorded: &[Sum], tried: &[Sum]) -> Vec<Pair> {
    let tried = |turn: u64| tried.iter().find(|sum| sum.turn == turn).cloned();
    recorded.iter().map(|sum| Pair { turn: sum.turn, recorded: sum.clone(), tried: tried(sum.turn) }).collect()
}

/// What turns came to, taken together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Turns that both sides came through, and what they came to there.
    pub turns: u64,
    pub recorded: Sum,
    pub tried: Sum,
    /// Every turn that was gone through, whether or not it came to its end.
    pub all: Sum,
    /// Every turn ended by the model's own word, and the last one said what was expected, if anything was.
    pub is_good: bool,
}

impl Totals {
    pub fn of(turns: &[Pair]) -> Self {
        let ended_well = turns.iter().all(|pair| pair.tried.as_ref().is_some_and(Sum::ended_well));
        let last = turns.last().and_then(|pair| pair.tried.as_ref());
        let is_good = ended_well && last.is_none_or(|sum| sum.as_expected != Some(false));
        let mut totals = Totals { is_good, ..Totals::default() };
        for Pair { recorded, tried, .. } in turns {
            let Some(tried) = tried else { continue };
            totals.all.absorb(tried);
            if tried.ended.is_some() && recorded.ended.is_some() {
                totals.turns += 1;
                totals.recorded.absorb(recorded);
                totals.tried.absorb(tried);
            }
        }
        totals
    }
}

/// What each turn of some commits came to, up to turn `until`; `turn` is the number of the last one before them. `says`: whether
/// the last message of a turn that is over, if it has one, says what was expected.
pub fn sums(
    commits: &[Committed],
    turn: u64,
    until: u64,
    says: &mut dyn FnMut(Option<&Content>) -> Option<bool>,
) -> Vec<Sum> {
    let mut sums: Vec<Sum> = Vec::new();
    let mut said = None;
    each(commits, turn, until, |turn, entry| match (entry, sums.last_mut()) {
        (None, _) => {
            said = None;
            sums.push(Sum { turn, ..Sum::default() });
        }
        (Some(entry), Some(sum)) => sum.add(&entry.event.body, &mut said, says),
        (Some(_), None) => {}
    });
    sums
}

/// Shows the entries of some commits with the turn that they are in, up to turn `until`, and `None` where a turn begins; `turn`
/// is the number of the last one before them.
pub fn each<'a>(
    commits: impl IntoIterator<Item = &'a Committed>,
    mut turn: u64,
    until: u64,
    mut see: impl FnMut(u64, Option<LogEntry>),
) {
    for committed in commits {
        let mut entries = committed.entries().into_iter();
        for take in &committed.commit.takes {
            match take {
                Take::Private { entry: PrivateEntry::TurnBegun {} } if turn == until => return,
                Take::Private { entry: PrivateEntry::TurnBegun {} } => {
                    turn += 1;
                    see(turn, None);
                }
                Take::Private { .. } => {}
                _ => entries.next().into_iter().for_each(|entry| see(turn, Some(entry))),
            }
        }
    }
}

/// What is expected of the last message of a turn, and which of those that are kept by reference say it.
#[derive(Clone, Copy, Debug)]
pub struct Words<'a> {
    pub expected: Option<&'a str>,
    pub kept: &'a BTreeMap<String, bool>,
}

impl Words<'_> {
    /// Whether a last message, if there is one, says it. `None`: nobody knows, or asks.
    pub fn say(&self, last: Option<&Content>) -> Option<bool> {
        let expected = self.expected?;
        match last {
            Some(Content::Blob(blob)) => self.kept.get(&blob.blob).copied(),
            Some(Content::Inline(blocks)) => Some(says(blocks, expected)),
            None => Some(says(&[], expected)),
        }
    }
}

/// A message that is kept by reference.
pub fn by_reference(last: Option<&Content>) -> Option<(String, BlobRef)> {
    match last {
        Some(Content::Blob(blob)) => Some((blob.blob.clone(), blob.clone())),
        _ => None,
    }
}

impl Sum {
    /// Adds up another turn.
    pub fn absorb(&mut self, other: &Sum) {
        self.requests += other.requests;
        self.failed_requests += other.failed_requests;
        self.usage += other.usage;
        self.calls += other.calls;
        self.errors += other.errors;
    }

    fn add(
        &mut self,
        body: &EventBody,
        said: &mut Option<Content>,
        says: &mut dyn FnMut(Option<&Content>) -> Option<bool>,
    ) {
        match body {
            EventBody::SpanModelRequestEnd { is_error, model_usage, .. } => {
                self.requests += 1;
                self.failed_requests += u64::from(*is_error == Some(true));
                self.usage += *model_usage;
            }
            EventBody::AgentToolUse { .. }
            | EventBody::AgentCustomToolUse { .. }
            | EventBody::AgentMcpToolUse { .. } => self.calls += 1,
            EventBody::SessionError { .. } => self.errors += 1,
            EventBody::AgentMessage { content } => *said = Some(content.clone()),
            EventBody::SessionStatusIdle { stop_reason, .. } => {
                let reason = match stop_reason {
                    StopReason::EndTurn {} => "end_turn",
                    StopReason::RetriesExhausted {} => "retries_exhausted",
                    StopReason::Refusal {} => "refusal",
                    // Somebody has to answer: the turn is not over.
                    StopReason::RequiresAction { .. } => return,
                };
                self.ended = Some(reason.to_owned());
                self.as_expected = says(said.as_ref());
            }
            _ => {}
        }
    }
}

/// Whether a message says what was expected of it.
pub fn says(blocks: &[Block], expected: &str) -> bool {
    let texts = blocks.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n").contains(expected)
}

/// Dollars, where prices are known.
pub fn cost(usage: &Usage, price: &Price) -> f64 {
    let parts = [
        (usage.input_tokens, price.input),
        (usage.output_tokens, price.output),
        (usage.cache_read_input_tokens, price.cache_read),
        (usage.cache_creation(), price.cache_write),
    ];
    parts.into_iter().map(|(tokens, dollars)| tokens as f64 * dollars / 1e6).sum()
}
