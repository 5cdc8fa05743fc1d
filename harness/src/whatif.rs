//! What-if: a session that was recorded, gone through again from one of its turns with something else about it: another
//! harness, context strategy or model, or some shims switched off.
//!
//! A what-if is a fork that nobody started. [`Trial`] plays the shell: it decides, and answers what is asked of the outside
//! from the [`Record`] as long as it is asked the same. Model requests are the same if their bytes are, tool calls if tool,
//! input and order are. What the record cannot answer is told to the caller, who may really ask a model, or stop; or have a session
//! of its own go on with what was [`Left`].
//!
//! Nothing here touches the recorded session, and nothing here makes up an answer.

mod changes;
mod compare;
mod record;
#[cfg(test)]
mod tests;
mod trial;

pub use changes::{Change, Changes};
pub use compare::{Difference, Move, Pair, Side, Sum, Totals, What, Words, cost, says};
pub use record::{ModelEnd, Record, Shape};
pub use trial::{Asked, Need, Trial};

use crate::{SessionState, replay};
use domain::{
    Committed, EventBody,
    agent::{HarnessRef, StrategyRef},
    content::BlobRef,
    limits::TRIAL_TURNS_TOLD_MAX,
    rollout::Recorded,
    session::Mail,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is to be otherwise. Nothing of it: the session as it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub harness: Option<HarnessRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<OtherModel>,
    /// Beside those that are off already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shims_off: Vec<String>,
}

/// A model that is really asked for what the record does not answer. It may be the session's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherModel {
    pub id: String,
    pub window_tokens: u64,
    pub max_tokens: u32,
}

/// Input of the activity `whatif`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Also what its events' ids are derived from.
    pub id: String,
    pub session: Recorded,
    /// From which turn on.
    pub turn: u64,
    /// How many turns are gone through, from that one on; without it, all that were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<u64>,
    #[serde(default)]
    pub variant: Variant,
    /// How often a model may really be asked.
    pub requests_max: u32,
    /// What the last message contains if all went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<String>,
    /// Where the record cannot answer a call, a session of this id is to go on: what it needs for that is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub live: bool,
}

/// What a session needs that goes on where the record could not answer a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    /// The state that the what-if began with.
    pub began: SessionState,
    /// The one that it came to, with the call under way.
    pub state: SessionState,
    /// Everything in between.
    pub commits: Vec<Committed>,
    /// What was sent in the turns that are left.
    pub inputs: Vec<Vec<Mail>>,
    /// What every turn came to in the record; builds before this one did not say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recorded: Vec<Sum>,
    /// Blobs that commits and state refer to and nobody else does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<BlobRef>,
}

impl Left {
    /// The last turn that the what-if is about. What somebody sends to the session behind it is that session's own.
    fn last_turn(&self) -> u64 {
        self.state.summary.turn + self.inputs.len() as u64
    }

