//! The rows of vaults and credentials: what they are called and for, and nothing that is secret.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Batch, Catalog, Record, Table, Versioned};

use super::auth::Auth;
use crate::error::Result;
use crate::listing::{self, Index};
use crate::metadata::Metadata;
use crate::{time, verify};

const VAULTS_BY_TIME: Table = Table::new("vaults_by_time");
const CREDENTIALS_BY_TIME: Table = Table::new("credentials_by_time");
/// Which active credential of a vault has a key, so that no two have the same.
const KEYS: Table = Table::new("credential_keys");

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VaultRow {
    pub id: String,
    pub display_name: String,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
    /// How many credentials it has that are not archived.
    pub active: usize,
}

impl Record for VaultRow {
    const TABLE: Table = Table::new("vaults");
    const VERSION: u32 = 1;
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CredentialRow {
    pub id: String,
    pub vault_id: String,
    pub display_name: Option<String>,
    pub auth: Auth,
    pub metadata: Metadata,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Record for CredentialRow {
    const TABLE: Table = Table::new("credentials");
    const VERSION: u32 = 1;
}

pub fn vaults() -> Index {
    Index::new(VAULTS_BY_TIME)
}

pub fn credentials(vault_id: &str) -> Index {
    Index::within(CREDENTIALS_BY_TIME, vault_id)
}

fn key(row: &CredentialRow) -> String {
    format!("{}/{}", row.vault_id, row.auth.key())
}

/// Adds a credential; the write fails if another active one has its key.
pub fn insert(batch: Batch, row: &CredentialRow) -> Batch {
    let batch = credentials(&row.vault_id).insert(batch.insert(&row.id, row), row.created_at, &row.id);
    batch.require(KEYS, key(row), store::Condition::Absent).put(KEYS, key(row), row.id.clone())
}

/// Whether an active credential of the vault has the key of this one.
pub async fn is_taken(catalog: &dyn Catalog, row: &CredentialRow) -> Result<bool> {
    Ok(catalog.get(KEYS, key(row).as_bytes()).await?.is_some())
}

/// Archives a credential, which frees its key.
pub fn archive(batch: Batch, read: &Versioned<CredentialRow>, now: Timestamp) -> Batch {
    let row = CredentialRow { archived_at: Some(now), updated_at: now, ..read.row.clone() };
    batch.replace(read, &row).delete(KEYS, key(&row))
}

pub fn remove(batch: Batch, read: &Versioned<CredentialRow>) -> Batch {
    let row = &read.row;
    let batch = credentials(&row.vault_id).remove(batch.remove(read), row.created_at, &row.id);
    // An archived one has no key any more, and another may have it by now.
    if row.archived_at.is_none() { batch.delete(KEYS, key(row)) } else { batch }
}

/// Every vault and every credential is in its index.
pub async fn verify(catalog: &dyn Catalog, problems: &mut Vec<String>) -> Result<()> {
    verify::each(catalog, problems, async |read: Versioned<VaultRow>, problems| {
        vaults().verify::<VaultRow>(catalog, read.row.created_at, &read.row.id, problems).await
    })
    .await?;
    listing::verify::<VaultRow>(catalog, VAULTS_BY_TIME, problems).await?;
    verify::each(catalog, problems, async |read: Versioned<CredentialRow>, problems| {
        let CredentialRow { id, vault_id, created_at, .. } = &read.row;
        credentials(vault_id).verify::<CredentialRow>(catalog, *created_at, id, problems).await
    })
    .await?;
    listing::verify::<CredentialRow>(catalog, CREDENTIALS_BY_TIME, problems).await
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
pub struct Vault {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "vault"))]
    kind: &'static str,
    display_name: String,
    metadata: Metadata,
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

impl From<VaultRow> for Vault {
    fn from(row: VaultRow) -> Self {
        let VaultRow { id, display_name, metadata, created_at, updated_at, archived_at, active: _ } = row;
        Self { id, kind: "vault", display_name, metadata, created_at, updated_at, archived_at }
    }
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
pub struct Credential {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "vault_credential"))]
    kind: &'static str,
    vault_id: String,
    display_name: Option<String>,
    auth: Auth,
    metadata: Metadata,
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

impl From<CredentialRow> for Credential {
    fn from(row: CredentialRow) -> Self {
        let CredentialRow { id, vault_id, display_name, auth, metadata, created_at, updated_at, archived_at } = row;
        let kind = "vault_credential";
        Self { id, kind, vault_id, display_name, auth, metadata, created_at, updated_at, archived_at }
    }
}
