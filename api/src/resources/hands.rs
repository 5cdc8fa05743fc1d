//! Ours: the hands of this machine, beside the official API. Of the sessions that the caller may see, and no others.

use axum::Json;
use axum::extract::{Path, State};
use axum::routing::get;
use serde_json::{Value, json};

use super::sessions::row as session_row;
use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::hands::Hand;
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "hands",
    routes: &[
        Route { path: "/v1/hands", methods: || get(list) },
        Route { path: "/v1/hands/{hand_id}", methods: || get(show).delete(end) },
    ],
};

fn object(hand: &Hand) -> Value {
    let layer = |(name, why): &(String, String)| json!({"name": name, "why": why});
    json!({
        "type": "hand",
        "id": hand.id,
        "session_id": hand.session_id,
        "state": if hand.is_running { "running" } else { "stopped" },
        "mode": hand.mode,
        "epoch": hand.epoch,
        "running_calls": hand.calls,
        "idle_seconds": hand.idle_seconds,
        "lease_seconds": hand.lease_seconds,
        "layers_off": hand.layers_off.iter().map(layer).collect::<Vec<_>>(),
    })
}

/// As many as this machine has, so they come on one page.
async fn list(State(app): State<App>) -> Result<Json<Value>> {
    let hands = seen(&app).await?;
    Ok(Json(json!({"data": hands.iter().map(object).collect::<Vec<_>>(), "next_page": null})))
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>> {
    Ok(Json(object(&find(&app, &id).await?)))
}

/// What its session knew is told to its model as lost; the next call gets a new one.
async fn end(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>> {
    let hand = find(&app, &id).await?;
    if let Some(hands) = &app.hands {
        hands.end(&hand.id).await.map_err(ApiError::internal)?;
    }
    Ok(Json(json!({"type": "hand_deleted", "id": hand.id})))
}

async fn find(app: &App, id: &str) -> Result<Hand> {
    let hands = seen(app).await?;
    hands.into_iter().find(|hand| hand.id == id).ok_or_else(|| ApiError::not_found("hand", id))
}

/// Hands of sessions that are in the caller's part of the catalog.
async fn seen(app: &App) -> Result<Vec<Hand>> {
    let Some(hands) = &app.hands else { return Ok(Vec::new()) };
    let mut seen = Vec::new();
    for hand in hands.list().await.map_err(ApiError::internal)? {
        match session_row::find(app, &hand.session_id).await {
            Ok(_) => seen.push(hand),
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(seen)
}
