//! Keys: made, found, listed and revoked. A key is shown once, when it is made; the catalog keeps its sha-256 alone.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Direction, Durability, KeyRange, Record, Table};

use super::{Grant, Principal};
use crate::ids;
use crate::resources::environments::work::token::{self, TokenRow};

/// What a key looks like, so that it is recognised where it should not be.
const KEY_PREFIX: &str = "sk-steadyhand-";
/// 43 base-62 characters carry 256 bits.
const KEY_CHARS: usize = 43;
/// The key id of the admin key, which has no row.
const ADMIN_KEY_ID: &str = "apikey_admin";
/// More than anybody makes.
const KEYS_MAX: usize = 10_000;
/// How exactly it is known when a key was last used.
const USE_GRAIN: SignedDuration = SignedDuration::from_mins(1);

/// What a key may be used for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "ApiKeyScope")]
pub enum Scope {
    /// Everything of its workspace.
    #[default]
    All,
    /// To look, and change nothing.
    Read,
    /// The work of one self-hosted environment.
    Environment { environment_id: String },
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct KeyRow {
    pub id: String,
    pub name: String,
    pub created_at: Timestamp,
    #[serde(default)]
    pub scope: Scope,
    /// None where it is the workspace that the service began with.
    #[serde(default)]
    pub workspace_id: Option<String>,
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
}

impl Record for KeyRow {
    const TABLE: Table = Table::new("api_keys");
    const VERSION: u32 = 1;
}

/// When a key was last used, by its id. Beside the key, so that using it never gets in the way of revoking it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct UseRow {
    pub at: Timestamp,
}

impl Record for UseRow {
    const TABLE: Table = Table::new("api_key_uses");
    const VERSION: u32 = 1;
}

/// A key that was just made. The token is nowhere else.
pub struct NewKey {
    pub row: KeyRow,
    pub token: String,
}

/// A key as it is shown: without itself.
pub struct KnownKey {
    pub row: KeyRow,
    pub last_used_at: Option<Timestamp>,
}

/// The keys of a catalog, and the admin key if there is one.
#[derive(Clone)]
pub struct Keys {
    catalog: Arc<dyn Catalog>,
    admin: Option<[u8; 32]>,
    /// The uses that were written, by the key's id.
    used: Arc<Mutex<HashMap<String, Timestamp>>>,
}

impl Keys {
    pub fn new(catalog: Arc<dyn Catalog>, admin_key: Option<&str>) -> Self {
        Self { catalog, admin: admin_key.map(digest), used: Arc::default() }
    }

    /// Makes a key; `name` is for people.
    pub async fn create(
        &self,
        name: &str,
        scope: Scope,
        workspace_id: Option<String>,
        now: Timestamp,
    ) -> Result<NewKey, CatalogError> {
        let token = format!("{KEY_PREFIX}{}", ids::random(KEY_CHARS));
        let (name, revoked_at) = (name.to_owned(), None);
        let row = KeyRow { id: ids::new(ids::API_KEY), name, created_at: now, scope, workspace_id, revoked_at };
        self.catalog.write(Batch::new().insert(hex::encode(digest(&token)), &row), Durability::Synced).await?;
        Ok(NewKey { row, token })
    }

    /// Who calls with this, if anybody may. Only digests are compared, so that time tells nothing about a key.
    /// `first` is the workspace of keys that name none.
    pub async fn check(&self, token: &str, first: &str, now: Timestamp) -> Result<Option<Principal>, CatalogError> {
        let digest = digest(token);
        let first = || Arc::<str>::from(first);
        if self.admin.is_some_and(|admin| same(&admin, &digest)) {
            let (key_id, digest) = (ADMIN_KEY_ID.into(), hex::encode(digest).into());
            return Ok(Some(Principal { key_id, digest, workspace_id: first(), grant: Grant::Admin }));
        }
        let digest: Arc<str> = hex::encode(digest).into();
        if token.starts_with(token::PREFIX) {
            let row = self.catalog.row::<TokenRow>(&*digest).await?;
            return Ok(row.map(|read| Principal {
                key_id: read.row.work_id.as_str().into(),
                digest,
                workspace_id: read.row.workspace_id.as_str().into(),
                grant: Grant::Work(read.row),
            }));
        }
        let Some(row) = self.good(&digest).await? else { return Ok(None) };
        self.note_use(&row.id, now).await;
        let grant = match row.scope {
            Scope::All => Grant::All,
            Scope::Read => Grant::Read,
            Scope::Environment { environment_id } => Grant::Environment { environment_id },
        };
        let workspace_id = row.workspace_id.map_or_else(first, Arc::from);
        Ok(Some(Principal { key_id: row.id.into(), digest, workspace_id, grant }))
    }

    /// Whether a key, not the admin's, would still be let in.
    pub async fn is_good(&self, digest: &str) -> Result<bool, CatalogError> {
        Ok(self.good(digest).await?.is_some())
    }

    async fn good(&self, digest: &str) -> Result<Option<KeyRow>, CatalogError> {
        let row = self.catalog.row::<KeyRow>(digest).await?.map(|read| read.row);
        Ok(row.filter(|row| row.revoked_at.is_none()))
    }

