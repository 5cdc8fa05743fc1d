//! Ours: harnesses. Those of this build and those that were added as modules, which sessions hold which, and the swap
//! of a session to another, or to another context strategy.

mod ablation;
mod find;
mod row;
mod sample;
mod shadow;
mod strategy;

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::HarnessRef;
use domain::limits::HARNESS_MODULE_BYTES_MAX;
use domain::session::{Swap, signal};
use harness::registry::{self, Harness};
use harness::wasm::{Manifest, WasmHarness};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Batch, Digest, Durability};

pub use self::ablation::shims;
pub use self::find::{Deciding, Found, deciding, resolve};
use self::row::HarnessRow;
pub use self::sample::Sample;
pub use self::strategy::check as check_strategy;
use super::rollouts;
use super::sessions::current::Current;
use super::sessions::row as session_row;
use crate::app::App;
use crate::body::{self, JsonBody};
use crate::error::{ApiError, Result};
use crate::gateway;
use crate::ids;
use crate::media::{Given, Octets};
use crate::operation::{get, post};
use crate::page::Page;
use crate::references;
use crate::router::{Resource, Route};
use crate::time;

pub const RESOURCE: Resource = Resource {
    name: "harnesses",
    routes: &[
        Route { path: "/v1/harnesses", methods: || get(list).post(add) },
        Route { path: "/v1/harnesses/{harness}", methods: || get(show).delete(remove) },
        Route {
            path: "/v1/harnesses/{harness}/ablation",
            methods: || get(ablation::ablate).query(ablation::params()).post(shadow::begin),
        },
        Route { path: "/v1/harnesses/{harness}/ablation/{trial_id}", methods: || get(shadow::retrieve) },
        Route { path: "/v1/sessions/{session_id}/harness", methods: || post(swap) },
        Route { path: "/v1/sessions/{session_id}/strategy", methods: || post(strategy::change) },
    ],
};

/// How many of the sessions that hold a harness are named.
const SESSIONS_NAMED_MAX: usize = 100;

/// A harness as clients see it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Harness")]
struct Object {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "harness"))]
    kind: &'static str,
    /// `name@version`.
    id: String,
    #[serde(flatten)]
    reference: HarnessRef,
    /// `native` or `wasm`.
    form: &'static str,
    view_version: u32,
    strategy: Option<domain::agent::StrategyRef>,
    shims: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    added_at: Option<String>,
    /// New sessions get it unless they ask for another.
    is_default: bool,
    /// How many sessions that can still run hold it.
    sessions: usize,
}

/// A harness with some of the sessions that hold it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HarnessShown")]
struct Shown {
    #[serde(flatten)]
    object: Object,
    session_ids: Vec<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HarnessDeleted")]
struct Removed {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "harness_deleted"))]
    kind: &'static str,
    id: String,
    sha256: String,
}

impl Object {
    fn native(harness: &Harness, held: &Held, default: &HarnessRef) -> Self {
        let reference = harness.reference();
        let shim =
            |shim: &registry::Shim| json!({"name": shim.name, "assumption": shim.assumption, "model": shim.model});
        Object {
            kind: "harness",
            id: reference.to_string(),
            form: "native",
            view_version: harness.view,
            strategy: harness.strategy(),
            shims: harness.shims.iter().map(shim).collect(),
            bytes: None,
            added_at: None,
            is_default: reference == *default,
            sessions: held.count(&reference),
            reference,
        }
    }

    fn added(row: &HarnessRow, held: &Held, default: &HarnessRef) -> Self {
        let reference = row.reference();
        let Manifest { view, strategy, shims, .. } = row.manifest.clone();
        Object {
            kind: "harness",
            id: reference.to_string(),
            form: "wasm",
            view_version: view,
            strategy,
            shims: shims.iter().map(|shim| json!(shim)).collect(),
            bytes: Some(row.bytes),
            added_at: Some(time::text(row.added_at)),
            is_default: reference == *default,
            sessions: held.count(&reference),
            reference,
        }
    }
}

/// Which sessions hold which harness, by the hash of it. Sessions that are over hold none.
#[derive(Default)]
struct Held(BTreeMap<String, Vec<String>>);

