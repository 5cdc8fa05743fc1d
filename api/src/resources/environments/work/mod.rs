//! The work queue of a self-hosted environment: sessions that want a worker, and the workers that come for them.
//!
//! An item says that a session may have something to do, and whoever holds it serves that session: reads its stream, runs
//! its tools and posts their results. What there is to do stands in the session's log and nowhere else, so an item that
//! is lost and made again loses nothing.

pub mod need;
pub mod queue;
pub mod row;
pub mod token;

use std::time::Duration;

use axum::extract::{Path, State as Given};
use axum::{Extension, Json};
use http::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use store::Direction;

use self::queue::{TTL_S_MAX, TTL_S_MIN, seconds};
use self::row::{State, Work, WorkRow};
use super::config::Config;
use crate::app::App;
use crate::auth::{Grant, Principal};
use crate::body::JsonBody;
use crate::error::{ApiError, Kind, Result};
use crate::listing;
use crate::metadata::{self, MetadataPatch};
use crate::operation::{get, post};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query, TimeRange};
use crate::router::{Resource, Route};
use crate::time;

pub const RESOURCE: Resource = Resource {
    name: "work",
    routes: &[
        Route {
            path: "/v1/environments/{environment_id}/work",
            methods: || get(list).query([LIMITS.param(), page::param()]),
        },
        Route {
            path: "/v1/environments/{environment_id}/work/poll",
            methods: || {
                let block = Param::number("block_ms", 1..=BLOCK_MS_MAX);
                get(poll).query([block, Param::number("reclaim_older_than_ms", 0..=u32::MAX.into())])
            },
        },
        Route { path: "/v1/environments/{environment_id}/work/stats", methods: || get(stats) },
        Route { path: "/v1/environments/{environment_id}/work/{work_id}", methods: || get(retrieve).post(update) },
        Route { path: "/v1/environments/{environment_id}/work/{work_id}/ack", methods: || post(ack) },
        Route {
            path: "/v1/environments/{environment_id}/work/{work_id}/heartbeat",
            methods: || {
                let expected = Param::text("expected_last_heartbeat");
                post(heartbeat).query([expected, Param::number("desired_ttl_seconds", 0..=u32::MAX.into())])
            },
        },
        Route { path: "/v1/environments/{environment_id}/work/{work_id}/stop", methods: || post(stop) },
    ],
};

/// Not documented; as for environments.
const LIMITS: Limits = Limits { default: 20, max: 1000 };
const BLOCK_MS_MAX: u64 = 999;
const RECLAIM_MS: u32 = 5000;
const WORKER_ID: &str = "anthropic-worker-id";
const WORKER_ID_CHARS_MAX: usize = 256;
/// What a worker expects that has not beaten yet.
const NO_HEARTBEAT: &str = "NO_HEARTBEAT";
const STRIDE: usize = 500;

type Ids = Path<(String, String)>;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UpdateWork {
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StopWork {
    #[serde(default)]
    force: Option<bool>,
}

/// What a worker hears of the item that it holds.
#[derive(Serialize, JsonSchema)]
struct Heartbeat {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "work_heartbeat"))]
    kind: &'static str,
    state: State,
    last_heartbeat: String,
    lease_extended: bool,
    ttl_seconds: u32,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "WorkQueueStats")]
struct Stats {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "work_queue_stats"))]
    kind: &'static str,
    /// Items that wait for a worker.
    depth: u64,
    /// Items that were handed out and not acknowledged.
    pending: u64,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    oldest_queued_at: Option<Timestamp>,
    workers_polling: usize,
}

/// Only environments whose tools run elsewhere have a queue.
async fn check_environment(app: &App, environment_id: &str) -> Result<()> {
    match super::read(app, environment_id).await?.row.config {
        Config::SelfHosted {} => Ok(()),
        Config::Cloud { .. } => Err(ApiError::invalid("only self-hosted environments have a work queue")),
    }
}

