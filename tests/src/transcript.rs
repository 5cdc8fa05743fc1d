//! What a session's log says, without what differs between two runs of the same: ids, times, usage.

use crate::client::{Client, LoggedEvent};
use anyhow::ensure;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Positions that are read once more, as a slice.
const SLICE: usize = 7;

/// The events one by one, each on a line; ids are numbered in the order in which they appear.
pub fn transcript(events: &[LoggedEvent]) -> Vec<String> {
    let mut ids = BTreeMap::new();
    let shown = events.iter().map(|event| {
        let mut event = serde_json::to_value(event).expect("an event came as JSON");
        strip(&mut event, &mut ids);
        event.to_string()
    });
    shown.collect()
}

fn strip(value: &mut Value, ids: &mut BTreeMap<String, usize>) {
    match value {
        Value::Object(fields) => {
            for name in ["processed_at", "usage", "model_usage"] {
                fields.remove(name);
            }
            for (name, value) in fields {
                let names_ids = name == "id" || name.ends_with("_id") || name.ends_with("_ids");
                if names_ids { number(value, ids) } else { strip(value, ids) }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| strip(value, ids)),
        _ => {}
    }
}

fn number(value: &mut Value, ids: &mut BTreeMap<String, usize>) {
    match value {
        Value::String(id) => {
            let next = ids.len();
            *id = format!("#{}", ids.entry(id.clone()).or_insert(next));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| number(value, ids)),
        _ => {}
    }
}

/// The first line in which two transcripts differ.
pub fn difference(expected: &[String], found: &[String]) -> Option<String> {
    let lines = expected.len().max(found.len());
    let line = |lines: &[String], at: usize| lines.get(at).map_or("nothing", String::as_str).to_owned();
    let at = (0..lines).find(|at| line(expected, *at) != line(found, *at))?;
    let (expected, found) = (line(expected, at), line(found, at));
    Some(format!("position {at}:\n  expected {expected}\n  found    {found}"))
}

/// What holds of every log at rest: each event once, everything processed, stamps in order, positions dense.
pub async fn check_log(client: &Client, session: &str, events: &[LoggedEvent]) -> anyhow::Result<()> {
    let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
    ensure!(ids.len() == events.len(), "{} events have {} ids", events.len(), ids.len());
    let mut last = None;
    for event in events {
        ensure!(event.processed_at.is_some(), "{} {} is not processed", event.kind, event.id);
        ensure!(event.processed_at >= last, "{} {} is stamped before what is before it", event.kind, event.id);
        last.clone_from(&event.processed_at);
    }
    // A position is a place in this list, wherever one begins to count.
    for from in (0..events.len()).step_by((events.len() / 20).max(1)) {
        let to = (from + SLICE).min(events.len());
        let slice = client.slice(session, from, to).await?;
        ensure!(slice == events[from..to], "positions {from} to {to} are not what the list has there");
    }
    let beyond = client.slice(session, events.len(), events.len() + SLICE).await?;
    ensure!(beyond.is_empty(), "there is something behind the last position");
    Ok(())
}