    /// Last messages of turns that are kept by reference, in the log from the what-if on. Whether they say what was expected,
    /// [`Report::went_on`] is told.
    pub fn last_words(&self, commits: &[Committed]) -> BTreeMap<String, BlobRef> {
        let mut words = BTreeMap::new();
        compare::sums(commits, self.began.summary.turn, self.last_turn(), &mut |last| {
            words.extend(compare::by_reference(last));
            None
        });
        words
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub session_id: String,
    /// The turn that it really began with: a turn that began while the one before it ended cannot be parted from that.
    pub turn: u64,
    /// Where in the log that is.
    pub position: u64,
    pub harness: HarnessRef,
    pub model: String,
    /// The agent's. A harness may make requests by another one.
    pub strategy: StrategyRef,
    /// `name@version` of those by which requests were really made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strategies: Vec<String>,
    pub shims_off: Vec<String>,
    /// Turn by turn, both sides: the first of them.
    pub turns: Vec<Pair>,
    /// Over all turns; reports of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
    /// Steps that came out the same before the first that did not.
    pub same_steps: u64,
    /// The first step that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_step: Option<Difference>,
    /// The first model request with other bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_request: Option<Difference>,
    pub answered: Answered,
    pub end: End,
    /// What of the recorded session had no counterpart here: interrupts, changes of the session and the like.
    pub left_out: u64,
    /// [`Left`], if that was asked for and there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<BlobRef>,
}

/// Who answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Model requests, by the record and by a model.
    pub requests_recorded: u64,
    pub requests_live: u64,
    /// Tool calls, by the record, and by whoever runs them in the fork that went on.
    pub calls_recorded: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub calls_live: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum End {
    /// Through every turn.
    Complete {},
    /// A request that was not made then, and no model to ask: from here on nothing is comparable.
    Request { turn: u64, round: u32, bytes: u64 },
    /// A tool call that was not made then, or not at this place.
    Call { turn: u64, round: u32, name: String },
    /// A model was asked as often as it may be.
    Limit { turn: u64 },
    /// From such a call on it went on in a session of its own.
    WentOn {
        turn: u64,
        round: u32,
        name: String,
        session_id: String,
        /// It rests before its end, as somebody has to answer.
        waits: bool,
    },
}

impl Report {
    /// What became of it in the session that went on: `commits` are those of the what-if and everything behind them.
    pub fn went_on(&mut self, session_id: &str, left: &Left, commits: &[Committed], waits: bool, words: &Words<'_>) {
        let End::Call { turn, round, name } = self.end.clone() else { return };
        self.end = End::WentOn { turn, round, name, session_id: session_id.to_owned(), waits };
        let tried = compare::sums(commits, self.turn - 1, left.last_turn(), &mut |last| words.say(last));
        // Where it is not kept, the turns that are told of are all that is known.
        let told = || self.turns.iter().map(|pair| pair.recorded.clone()).collect();
        let recorded = if left.recorded.is_empty() { told() } else { left.recorded.clone() };
        self.turns = compare::pairs(&recorded, &tried);
        self.totals = Some(Totals::of(&self.turns));
        self.turns.truncate(TRIAL_TURNS_TOLD_MAX);
        let own = commits.iter().skip_while(|committed| !committed.commit.fork().is_some_and(|fork| fork.goes_on));
        compare::each(own, left.state.summary.turn, left.last_turn(), |_, entry| {
            match entry.filter(|entry| !entry.ignored).map(|entry| entry.event.body) {
                Some(EventBody::SpanModelRequestEnd { .. }) => self.answered.requests_live += 1,
                Some(
                    EventBody::AgentToolResult { .. }
                    | EventBody::AgentMcpToolResult { .. }
                    | EventBody::UserToolResult { .. }
                    | EventBody::UserCustomToolResult { .. },
                ) => self.answered.calls_live += 1,
                _ => {}
            }
        });
    }

    /// Over all turns, also those that are not told of one by one.
    pub fn totals(&self) -> Totals {
        self.totals.clone().unwrap_or_else(|| Totals::of(&self.turns))
    }

    /// What it does not know.
    pub fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        let mut say = |text: &str| caveats.push(text.to_owned());
        match &self.end {
            End::Request { turn, round, .. } => say(&format!(
                "the request of turn {turn}, round {round} was never made: what a model says to it is not in the record"
            )),
            End::Call { turn, name, .. } => {
                say(&format!("in turn {turn} {name} is called as it was not then: what that does is not in the record"))
            }
            End::Limit { turn } => say(&format!("in turn {turn} the model had been asked as often as was allowed")),
            End::WentOn { turn, session_id, waits, .. } => {
                say(&format!(
                    "from turn {turn} on tools ran in a sandbox of {session_id}, which was made anew: what tools had left in the other \
                     one by then was not there"
                ));
                if *waits {
                    say(&format!("{session_id} waits for an answer: where it goes from there is not known yet"));
                }
            }
            End::Complete {} => {}
        }
        let is_other = self.first_step.is_some() || self.first_request.is_some();
        if is_other && self.answered.calls_recorded > 0 {
            say("results of tools are the recorded ones: that the same calls had found the same is taken for granted");
        }
        if is_other && self.turns.iter().filter(|pair| pair.tried.is_some()).count() > 1 {
            say("messages of later turns are answers to what was really said");
        }
        if self.answered.requests_live > 0 {
            say("a model that is asked twice may answer twice: this is one sample");
        }
        if self.left_out > 0 {
            say(&format!("{} interrupts and changes of the session are left out", self.left_out));
        }
        caveats
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Replay(#[from] replay::Error),
    #[error("find turn {turn} in session {session_id}, which has {turns}")]
    NoTurn { session_id: String, turn: u64, turns: u64 },
}