async fn list(Given(app): Given<App>, Path(id): Path<String>, query: Query) -> Result<Json<Page<Work>>> {
    check_environment(&app, &id).await?;
    queue::reap(&app, &id).await?;
    let request = PageRequest::of(&query, format!("environments/{id}/work"), Order::Desc, LIMITS)?;
    let page =
        listing::page(&*app.catalog, &row::by_time(&id), &request, TimeRange::default(), |_: &WorkRow| true).await?;
    Ok(Json(page.map(Work::from)))
}

async fn retrieve(Given(app): Given<App>, Path((environment_id, id)): Ids) -> Result<Json<Work>> {
    queue::reap(&app, &environment_id).await?;
    Ok(Json(queue::find(&app, &environment_id, &id).await?.row.into()))
}

async fn update(
    Given(app): Given<App>,
    Path((environment_id, id)): Ids,
    JsonBody(body): JsonBody<UpdateWork>,
) -> Result<Json<Work>> {
    let changed = queue::change(&app, &environment_id, &id, |current| {
        let patch = body.metadata.clone().unwrap_or_default();
        let metadata = metadata::check(metadata::patched(current.metadata.clone(), patch))?;
        Ok(WorkRow { metadata, ..current.clone() })
    });
    Ok(Json(changed.await?.into()))
}

