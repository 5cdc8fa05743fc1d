//! Keys: who may call. A key is shown once, when it is made; the catalog keeps its sha-256 alone.

use std::hint::black_box;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Durability, Record, Table};

use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::ids;

const API_KEY: &str = "x-api-key";
const ORGANIZATION_ID: HeaderName = HeaderName::from_static("anthropic-organization-id");
const WORKSPACE_ID: HeaderName = HeaderName::from_static("anthropic-workspace-id");

/// What a key looks like, so that it is recognised where it should not be.
const KEY_PREFIX: &str = "sk-steadyhand-";
/// 43 base-62 characters carry 256 bits.
const KEY_CHARS: usize = 43;
/// The key id of the admin key, which has no row.
const ADMIN_KEY_ID: &str = "apikey_admin";

/// Who a request comes from. In the extensions of every request that got past [`require`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    pub key_id: Arc<str>,
}

impl Principal {
    /// Whether this is whoever runs the service.
    pub fn is_admin(&self) -> bool {
        *self.key_id == *ADMIN_KEY_ID
    }
}

#[derive(Serialize, Deserialize)]
struct KeyRow {
    id: String,
    name: String,
    created_at: Timestamp,
}

impl Record for KeyRow {
    const TABLE: Table = Table::new("api_keys");
    const VERSION: u32 = 1;
}

/// A key that was just made. The token is nowhere else.
pub struct NewKey {
    pub id: String,
    pub token: String,
}

/// The keys of a catalog, and the admin key if there is one.
#[derive(Clone)]
pub struct Keys {
    catalog: Arc<dyn Catalog>,
    admin: Option<[u8; 32]>,
}

impl Keys {
    pub fn new(catalog: Arc<dyn Catalog>, admin_key: Option<&str>) -> Self {
        Self { catalog, admin: admin_key.map(digest) }
    }

    /// Makes a key; `name` is for people.
    pub async fn create(&self, name: &str, now: Timestamp) -> Result<NewKey, CatalogError> {
        let key = NewKey { id: ids::new(ids::API_KEY), token: format!("{KEY_PREFIX}{}", ids::random(KEY_CHARS)) };
        let row = KeyRow { id: key.id.clone(), name: name.to_owned(), created_at: now };
        self.catalog.write(Batch::new().insert(hex::encode(digest(&key.token)), &row), Durability::Synced).await?;
        Ok(key)
    }

    /// Whose key this is, if it is one. Only digests are compared, so that time tells nothing about a key.
    pub async fn check(&self, token: &str) -> Result<Option<Principal>, CatalogError> {
        let digest = digest(token);
        if self.admin.is_some_and(|admin| same(&admin, &digest)) {
            return Ok(Some(Principal { key_id: ADMIN_KEY_ID.into() }));
        }
        let row = self.catalog.row::<KeyRow>(hex::encode(digest)).await?;
        Ok(row.map(|found| Principal { key_id: found.row.id.into() }))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Compares in a time that does not depend on where the two differ.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    black_box(one.iter().zip(other).fold(0, |difference, (one, other)| difference | (one ^ other))) == 0
}

/// The middleware in front of every route that wants a key.
pub async fn require(State(app): State<App>, mut request: Request, next: Next) -> Result<Response> {
    let token = token(request.headers())
        .ok_or_else(|| ApiError::new(Kind::Authentication, "no API key: send it as Authorization: Bearer KEY"))?;
    let principal = app.keys.check(token).await?;
    let principal = principal.ok_or_else(|| ApiError::new(Kind::Authentication, "invalid API key"))?;
    if request.headers().get(WORKSPACE_ID).is_some_and(|id| id != app.tenant.workspace_id.as_str()) {
        return Err(ApiError::new(Kind::Permission, "the API key belongs to another workspace"));
    }
    request.extensions_mut().insert(principal);
    let mut response = next.run(request).await;
    for (name, id) in [(ORGANIZATION_ID, &app.tenant.organization_id), (WORKSPACE_ID, &app.tenant.workspace_id)] {
        response.headers_mut().insert(name, HeaderValue::from_str(id).expect("an id is plain ascii"));
    }
    Ok(response)
}

/// The SDKs send a bearer token, older ones and curl samples `x-api-key`.
fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.or_else(|| headers.get(API_KEY)?.to_str().ok()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use store::MemoryCatalog;

    use super::*;

    #[tokio::test]
    async fn only_made_keys_and_the_admin_key_count() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        let keys = Keys::new(catalog.clone(), Some("admin"));
        let made = keys.create("laptop", Timestamp::UNIX_EPOCH).await.unwrap();
        let key_id = |id: &str| Some(Principal { key_id: id.into() });
        assert_eq!(keys.check(&made.token).await.unwrap(), key_id(&made.id));
        assert_eq!(keys.check("admin").await.unwrap(), key_id(ADMIN_KEY_ID));
        for wrong in ["", "admin ", "Admin", &made.id, &made.token[1..], &hex::encode(digest(&made.token))] {
            assert_eq!(keys.check(wrong).await.unwrap(), None, "{wrong}");
        }
        assert_eq!(Keys::new(catalog, None).check("admin").await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_catalog_never_holds_a_key() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        let made = Keys::new(catalog.clone(), None).create("laptop", Timestamp::UNIX_EPOCH).await.unwrap();
        let rows = catalog.scan(KeyRow::TABLE, store::KeyRange::all(), store::Direction::Forward, 9).await.unwrap();
        assert_eq!(rows.len(), 1);
        let stored = [&rows[0].key[..], &rows[0].value[..]].concat();
        assert!(!String::from_utf8(stored).unwrap().contains(&made.token[KEY_PREFIX.len()..]));
    }
}
