//! Environments: where the hands of a session run, and what they may reach.

pub mod config;
pub mod keys;
mod update;
pub mod work;

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Durability, Record, Table, Versioned};

use self::config::Config;
use self::update::{CreateEnvironment, UpdateEnvironment};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::listing::{self, Index};
use crate::metadata::Metadata;
use crate::operation::{get, post};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query, TimeRange};
use crate::resources::deleted::{Deleted, deleted};
use crate::router::{Resource, Route};
use crate::{time, verify};

pub const RESOURCE: Resource = Resource {
    name: "environments",
    routes: &[
        Route {
            path: "/v1/environments",
            methods: || post(create).get(list).query([LIMITS.param(), page::param(), Param::flag("include_archived")]),
        },
        Route { path: "/v1/environments/{environment_id}", methods: || get(retrieve).post(update).delete(delete) },
        Route { path: "/v1/environments/{environment_id}/archive", methods: || post(archive) },
    ],
};

/// Not documented; the maximum is that of the other long lists.
const LIMITS: Limits = Limits { default: 20, max: 1000 };
const BY_TIME: Table = Table::new("environments_by_time");

/// How often a change that others keep overtaking is decided again.
const TRIES_MAX: usize = 32;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct EnvironmentRow {
    pub id: String,
    pub name: String,
    pub description: Option<String>,
    pub config: Config,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Record for EnvironmentRow {
    const TABLE: Table = Table::new("environments");
    const VERSION: u32 = 1;
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
struct Environment {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "environment"))]
    kind: &'static str,
    name: String,
    description: Option<String>,
    config: Config,
    metadata: Metadata,
    scope: &'static str,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    created_at: Timestamp,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    updated_at: Timestamp,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    archived_at: Option<Timestamp>,
}

impl From<EnvironmentRow> for Environment {
    fn from(row: EnvironmentRow) -> Self {
        Self {
            id: row.id,
            kind: "environment",
            name: row.name,
            description: row.description,
            config: row.config,
            metadata: row.metadata,
            scope: "organization",
            created_at: row.created_at,
            updated_at: row.updated_at,
            archived_at: row.archived_at,
        }
    }
}

async fn create(State(app): State<App>, JsonBody(body): JsonBody<CreateEnvironment>) -> Result<Json<Environment>> {
    let row = body.resolve(ids::new(ids::ENVIRONMENT), app.clock.now())?;
    let batch = Index::new(BY_TIME).insert(Batch::new().insert(&row.id, &row), row.created_at, &row.id);
    app.catalog.write(batch, Durability::Synced).await?;
    Ok(Json(row.into()))
}

async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Environment>> {
    Ok(Json(read(&app, &id).await?.row.into()))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Page<Environment>>> {
    let request = PageRequest::of(&query, "environments", Order::Desc, LIMITS)?;
    let archived = query.flag("include_archived")?;
    let keep = |row: &EnvironmentRow| archived || row.archived_at.is_none();
    let page = listing::page(&*app.catalog, &Index::new(BY_TIME), &request, TimeRange::default(), keep).await?;
    Ok(Json(page.map(Environment::from)))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<UpdateEnvironment>,
) -> Result<Json<Environment>> {
    change(&app, &id, |current| body.clone().resolve(current, app.clock.now())).await
}

async fn archive(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Environment>> {
    change(&app, &id, |current| {
        let archived_at = current.archived_at.or_else(|| Some(app.clock.now()));
        Ok(EnvironmentRow { archived_at, ..current.clone() })
    })
    .await
}

/// Writes what `decide` makes of the current row, deciding again where another change was first.
async fn change(
    app: &App,
    id: &str,
    decide: impl Fn(&EnvironmentRow) -> Result<EnvironmentRow>,
) -> Result<Json<Environment>> {
    for _ in 0..TRIES_MAX {
        let read = read(app, id).await?;
        let row = decide(&read.row)?;
        if row == read.row {
            return Ok(Json(row.into()));
        }
        match app.catalog.write(Batch::new().replace(&read, &row), Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => continue,
            written => written?,
        }
        return Ok(Json(row.into()));
    }
    Err(overtaken())
}

fn overtaken() -> ApiError {
    ApiError::conflict("the environment is being changed by too many requests, try again").should_retry(true)
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Deleted>> {
    for _ in 0..TRIES_MAX {
        let read = read(&app, &id).await?;
        let batch = Index::new(BY_TIME).remove(Batch::new().remove(&read), read.row.created_at, &id);
        match app.catalog.write(batch, Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => continue,
            written => written?,
        }
        return Ok(deleted(id, "environment_deleted"));
    }
    Err(overtaken())
}

async fn read(app: &App, id: &str) -> Result<Versioned<EnvironmentRow>> {
    app.catalog.row::<EnvironmentRow>(id).await?.ok_or_else(|| ApiError::not_found("environment", id))
}

/// Every environment is in the index.
pub(crate) async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<EnvironmentRow>, problems| {
        let EnvironmentRow { id, created_at, .. } = &read.row;
        Index::new(BY_TIME).verify::<EnvironmentRow>(catalog, *created_at, id, problems).await
    })
    .await?;
    listing::verify::<EnvironmentRow>(catalog, BY_TIME, problems).await
}

/// The environment of a session to be created. An archived one is refused.
pub async fn resolve(app: &App, id: &str) -> Result<EnvironmentRow> {
    let row = read(app, id).await?.row;
    if row.archived_at.is_some() {
        return Err(ApiError::field("environment_id", format!("environment {id} is archived")));
    }
    Ok(row)
}