/// An empty queue is `null`, not an empty body.
async fn poll(
    Given(app): Given<App>,
    Path(environment_id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Json<Option<Work>>> {
    check_environment(&app, &environment_id).await?;
    let block_ms: Option<u64> = query.parsed("block_ms", "a number from 1 to 999")?;
    if block_ms.is_some_and(|ms| !(1..=BLOCK_MS_MAX).contains(&ms)) {
        return Err(ApiError::field("block_ms", format!("must be a number from 1 to {BLOCK_MS_MAX}")));
    }
    let reclaim_ms: u32 = query.parsed("reclaim_older_than_ms", "a number of milliseconds")?.unwrap_or(RECLAIM_MS);
    if let Some(worker) = headers.get(WORKER_ID) {
        let worker = worker.to_str().ok().filter(|worker| worker.len() <= WORKER_ID_CHARS_MAX);
        let worker = worker.ok_or_else(|| ApiError::field(WORKER_ID, "is not the id of a worker"))?;
        app.work.note_poll(&environment_id, worker, app.clock.now());
    }
    let (block, reclaim) =
        (Duration::from_millis(block_ms.unwrap_or(0)), SignedDuration::from_millis(reclaim_ms.into()));
    let taken = tokio::select! {
        taken = queue::poll(&app, &environment_id, block, reclaim) => taken?,
        () = app.closing() => None,
    };
    Ok(Json(taken.map(|(row, secret)| Work::from(row).with_secret(secret))))
}

async fn ack(Given(app): Given<App>, Path((environment_id, id)): Ids) -> Result<Json<Work>> {
    let acked = queue::change(&app, &environment_id, &id, |current| {
        let now = app.clock.now();
        match current.state {
            State::Queued if current.claimed_at.is_some() => Ok(WorkRow {
                state: State::Starting,
                acknowledged_at: Some(now),
                lease_until: Some(now + seconds(current.ttl_s)),
                ..current.clone()
            }),
            // Told a second time.
            State::Starting | State::Active | State::Stopping => Ok(current.clone()),
            State::Queued => Err(ApiError::conflict("the work item was not handed out: poll for it")),
            State::Stopped => Err(ApiError::conflict("the work item is stopped")),
        }
    });
    Ok(Json(acked.await?.into()))
}

async fn heartbeat(
    Given(app): Given<App>,
    Extension(principal): Extension<Principal>,
    Path((environment_id, id)): Ids,
    query: Query,
) -> Result<Json<Heartbeat>> {
    let expected = query.text("expected_last_heartbeat")?;
    let desired: Option<u32> = query.parsed("desired_ttl_seconds", "a number of seconds")?;
    let beaten = queue::change(&app, &environment_id, &id, |current| {
        let is_over = matches!(current.state, State::Stopping | State::Stopped);
        // An older token is from before the lease was lost.
        let is_holder = !matches!(&principal.grant, Grant::Work(token) if !token::is_latest(current, token));
        let is_expected =
            expected.is_none_or(|expected| expected == current.heartbeat.as_deref().unwrap_or(NO_HEARTBEAT));
        if !is_over && (current.state == State::Queued || !is_holder || !is_expected) {
            return Err(refused(current));
        }
        if current.state == State::Stopped || !is_holder {
            return Ok(current.clone());
        }
        let now = app.clock.now();
        let ttl_s = desired.map_or(current.ttl_s, |desired| desired.clamp(TTL_S_MIN, TTL_S_MAX));
        Ok(WorkRow {
            state: if current.state == State::Stopping { State::Stopping } else { State::Active },
            started_at: current.started_at.or(Some(now)),
            heartbeat: Some(format!("{now:.6}")),
            lease_until: Some(now + seconds(ttl_s)),
            ttl_s,
            ..current.clone()
        })
    });
    let work = beaten.await?;
    let is_extended = matches!(work.state, State::Active | State::Stopping);
    Ok(Json(Heartbeat {
        kind: "work_heartbeat",
        state: work.state,
        last_heartbeat: work.heartbeat.unwrap_or_default(),
        lease_extended: is_extended,
        ttl_seconds: work.ttl_s,
    }))
}

/// The beat of a worker that does not hold the item, or not any more.
fn refused(current: &WorkRow) -> ApiError {
    let state = json!({
        "state": current.state,
        "last_heartbeat": current.heartbeat,
        "ttl_seconds": current.ttl_s,
        "lease_extended": false,
    });
    ApiError::new(Kind::PreconditionFailed, "another heartbeat was expected: the lease may be somebody else's")
        .code("heartbeat_precondition_failed")
        .detail("current_state", state)
}

async fn stop(
    Given(app): Given<App>,
    Extension(principal): Extension<Principal>,
    Path((environment_id, id)): Ids,
    JsonBody(body): JsonBody<StopWork>,
) -> Result<Json<Work>> {
    let current = queue::find(&app, &environment_id, &id).await?.row;
    if matches!(&principal.grant, Grant::Work(token) if !token::is_latest(&current, token)) {
        return Err(ApiError::conflict("the work item is held by another worker"));
    }
    let stopped = queue::stop(&app, &id, body.force.unwrap_or(false)).await?;
    let stopped = stopped.ok_or_else(|| ApiError::conflict("the work item is stopped already"))?;
    Ok(Json(stopped.into()))
}

async fn stats(Given(app): Given<App>, Path(environment_id): Path<String>) -> Result<Json<Stats>> {
    check_environment(&app, &environment_id).await?;
    queue::reap(&app, &environment_id).await?;
    let (mut depth, mut pending, mut oldest) = (0_u64, 0_u64, None);
    let index = row::queued(&environment_id);
    let mut range = index.all();
    loop {
        let entries = app.catalog.scan(index.table(), range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last().map(|entry| entry.key.to_vec()) else { break };
        range = range.after(last, Direction::Forward);
        for entry in entries {
            let Some(read) = app.catalog.row::<WorkRow>(&entry.value).await? else { continue };
            if read.row.claimed_at.is_some() {
                pending += 1
            } else {
                depth += 1
            }
            oldest = Some(oldest.map_or(read.row.created_at, |oldest: Timestamp| oldest.min(read.row.created_at)));
        }
    }
    Ok(Json(Stats {
        kind: "work_queue_stats",
        depth,
        pending,
        oldest_queued_at: oldest,
        workers_polling: app.work.polling(&environment_id, app.clock.now()),
    }))
}
