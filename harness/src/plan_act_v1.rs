//! `plan-act@1`: plan, act one call at a time, review. Another idea than the loop: what phase a turn is in is the
//! harness's knowledge, kept in its memo, and the model is told at each border.

use crate::{
    registry::{Declared, Harness},
    retry_v1::after_failure,
    view::{Decision, Last, View},
};
use domain::{Step, commit::IdleReason};
use serde::{Deserialize, Serialize};
use serde_json::json;

pub const HARNESS: Harness = Harness {
    name: "plan-act",
    version: 1,
    source: &[include_str!("plan_act_v1.rs"), include_str!("retry_v1.rs")],
    view: 2,
    strategy: Some(Declared { name: "full", version: 2, params: "null" }),
    next,
    shims: &[],
};

/// Reviews of one turn: a model that is never content is left at that.
const REVIEWS_MAX: u32 = 3;
/// What a review ends with when nothing is left to do.
const DONE: &str = "PLAN COMPLETE";

const PLAN: &str =
    "First write a plan: numbered steps, each with how you will know that it is done. Do not call tools yet.";
const ACT: &str = "Now carry out the plan step by step. Say which step you are at before each call.";
const REVIEW: &str = "Go through the plan step by step: what shows that each step is done? If something is missing, do \
    it now. If nothing is, give the result and end with the words PLAN COMPLETE.";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    #[default]
    Start,
    Plan,
    Act,
    Review,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Memo {
    turn: u64,
    phase: Phase,
    reviews: u32,
}

fn next(view: &View) -> Decision {
    let memo = view.memo.as_deref().and_then(|memo| serde_json::from_str(memo).ok());
    let mut memo =
        memo.filter(|memo: &Memo| memo.turn == view.turn).unwrap_or(Memo { turn: view.turn, ..Memo::default() });
    let mut decision = decide(view, &mut memo);
    decision.memo = serde_json::to_string(&memo).ok();
    decision
}

fn decide(view: &View, memo: &mut Memo) -> Decision {
    if let Some(Last::Failed { failure, tries }) = &view.last {
        return after_failure(view, failure, *tries);
    }
    if let Some(call) = view.calls.first() {
        // A plan that already acts is acted on; a call that has seen the result of the one before is a better call.
        memo.phase = if memo.phase == Phase::Plan { Phase::Act } else { memo.phase };
        return Step::Execute { calls: vec![call.tool_use_id.clone()] }.into();
    }
    match &view.last {
        Some(Last::Answer { stop_reason, refusal, .. }) if view.results.is_empty() => match stop_reason.as_str() {
            "refusal" => {
                Step::Idle { reason: IdleReason::Refusal { category: None, explanation: refusal.clone() } }.into()
            }
            "pause_turn" => say(None),
            _ => phase_ended(view, memo),
        },
        _ if memo.phase == Phase::Start => {
            memo.phase = Phase::Plan;
            say(Some(PLAN))
        }
        // A request that failed is made again as it was.
        _ if view.results.is_empty() => say(Some(instruction(memo.phase))),
        _ => say(None),
    }
}

fn phase_ended(view: &View, memo: &mut Memo) -> Decision {
    let is_done = memo.phase == Phase::Review && (says_done(view) || memo.reviews >= REVIEWS_MAX);
    if is_done {
        return Step::Idle { reason: IdleReason::EndTurn {} }.into();
    }
    memo.phase = if memo.phase == Phase::Plan { Phase::Act } else { Phase::Review };
    memo.reviews += u32::from(memo.phase == Phase::Review);
    say(Some(instruction(memo.phase)))
}

fn instruction(phase: Phase) -> &'static str {
    match phase {
        Phase::Start | Phase::Plan => PLAN,
        Phase::Act => ACT,
        Phase::Review => REVIEW,
    }
}

fn says_done(view: &View) -> bool {
    let Some(Last::Answer { blocks, .. }) = &view.last else { return false };
    blocks.iter().any(|block| block.head.contains(DONE) || block.tail.contains(DONE))
}

fn say(text: Option<&str>) -> Decision {
    let suffix = text.map(|text| json!({"role": "user", "content": [{"type": "text", "text": text}]}));
    let strategy = HARNESS.strategy();
    Step::CallModel { strategy, suffix: suffix.into_iter().collect() }.into()
}

#[cfg(test)]
mod tests;
