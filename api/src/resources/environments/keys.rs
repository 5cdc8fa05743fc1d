//! Ours: keys for the workers of one self-hosted environment. They open its work queue and the sessions in it, and
//! nothing else.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Deserialize;

use super::config::Config;
use crate::app::App;
use crate::auth::keys::{KeyRow, Scope};
use crate::auth::{Grant, Principal};
use crate::body::JsonBody;
use crate::error::{ApiError, Kind, Result};
use crate::operation::{get, post};
use crate::page::Page;
use crate::resources::api_keys::{ApiKey, NewApiKey, check_name};
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "environment keys",
    routes: &[
        Route { path: "/v1/steadyhand/environments/{environment_id}/keys", methods: || get(list).post(create) },
        Route { path: "/v1/steadyhand/environments/{environment_id}/keys/{key_id}/revoke", methods: || post(revoke) },
    ],
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "CreateEnvironmentKey")]
struct CreateKey {
    name: String,
}

/// Whether a key is one of this environment. Ids of environments are nobody else's.
fn of(environment_id: &str) -> impl Fn(&KeyRow) -> bool {
    move |row| matches!(&row.scope, Scope::Environment { environment_id: known } if known == environment_id)
}

async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(environment_id): Path<String>,
    JsonBody(CreateKey { name }): JsonBody<CreateKey>,
) -> Result<Json<NewApiKey>> {
    if !matches!(principal.grant, Grant::Admin | Grant::All) {
        return Err(ApiError::new(Kind::Permission, "a key of the workspace makes keys of its environments"));
    }
    if let Config::Cloud { .. } = super::read(&app, &environment_id).await?.row.config {
        return Err(ApiError::invalid("only self-hosted environments have keys"));
    }
    let name = check_name(name)?;
    let scope = Scope::Environment { environment_id };
    let key = app.keys.create(&name, scope, Some(app.tenant.workspace_id.clone()), app.clock.now()).await?;
    Ok(Json(key.into()))
}

async fn list(State(app): State<App>, Path(environment_id): Path<String>) -> Result<Json<Page<ApiKey>>> {
    super::read(&app, &environment_id).await?;
    let keys = app.keys.list(of(&environment_id)).await?;
    Ok(Json(Page::whole(keys.into_iter().map(ApiKey::from).collect())))
}

async fn revoke(State(app): State<App>, Path((environment_id, id)): Path<(String, String)>) -> Result<Json<ApiKey>> {
    super::read(&app, &environment_id).await?;
    let revoked = app.keys.revoke(&id, of(&environment_id), app.clock.now()).await?;
    Ok(Json(revoked.ok_or_else(|| ApiError::not_found("key", &id))?.into()))
}
