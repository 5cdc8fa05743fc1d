//! The private part of a model request: what the next request and any later audit need, and no client sees.

use crate::{
    agent::StrategyRef,
    content::{BlobRef, Json},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Hangs on `span.model_request_end`; stripped by the api.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelPrivate {
    /// The assistant's content blocks verbatim, thinking with its signature included.
    pub blocks: Json,
    /// Use event id -> the model's own `toolu_...` id.
    pub tool_ids: BTreeMap<String, String>,
    pub recipe: Recipe,
}

/// How a model request was made: enough to make the same bytes again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Positions `[from, to)` of the log that the strategy was given.
    pub from: u64,
    pub to: u64,
    /// Ranges before `from` that it was given too, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Range>,
    #[serde(default, skip_serializing_if = "Purpose::is_answer")]
    pub purpose: Purpose,
    pub strategy: StrategyRef,
    pub snapshot: BlobRef,
    /// Version of the code that turns a request into bytes.
    pub serializer: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suffix: Vec<Value>,
    /// sha-256 of the bytes that were sent.
    pub request_sha256: String,
}

/// Positions `[from, to)` of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub from: u64,
    pub to: u64,
}

/// What a model request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The session goes on with what the model says.
    #[default]
    Answer,
    /// What the model says takes the place of what it was shown.
    Summary,
}

impl Purpose {
    pub fn is_answer(&self) -> bool {
        *self == Purpose::Answer
    }
}
