//! `loop@1`: call the model, run every tool it asks for, go on until it asks for none.
//!
//! Failures of the provider are retried with growing pauses, visibly; what cannot get better ends the turn.

use crate::{
    registry::{Harness, Shim},
    view::{Decision, Last, View},
};
use domain::{
    Failure, RetryClass, Step,
    commit::IdleReason,
    event::{ErrorBody, ErrorKind, RetryStatus},
    failure::FailureKind,
};

pub const HARNESS: Harness =
    Harness { name: "loop", version: 1, source: include_str!("loop_v1.rs"), next, shims: SHIMS };

const SHIMS: &[Shim] = &[];

/// Failed requests in a row before the turn is given up.
const TRIES_MAX: u32 = 8;
const PAUSE_FIRST_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;

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

fn after_failure(view: &View, failure: &Failure, tries: u32) -> Decision {
    let give_up = failure.retry == RetryClass::Permanent || tries >= TRIES_MAX;
    let error = ErrorBody {
        kind: error_kind(failure.kind),
        message: failure.message.clone(),
        retry_status: if give_up { RetryStatus::Exhausted } else { RetryStatus::Retrying },
    };
    let step = if give_up {
        Step::Idle { reason: IdleReason::RetriesExhausted {} }
    } else {
        Step::Wait { until: view.now.plus_ms(pause_ms(view.seed, failure, tries)) }
    };
    Decision { step, errors: vec![error], memo: None }
}

/// The provider's wish, or 1 s, 2 s, 4 s ... 60 s; up to a quarter is added by lot, so that sessions that
/// failed together do not come back together.
fn pause_ms(seed: u64, failure: &Failure, tries: u32) -> u64 {
    let grown = PAUSE_FIRST_MS.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(PAUSE_MAX_MS);
    failure.retry_after_ms.unwrap_or(grown + seed % (grown / 4))
}

fn error_kind(kind: FailureKind) -> ErrorKind {
    match kind {
        FailureKind::RateLimited => ErrorKind::ModelRateLimited,
        FailureKind::Overloaded => ErrorKind::ModelOverloaded,
        FailureKind::Billing => ErrorKind::Billing,
        FailureKind::Provider
        | FailureKind::Unreachable
        | FailureKind::Request
        | FailureKind::ContextLength
        | FailureKind::Authentication
        | FailureKind::Lost => ErrorKind::ModelRequestFailed,
        FailureKind::Harness | FailureKind::Internal => ErrorKind::Unknown,
    }
}
