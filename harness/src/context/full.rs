//! `full`: everything that was said, in order.

use super::{
    Strategy,
    messages::{Messages, Synthetic},
};
use crate::marks::Marks;
use domain::session::LogEntry;
use serde_json::Value;

/// Leaves out the synthetic messages of earlier requests.
pub const STRATEGY: Strategy = Strategy { name: "full", version: 1, reach, messages, summary: None, params: &[] };

/// Keeps them where the model saw them: every request begins with the one before it.
pub const STRATEGY_2: Strategy =
    Strategy { name: "full", version: 2, reach, messages: messages_2, summary: None, params: &[] };

fn reach(_marks: &Marks, _params: &Value) -> u64 {
    0
}

fn messages(entries: &[LogEntry], _params: &Value) -> Vec<Value> {
    Messages::of(entries, Synthetic::Forgotten)
}

fn messages_2(entries: &[LogEntry], _params: &Value) -> Vec<Value> {
    Messages::of(entries, Synthetic::Kept)
}
