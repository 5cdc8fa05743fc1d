//! The threads of a session. There is one, the primary: its log is the session's.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use domain::{Time, ids};
use http::HeaderMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::events::list;
use super::events::public::{PublicEvent, PublicUsage};
use super::sessions::object::{Seconds, Stats};
use super::sessions::row::{self, SessionRow};
use super::sessions::{self, moment};
use super::stream;
use crate::app::App;
use crate::auth::Principal;
use crate::error::{ApiError, Result};
use crate::media::{Events, Sent};
use crate::operation::{get, post};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query};
use crate::resources::agents::snapshot::AgentSnapshot;
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "session threads",
    routes: &[
        Route { path: "/v1/sessions/{session_id}/threads", methods: || get(threads).query(params()) },
        Route { path: "/v1/sessions/{session_id}/threads/{thread_id}", methods: || get(retrieve) },
        Route { path: "/v1/sessions/{session_id}/threads/{thread_id}/archive", methods: || post(archive) },
        Route {
            path: "/v1/sessions/{session_id}/threads/{thread_id}/events",
            methods: || get(events).query(list::params()),
        },
        Route {
            path: "/v1/sessions/{session_id}/threads/{thread_id}/stream",
            methods: || get(stream).query(stream::params()),
        },
    ],
};

const LIMITS: Limits = Limits { default: 1000, max: 1000 };

fn params() -> [Param; 3] {
    [LIMITS.param(), page::param(), Param::texts("statuses")]
}

#[derive(Serialize, JsonSchema)]
struct Thread {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "session_thread"))]
    kind: &'static str,
    session_id: String,
    #[schemars(schema_with = "agent_schema")]
    agent: Value,
    status: &'static str,
    parent_thread_id: (),
    workflow_run_id: (),
    stats: Option<ThreadStats>,
    usage: Option<PublicUsage>,
    created_at: Time,
    updated_at: Time,
    archived_at: Option<Time>,
}

#[derive(Serialize, JsonSchema)]
struct ThreadStats {
    #[serde(flatten)]
    stats: Stats,
    /// The primary thread starts with its session.
    startup_seconds: Seconds,
}

/// A thread's agent has no threads of its own to speak of.
fn agent_schema(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = AgentSnapshot::json_schema(generator);
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| field != "multiagent");
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove("multiagent");
    }
    schema
}

/// The thread, if clients may know of the session and it has that one.
async fn find(app: &App, session_id: &str, thread_id: &str) -> Result<SessionRow> {
    let row = row::find(app, session_id).await?;
    if ids::primary_thread(session_id) != thread_id {
        return Err(ApiError::not_found("session thread", thread_id));
    }
    Ok(row)
}

async fn show(app: &App, row: &SessionRow) -> Result<Thread> {
    let current = sessions::read(app, &row.id).await?;
    let summary = &current.summary;
    let mut agent = sessions::public_agent(app, summary).await?;
    if let Some(agent) = agent.as_object_mut() {
        agent.remove("multiagent");
    }
    let archived_at = row.archived_at.map(moment);
    // Before its first turn a thread has changed nothing and used nothing.
    let has_run = summary.turn > 0;
    let stats = Stats::of(summary, current.status, moment(app.clock.now()));
    Ok(Thread {
        id: ids::primary_thread(&row.id),
        kind: "session_thread",
        session_id: row.id.clone(),
        agent,
        status: current.status.public(),
        parent_thread_id: (),
        workflow_run_id: (),
        stats: has_run.then_some(ThreadStats { stats, startup_seconds: Seconds(0) }),
        usage: (has_run && current.rests()).then(|| PublicUsage::from(&summary.usage)),
        created_at: summary.created_at,
        updated_at: summary.last_time.max(archived_at.unwrap_or(summary.last_time)),
        archived_at,
    })
}

async fn threads(State(app): State<App>, Path(session_id): Path<String>, query: Query) -> Result<Json<Page<Thread>>> {
    let row = row::find(&app, &session_id).await?;
    PageRequest::of(&query, format!("sessions/{session_id}/threads"), Order::Asc, LIMITS)?;
    let mut threads = vec![show(&app, &row).await?];
    let statuses = query.list("statuses");
    threads.retain(|thread| statuses.is_empty() || statuses.contains(thread.status));
    Ok(Json(Page::whole(threads)))
}

async fn retrieve(
    State(app): State<App>,
    Path((session_id, thread_id)): Path<(String, String)>,
) -> Result<Json<Thread>> {
    let row = find(&app, &session_id, &thread_id).await?;
    Ok(Json(show(&app, &row).await?))
}

async fn archive(
    State(app): State<App>,
    Path((session_id, thread_id)): Path<(String, String)>,
) -> Result<Json<Thread>> {
    find(&app, &session_id, &thread_id).await?;
    Err(ApiError::invalid("the primary thread is archived with its session"))
}

async fn events(
    State(app): State<App>,
    Path((session_id, thread_id)): Path<(String, String)>,
    query: Query,
) -> Result<Json<Page<PublicEvent>>> {
    find(&app, &session_id, &thread_id).await?;
    let followed = app.session(&session_id);
    let name = format!("sessions/{session_id}/threads/{thread_id}/events");
    Ok(Json(list::list(&followed, &*app.blobs, &query, name).await?))
}

async fn stream(
    State(app): State<App>,
    Path((session_id, thread_id)): Path<(String, String)>,
    query: Query,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
) -> Result<Sent<Events>> {
    find(&app, &session_id, &thread_id).await?;
    stream::open(app, session_id, &query, &headers, principal).await
}
