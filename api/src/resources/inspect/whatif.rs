//! What would have become of a session with another harness, strategy or model: gone through again by a brain worker.

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::StrategyRef;
use domain::limits::{TRIAL_EXPECT_BYTES_MAX, TRIAL_REQUESTS_MAX};
use domain::rollout::{Price, Recorded};
use domain::trial::Tried;
use harness::whatif::{Input, Record, Report, Sum, Totals, Variant, cost};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::harnesses;
use super::super::sessions::{self, row};
use super::super::trials::{self, Found, TrialRow};
use super::onward;
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Kind, Result};
use crate::ids;

/// How often a model may be asked where nothing else is said.
const REQUESTS: u32 = 50;
/// Bytes of a model's name.
const MODEL_BYTES_MAX: usize = 256;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatIf {
    /// From which turn on, from 1.
    turn: u64,
    /// How many turns, all that were recorded if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    turns: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    harness: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strategy: Option<StrategyRef>,
    /// Really asked for what the record does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// At the first call that the record cannot answer a fork goes on, with a sandbox of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    live: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shims_off: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requests_max: Option<u32>,
    /// What the last message contains if all went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expect: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    price: Option<Price>,
}

pub async fn begin(
    State(app): State<App>,
    Path(session_id): Path<String>,
    JsonBody(mut body): JsonBody<WhatIf>,
) -> Result<Json<Value>> {
    let session = row::find(&app, &session_id).await?;
    let current = sessions::read(&app, &session_id).await?;
    let turns = current.summary.turn;
    if !(1..=turns).contains(&body.turn) {
        return Err(ApiError::field("turn", format!("must be from 1 to {turns}, the turns of the session")));
    }
    if body.turns == Some(0) {
        return Err(ApiError::field("turns", "must be at least 1"));
    }
    check_text(body.model.as_deref(), body.expect.as_deref())?;
    let harness = match &body.harness {
        Some(named) => Some(harnesses::resolve(&app, named).await?),
        None => None,
    };
    body.shims_off = shims_off(&app, &session_id, &body, harness.as_ref()).await?;
    let harness = harness.map(|found| found.reference());
    if let Some(strategy) = &body.strategy {
        harnesses::check_strategy(strategy)?;
    }
    if body.live && body.model.is_none() {
        return Err(ApiError::field("live", "needs a model: the fork asks it what to do with the result"));
    }
    let id = ids::new(ids::TRIAL);
    // What is gone through is that session from its first decision on, whether or not it comes to be.
    let fork = body.live.then(|| ids::new(ids::SESSION));
    let variant = Variant {
        harness,
        strategy: body.strategy.clone(),
        model: body.model.as_deref().map(sessions::other_model),
        shims_off: body.shims_off.clone(),
    };
    let input = Input {
        id: fork.clone().unwrap_or_else(|| id.clone()),
        session: Recorded { session_id: session_id.clone(), sealed: session.sealed },
        turn: body.turn,
        turns: body.turns,
        variant,
        requests_max: requests_max(body.requests_max)?,
        expect: body.expect.clone(),
        live: body.live,
    };
    let asked = serde_json::to_value(&body).map_err(ApiError::internal)?;
    let row = TrialRow { id, created_at: app.clock.now(), subject: session_id, asked, fork };
    trials::begin(&app, &row, vec![input]).await?;
    shown(&app, &row).await.map(Json)
}

/// These go into every trial.
pub fn check_text(model: Option<&str>, expect: Option<&str>) -> Result<()> {
    for (field, text, max) in [("model", model, MODEL_BYTES_MAX), ("expect", expect, TRIAL_EXPECT_BYTES_MAX)] {
        if text.is_some_and(|text| text.len() > max) {
            return Err(ApiError::field(field, format!("must be at most {max} bytes")));
        }
        if text.is_some_and(|text| text.trim().is_empty()) {
            return Err(ApiError::field(field, "must not be empty"));
        }
    }
    Ok(())
}

