//! Vaults: credentials that sessions use and nobody reads. The catalog has what they are called and for; their secrets go
//! through here to egress and stay there.
//!
//! A secret is in egress before the row that names it, and gone from there before the row says so.

mod auth;
mod credentials;
mod row;
mod secrets;

use axum::Json;
use axum::extract::{Path, State};
use domain::egress::{CredentialId, Refresh, Variable, credential_headers};
use schemars::JsonSchema;
use serde::Deserialize;
use store::catalog::Error as CatalogError;
use store::{Batch, Direction, Durability, Versioned};

pub use self::row::verify;
use self::row::{CredentialRow, Vault, VaultRow};
use self::secrets::Part;
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::listing;
use crate::metadata::{self, Metadata, MetadataPatch};
use crate::operation::{get, post};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query, TimeRange};
use crate::resources::deleted::{Deleted, deleted};
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "vaults",
    routes: &[
        Route { path: "/v1/vaults", methods: || post(create).get(list).query(listed()) },
        Route { path: "/v1/vaults/{vault_id}", methods: || get(retrieve).post(update).delete(delete) },
        Route { path: "/v1/vaults/{vault_id}/archive", methods: || post(archive) },
        Route {
            path: "/v1/vaults/{vault_id}/credentials",
            methods: || post(credentials::create).get(credentials::list).query(listed()),
        },
        Route {
            path: "/v1/vaults/{vault_id}/credentials/{credential_id}",
            methods: || get(credentials::retrieve).post(credentials::update).delete(credentials::delete),
        },
        Route {
            path: "/v1/vaults/{vault_id}/credentials/{credential_id}/archive",
            methods: || post(credentials::archive),
        },
        Route {
            path: "/v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate",
            methods: || post(credentials::validate),
        },
    ],
};

const LIMITS: Limits = Limits { default: 20, max: 100 };
const NAME_CHARS_MAX: usize = 255;
/// More than a vault has, with the archived ones that were not deleted.
const STRIDE: usize = 100;
/// What stands for a secret inside of a sandbox.
const PLACEHOLDER: &str = "steadyhand_placeholder_";
const PLACEHOLDER_CHARS: usize = 24;

