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
    pub strategy: StrategyRef,
    pub snapshot: BlobRef,
    /// Version of the code that turns a request into bytes.
    pub serializer: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suffix: Vec<Value>,
    /// sha-256 of the bytes that were sent.
    pub request_sha256: String,
}
