//! Ours: the tenants of the service, and what they changed. For the admin key alone.

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api_keys::{check_name, require_admin};
use crate::app::App;
use crate::auth::Principal;
use crate::auth::audit::{self, AuditRow};
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::page::{Limits, Order, Page, PageRequest};
use crate::query::Query;
use crate::router::{Resource, Route};
use crate::tenants::{self, Tenant};
use crate::time;

pub const RESOURCE: Resource = Resource {
    name: "workspaces",
    routes: &[
        Route { path: "/v1/steadyhand/workspaces", methods: || get(list).post(create) },
        Route { path: "/v1/steadyhand/audit", methods: || get(entries) },
    ],
};

const LIMITS: Limits = Limits { default: 100, max: 1000 };

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateWorkspace {
    name: String,
    /// Omitted: an organization of its own.
    #[serde(default)]
    organization_id: Option<String>,
}

async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    JsonBody(CreateWorkspace { name, organization_id }): JsonBody<CreateWorkspace>,
) -> Result<Json<Value>> {
    require_admin(&principal)?;
    let name = check_name(name)?;
    if let Some(id) = &organization_id
        && !tenants::all(&*app.catalog).await?.iter().any(|tenant| tenant.organization_id == *id)
    {
        return Err(ApiError::field("organization_id", format!("there is no organization {id}")));
    }
    let tenant = Tenant::new(organization_id, name, app.clock.now());
    tenants::add(&*app.catalog, &tenant).await?;
    Ok(Json(shown(&tenant)))
}

async fn list(State(app): State<App>, Extension(principal): Extension<Principal>) -> Result<Json<Value>> {
    require_admin(&principal)?;
    let tenants = tenants::all(&*app.catalog).await?;
    Ok(Json(json!({"data": tenants.iter().map(shown).collect::<Vec<_>>(), "next_page": null})))
}

fn shown(tenant: &Tenant) -> Value {
    json!({
        "id": tenant.workspace_id,
        "type": "workspace",
        "organization_id": tenant.organization_id,
        "name": tenant.name,
        "created_at": tenant.created_at.map(time::text),
    })
}

/// Newest first.
async fn entries(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    query: Query,
) -> Result<Json<Page<Value>>> {
    require_admin(&principal)?;
    let request = PageRequest::of(&query, "audit", Order::Desc, LIMITS)?;
    let page = audit::page(&*app.catalog, &request, query.times("created_at")?).await?;
    Ok(Json(page.map(|row: AuditRow| {
        let at = time::text(row.at);
        let mut value = json!(row);
        value["at"] = at.into();
        value["type"] = "audit_entry".into();
        value
    })))
}
