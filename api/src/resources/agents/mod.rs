//! Agents: stored definitions of what a session runs, kept in every version that they ever had.

pub mod model;
pub mod row;
pub mod snapshot;
pub mod tools;
mod update;

use axum::Json;
use axum::extract::{Path, State};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Durability, KeyRange, Table, Versioned};

use self::row::{Agent, AgentRow, VersionRow};
use self::tools::Judge;
use self::update::{CreateAgent, UpdateAgent};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::listing::{self, Index};
use crate::operation::{get, post};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query};
use crate::router::{Resource, Route};
use crate::verify;

pub const RESOURCE: Resource = Resource {
    name: "agents",
    routes: &[
        Route {
            path: "/v1/agents",
            methods: || {
                let filters = [Param::times("created_at"), Param::flag("include_archived")];
                post(create).get(list).query(filters).query([LIMITS.param(), page::param()])
            },
        },
        Route {
            path: "/v1/agents/{agent_id}",
            methods: || get(retrieve).query([Param::number("version", 1..=u32::MAX.into())]).post(update),
        },
        Route { path: "/v1/agents/{agent_id}/archive", methods: || post(archive) },
        Route {
            path: "/v1/agents/{agent_id}/versions",
            methods: || get(versions).query([LIMITS.param(), page::param()]),
        },
    ],
};

const LIMITS: Limits = Limits { default: 20, max: 100 };
const BY_TIME: Table = Table::new("agents_by_time");

/// How often an update that others keep overtaking is decided again.
const TRIES_MAX: usize = 32;

async fn create(State(app): State<App>, JsonBody(body): JsonBody<CreateAgent>) -> Result<Json<Agent>> {
    let config = body.resolve()?;
    Judge::of(&app).check(&config.tools)?;
    let now = app.clock.now();
    let row =
        AgentRow { id: ids::new(ids::AGENT), version: 1, config, created_at: now, updated_at: now, archived_at: None };
    let batch = Batch::new().insert(&row.id, &row).insert(VersionRow::key(&row.id, 1), &VersionRow::of(&row));
    let batch = Index::new(BY_TIME).insert(batch, now, &row.id);
    app.catalog.write(batch, Durability::Synced).await?;
    Ok(Json(row.into()))
}

async fn retrieve(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Json<Agent>> {
    let version = query.parsed::<u32>("version", "a version number")?;
    if version == Some(0) {
        return Err(ApiError::field("version", "must be at least 1"));
    }
    Ok(Json(load(&app, &id, version).await?.into()))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Page<Agent>>> {
    let request = PageRequest::of(&query, "agents", Order::Desc, LIMITS)?;
    let (times, archived) = (query.times("created_at")?, query.flag("include_archived")?);
    let keep = |row: &AgentRow| archived || row.archived_at.is_none();
    let page = listing::page(&*app.catalog, &Index::new(BY_TIME), &request, times, keep).await?;
    Ok(Json(page.map(Agent::from)))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<UpdateAgent>,
) -> Result<Json<Agent>> {
    for _ in 0..TRIES_MAX {
        let read = head(&app, &id).await?;
        let current = &read.row;
        if current.archived_at.is_some() {
            return Err(ApiError::invalid(format!("agent {id} is archived and cannot be changed")));
        }
        if let Some(version) = body.version.filter(|version| *version != current.version) {
            let message = format!("agent {id} has version {}, not {version}", current.version);
            return Err(ApiError::conflict(message));
        }
        let config = body.clone().resolve(&current.config)?;
        Judge::of(&app).check(&config.tools)?;
        if config == current.config {
            return Ok(Json(read.row.into()));
        }
        let row = AgentRow { version: current.version + 1, config, updated_at: app.clock.now(), ..current.clone() };
        let batch = Batch::new().replace(&read, &row);
        let batch = batch.insert(VersionRow::key(&id, row.version), &VersionRow::of(&row));
        match app.catalog.write(batch, Durability::Synced).await {
            // Another update was first. Decide again on what it left.
            Err(CatalogError::Conflict { .. }) => continue,
            written => written?,
        }
        return Ok(Json(row.into()));
    }
    Err(overtaken())
}

async fn archive(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Agent>> {
    for _ in 0..TRIES_MAX {
        let read = head(&app, &id).await?;
        if read.row.archived_at.is_some() {
            return Ok(Json(read.row.into()));
        }
        let row = AgentRow { archived_at: Some(app.clock.now()), ..read.row.clone() };
        match app.catalog.write(Batch::new().replace(&read, &row), Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => continue,
            written => written?,
        }
        return Ok(Json(row.into()));
    }
    Err(overtaken())
}

fn overtaken() -> ApiError {
    ApiError::conflict("the agent is being changed by too many requests, try again").should_retry(true)
}

async fn versions(State(app): State<App>, Path(id): Path<String>, query: Query) -> Result<Json<Page<Agent>>> {
    let request = PageRequest::of(&query, format!("agents/{id}/versions"), Order::Desc, LIMITS)?;
    let head = head(&app, &id).await?.row;
    let (range, direction) = request.window(KeyRange::prefix(VersionRow::prefix(&id)))?;
    let rows = app.catalog.rows::<VersionRow>(range, direction, request.limit + 1).await?;
    let page = request.page(rows, |read| VersionRow::key(&id, read.row.version));
    Ok(Json(page.map(|read| read.row.of_agent(&head).into())))
}

async fn head(app: &App, id: &str) -> Result<Versioned<AgentRow>> {
    app.catalog.row::<AgentRow>(id).await?.ok_or_else(|| ApiError::not_found("agent", id))
}

/// Every agent is in the index and has the version that it is at.
pub(crate) async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<AgentRow>, problems| {
        let AgentRow { id, version, created_at, .. } = &read.row;
        Index::new(BY_TIME).verify::<AgentRow>(catalog, *created_at, id, problems).await?;
        if catalog.row::<VersionRow>(VersionRow::key(id, *version)).await?.is_none() {
            problems.push(format!("agents {id}: its version {version} is not there"));
        }
        Ok(())
    })
    .await?;
    listing::verify::<AgentRow>(catalog, BY_TIME, problems).await
}

/// The agent at a version, or its newest one.
pub async fn load(app: &App, id: &str, version: Option<u32>) -> Result<AgentRow> {
    let head = head(app, id).await?.row;
    let Some(version) = version.filter(|version| *version != head.version) else { return Ok(head) };
    let found = app.catalog.row::<VersionRow>(VersionRow::key(id, version)).await?;
    let missing = || ApiError::not_found("agent", &format!("{id} version {version}"));
    Ok(found.ok_or_else(missing)?.row.of_agent(&head))
}
