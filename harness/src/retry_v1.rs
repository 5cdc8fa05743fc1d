//! What harnesses do when the provider fails: released with them, and frozen as they are. Their sources include
//! this one.
//!
//! What may pass is retried with growing pauses, visibly; what cannot get better ends the turn.

use crate::view::{Decision, View};
use domain::{
    Failure, RetryClass, Step,
    commit::IdleReason,
    event::{ErrorBody, ErrorKind, RetryStatus},
    failure::FailureKind,
};

/// Failed requests in a row before the turn is given up.
const TRIES_MAX: u32 = 8;
const PAUSE_FIRST_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;

pub fn after_failure(view: &View, failure: &Failure, tries: u32) -> Decision {
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