    async fn note_use(&self, id: &str, now: Timestamp) {
        let is_known = |at: &Timestamp| now.duration_since(*at) < USE_GRAIN;
        if self.used.lock().get(id).is_some_and(is_known) {
            return;
        }
        self.used.lock().insert(id.to_owned(), now);
        let noted = self.catalog.write(Batch::new().upsert(id, &UseRow { at: now }), Durability::Lazy).await;
        if let Err(error) = noted {
            tracing::warn!(key_id = id, error = &error as &dyn std::error::Error, "use of a key not noted");
        }
    }

    /// Every key that `keep` keeps, oldest first, revoked ones too.
    pub async fn list(&self, keep: impl Fn(&KeyRow) -> bool) -> Result<Vec<KnownKey>, CatalogError> {
        let rows = self.catalog.rows::<KeyRow>(KeyRange::all(), Direction::Forward, KEYS_MAX).await?;
        let mut keys = Vec::new();
        for row in rows.into_iter().map(|read| read.row).filter(|row| keep(row)) {
            let used = self.catalog.row::<UseRow>(&row.id).await?;
            keys.push(KnownKey { row, last_used_at: used.map(|read| read.row.at) });
        }
        keys.sort_by(|one, other| (one.row.created_at, &one.row.id).cmp(&(other.row.created_at, &other.row.id)));
        Ok(keys)
    }

    /// From now on the key opens nothing. `None` where there is no such key among those that `keep` keeps.
    pub async fn revoke(
        &self,
        id: &str,
        keep: impl Fn(&KeyRow) -> bool,
        now: Timestamp,
    ) -> Result<Option<KnownKey>, CatalogError> {
        loop {
            let rows = self.catalog.rows::<KeyRow>(KeyRange::all(), Direction::Forward, KEYS_MAX).await?;
            let Some(read) = rows.into_iter().find(|read| read.row.id == id && keep(&read.row)) else {
                return Ok(None);
            };
            let row = KeyRow { revoked_at: read.row.revoked_at.or(Some(now)), ..read.row.clone() };
            match self.catalog.write(Batch::new().replace(&read, &row), Durability::Synced).await {
                Err(CatalogError::Conflict { .. }) => {}
                written => {
                    written?;
                    let used = self.catalog.row::<UseRow>(id).await?;
                    return Ok(Some(KnownKey { row, last_used_at: used.map(|read| read.row.at) }));
                }
            }
        }
    }
}

pub(crate) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Compares in a time that does not depend on where the two differ.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    black_box(one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other))) == 0
}

#[cfg(test)]
mod tests {
    use store::MemoryCatalog;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    async fn key_id(keys: &Keys, token: &str) -> Option<String> {
        let found = keys.check(token, "wrkspc_1", NOW).await.unwrap();
        found.map(|principal| principal.key_id.to_string())
    }

    #[tokio::test]
    async fn only_made_keys_and_the_admin_key_count() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        let keys = Keys::new(catalog.clone(), Some("admin"));
        let made = keys.create("laptop", Scope::All, None, NOW).await.unwrap();
        assert_eq!(key_id(&keys, &made.token).await, Some(made.row.id.clone()));
        assert_eq!(key_id(&keys, "admin").await.as_deref(), Some(ADMIN_KEY_ID));
        for wrong in ["", "admin ", "Admin", &made.row.id, &made.token[1..], &hex::encode(digest(&made.token))] {
            assert_eq!(key_id(&keys, wrong).await, None, "{wrong}");
        }
        assert_eq!(key_id(&Keys::new(catalog, None), "admin").await, None);
    }

    #[tokio::test]
    async fn a_revoked_key_opens_nothing_and_stays_listed() {
        let keys = Keys::new(Arc::new(MemoryCatalog::new()), None);
        let made = keys.create("laptop", Scope::Read, Some("wrkspc_2".to_owned()), NOW).await.unwrap();
        let principal = keys.check(&made.token, "wrkspc_1", NOW).await.unwrap().unwrap();
        assert_eq!((&*principal.workspace_id, principal.grant), ("wrkspc_2", Grant::Read));
        let later = NOW + SignedDuration::from_secs(1);
        assert!(keys.revoke(&made.row.id, |_| false, later).await.unwrap().is_none());
        keys.revoke(&made.row.id, |_| true, later).await.unwrap().unwrap();
        // Again, it stays the first time.
        keys.revoke(&made.row.id, |_| true, later + USE_GRAIN).await.unwrap().unwrap();
        assert_eq!(key_id(&keys, &made.token).await, None);
        let listed = keys.list(|_| true).await.unwrap();
        assert_eq!((listed[0].row.revoked_at, listed[0].last_used_at), (Some(later), Some(NOW)));
    }

    #[tokio::test]
    async fn the_catalog_never_holds_a_key() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        let made = Keys::new(catalog.clone(), None).create("laptop", Scope::All, None, NOW).await.unwrap();
        let rows = catalog.scan(KeyRow::TABLE, KeyRange::all(), Direction::Forward, 9).await.unwrap();
        assert_eq!(rows.len(), 1);
        let stored = [&rows[0].key[..], &rows[0].value[..]].concat();
        assert!(!String::from_utf8(stored).unwrap().contains(&made.token[KEY_PREFIX.len()..]));
    }
}