/// Each once, and all of them shims of the harness that is asked.
async fn shims_off(
    app: &App,
    session_id: &str,
    body: &WhatIf,
    harness: Option<&harnesses::Found>,
) -> Result<Vec<String>> {
    if body.shims_off.is_empty() {
        return Ok(Vec::new());
    }
    let own;
    let harness = match harness {
        Some(harness) => harness,
        None => {
            own = held(app, session_id, body.turn).await?;
            &own
        }
    };
    let known = harnesses::shims(harness);
    let mut shims_off = body.shims_off.clone();
    shims_off.sort();
    shims_off.dedup();
    match shims_off.iter().find(|name| !known.contains(name)) {
        None => Ok(shims_off),
        Some(_) if known.is_empty() => {
            Err(ApiError::field("shims_off", format!("{} has no shims", harness.reference())))
        }
        Some(_) => {
            let known = known.join(", ");
            Err(ApiError::field("shims_off", format!("{} has the shims {known}", harness.reference())))
        }
    }
}

/// The harness that the session held before a turn: it may have been swapped since.
async fn held(app: &App, session_id: &str, turn: u64) -> Result<harnesses::Found> {
    let recording = super::recording(app, session_id).await?;
    let read = tokio::task::spawn_blocking(move || Record::of(&recording, turn).map(|record| record.before));
    let before = read.await.map_err(ApiError::internal)?.map_err(ApiError::internal)?;
    let harness = before.summary.harness;
    harnesses::resolve(app, &harness.sha256).await.map_err(|error| match error.kind() {
        Kind::NotFound => ApiError::field("shims_off", format!("nobody knows the shims of {harness}, which is gone")),
        _ => error,
    })
}

pub fn requests_max(asked: Option<u32>) -> Result<u32> {
    let asked = asked.unwrap_or(REQUESTS);
    match asked <= TRIAL_REQUESTS_MAX {
        true => Ok(asked),
        false => Err(ApiError::field("requests_max", format!("must be at most {TRIAL_REQUESTS_MAX}"))),
    }
}

/// Waits a while for it to be over.
pub async fn retrieve(State(app): State<App>, Path((session_id, id)): Path<(String, String)>) -> Result<Json<Value>> {
    row::find(&app, &session_id).await?;
    let row = trials::find(&app, &id, &session_id).await?;
    shown(&app, &row).await.map(Json)
}

async fn shown(app: &App, row: &TrialRow) -> Result<Value> {
    let mut shown = json!({
        "type": "whatif",
        "id": row.id,
        "session_id": row.subject,
        "created_at": crate::time::text(row.created_at),
        "asked": row.asked,
    });
    let (status, part) = match trials::look(app, &row.id).await? {
        Found::Running => ("running", None),
        Found::Broken => ("failed", Some(("error", json!("it was ended before it came to a report")))),
        Found::Done(tried) => match tried.into_iter().next() {
            Some(Tried::Report { report }) => {
                let asked: WhatIf = serde_json::from_value(row.asked.clone()).map_err(ApiError::internal)?;
                match onward::followed(app, row, report, asked.expect.as_deref()).await? {
                    Some(report) => ("done", Some(("report", told(&report, asked.price.as_ref())?))),
                    None => ("running", None),
                }
            }
            Some(Tried::Failed { why }) => ("failed", Some(("error", json!(why)))),
            None => ("failed", None),
        },
    };
    shown["status"] = json!(status);
    if let Some((name, value)) = part {
        shown[name] = value;
    }
    Ok(shown)
}

/// The report with sums over the turns that both sides came through, and what they cost where prices are known.
fn told(report: &Report, price: Option<&Price>) -> Result<Value> {
    let mut told = serde_json::to_value(report).map_err(ApiError::internal)?;
    let priced = |sum: &Sum| {
        let mut shown = json!(sum);
        if let Some(price) = price {
            shown["cost"] = json!(cost(&sum.usage, price));
        }
        shown
    };
    for pair in &report.turns {
        let at = told["turns"].as_array_mut().and_then(|turns| turns.iter_mut().find(|turn| turn["turn"] == pair.turn));
        let Some(at) = at else { continue };
        at["recorded"] = priced(&pair.recorded);
        let Some(other) = &pair.tried else { continue };
        at["tried"] = priced(other);
    }
    let Totals { turns, recorded, tried, .. } = report.totals();
    told["totals"] = json!({"turns": turns, "recorded": priced(&recorded), "tried": priced(&tried)});
    told["unknown"] = json!(report.caveats());
    if let Some(told) = told.as_object_mut() {
        told.remove("left");
    }
    Ok(told)
}
