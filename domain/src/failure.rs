//! What went wrong, as data that another build will read out of history.

use serde::{Deserialize, Serialize};

/// A failure that enters history: never a Rust error, whose shape may change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// For people: what happened and what to do. Never carries secrets or message text.
    pub message: String,
    pub retry: RetryClass,
    /// The provider's wish, in milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The provider asks for fewer requests (429).
    RateLimited,
    /// The provider is overloaded (529).
    Overloaded,
    /// The provider failed (5xx), or its answer broke off or made no sense.
    Provider,
    /// Nothing came in time, or no connection.
    Unreachable,
    /// The provider refuses this request for good (400, 404, 413, 422).
    Request,
    /// The request does not fit the model's window: the same log needs another context strategy.
    ContextLength,
    /// The credential is missing or refused (401, 403).
    Authentication,
    /// The account cannot pay (402).
    Billing,
    /// The worker that ran the activity is gone or gave up.
    Lost,
    /// No such harness in this build, or it failed.
    Harness,
    Internal,
}

/// What a retry can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryClass {
    /// The same request may succeed later.
    Transient,
    /// The same request fails again until somebody changes something.
    Permanent,
}

impl Failure {
    pub fn transient(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), retry: RetryClass::Transient, retry_after_ms: None }
    }

    pub fn permanent(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure { kind, message: message.into(), retry: RetryClass::Permanent, retry_after_ms: None }
    }
}
