//! `window@1`: what the session and the turn are about, and the last rounds of work.
//!
//! `{"rounds": N, "leap": S}`: between N and N + S - 1 rounds are shown; the window moves on S rounds at a time, so
//! that requests share their beginning in between. What a request costs does not depend on the length of the log.

use super::{
    Param, Strategy,
    messages::{Messages, Synthetic},
};
use crate::marks::{Marks, ROUNDS_MAX};
use domain::session::LogEntry;
use serde_json::{Value, json};

pub const STRATEGY: Strategy = Strategy {
    name: "window",
    version: 1,
    reach,
    messages,
    summary: None,
    params: &[Param::Number("rounds"), Param::Number("leap")],
};

const ROUNDS: u64 = 20;

fn reach(marks: &Marks, params: &Value) -> u64 {
    let rounds = params["rounds"].as_u64().unwrap_or(ROUNDS).clamp(1, ROUNDS_MAX as u64 / 2);
    let leap = params["leap"].as_u64().unwrap_or(rounds / 2).clamp(1, ROUNDS_MAX as u64 / 2);
    let first = marks.asked.saturating_sub(rounds) / leap * leap;
    let forgotten = marks.asked - marks.rounds.len() as u64;
    if first == 0 {
        return 0;
    }
    usize::try_from(first - forgotten).ok().and_then(|index| marks.rounds.get(index)).copied().unwrap_or(0)
}

fn messages(entries: &[LogEntry], _params: &Value) -> Vec<Value> {
    let last_gap = entries.windows(2).rposition(|pair| pair[0].position + 1 < pair[1].position);
    let mut messages = Messages::new(Synthetic::Kept);
    for (index, entry) in entries.iter().enumerate() {
        messages.push(entry);
        if Some(index) == last_gap {
            messages.note(json!({"type": "text", "text": GAP}));
        }
    }
    messages.finish()
}

const GAP: &str = "[What came between is left out here. It happened, and its effects are still there.]";
