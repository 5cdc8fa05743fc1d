//! `full@1`: everything that was said, in order.

use super::{Strategy, messages::Messages};
use domain::session::LogEntry;
use serde_json::Value;

pub const STRATEGY: Strategy = Strategy { name: "full", version: 1, messages };

fn messages(entries: &[LogEntry], _params: &Value) -> Vec<Value> {
    let mut messages = Messages::default();
    for entry in entries {
        messages.push(entry);
    }
    messages.finish()
}
