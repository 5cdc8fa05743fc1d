//! Ours: the keys of clients, made, listed and revoked with the admin key. A new key is shown in one answer and nowhere
//! else.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::auth::keys::{KeyRow, KnownKey, NewKey};
use crate::auth::{Principal, Scope};
use crate::body::JsonBody;
use crate::error::{ApiError, Kind, Result};
use crate::operation::{get, post};
use crate::page::Page;
use crate::router::{Resource, Route};
use crate::tenants;
use crate::time;

pub const RESOURCE: Resource = Resource {
    name: "api keys",
    routes: &[
        Route { path: "/v1/steadyhand/api_keys", methods: || get(list).post(create) },
        Route { path: "/v1/steadyhand/api_keys/{key_id}/revoke", methods: || post(revoke) },
    ],
};

const NAME_CHARS_MAX: usize = 256;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    name: String,
    #[serde(default)]
    scope: KeyScope,
    /// Omitted: the workspace that the service began with.
    #[serde(default)]
    workspace_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum KeyScope {
    #[default]
    All,
    Read,
}

/// Whoever runs the service, and nobody else.
pub fn require_admin(principal: &Principal) -> Result<()> {
    if principal.is_admin() {
        return Ok(());
    }
    Err(ApiError::new(Kind::Permission, "only the admin key may do this"))
}

pub fn check_name(name: String) -> Result<String> {
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX {
        return Err(ApiError::field("name", format!("{chars} characters, 1 to {NAME_CHARS_MAX} are allowed")));
    }
    Ok(name)
}

/// Keys of clients; those of environments are listed with their environment.
fn is_of_clients(row: &KeyRow) -> bool {
    !matches!(row.scope, Scope::Environment { .. })
}

async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    JsonBody(CreateKey { name, scope, workspace_id }): JsonBody<CreateKey>,
) -> Result<Json<NewApiKey>> {
    require_admin(&principal)?;
    let name = check_name(name)?;
    if let Some(id) = &workspace_id
        && !tenants::all(&*app.catalog).await?.iter().any(|tenant| tenant.workspace_id == *id)
    {
        return Err(ApiError::field("workspace_id", format!("there is no workspace {id}")));
    }
    let scope = match scope {
        KeyScope::All => Scope::All,
        KeyScope::Read => Scope::Read,
    };
    Ok(Json(app.keys.create(&name, scope, workspace_id, app.clock.now()).await?.into()))
}

async fn list(State(app): State<App>, Extension(principal): Extension<Principal>) -> Result<Json<Page<ApiKey>>> {
    require_admin(&principal)?;
    let keys = app.keys.list(is_of_clients).await?;
    Ok(Json(Page::whole(keys.into_iter().map(ApiKey::from).collect())))
}

async fn revoke(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(id): Path<String>,
) -> Result<Json<ApiKey>> {
    require_admin(&principal)?;
    let revoked = app.keys.revoke(&id, is_of_clients, app.clock.now()).await?;
    Ok(Json(revoked.ok_or_else(|| ApiError::not_found("key", &id))?.into()))
}

/// A key as anybody may see it.
#[derive(Serialize, JsonSchema)]
pub struct ApiKey {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "api_key"))]
    kind: &'static str,
    name: String,
    scope: Scope,
    workspace_id: Option<String>,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    created_at: Timestamp,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    last_used_at: Option<Timestamp>,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    revoked_at: Option<Timestamp>,
}

/// A key that was just made, with itself.
#[derive(Serialize, JsonSchema)]
pub struct NewApiKey {
    #[serde(flatten)]
    known: ApiKey,
    key: String,
}

impl From<KnownKey> for ApiKey {
    fn from(key: KnownKey) -> Self {
        let KeyRow { id, name, created_at, scope, workspace_id, revoked_at } = key.row;
        Self { id, kind: "api_key", name, scope, workspace_id, created_at, last_used_at: key.last_used_at, revoked_at }
    }
}

impl From<NewKey> for NewApiKey {
    fn from(key: NewKey) -> Self {
        Self { known: KnownKey { row: key.row, last_used_at: None }.into(), key: key.token }
    }
}