impl Held {
    async fn read(app: &App) -> Result<Self> {
        let mut held = Held::default();
        session_row::each(app, |row| {
            let Some(projection) = &row.projection else { return };
            if row.is_there() && projection.summary.status != domain::Status::Terminated {
                held.0.entry(projection.summary.harness.sha256.clone()).or_default().push(row.id.clone());
            }
        })
        .await?;
        Ok(held)
    }

    fn of(&self, reference: &HarnessRef) -> &[String] {
        self.0.get(&reference.sha256).map_or(&[], Vec::as_slice)
    }

    fn count(&self, reference: &HarnessRef) -> usize {
        self.of(reference).len()
    }
}

/// All of them: a handful, so they come on one page.
async fn list(State(app): State<App>) -> Result<Json<Page<Object>>> {
    let (held, default) = (Held::read(&app).await?, rollouts::default(&app).await?);
    let native = registry::HARNESSES.iter().map(|harness| Object::native(harness, &held, &default));
    let rows = row::all(&app).await?;
    let data: Vec<Object> = native.chain(rows.iter().map(|row| Object::added(row, &held, &default))).collect();
    Ok(Json(Page::whole(data)))
}

async fn show(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Shown>> {
    let (held, default) = (Held::read(&app).await?, rollouts::default(&app).await?);
    let object = match resolve(&app, &name).await? {
        Found::Native(harness) => Object::native(harness, &held, &default),
        Found::Added(row) => Object::added(&row, &held, &default),
    };
    let holders = held.of(&object.reference);
    let session_ids = holders.iter().take(SESSIONS_NAMED_MAX).cloned().collect();
    Ok(Json(Shown { object, session_ids }))
}

/// The body is the module.
async fn add(State(app): State<App>, given: Given<Octets>) -> Result<Json<Object>> {
    let bytes = body::read(given.request()).await?.joined();
    if bytes.len() > HARNESS_MODULE_BYTES_MAX {
        return Err(body::too_large(HARNESS_MODULE_BYTES_MAX));
    }
    let module = bytes.clone();
    let admitted = tokio::task::spawn_blocking(move || WasmHarness::admit(&module)).await;
    let harness = admitted
        .map_err(ApiError::internal)?
        .map_err(|error| ApiError::invalid(format!("the module is no harness: {error}")))?;
    let reference = harness.reference();
    let row = HarnessRow {
        sha256: reference.sha256.clone(),
        manifest: harness.manifest().clone(),
        bytes: bytes.len() as u64,
        added_at: app.clock.now(),
    };
    let row = keep(&app, row, bytes).await?;
    Ok(Json(Object::added(&row, &Held::read(&app).await?, &rollouts::default(&app).await?)))
}

/// Adding the same module again changes nothing.
async fn keep(app: &App, row: HarnessRow, bytes: bytes::Bytes) -> Result<HarnessRow> {
    let others = row::all(app).await?;
    if let Some(known) = others.iter().find(|known| known.sha256 == row.sha256) {
        return Ok(known.clone());
    }
    let reference = row.reference();
    if others.iter().any(|known| known.reference().to_string() == reference.to_string()) {
        return Err(ApiError::conflict(format!(
            "there is another {reference} already: a harness that changed has another version"
        )));
    }
    let digest = app.blobs.put(bytes).await?;
    let batch = references::insert(Batch::new().insert(&row.sha256, &row), digest, &owner(&row.sha256));
    match app.catalog.write(batch, Durability::Synced).await {
        Ok(()) | Err(store::catalog::Error::Conflict { .. }) => Ok(row),
        Err(error) => Err(error.into()),
    }
}

/// Gives a session its own hold on a harness that is a module; only while the module is there.
pub fn hold(batch: Batch, harness: &HarnessRef, session_id: &str) -> Result<Batch> {
    Ok(match module(harness)? {
        Some(digest) => session_row::refer(require(batch, harness)?, digest, session_id),
        None => batch,
    })
}

/// The batch is written only while a harness that is a module is there.
pub fn require(batch: Batch, harness: &HarnessRef) -> Result<Batch> {
    Ok(match module(harness)? {
        Some(digest) => references::require(batch, digest, &owner(&harness.sha256)),
        None => batch,
    })
}

/// The blob of a harness that is not of this build.
fn module(harness: &HarnessRef) -> Result<Option<Digest>> {
    match registry::find(harness) {
        Some(_) => Ok(None),
        None => harness.sha256.parse().map(Some).map_err(ApiError::internal),
    }
}

/// What whoever meant to hold a harness is told that was taken away meanwhile.
pub fn removed(harness: &HarnessRef) -> ApiError {
    ApiError::conflict(format!("harness {harness} was removed meanwhile"))
}

/// Whose the blob of a module is.
fn owner(sha256: &str) -> String {
    format!("harness_{sha256}")
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Removed>> {
    let Found::Added(row) = resolve(&app, &name).await? else {
        return Err(ApiError::invalid("a harness of this build cannot be removed"));
    };
    let reference = row.reference();
    let held = Held::read(&app).await?.count(&reference);
    if held > 0 {
        return Err(ApiError::conflict(format!("{held} sessions hold {reference}: swap them to another first")));
    }
    if let Some(rollout) = rollouts::uses(&app, &reference).await? {
        return Err(ApiError::conflict(format!("rollout {rollout} gives sessions {reference}, or is about to")));
    }
    let Some(read) = app.catalog.row::<HarnessRow>(&row.sha256).await? else {
        return Err(ApiError::not_found("harness", &name));
    };
    let digest = row.sha256.parse().map_err(ApiError::internal)?;
    let batch = references::remove(Batch::new().remove(&read), digest, &owner(&row.sha256));
    app.catalog.write(batch, Durability::Synced).await?;
    Ok(Json(Removed { kind: "harness_deleted", id: reference.to_string(), sha256: row.sha256 }))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SwapTo {
    harness: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HarnessSwap")]
struct Swapped {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "harness_swap"))]
    kind: &'static str,
    id: String,
    session_id: String,
    from: HarnessRef,
    to: HarnessRef,
}

/// Asks for another harness from the next turn boundary on. The session's log says when it was applied.
async fn swap(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(SwapTo { harness }): JsonBody<SwapTo>,
) -> Result<Json<Swapped>> {
    session_row::find(&app, &id).await?;
    let to = resolve(&app, &harness).await?.reference();
    let followed = app.session(&id);
    let from = {
        let log = followed.fresh().await?;
        let current = Current::of(&log).ok_or_else(|| ApiError::not_found("session", &id))?;
        if current.is_over() {
            return Err(ended());
        }
        current.summary.harness
    };
    // Before the session is told: from then on it may decide by it at any time.
    if registry::find(&to).is_none() {
        match app.catalog.write(hold(Batch::new(), &to, &id)?, Durability::Synced).await {
            Err(store::catalog::Error::Conflict { .. }) => return Err(removed(&to)),
            held => held?,
        }
    }
    let swap = Swap { id: ids::new(ids::SWAP), harness: to.clone() };
    match app.gateway.signal(&id, signal::SWAP, &swap, &swap.id).await {
        Ok(()) => {}
        Err(gateway::Error::NotFound { .. }) => return Err(ended()),
        Err(error) => return Err(error.into()),
    }
    followed.follow();
    Ok(Json(Swapped { kind: "harness_swap", id: swap.id, session_id: id, from, to }))
}

fn ended() -> ApiError {
    ApiError::invalid("the session has ended and decides nothing any more")
}

/// Every module that was added is there.
pub async fn verify(catalog: &dyn store::Catalog, problems: &mut Vec<String>) -> Result<()> {
    crate::verify::each(catalog, problems, async |read: store::Versioned<HarnessRow>, problems| {
        let sha256 = &read.row.sha256;
        let has = match sha256.parse() {
            Ok(digest) => references::has(catalog, digest, &owner(sha256)).await?,
            Err(_) => false,
        };
        if !has {
            problems.push(format!("harnesses {sha256}: has no reference to its module"));
        }
        Ok(())
    })
    .await
}

/// The time at which a row says that it was made; for lists in order.
fn by_age(row: &HarnessRow) -> (Timestamp, String) {
    (row.added_at, row.sha256.clone())
}
