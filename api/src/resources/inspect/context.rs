//! What the model saw in a turn, or would see by another strategy: the request made again out of the log, what was left
//! out of it and why, and how much of it the provider could have kept from the request before.

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::{AgentSnapshot, StrategyRef};
use domain::ids::content_hash;
use domain::model::Range;
use domain::session::LogEntry;
use harness::context::{self, Shape};
use harness::replay::{self, Requested};
use log::blobs;
use serde_json::{Value, json};

use super::replay::read;
use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::query::{Param, Query};
use crate::resources::harnesses;

/// Bytes of a request to one token: an estimate, for what was never sent.
const BYTES_PER_TOKEN: usize = 4;

/// `turn` and `round` choose the request, the last of its kind if they are left out; `strategy` and `params` make it
/// otherwise.
pub fn params() -> [Param; 4] {
    let turn = Param::number("turn", 1..=u64::MAX);
    [turn, Param::number("round", 1..=u32::MAX.into()), Param::text("strategy"), Param::json("params")]
}

pub async fn context(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Json<Value>> {
    let turn: Option<u64> = query.parsed("turn", "the number of a turn, from 1")?;
    let round: Option<u32> = query.parsed("round", "the number of a request within the turn, from 1")?;
    let other = strategy(&query)?;
    let recording = read(&app, &id).await?;
    let walked = tokio::task::spawn_blocking(move || {
        let requests = replay::requests(&recording);
        let entries: Vec<LogEntry> = recording.commits.iter().flat_map(|committed| committed.entries()).collect();
        (requests, entries)
    });
    let (requests, entries) = walked.await.map_err(ApiError::internal)?;
    let requests = requests.map_err(ApiError::internal)?;
    let is_meant =
        |made: &Requested| turn.is_none_or(|turn| made.turn == turn) && round.is_none_or(|round| made.round == round);
    let at = requests.iter().rposition(is_meant).ok_or_else(|| no_request(&requests, turn))?;
    let as_made = &requests[at];
    let shown = match other.clone() {
        Some(strategy) => as_made.by(strategy),
        None => as_made.clone(),
    };
    let body = request(&app, &entries, &shown).await?;
    let bytes = context::serialize(&body);
    let before = match at.checked_sub(1) {
        Some(before) => {
            let before = other.map_or_else(|| requests[before].clone(), |strategy| requests[before].by(strategy));
            Some(messages(&request(&app, &entries, &before).await?))
        }
        None => None,
    };
    let prefix = before.map_or(0, |before| shared(&before, &messages(&body)));
    let sent = sent(&entries, as_made);
    let sha256 = content_hash(&bytes);
    Ok(Json(json!({
        "type": "context",
        "session_id": id,
        "turn": shown.turn,
        "round": shown.round,
        "purpose": shown.purpose,
        "strategy": shown.strategy,
        "from": shown.slice.from,
        "to": shown.slice.to,
        "keep": shown.slice.keep,
        "dropped": dropped(&entries, &shown),
        "messages": body["messages"].as_array().map_or(0, Vec::len),
        "bytes": bytes.len(),
        "tokens_estimated": bytes.len() / BYTES_PER_TOKEN,
        "cache_prefix_bytes": prefix,
        "request_sha256": sha256,
        "recorded_sha256": sent.as_ref(),
        "is_as_sent": sent.as_ref().map(|sent| *sent == sha256),
        "request": body,
    })))
}

/// Which there are, for who asked for another one.
fn no_request(requests: &[Requested], turn: Option<u64>) -> ApiError {
    let not_found = |message: String| ApiError::new(Kind::NotFound, message);
    let (Some(first), Some(last)) = (requests.first(), requests.last()) else {
        return not_found("the session has not asked a model yet".to_owned());
    };
    let turn = turn.unwrap_or(last.turn);
    match requests.iter().filter(|made| made.turn == turn).map(|made| made.round).max() {
        Some(rounds) => not_found(format!("turn {turn} has no request of that round: rounds are 1 to {rounds}")),
        None => {
            let (first, last) = (first.turn, last.turn);
            not_found(format!("there is no model request in turn {turn}: turns with one are {first} to {last}"))
        }
    }
}

/// `name` or `name@version`, with parameters as JSON.
fn strategy(query: &Query) -> Result<Option<StrategyRef>> {
    let Some(text) = query.text("strategy")? else { return Ok(None) };
    let (name, version) = text.split_once('@').unwrap_or((text, "1"));
    let version = version.parse().map_err(|_| ApiError::field("strategy", "must be NAME or NAME@VERSION"))?;
    let params = query.parsed::<Value>("params", "JSON")?.unwrap_or_default();
    let strategy = StrategyRef { name: name.to_owned(), version, params };
    harnesses::check_strategy(&strategy)?;
    Ok(Some(strategy))
}

async fn request(app: &App, log: &[LogEntry], made: &Requested) -> Result<Value> {
    let mut entries = context::entries(log, &made.slice);
    for entry in &mut entries {
        blobs::resolve(&*app.blobs, &mut entry.event).await.map_err(ApiError::internal)?;
        if let Some(private) = &mut entry.private {
            blobs::resolve_json(&*app.blobs, &mut private.blocks).await.map_err(ApiError::internal)?;
        }
    }
    let snapshot: AgentSnapshot =
        blobs::get_json(&*app.blobs, &made.agent.snapshot).await.map_err(ApiError::internal)?;
    let shape = Shape { strategy: &made.strategy, suffix: &made.suffix, purpose: made.purpose };
    context::request(&entries, &snapshot, shape).map_err(ApiError::internal)
}

/// The hash of the bytes that were sent, once an answer came.
fn sent(entries: &[LogEntry], made: &Requested) -> Option<String> {
    entries.iter().find_map(|entry| {
        let private = entry.private.as_ref()?;
        let recipe = &private.recipe;
        let is_it = recipe.to == made.slice.to && recipe.purpose == made.purpose && entry.position >= made.slice.to;
        is_it.then(|| recipe.request_sha256.clone())
    })
}

/// What the request does not show of the log before it: where, how many events of content, and why.
fn dropped(entries: &[LogEntry], made: &Requested) -> Vec<Value> {
    let why = match made.strategy.name.as_str() {
        "window" => "before the window",
        _ => "a summary stands for it",
    };
    let mut gaps: Vec<Range> = Vec::new();
    let mut from = 0;
    for kept in made.slice.keep.iter().chain([&Range { from: made.slice.from, to: made.slice.from }]) {
        if kept.from > from {
            gaps.push(Range { from, to: kept.from });
        }
        from = from.max(kept.to);
    }
    let within = |gap: &Range| {
        let is_within = |entry: &&LogEntry| (gap.from..gap.to).contains(&entry.position) && has_content(entry);
        entries.iter().filter(is_within).count()
    };
    let mut dropped: Vec<Value> =
        gaps.iter().map(|gap| json!({"from": gap.from, "to": gap.to, "events": within(gap), "why": why})).collect();
    for position in context::cleared_positions(&context::entries(entries, &made.slice), &made.strategy) {
        dropped.push(json!({"from": position, "to": position + 1, "events": 1, "why": "an old tool result, cleared"}));
    }
    dropped
}

fn has_content(entry: &LogEntry) -> bool {
    entry.event.body.content().is_some() || entry.private.is_some()
}

fn messages(body: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in ["tools", "system"] {
        bytes.extend(context::serialize(&body[part]));
    }
    for message in body["messages"].as_array().into_iter().flatten() {
        bytes.extend(context::serialize(&unmarked(message)));
    }
    bytes
}

/// Where the provider is told to cache moves on with each request, and is no difference.
fn unmarked(message: &Value) -> Value {
    let mut message = message.clone();
    for block in message["content"].as_array_mut().into_iter().flatten() {
        if let Some(block) = block.as_object_mut() {
            block.remove("cache_control");
        }
    }
    message
}

fn shared(before: &[u8], after: &[u8]) -> usize {
    before.iter().zip(after).take_while(|(before, after)| before == after).count()
}
