//! `loop@2`: `loop@1` with what long tasks need of today's models. Each workaround is a shim that can be switched off
//! by name; with all of them off it decides as `loop@1` does.
//!
//! It keeps its own context as long as the agent asks for no particular strategy.

use crate::{
    registry::{Declared, Harness, Shim},
    retry_v1::after_failure,
    view::{Decision, Last, View},
};
use domain::{
    Failure, Step,
    agent::StrategyRef,
    commit::IdleReason,
    event::{ErrorBody, ErrorKind, RetryStatus},
    failure::FailureKind,
    ids,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub const HARNESS: Harness = Harness {
    name: "loop",
    version: 2,
    source: &[include_str!("loop_v2.rs"), include_str!("retry_v1.rs")],
    view: 2,
    strategy: Some(Declared { name: "compact", version: 1, params: r#"{"keep":3}"# }),
    next,
    shims: &[CLEARING, RESET, COMPACTION, NUDGE, LOOPS, WRAP_UP],
};

const CLEARING: Shim = Shim {
    name: "clear-tool-results",
    assumption: "old tool results are seldom needed again, and the model works better with the room",
    model: "claude-sonnet-4-5",
};
const RESET: Shim = Shim {
    name: "context-reset",
    assumption: "near its limit the model hurries to an end; it works on calmly from a hand-off in an empty window",
    model: "claude-sonnet-4-5",
};
const COMPACTION: Shim = Shim {
    name: "compaction",
    assumption: "a task outgrows the window, and the model goes on well from a summary that it wrote itself",
    model: "claude-opus-4-5",
};
const NUDGE: Shim = Shim {
    name: "nudge-on-empty",
    assumption: "after tool results the model sometimes ends its turn without a word, and goes on when asked",
    model: "claude-sonnet-4",
};
const LOOPS: Shim = Shim {
    name: "loop-detection",
    assumption: "the model repeats calls that give the same results, and does not notice by itself",
    model: "claude-sonnet-4",
};
const WRAP_UP: Shim = Shim {
    name: "wrap-up-prevention",
    assumption: "the model believes that it runs out of room and ends a task that is not done",
    model: "claude-sonnet-4-5",
};

/// Percent of the window.
const CLEAR_AT: u64 = 50;
const RESET_AT: u64 = 75;
const COMPACT_AT: u64 = 80;
const WRAP_UP_FROM: u64 = 40;

/// Results that stay when old ones are cleared, and rounds until they are cleared again: each time the provider
/// has to read the whole context anew.
const RESULTS_KEPT: u64 = 5;
const ROUNDS_BETWEEN_CLEARINGS: u64 = 20;
const ROUNDS_KEPT: u64 = 3;

const NUDGES_MAX: u32 = 2;
const WRAP_UPS_MAX: u32 = 2;
/// Summaries in a row, without an answer in between, before the turn is given up.
const COMPACTIONS_MAX: u32 = 3;

/// Rounds whose calls and results are remembered, the longest cycle among them, and how often it may go round.
const ROUNDS_REMEMBERED: usize = 18;
const CYCLE_MAX: usize = 3;
const CYCLES_TOLD: usize = 3;
const CYCLES_MAX: usize = 6;

const EMPTY: &str = "Your last answer was empty. Go on with the task; if it is done, say what the result is.";
const REPEATED: &str = "You have made the same calls several times with the same results. Doing it again will not \
    change them. Try something else, or say what stops you.";
const ROOM: &str = "There is no need to wrap up: room in your context is made for you, and nothing that was done is \
    lost. If the task is done, say so in one sentence. Otherwise go on with it now, without cutting it short.";

/// What a model says that thinks it is short of room.
const WRAP_UP_PHRASES: &[&str] = &[
    "context limit",
    "context window",
    "remaining context",
    "low on context",
    "out of context",
    "token limit",
    "token budget",
    "remaining tokens",
    "next session",
    "future session",
    "due to length",
];

/// What it remembers between decisions.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Memo {
    turn: u64,
    /// Of this turn.
    nudges: u32,
    wrap_ups: u32,
    /// What was called and came back, a digest a round.
    rounds: Vec<String>,
    /// The model request whose results are in `rounds` already.
    noted: u32,
    calls: String,
    /// Rounds in the whole session, and how many there were at the last clearing.
    work: u64,
    cleared_at: u64,
    /// Results before this position are cleared.
    clear_before: Option<u64>,
    /// The last cut was a reset, not a compaction.
    was_reset: bool,
}

fn next(view: &View) -> Decision {
    let mut memo: Memo = view.memo.as_deref().and_then(|memo| serde_json::from_str(memo).ok()).unwrap_or_default();
    if memo.turn != view.turn {
        let Memo { work, cleared_at, clear_before, was_reset, .. } = memo;
        memo = Memo { turn: view.turn, work, cleared_at, clear_before, was_reset, ..Memo::default() };
    }
    let mut decision = decide(view, &mut memo);
    if decision.memo.is_none() {
        decision.memo = serde_json::to_string(&memo).ok();
    }
    decision
}

fn decide(view: &View, memo: &mut Memo) -> Decision {
    if !view.calls.is_empty() {
        memo.calls = digest(view.calls.iter().flat_map(|call| [call.name.as_str(), call.input_sha256.as_str()]));
        return Step::Execute { calls: view.calls.iter().map(|call| call.tool_use_id.clone()).collect() }.into();
    }
    match &view.last {
        Some(Last::Failed { failure, tries }) => failed(view, memo, failure, *tries),
        Some(Last::Answer { stop_reason, refusal, .. }) if view.results.is_empty() => {
            answered(view, memo, stop_reason, refusal)
        }
        _ => go_on(view, memo),
    }
}

fn failed(view: &View, memo: &mut Memo, failure: &Failure, tries: u32) -> Decision {
    let too_long = failure.kind == FailureKind::ContextLength;
    if too_long && keeps_context(view) && is_on(view, &COMPACTION) {
        if tries > COMPACTIONS_MAX {
            return too_often(failure.message.clone());
        }
        // Not even the summary's own request may show what does not fit.
        memo.was_reset = false;
        let clear = json!({"before": view.context.end, "keep": 0});
        return compact("compact", json!({"keep": 0, "clear": clear}));
    }
    after_failure(view, failure, tries)
}

fn answered(view: &View, memo: &mut Memo, stop_reason: &str, refusal: &Option<String>) -> Decision {
    match stop_reason {
        "refusal" => Step::Idle { reason: IdleReason::Refusal { category: None, explanation: refusal.clone() } }.into(),
        // The provider paused a long turn of its own: send it back as it is.
        "pause_turn" => call(view, memo, None),
        "end_turn" if is_on(view, &NUDGE) && is_empty(view) && memo.nudges < NUDGES_MAX => {
            memo.nudges += 1;
            call(view, memo, Some(EMPTY))
        }
        "end_turn" if is_on(view, &WRAP_UP) && is_wrapping_up(view) && memo.wrap_ups < WRAP_UPS_MAX => {
            memo.wrap_ups += 1;
            call(view, memo, Some(ROOM))
        }
        _ => Step::Idle { reason: IdleReason::EndTurn {} }.into(),
    }
}

/// The model's move: a new turn, or results for it.
fn go_on(view: &View, memo: &mut Memo) -> Decision {
    if !view.results.is_empty() && memo.noted != view.round {
        memo.noted = view.round;
        memo.work += 1;
        let results = view.results.iter().map(|result| result.sha256.as_str());
        memo.rounds.push(digest(std::iter::once(memo.calls.as_str()).chain(results)));
        if memo.rounds.len() > ROUNDS_REMEMBERED {
            memo.rounds.remove(0);
        }
    }
    let cycles = if is_on(view, &LOOPS) { cycles(&memo.rounds) } else { 0 };
    if cycles >= CYCLES_MAX {
        return give_up(ErrorKind::ToolUseLimitReached, "the model repeats the same calls without end");
    }
    let nudge = (cycles == CYCLES_TOLD && !view.results.is_empty()).then_some(REPEATED);
    make_room(view, memo).unwrap_or_else(|| call(view, memo, nudge))
}

/// A step that makes room, when there is too little.
fn make_room(view: &View, memo: &mut Memo) -> Option<Decision> {
    if !keeps_context(view) {
        return None;
    }
    let reset = is_on(view, &RESET) && is_filled(view, RESET_AT);
    let compaction = is_on(view, &COMPACTION) && is_filled(view, COMPACT_AT);
    if !reset && !compaction {
        return None;
    }
    if view.context.compactions.unwrap_or_default() >= COMPACTIONS_MAX {
        return Some(too_often("summaries make no room".to_owned()));
    }
    memo.was_reset = reset;
    let clear = clear(memo);
    memo.clear_before = None;
    Some(if reset { compact("reset", json!({"clear": clear})) } else { compact("compact", compact_params(&clear)) })
}

fn compact(name: &str, params: Value) -> Decision {
    Step::Compact { strategy: Some(StrategyRef { name: name.to_owned(), version: 1, params }) }.into()
}

fn call(view: &View, memo: &mut Memo, nudge: Option<&str>) -> Decision {
    let suffix = nudge.map(|text| json!({"role": "user", "content": [{"type": "text", "text": text}]}));
    let strategy = keeps_context(view).then(|| {
        let is_due = memo.work - memo.cleared_at >= ROUNDS_BETWEEN_CLEARINGS || memo.clear_before.is_none();
        if is_on(view, &CLEARING) && is_filled(view, CLEAR_AT) && is_due {
            memo.clear_before = view.context.end;
            memo.cleared_at = memo.work;
        }
        let clear = clear(memo);
        let (name, params) =
            if memo.was_reset { ("reset", json!({"clear": clear})) } else { ("compact", compact_params(&clear)) };
        StrategyRef { name: name.to_owned(), version: 1, params }
    });
    Step::CallModel { strategy, suffix: suffix.into_iter().collect() }.into()
}

fn compact_params(clear: &Value) -> Value {
    json!({"keep": ROUNDS_KEPT, "clear": clear})
}

fn clear(memo: &Memo) -> Value {
    match memo.clear_before {
        Some(before) => json!({"before": before, "keep": RESULTS_KEPT}),
        None => Value::Null,
    }
}

fn too_often(message: String) -> Decision {
    give_up(ErrorKind::CompactionLimitReached, &message)
}

fn give_up(kind: ErrorKind, message: &str) -> Decision {
    let error = ErrorBody { kind, message: message.to_owned(), retry_status: RetryStatus::Exhausted };
    Decision { step: Step::Idle { reason: IdleReason::RetriesExhausted {} }, errors: vec![error], memo: None }
}

fn is_on(view: &View, shim: &Shim) -> bool {
    !view.agent.shims_off.iter().any(|off| off == shim.name)
}

/// An agent that asks for a particular strategy gets it, and nothing beside it.
fn keeps_context(view: &View) -> bool {
    view.agent.strategy.name == "full"
}

fn is_filled(view: &View, percent: u64) -> bool {
    view.context.tokens * 100 >= view.context.window_tokens * percent
}

fn is_empty(view: &View) -> bool {
    answer_texts(view).all(|text| text.trim().is_empty())
}

fn is_wrapping_up(view: &View) -> bool {
    is_filled(view, WRAP_UP_FROM)
        && answer_texts(view).any(|text| {
            let text = text.to_lowercase();
            WRAP_UP_PHRASES.iter().any(|phrase| text.contains(phrase))
        })
}

/// Beginnings and ends of what the model said last.
fn answer_texts(view: &View) -> impl Iterator<Item = &str> {
    let blocks = match &view.last {
        Some(Last::Answer { blocks, .. }) => blocks.as_slice(),
        _ => &[],
    };
    blocks.iter().filter(|block| block.kind == "text").flat_map(|block| [block.head.as_str(), block.tail.as_str()])
}

fn digest<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let mut joined = String::new();
    for part in parts {
        joined.push_str(part);
        joined.push('\n');
    }
    let mut hash = ids::content_hash(joined.as_bytes());
    hash.truncate(16);
    hash
}

/// How often the shortest cycle that the rounds end with has gone round.
fn cycles(rounds: &[String]) -> usize {
    (1..=CYCLE_MAX)
        .map(|length| {
            let mut periods = rounds.rchunks_exact(length);
            let Some(last) = periods.next() else { return 0 };
            1 + periods.take_while(|period| *period == last).count()
        })
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