/// What the lists take.
fn listed() -> [Param; 3] {
    [LIMITS.param(), page::param(), Param::flag("include_archived")]
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CreateVault {
    display_name: String,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UpdateVault {
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

fn check_name(name: String) -> Result<String> {
    match name.chars().count() {
        1..=NAME_CHARS_MAX => Ok(name),
        _ => Err(ApiError::field("display_name", format!("must be 1 to {NAME_CHARS_MAX} characters"))),
    }
}

async fn create(State(app): State<App>, JsonBody(body): JsonBody<CreateVault>) -> Result<Json<Vault>> {
    secrets::require(&app)?;
    let now = app.clock.now();
    let row = VaultRow {
        id: ids::new(ids::VAULT),
        display_name: check_name(body.display_name)?,
        metadata: metadata::check(body.metadata.unwrap_or_default())?,
        created_at: now,
        updated_at: now,
        archived_at: None,
        active: 0,
    };
    let batch = row::vaults().insert(Batch::new().insert(&row.id, &row), row.created_at, &row.id);
    app.catalog.write(batch, Durability::Synced).await?;
    Ok(Json(row.into()))
}

async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Vault>> {
    Ok(Json(find(&app, &id).await?.row.into()))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Page<Vault>>> {
    let request = PageRequest::of(&query, "vaults", Order::Desc, LIMITS)?;
    let archived = query.flag("include_archived")?;
    let keep = |row: &VaultRow| archived || row.archived_at.is_none();
    let page = listing::page(&*app.catalog, &row::vaults(), &request, TimeRange::default(), keep).await?;
    Ok(Json(page.map(Vault::from)))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<UpdateVault>,
) -> Result<Json<Vault>> {
    loop {
        let read = find(&app, &id).await?;
        let mut row = read.row.clone();
        if row.archived_at.is_some() {
            return Err(archived(&id));
        }
        if let Some(name) = body.display_name.clone() {
            row.display_name = check_name(name)?;
        }
        row.metadata = metadata::check(metadata::patched(row.metadata, body.metadata.clone().unwrap_or_default()))?;
        if row == read.row {
            return Ok(Json(row.into()));
        }
        row.updated_at = app.clock.now();
        match app.catalog.write(Batch::new().replace(&read, &row), Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written.map(|()| Json(row.into()))?),
        }
    }
}

fn archived(id: &str) -> ApiError {
    ApiError::invalid(format!("vault {id} is archived"))
}

/// First no credential can be added any more, then those that there are go.
async fn archive(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Vault>> {
    let row = close(&app, &id).await?;
    for read in all(&app, &id).await? {
        credentials::archive_one(&app, read).await?;
    }
    Ok(Json(row.into()))
}

async fn close(app: &App, id: &str) -> Result<VaultRow> {
    loop {
        let read = find(app, id).await?;
        if read.row.archived_at.is_some() {
            return Ok(read.row);
        }
        let now = app.clock.now();
        let row = VaultRow { archived_at: Some(now), updated_at: now, ..read.row.clone() };
        match app.catalog.write(Batch::new().replace(&read, &row), Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written.map(|()| row)?),
        }
    }
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Deleted>> {
    close(&app, &id).await?;
    loop {
        for read in all(&app, &id).await? {
            credentials::delete_one(&app, read).await?;
        }
        let read = find(&app, &id).await?;
        let batch = row::vaults().remove(Batch::new().remove(&read), read.row.created_at, &id);
        match app.catalog.write(batch, Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written.map(|()| deleted(id, "vault_deleted"))?),
        }
    }
}

/// A credential for an MCP server.
pub struct ForServer {
    url: String,
    pub token: CredentialId,
    pub refresh: Option<Refresh>,
}

impl ForServer {
    /// Exactly the URL, however it is written.
    pub fn is_for(&self, url: &str) -> bool {
        self.url == auth::normal(url)
    }
}

/// All of these vaults, in their order. What is archived is passed over: it was checked when the session was made.
pub async fn for_servers(app: &App, ids: &[String]) -> Result<Vec<ForServer>> {
    let mut found = Vec::new();
    for id in ids {
        for credential in all(app, id).await?.into_iter().map(|read| read.row) {
            let Some(url) = credential.auth.server_url().filter(|_| credential.archived_at.is_none()) else { continue };
            let part = |part: Part| part.of(id, &credential.id);
            found.push(ForServer {
                url: auth::normal(url),
                token: part(Part::Value),
                refresh: credential.auth.refreshed_by(part(Part::RefreshToken), part(Part::ClientSecret)),
            });
        }
    }
    Ok(found)
}

async fn find(app: &App, id: &str) -> Result<Versioned<VaultRow>> {
    app.catalog.row::<VaultRow>(id).await?.ok_or_else(|| ApiError::not_found("vault", id))
}

/// Every credential of a vault, archived ones too.
async fn all(app: &App, id: &str) -> Result<Vec<Versioned<CredentialRow>>> {
    let index = row::credentials(id);
    let (mut found, mut range) = (Vec::new(), index.all());
    loop {
        let entries = app.catalog.scan(index.table(), range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last().map(|entry| entry.key.to_vec()) else { return Ok(found) };
        range = range.after(last, Direction::Forward);
        for entry in entries {
            found.extend(app.catalog.row::<CredentialRow>(&entry.value).await?);
        }
    }
}

/// What the sandboxes of a new session know of the vaults that it names: a placeholder for each variable, which egress
/// replaces on the way out. The first vault with a variable wins. Every vault has to be there, and not archived.
pub async fn variables(app: &App, ids: &[String]) -> Result<Vec<Variable>> {
    let mut variables: Vec<Variable> = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let vault = app.catalog.row::<VaultRow>(id).await?.ok_or_else(|| ApiError::not_found("vault", id))?;
        if vault.row.archived_at.is_some() {
            return Err(ApiError::field(format!("vault_ids[{n}]"), format!("vault {id} is archived")));
        }
        for credential in all(app, id).await?.into_iter().map(|read| read.row) {
            let Some(variable) = credential.auth.variable().filter(|_| credential.archived_at.is_none()) else {
                continue;
            };
            let (name, host) = variable?;
            if variables.iter().all(|known| known.name != name) {
                variables.push(Variable {
                    name: name.to_owned(),
                    placeholder: format!("{PLACEHOLDER}{}", ids::random(PLACEHOLDER_CHARS)),
                    host: host.to_owned(),
                    headers: credential_headers(),
                    credential: Part::Value.of(id, &credential.id),
                });
            }
        }
    }
    Ok(variables)
}
