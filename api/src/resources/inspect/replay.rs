//! A session decided again from its record: without model, hands or network, and off the event loop.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::HarnessRef;
use domain::committed::Recording;
use harness::replay::{self, With};
use serde_json::{Value, json};

use super::super::harnesses::{self, Deciding};
use super::super::sessions::row;
use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::media::Open;
use crate::query::Query;

/// The whole log with what the session began with: what replay needs, and nothing else.
pub async fn recording(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Open<Recording>>> {
    Ok(Json(Open(read(&app, &id).await?)))
}

pub async fn read(app: &App, id: &str) -> Result<Recording> {
    row::find(app, id).await?;
    let followed = app.session(id);
    let mut log = followed.fresh().await?;
    let recording = log.recording(&*app.blobs).await?;
    recording.ok_or_else(|| {
        let message = "the log does not say what the session began with: it was sealed by an earlier version";
        ApiError::new(Kind::PreconditionFailed, message)
    })
}

/// By the session's own harnesses, or by the one that `harness` names.
pub async fn replay(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Json<Value>> {
    let recording = read(&app, &id).await?;
    let other = match query.text("harness")? {
        Some(named) => Some(harnesses::resolve(&app, named).await?.reference()),
        None => None,
    };
    let wanted: Vec<HarnessRef> = match &other {
        Some(other) => vec![other.clone()],
        None => recording.harnesses().cloned().collect(),
    };
    let mut known: BTreeMap<String, Deciding> = BTreeMap::new();
    for wanted in wanted {
        if let Some(deciding) = harnesses::deciding(&app, &wanted).await? {
            known.insert(wanted.sha256, deciding);
        }
    }
    let by = other.as_ref().map(ToString::to_string);
    let replayed = tokio::task::spawn_blocking(move || match other {
        Some(other) => {
            let mut ask = known.get(&other.sha256).map(Deciding::asked);
            match &mut ask {
                Some(ask) => replay::replay(&recording, With::Other(&other, &mut **ask)),
                None => Err(gone(&recording, other)),
            }
        }
        None => {
            let mut own = |wanted: &HarnessRef| known.get(&wanted.sha256).map(Deciding::asked);
            replay::replay(&recording, With::Own(&mut own))
        }
    });
    let report = replayed.await.map_err(ApiError::internal)?.map_err(refused)?;
    let mut shown = serde_json::to_value(&report).map_err(ApiError::internal)?;
    shown["type"] = json!("replay");
    shown["session_id"] = json!(id);
    shown["harness"] = json!(by);
    shown["identical"] = json!(report.divergence.is_none());
    Ok(Json(shown))
}

fn gone(recording: &Recording, harness: HarnessRef) -> replay::Error {
    replay::Error::Gone { session_id: recording.session_id.clone(), commit: 0, harness }
}

/// A harness that is gone is the client's to name otherwise; a log that lacks something is ours.
fn refused(error: replay::Error) -> ApiError {
    match error {
        replay::Error::Gone { ref harness, .. } => {
            let message = format!("harness {harness} is not here any more: name another to replay with");
            ApiError::new(Kind::PreconditionFailed, message).inner(error)
        }
        error @ replay::Error::Missing { .. } => ApiError::internal(error),
    }
}
