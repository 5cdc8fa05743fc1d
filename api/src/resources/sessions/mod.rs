//! Sessions: made, shown, changed and ended here; what happens in them is their log's.

mod agent;
pub mod catch_up;
pub mod change;
mod create;
pub mod current;
mod end;
mod fork;
mod list;
pub mod mcp;
pub mod object;
mod repositories;
pub mod resources;
pub mod row;
mod rows;
pub mod sealed_runs;
pub mod uploads;

use axum::Json;
use axum::extract::{Path, State};
use domain::egress::{Policy, Variable};
use domain::session::{Attributes, SessionInput};
use domain::{Summary, Time};
use jiff::Timestamp;
use serde_json::Value;
use store::Durability;

pub use self::agent::{BuiltinTool, other_model};
use self::current::Current;
pub use self::fork::onward::go_on;
use self::mcp::McpPolicy;
use self::object::Session;
use self::row::SessionRow;
pub use self::rows::{DIFF, SessionRows};
use crate::app::App;
use crate::egress;
use crate::error::{ApiError, Result};
use crate::gateway;
use crate::operation::{get, post};
use crate::resources::environments::config::Config;
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "sessions",
    routes: &[
        Route { path: "/v1/sessions", methods: || post(create::create).get(list::list).query(list::params()) },
        Route { path: "/v1/sessions/{session_id}", methods: || get(retrieve).post(change::update).delete(end::delete) },
        Route { path: "/v1/sessions/{session_id}/archive", methods: || post(end::archive) },
        Route { path: "/v1/sessions/{session_id}/fork", methods: || post(fork::fork) },
    ],
};

async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Session>> {
    let row = row::find(&app, &id).await?;
    let current = read(&app, &id).await?;
    Ok(Json(Session::of(&app, &row, current).await?))
}

/// What sandboxes of a session may reach, where its environment has any.
async fn policy(
    app: &App,
    id: &str,
    attributes: &Attributes,
    config: &Config,
    variables: Vec<Variable>,
) -> Result<Option<Policy>> {
    let Attributes { agent, vault_ids, resources, .. } = attributes;
    let repositories = repositories::reached(id, resources);
    let McpPolicy { mcp_servers, mcp_hosts, web } = mcp::policy(app, agent, vault_ids).await?;
    Ok(egress::policy(app, config)?.map(|policy| Policy {
        variables,
        repositories,
        mcp_servers,
        mcp_hosts,
        web,
        ..policy
    }))
}

/// Starts the workflow of a session whose row is written. If it cannot be started, the session is forgotten.
async fn start(app: &App, row: SessionRow, input: &SessionInput) -> Result<SessionRow> {
    match app.gateway.start(input).await {
        Ok(()) => {}
        // Nobody knows whether it started: the next start of the service finds out.
        Err(error @ gateway::Error::Unreachable { .. }) => return Err(error.into()),
        Err(error) => {
            end::forget(app, &row.id).await?;
            return Err(error.into());
        }
    }
    let started = row::change(&*app.catalog, &row.id, Durability::Lazy, |row, batch| {
        Some((SessionRow { started: true, ..row.clone() }, batch))
    });
    Ok(started.await?.unwrap_or(row))
}

/// The session as its log says, read to its end.
pub async fn read(app: &App, id: &str) -> Result<Current> {
    let followed = app.session(id);
    let log = followed.fresh().await?;
    Current::of(&log).ok_or_else(|| ApiError::not_found("session", id))
}

/// The agent of a session as clients see it.
pub async fn public_agent(app: &App, summary: &Summary) -> Result<Value> {
    agent::public(&*app.blobs, &summary.attributes.agent.snapshot).await
}

/// A time as the log keeps it.
pub fn moment(time: Timestamp) -> Time {
    Time::from_ms(time.as_millisecond())
}
