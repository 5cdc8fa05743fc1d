//! Ours: making keys for clients. Only the admin key may; the answer is the only place where the new key is shown.

use axum::extract::State;
use axum::routing::post;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Principal;
use crate::body::JsonBody;
use crate::error::{ApiError, Kind, Result};
use crate::router::{Resource, Route};
use crate::time;

pub const RESOURCE: Resource =
    Resource { name: "api keys", routes: &[Route { path: "/v1/steadyhand/api_keys", methods: || post(create) }] };

const NAME_CHARS_MAX: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    name: String,
}

async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    JsonBody(CreateKey { name }): JsonBody<CreateKey>,
) -> Result<Json<Value>> {
    if !principal.is_admin() {
        return Err(ApiError::new(Kind::Permission, "only the admin key makes other keys"));
    }
    let chars = name.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX {
        return Err(ApiError::field("name", format!("{chars} characters, 1 to {NAME_CHARS_MAX} are allowed")));
    }
    let now = app.clock.now();
    let key = app.keys.create(&name, now).await?;
    let (id, token) = (key.id, key.token);
    Ok(Json(json!({"id": id, "type": "api_key", "name": name, "key": token, "created_at": time::text(now)})))
}
