//! The credentials of a vault: made, shown without their secrets, changed, archived and deleted.

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Durability, Versioned};

use super::auth::{CreateAuth, UpdateAuth};
use super::row::{self, Credential, CredentialRow, VaultRow};
use super::secrets::{self, Part};
use crate::app::App;
use crate::body::{Patch, SecretBody};
use crate::error::{ApiError, Result};
use crate::ids;
use crate::listing;
use crate::metadata::{self, Metadata, MetadataPatch};
use crate::page::{Order, Page, PageRequest};
use crate::query::{Query, TimeRange};
use crate::resources::deleted::{Deleted, deleted};
use crate::time;

/// Active ones in a vault.
const CREDENTIALS_MAX: usize = 20;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCredential {
    auth: CreateAuth,
    #[serde(default)]
    display_name: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateCredential {
    #[serde(default)]
    auth: Option<UpdateAuth>,
    #[serde(default)]
    display_name: Patch<String>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
}

pub async fn create(
    State(app): State<App>,
    Path(vault_id): Path<String>,
    SecretBody(body): SecretBody<CreateCredential>,
) -> Result<Json<Credential>> {
    let now = app.clock.now();
    let (auth, secrets) = body.auth.take_apart(now)?;
    let row = CredentialRow {
        id: ids::new(ids::CREDENTIAL),
        vault_id: vault_id.clone(),
        display_name: body.display_name.map(super::check_name).transpose()?,
        auth,
        metadata: metadata::check(body.metadata.unwrap_or_default())?,
        created_at: now,
        updated_at: now,
        archived_at: None,
    };
    check_room(&app, &vault_id, &row).await?;
    secrets::put(&app, &vault_id, &row.id, secrets).await?;
    // The client may go away; what was begun comes to an end, so that no secret stays that no row names.
    let made = tokio::spawn({
        let (app, row) = (app.clone(), row.clone());
        async move {
            let added = add(&app, &row).await;
            if added.is_err() {
                secrets::purge(&app, &row.vault_id, &row.id).await?;
            }
            added
        }
    });
    made.await.map_err(ApiError::internal)??;
    Ok(Json(row.into()))
}

async fn check_room(app: &App, vault_id: &str, row: &CredentialRow) -> Result<Versioned<VaultRow>> {
    let vault = super::find(app, vault_id).await?;
    if vault.row.archived_at.is_some() {
        return Err(super::archived(vault_id));
    }
    if vault.row.active >= CREDENTIALS_MAX {
        let message = format!("vault {vault_id} has {CREDENTIALS_MAX} credentials, and no more are allowed");
        return Err(ApiError::invalid(message));
    }
    if row::is_taken(&*app.catalog, row).await? {
        let message = format!("the vault has another credential for this {}", row.auth.key_field());
        return Err(ApiError::conflict(message));
    }
    Ok(vault)
}

async fn add(app: &App, row: &CredentialRow) -> Result<()> {
    loop {
        let vault = check_room(app, &row.vault_id, row).await?;
        let counted = VaultRow { active: vault.row.active + 1, ..vault.row.clone() };
        match app.catalog.write(row::insert(Batch::new().replace(&vault, &counted), row), Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written?),
        }
    }
}

type Ids = Path<(String, String)>;

pub async fn retrieve(State(app): State<App>, Path((vault_id, id)): Ids) -> Result<Json<Credential>> {
    Ok(Json(find(&app, &vault_id, &id).await?.row.into()))
}

pub async fn list(
    State(app): State<App>,
    Path(vault_id): Path<String>,
    query: Query,
) -> Result<Json<Page<Credential>>> {
    super::find(&app, &vault_id).await?;
    let request = PageRequest::of(&query, format!("vaults/{vault_id}/credentials"), Order::Desc, super::LIMITS)?;
    let archived = query.flag("include_archived")?;
    let keep = |row: &CredentialRow| archived || row.archived_at.is_none();
    let index = row::credentials(&vault_id);
    let page = listing::page(&*app.catalog, &index, &request, TimeRange::default(), keep).await?;
    Ok(Json(page.map(Credential::from)))
}

