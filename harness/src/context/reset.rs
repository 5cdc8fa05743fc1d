//! `reset@1`: a fresh start. The model sees the task and a hand-off, and nothing of how it was got to.
//!
//! Unlike a compaction it keeps no round: whoever goes on is told that somebody else worked here before, as a new
//! shift would be. `{"clear": ..}` as in `compact@1`.

use super::{
    Param, Strategy, Summary,
    clear::{self, cleared},
    compact::{reach, with_summary},
};
use crate::marks::Marks;
use domain::session::LogEntry;
use serde_json::Value;

pub const STRATEGY: Strategy = Strategy {
    name: "reset",
    version: 1,
    reach,
    messages,
    summary: Some(Summary { end, prompt: PROMPT }),
    params: &[Param::Of("clear", clear::PARAMS)],
};

fn end(_marks: &Marks, _params: &Value, end: u64) -> u64 {
    end
}

fn messages(entries: &[LogEntry], params: &Value) -> Vec<Value> {
    with_summary(&cleared(entries, &params["clear"]), INTRODUCTION)
}

const INTRODUCTION: &str = "[You take this task over from a colleague, with a whole context window for yourself. \
    What was done so far is done; check what you rely on. The hand-off:]";

const PROMPT: &str = "Stop here: a colleague who has seen nothing of this conversation takes over, with the same \
    tools and the same workspace. Write the hand-off. Do not use tools and do not go on with the task now.

Say what was asked for, in the user's own words; what is done and how that can be checked; what is in progress; the \
    next steps in order, the first one concrete enough to begin with; where things are; and what was tried and does not \
    work. Claim nothing that you did not check.";
