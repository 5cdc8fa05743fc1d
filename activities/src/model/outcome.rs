//! What came of one call: the shapes that the activity records.
//!
//! They serialize, because another build reads them from history: new fields get defaults, nothing is renamed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The result of one call of a model. All three are results: none is an error of the activity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    Answer(Answer),
    Failed(Failure),
    Cancelled,
}

impl From<Result<Answer, Failure>> for Outcome {
    fn from(result: Result<Answer, Failure>) -> Outcome {
        match result {
            Ok(answer) => Outcome::Answer(answer),
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The assistant's content blocks as the provider gave them (text, thinking with signature, redacted_thinking,
    /// tool_use, and any other type unchanged): to be sent back as they are.
    pub blocks: Vec<Value>,
    /// `end_turn`, `tool_use`, `max_tokens`, `stop_sequence`, `refusal`, `pause_turn`, or a newer one.
    pub stop_reason: String,
    /// With `refusal`: `{type: "refusal", category, explanation}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_details: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_sequence: Option<String>,
    pub usage: Usage,
    /// The model that answered, in the provider's words: not always the one that was asked.
    pub model_id: String,
    /// The provider's id of the request (header `request-id` or `x-request-id`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The calls among `blocks` whose input was no JSON object. See [`BadInput`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_inputs: Vec<BadInput>,
}

/// A tool call that must not be run: its input was not a JSON object (a small model's mistake, or cut off by
/// `max_tokens`).
///
/// The block stays in [`Answer::blocks`], with the input `{"INVALID_JSON": "<what came>"}`, so that the model can see
/// what it wrote. The caller answers it with an error tool result made from `error` instead of running the tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadInput {
    pub tool_use_id: String,
    pub error: String,
}

/// Tokens, as the provider counted them. `input_tokens` are those neither read from nor written to a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_creation_5m_tokens: u64,
    pub cache_creation_1h_tokens: u64,
    pub cache_read_tokens: u64,
    /// The provider counted nothing: these are bytes / 4.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
}

impl Usage {
    /// What a provider that counts nothing would have counted, roughly.
    pub(super) fn estimate(request_bytes: usize, answer_bytes: usize) -> Usage {
        let tokens = |bytes: usize| (bytes as u64).div_ceil(4);
        Usage {
            input_tokens: tokens(request_bytes),
            output_tokens: tokens(answer_bytes),
            estimated: true,
            ..Usage::default()
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub class: FailureClass,
    /// How long the provider asked to be left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// For people; bounded, and without the key.
    pub message: String,
    /// The HTTP status, where there was one. A stream that broke has 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The provider's own word for it (`overloaded_error`, `context_length_exceeded`, ...).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Previews of this answer have been published: they are void.
    pub partial: bool,
}

/// What kind of failure it was, and so whether asking again can help.
///
/// | class | what happened | ask again |
/// |---|---|---|
/// | `rate_limited` | 429 | yes, after `retry_after_ms` |
/// | `overloaded` | 529, or `overloaded_error` anywhere | yes |
/// | `server` | other 5xx, 409, `api_error` in a stream | yes |
/// | `timeout` | 408, 504, no first byte in time, the whole call too long | yes |
/// | `connection` | refused, reset or unresolvable before the first byte | yes |
/// | `stream` | dropped, truncated, stalled or malformed after it | yes |
/// | `request` | 400, 413, 422, other 3xx and 4xx, an answer that is no event stream or too long | no: the same bytes fail again |
/// | `context_length` | the request has more tokens than the model takes | not these bytes; a shorter context can |
/// | `auth` | 401, 403 | no |
/// | `billing` | 402, or a spent quota | no |
/// | `not_found` | 404: no such model, or a wrong base URL | no |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    RateLimited,
    Overloaded,
    Server,
    Timeout,
    Connection,
    Stream,
    Request,
    ContextLength,
    Auth,
    Billing,
    NotFound,
}

impl FailureClass {
    /// As the table above writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Stream => "stream",
            Self::Request => "request",
            Self::ContextLength => "context_length",
            Self::Auth => "auth",
            Self::Billing => "billing",
            Self::NotFound => "not_found",
        }
    }

    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::RateLimited | Self::Overloaded | Self::Server | Self::Timeout | Self::Connection | Self::Stream => {
                true
            }
            Self::Request | Self::ContextLength | Self::Auth | Self::Billing | Self::NotFound => false,
        }
    }
}

impl Failure {
    pub(super) fn new(class: FailureClass, message: impl Into<String>) -> Failure {
        Failure {
            class,
            retry_after_ms: None,
            message: message.into(),
            status: None,
            provider_type: None,
            request_id: None,
            partial: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// These bytes are in histories: a change here is a change of the format.
    #[test]
    fn the_recorded_form_stays() {
        let answer = Outcome::Answer(Answer {
            blocks: vec![json!({"type": "text", "text": "hi"})],
            stop_reason: "end_turn".to_owned(),
            usage: Usage { input_tokens: 3, output_tokens: 1, ..Usage::default() },
            model_id: "m".to_owned(),
            ..Answer::default()
        });
        let usage = json!({"input_tokens": 3, "output_tokens": 1, "cache_creation_5m_tokens": 0,
            "cache_creation_1h_tokens": 0, "cache_read_tokens": 0});
        let form = json!({"type": "answer", "blocks": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn",
            "usage": usage, "model_id": "m"});
        assert_eq!(serde_json::to_value(&answer).unwrap(), form);
        assert_eq!(serde_json::from_value::<Outcome>(form).unwrap(), answer);

        let failed = Outcome::Failed(Failure::new(FailureClass::RateLimited, "slow down"));
        let form = json!({"type": "failed", "class": "rate_limited", "message": "slow down", "partial": false});
        assert_eq!(serde_json::to_value(&failed).unwrap(), form);
        assert_eq!(serde_json::from_value::<Outcome>(form).unwrap(), failed);
        assert_eq!(serde_json::to_value(Outcome::Cancelled).unwrap(), json!({"type": "cancelled"}));
    }
}
