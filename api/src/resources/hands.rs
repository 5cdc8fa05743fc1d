//! Ours: the hands of this machine, beside the official API, and what is handed from one session to another. Of the sessions
//! that the caller may see, and no others.

use axum::Json;
use axum::extract::{Path, State};
use domain::session::{Give, signal};
use domain::{HandName, Held, Summary, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deleted::{Deleted, deleted};
use super::sessions::current::Current;
use super::sessions::row as session_row;
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Kind, Result};
use crate::gateway;
use crate::hands::Hand;
use crate::ids;
use crate::operation::{get, post};
use crate::page::Page;
use crate::query::{Param, Query};
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "hands",
    routes: &[
        Route { path: "/v1/hands", methods: || get(list).query([Param::text("session_id")]) },
        Route { path: "/v1/hands/transfer", methods: || post(transfer) },
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
    /// What the session calls it: `main`, or one of the hands that its agent names.
    name: String,
    /// `running`, `stopped`, or `parked`: what was in it is kept, and nothing of it runs.
    state: &'static str,
    /// None where it is parked.
    mode: Option<String>,
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
            name: hand.name,
            state: if hand.is_running { "running" } else { "stopped" },
            mode: Some(hand.mode),
            epoch: hand.epoch,
            running_calls: hand.calls,
            idle_seconds: hand.idle_seconds,
            lease_seconds: hand.lease_seconds,
            layers_off: hand.layers_off.into_iter().map(|(name, why)| Layer { name, why }).collect(),
        }
    }
}

/// As many as this machine has, so they come on one page; of one session, the parked ones too.
async fn list(State(app): State<App>, query: Query) -> Result<Json<Page<Object>>> {
    let session_id = query.text("session_id")?;
    let mut hands = seen(&app).await?;
    hands.retain(|hand| session_id.is_none_or(|id| hand.session_id == id));
    let mut shown: Vec<Object> = hands.into_iter().map(Object::from).collect();
    if let Some(id) = session_id {
        session_row::find(&app, id).await?;
        shown.extend(parked(&app, id).await?);
    }
    Ok(Json(Page::whole(shown)))
}

async fn parked(app: &App, session_id: &str) -> Result<Vec<Object>> {
    let followed = app.session(session_id);
    let log = followed.fresh().await?;
    let now = Time::from_ms(app.clock.now().as_millisecond());
    let held = log.summary().into_iter().flat_map(Summary::all_held);
    let parked = held.filter_map(|(name, held)| Some((name, held.parked.as_ref()?)));
    let shown = parked.map(|(name, parked)| Object {
        kind: "hand",
        id: parked.hand.clone(),
        session_id: session_id.to_owned(),
        name: name.to_string(),
        state: "parked",
        mode: None,
        epoch: None,
        running_calls: Vec::new(),
        idle_seconds: now.since(parked.at) / 1000,
        lease_seconds: None,
        layers_off: Vec::new(),
    });
    Ok(shown.collect())
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

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TransferOf {
    from_session_id: String,
    to_session_id: String,
    /// Which of the first session's hands: `main` unless said.
    #[serde(default)]
    hand: Option<String>,
    /// Which of the other's it becomes: as it is called in the first one unless said.
    #[serde(default)]
    to_hand: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HandTransfer")]
struct Transfer {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "hand_transfer"))]
    kind: &'static str,
    id: String,
    from_session_id: String,
    to_session_id: String,
    hand: String,
    to_hand: String,
}

/// What is in a session's hand goes to another session, as soon as the first one rests: nothing of the first one's calls, secrets
/// or network goes with it. The logs of both say what became of it.
async fn transfer(State(app): State<App>, JsonBody(of): JsonBody<TransferOf>) -> Result<Json<Transfer>> {
    let TransferOf { from_session_id, to_session_id, hand, to_hand } = of;
    let to_name = name(to_hand.as_deref().or(hand.as_deref()), "to_hand")?;
    let name = name(hand.as_deref(), "hand")?;
    if from_session_id == to_session_id {
        return Err(ApiError::invalid("a session has its hand already"));
    }
    for id in [&from_session_id, &to_session_id] {
        session_row::find(&app, id).await?;
    }
    let (from, to) = (current(&app, &from_session_id).await?, current(&app, &to_session_id).await?);
    if from.summary.held(&name).is_none_or(Held::is_without) {
        return Err(ApiError::invalid(format!("session {from_session_id} has no hand{}", called(&name))));
    }
    if !to_name.is_main() && !to.summary.attributes.agent.hands.contains(&to_name) {
        let problem = format!("the agent of session {to_session_id} knows no hand called {to_name}");
        return Err(ApiError::field("to_hand", problem));
    }
    if to.summary.held(&to_name).is_some_and(|held| !held.is_without()) {
        return Err(ApiError::invalid(format!("session {to_session_id} has a hand of its own{}", called(&to_name))));
    }
    let id = ids::new(ids::TRANSFER);
    let give = Give { id, to: to_session_id.clone(), name: name.clone(), to_name: to_name.clone() };
    match app.gateway.signal(&from_session_id, signal::GIVE, &give, &give.id).await {
        Ok(()) => {}
        Err(gateway::Error::NotFound { .. }) => return Err(ended(&from_session_id)),
        Err(error) => return Err(error.into()),
    }
    app.session(&from_session_id).follow();
    app.session(&to_session_id).follow();
    let (hand, to_hand) = (name.to_string(), to_name.to_string());
    Ok(Json(Transfer { kind: "hand_transfer", id: give.id, from_session_id, to_session_id, hand, to_hand }))
}

/// As a client wrote it; the main one where it named none.
pub(super) fn name(text: Option<&str>, at: &str) -> Result<HandName> {
    let Some(text) = text else { return Ok(HandName::default()) };
    HandName::parse(text).ok_or_else(|| ApiError::field(at, format!("{text:?} is not the name of a hand")))
}

fn called(name: &HandName) -> String {
    if name.is_main() { String::new() } else { format!(" called {name}") }
}

async fn current(app: &App, id: &str) -> Result<Current> {
    let followed = app.session(id);
    let log = followed.fresh().await?;
    let current = Current::of(&log).ok_or_else(|| ApiError::not_found("session", id))?;
    if current.is_over() { Err(ended(id)) } else { Ok(current) }
}

fn ended(id: &str) -> ApiError {
    ApiError::invalid(format!("session {id} has ended"))
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
