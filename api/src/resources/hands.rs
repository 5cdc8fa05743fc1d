//! Ours: the hands of this machine, beside the official API. Of the sessions that the caller may see, and no others.

use axum::Json;
use axum::extract::{Path, State};
use schemars::JsonSchema;
use serde::Serialize;

use super::deleted::{Deleted, deleted};
use super::sessions::row as session_row;
use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::hands::Hand;
use crate::operation::get;
use crate::page::Page;
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "hands",
    routes: &[
        Route { path: "/v1/hands", methods: || get(list) },
        Route { path: "/v1/hands/{hand_id}", methods: || get(show).delete(end) },
    ],
};

/// As clients see it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Hand")]
struct Object {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "hand"))]
    kind: &'static str,
    id: String,
    session_id: String,
    /// `running` or `stopped`.
    state: &'static str,
    mode: String,
    epoch: Option<u64>,
    running_calls: Vec<String>,
    idle_seconds: u64,
    lease_seconds: Option<u64>,
    layers_off: Vec<Layer>,
}

#[derive(Serialize, JsonSchema)]
struct Layer {
    name: String,
    why: String,
}

impl From<Hand> for Object {
    fn from(hand: Hand) -> Self {
        Self {
            kind: "hand",
            id: hand.id,
            session_id: hand.session_id,
            state: if hand.is_running { "running" } else { "stopped" },
            mode: hand.mode,
            epoch: hand.epoch,
            running_calls: hand.calls,
            idle_seconds: hand.idle_seconds,
            lease_seconds: hand.lease_seconds,
            layers_off: hand.layers_off.into_iter().map(|(name, why)| Layer { name, why }).collect(),
        }
    }
}

/// As many as this machine has, so they come on one page.
async fn list(State(app): State<App>) -> Result<Json<Page<Object>>> {
    let hands = seen(&app).await?;
    Ok(Json(Page::whole(hands.into_iter().map(Object::from).collect())))
}

async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Object>> {
    Ok(Json(find(&app, &id).await?.into()))
}

/// What its session knew is told to its model as lost; the next call gets a new one.
async fn end(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Deleted>> {
    let hand = find(&app, &id).await?;
    if let Some(hands) = &app.hands {
        hands.end(&hand.id).await.map_err(ApiError::internal)?;
    }
    Ok(deleted(hand.id, "hand_deleted"))
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