pub async fn update(
    State(app): State<App>,
    Path((vault_id, id)): Ids,
    SecretBody(body): SecretBody<UpdateCredential>,
) -> Result<Json<Credential>> {
    let mut secrets = None;
    loop {
        let read = find(&app, &vault_id, &id).await?;
        if read.row.archived_at.is_some() {
            return Err(ApiError::invalid(format!("credential {id} is archived")));
        }
        let mut row = read.row.clone();
        if let Some(auth) = body.auth.clone() {
            let (auth, taken) = auth.over(&row.auth, app.clock.now())?;
            row.auth = auth;
            secrets.get_or_insert(taken);
        }
        row.display_name = body.display_name.clone().or_keep(row.display_name);
        row.display_name = row.display_name.map(super::check_name).transpose()?;
        row.metadata = metadata::check(metadata::patched(row.metadata, body.metadata.clone().unwrap_or_default()))?;
        let has_new = secrets.as_ref().is_some_and(|secrets| !secrets.is_empty());
        if row == read.row && !has_new {
            return Ok(Json(row.into()));
        }
        row.updated_at = app.clock.now();
        if let Some(new) = secrets.as_mut() {
            secrets::put(&app, &vault_id, &id, std::mem::take(new)).await?;
        }
        match app.catalog.write(Batch::new().replace(&read, &row), Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => {}
            written => return Ok(written.map(|()| Json(row.into()))?),
        }
    }
}

pub async fn archive(State(app): State<App>, Path((vault_id, id)): Ids) -> Result<Json<Credential>> {
    archive_one(&app, find(&app, &vault_id, &id).await?).await?;
    Ok(Json(find(&app, &vault_id, &id).await?.row.into()))
}

/// Purges the secrets and keeps the record.
pub async fn archive_one(app: &App, read: Versioned<CredentialRow>) -> Result<()> {
    let CredentialRow { vault_id, id, .. } = read.row.clone();
    let mut read = read;
    while read.row.archived_at.is_none() {
        secrets::purge(app, &vault_id, &id).await?;
        let vault = super::find(app, &vault_id).await?;
        let counted = VaultRow { active: vault.row.active.saturating_sub(1), ..vault.row.clone() };
        let batch = row::archive(Batch::new().replace(&vault, &counted), &read, app.clock.now());
        match app.catalog.write(batch, Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => read = find(app, &vault_id, &id).await?,
            written => return Ok(written?),
        }
    }
    Ok(())
}

pub async fn delete(State(app): State<App>, Path((vault_id, id)): Ids) -> Result<Json<Deleted>> {
    delete_one(&app, find(&app, &vault_id, &id).await?).await?;
    Ok(deleted(id, "vault_credential_deleted"))
}

pub async fn delete_one(app: &App, read: Versioned<CredentialRow>) -> Result<()> {
    let CredentialRow { vault_id, id, .. } = read.row.clone();
    let mut read = read;
    loop {
        let vault = super::find(app, &vault_id).await?;
        let mut batch = Batch::new();
        if read.row.archived_at.is_none() {
            secrets::purge(app, &vault_id, &id).await?;
            let counted = VaultRow { active: vault.row.active.saturating_sub(1), ..vault.row.clone() };
            batch = batch.replace(&vault, &counted);
        }
        match app.catalog.write(row::remove(batch, &read), Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) => match find(app, &vault_id, &id).await {
                Ok(again) => read = again,
                // Somebody else deleted it.
                Err(_) => return Ok(()),
            },
            written => return Ok(written?),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CredentialValidation")]
pub struct Validation {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "vault_credential_validation"))]
    kind: &'static str,
    credential_id: String,
    vault_id: String,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    validated_at: Timestamp,
    has_refresh_token: bool,
    /// `unknown` or `invalid`.
    status: &'static str,
    mcp_probe: (),
    refresh: (),
}

/// Whether the secrets are there and can be used. Nobody is called with them: that is for the session that needs them.
pub async fn validate(State(app): State<App>, Path((vault_id, id)): Ids) -> Result<Json<Validation>> {
    let row = find(&app, &vault_id, &id).await?.row;
    let held = row.archived_at.is_none() && secrets::holds(&app, &vault_id, &id, Part::Value).await?;
    let has_refresh =
        held && row.auth.has_refresh() && secrets::holds(&app, &vault_id, &id, Part::RefreshToken).await?;
    Ok(Json(Validation {
        kind: "vault_credential_validation",
        credential_id: id,
        vault_id,
        validated_at: app.clock.now(),
        has_refresh_token: has_refresh,
        status: if held { "unknown" } else { "invalid" },
        mcp_probe: (),
        refresh: (),
    }))
}

async fn find(app: &App, vault_id: &str, id: &str) -> Result<Versioned<CredentialRow>> {
    let read = app.catalog.row::<CredentialRow>(id).await?.filter(|read| read.row.vault_id == vault_id);
    read.ok_or_else(|| ApiError::not_found("credential", id))
}
