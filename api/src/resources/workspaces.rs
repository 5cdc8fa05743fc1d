//! Ours: the tenants of the service, and what they changed. For the admin key alone.

use axum::extract::State;
use axum::{Extension, Json};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api_keys::{check_name, require_admin};
use crate::app::App;
use crate::auth::Principal;
use crate::auth::audit::{self, AuditRow};
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::operation::get;
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query};
use crate::router::{Resource, Route};
use crate::tenants::{self, Tenant};
use crate::time;

pub const RESOURCE: Resource = Resource {
    name: "workspaces",
    routes: &[
        Route { path: "/v1/steadyhand/workspaces", methods: || get(list).post(create) },
        Route {
            path: "/v1/steadyhand/audit",
            methods: || get(entries).query([LIMITS.param(), page::param(), Param::times("created_at")]),
        },
    ],
};

const LIMITS: Limits = Limits { default: 100, max: 1000 };

#[derive(Debug, Deserialize, JsonSchema)]
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
) -> Result<Json<Workspace>> {
    require_admin(&principal)?;
    let name = check_name(name)?;
    if let Some(id) = &organization_id
        && !tenants::all(&*app.catalog).await?.iter().any(|tenant| tenant.organization_id == *id)
    {
        return Err(ApiError::field("organization_id", format!("there is no organization {id}")));
    }
    let tenant = Tenant::new(organization_id, name, app.clock.now());
    tenants::add(&*app.catalog, &tenant).await?;
    Ok(Json(tenant.into()))
}

async fn list(State(app): State<App>, Extension(principal): Extension<Principal>) -> Result<Json<Page<Workspace>>> {
    require_admin(&principal)?;
    let tenants = tenants::all(&*app.catalog).await?;
    Ok(Json(Page::whole(tenants.into_iter().map(Workspace::from).collect())))
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
struct Workspace {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "workspace"))]
    kind: &'static str,
    organization_id: String,
    name: String,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    created_at: Option<Timestamp>,
}

impl From<Tenant> for Workspace {
    fn from(tenant: Tenant) -> Self {
        let Tenant { workspace_id, organization_id, name, created_at } = tenant;
        Self { id: workspace_id, kind: "workspace", organization_id, name, created_at }
    }
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
struct AuditEntry {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "audit_entry"))]
    kind: &'static str,
    /// The request's.
    id: String,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    at: Timestamp,
    workspace_id: String,
    key_id: String,
    method: String,
    route: String,
    path: String,
    status: u16,
    object_id: Option<String>,
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        let AuditRow { id, at, workspace_id, key_id, method, route, path, status, object_id } = row;
        Self { kind: "audit_entry", id, at, workspace_id, key_id, method, route, path, status, object_id }
    }
}

/// Newest first.
async fn entries(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    query: Query,
) -> Result<Json<Page<AuditEntry>>> {
    require_admin(&principal)?;
    let request = PageRequest::of(&query, "audit", Order::Desc, LIMITS)?;
    let page = audit::page(&*app.catalog, &request, query.times("created_at")?).await?;
    Ok(Json(page.map(AuditEntry::from)))
}
