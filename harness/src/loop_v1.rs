//! `loop@1`: call the model, run every tool it asks for, go on until it asks for none.
//!
//! Failures of the provider are retried with growing pauses, visibly; what cannot get better ends the turn.

use crate::{
    registry::Harness,
    retry_v1::after_failure,
    view::{Decision, Last, View},
};
use domain::{Step, commit::IdleReason};

pub const HARNESS: Harness = Harness {
    name: "loop",
    version: 1,
    source: &[include_str!("loop_v1.rs"), include_str!("retry_v1.rs")],
    view: 1,
    strategy: None,
    next,
    shims: &[],
};

fn next(view: &View) -> Decision {
    if !view.calls.is_empty() {
        return Step::Execute { calls: view.calls.iter().map(|call| call.tool_use_id.clone()).collect() }.into();
    }
    match &view.last {
        Some(Last::Failed { failure, tries }) => after_failure(view, failure, *tries),
        Some(Last::Answer { stop_reason, refusal, .. }) if view.results.is_empty() => {
            after_answer(stop_reason, refusal)
        }
        _ => Step::CallModel { strategy: None, suffix: Vec::new() }.into(),
    }
}

fn after_answer(stop_reason: &str, refusal: &Option<String>) -> Decision {
    match stop_reason {
        "refusal" => Step::Idle { reason: IdleReason::Refusal { category: None, explanation: refusal.clone() } }.into(),
        // The provider paused a long turn of its own: send it back as it is.
        "pause_turn" => Step::CallModel { strategy: None, suffix: Vec::new() }.into(),
        _ => Step::Idle { reason: IdleReason::EndTurn {} }.into(),
    }
}
