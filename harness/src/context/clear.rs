//! `clear-tool-results@1`: everything, but old tool results are named, not shown.
//!
//! `{"before": P, "keep": N}`: results before position P are cleared, except the last N of them. P is the caller's
//! to move, in leaps: the requests between two leaps share their beginning.

use super::{
    Param, Strategy,
    messages::{Messages, Synthetic},
};
use crate::marks::Marks;
use domain::{
    EventBody,
    content::{Block, Content},
    session::LogEntry,
};
use serde_json::Value;
use std::{borrow::Cow, collections::BTreeSet};

pub const STRATEGY: Strategy =
    Strategy { name: "clear-tool-results", version: 1, reach, messages, summary: None, params: PARAMS };

/// `before`: the position from which on results are shown; `keep`: how many of the last ones before it are shown as well.
pub const PARAMS: &[Param] = &[Param::Number("before"), Param::Number("keep")];

/// What is shorter than this costs no more than the note that would replace it.
const CLEARED_BYTES_MIN: usize = 400;

fn reach(_marks: &Marks, _params: &Value) -> u64 {
    0
}

fn messages(entries: &[LogEntry], params: &Value) -> Vec<Value> {
    Messages::of(&cleared(entries, params), Synthetic::Kept)
}

/// The entries with old results cleared, as `before` and `keep` in the parameters say.
pub fn cleared<'a>(entries: &'a [LogEntry], params: &Value) -> Cow<'a, [LogEntry]> {
    let old = positions(entries, params);
    if old.is_empty() {
        return Cow::Borrowed(entries);
    }
    let entries = entries.iter().map(|entry| {
        let mut entry = entry.clone();
        if old.contains(&entry.position)
            && let Some(content) = entry.event.body.content_mut()
        {
            let bytes = bytes(content);
            *content = Content::text(format!(
                "[This result of {bytes} bytes was cleared to save room. Run the tool again if it is needed.]"
            ));
        }
        entry
    });
    Cow::Owned(entries.collect())
}

/// Where the results are that are cleared.
pub fn positions(entries: &[LogEntry], params: &Value) -> BTreeSet<u64> {
    let Some(before) = params["before"].as_u64() else { return BTreeSet::new() };
    let keep = params["keep"].as_u64().unwrap_or(0);
    let old = entries.iter().filter(|entry| entry.position < before && !entry.ignored && is_large_result(entry));
    let mut old: Vec<u64> = old.map(|entry| entry.position).collect();
    old.truncate(old.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX)));
    old.into_iter().collect()
}

fn is_large_result(entry: &LogEntry) -> bool {
    match &entry.event.body {
        EventBody::AgentToolResult { content, .. }
        | EventBody::UserToolResult { content, .. }
        | EventBody::UserCustomToolResult { content, .. }
        | EventBody::AgentMcpToolResult { content, .. } => bytes(content) >= CLEARED_BYTES_MIN,
        _ => false,
    }
}

fn bytes(content: &Content) -> usize {
    match content {
        Content::Inline(blocks) => blocks
            .iter()
            .map(|block| match block {
                Block::Text { text } => text.len(),
                other => serde_json::to_string(other).map_or(0, |json| json.len()),
            })
            .sum(),
        Content::Blob(blob) => usize::try_from(blob.bytes).unwrap_or(usize::MAX),
    }
}
