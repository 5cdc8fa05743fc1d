//! Tenants: workspaces of organizations, each with an api of its own over its own part of the catalog.
//!
//! A handler is given the [`App`] of the caller's tenant and cannot tell that there are others: an id of another tenant
//! is as unknown to it as one that was never made.

pub mod scope;

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Direction, Durability, KeyRange, Record, Table};

use crate::app::App;
use crate::{ids, router};

/// The key of the tenant that a service begins with.
const FIRST: &str = "tenant";
/// More than one service is made for.
const TENANTS_MAX: usize = 10_000;

/// Whose things these are: ids made once, shown to clients and the same ever after.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tenant {
    pub organization_id: String,
    pub workspace_id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub created_at: Option<Timestamp>,
}

impl Record for Tenant {
    const TABLE: Table = Table::new("tenant");
    const VERSION: u32 = 1;
}

impl Tenant {
    /// A workspace of that organization, or of a new one.
    pub fn new(organization_id: Option<String>, name: String, created_at: Timestamp) -> Self {
        Self {
            organization_id: organization_id.unwrap_or_else(|| ids::new(ids::ORGANIZATION)),
            workspace_id: ids::new(ids::WORKSPACE),
            name,
            created_at: Some(created_at),
        }
    }
}

/// The tenant that a service begins with, made at its first start.
pub async fn first(catalog: &dyn Catalog, now: Timestamp) -> Result<Tenant, CatalogError> {
    loop {
        if let Some(tenant) = catalog.row::<Tenant>(FIRST).await? {
            return Ok(tenant.row);
        }
        let tenant = Tenant::new(None, "default".to_owned(), now);
        match catalog.write(Batch::new().insert(FIRST, &tenant), Durability::Synced).await {
            // Another api on the same catalog was first: take its ids.
            Err(CatalogError::Conflict { .. }) => {}
            written => return written.map(|()| tenant),
        }
    }
}

/// Keeps a tenant beside the first.
pub async fn add(catalog: &dyn Catalog, tenant: &Tenant) -> Result<(), CatalogError> {
    catalog.write(Batch::new().insert(&tenant.workspace_id, tenant), Durability::Synced).await
}

/// Every tenant, the first one at the front.
pub async fn all(catalog: &dyn Catalog) -> Result<Vec<Tenant>, CatalogError> {
    let rows = catalog.rows::<Tenant>(KeyRange::all(), Direction::Forward, TENANTS_MAX).await?;
    let (first, others): (Vec<_>, Vec<_>) = rows.into_iter().partition(|read| *read.key == *FIRST.as_bytes());
    let mut others: Vec<Tenant> = others.into_iter().map(|read| read.row).collect();
    others.sort_by_key(|tenant| tenant.created_at);
    Ok(first.into_iter().map(|read| read.row).chain(others).collect())
}

/// The parts of the catalog of all tenants.
pub async fn parts(catalog: &Arc<dyn Catalog>) -> Result<Vec<Arc<dyn Catalog>>, CatalogError> {
    let mut parts: Vec<Arc<dyn Catalog>> = vec![Arc::new(scope::Scoped::first(catalog.clone()))];
    for tenant in all(&**catalog).await?.iter().skip(1) {
        parts.push(Arc::new(scope::Scoped::of(catalog.clone(), &tenant.workspace_id)));
    }
    Ok(parts)
}

/// The apis of all tenants over one set of stores. Cheap to clone.
#[derive(Clone)]
pub struct Tenants {
    first: App,
    others: Arc<Mutex<HashMap<String, Other>>>,
}

/// A tenant beside the first, and the routes to its api.
#[derive(Clone)]
pub struct Other {
    pub app: App,
    pub routes: Router,
}

/// Where a request of a tenant is handled.
pub enum Place {
    First(App),
    Other(Other),
}

impl Tenants {
    pub fn new(first: App) -> Self {
        Self { first, others: Arc::default() }
    }

    pub fn first(&self) -> &App {
        &self.first
    }

    /// The api of a workspace, if there is such a one.
    pub async fn place(&self, workspace_id: &str) -> Result<Option<Place>, CatalogError> {
        if workspace_id == self.first.tenant.workspace_id {
            return Ok(Some(Place::First(self.first.clone())));
        }
        if let Some(known) = self.others.lock().get(workspace_id) {
            return Ok(Some(Place::Other(known.clone())));
        }
        let Some(read) = self.first.catalog.row::<Tenant>(workspace_id).await? else { return Ok(None) };
        Ok(Some(Place::Other(self.enter(read.row))))
    }

    fn enter(&self, tenant: Tenant) -> Other {
        let mut others = self.others.lock();
        let entered = others.entry(tenant.workspace_id.clone()).or_insert_with(|| {
            let app = self.first.for_tenant(tenant);
            Other { routes: router::routes().with_state(app.clone()), app }
        });
        entered.clone()
    }

    /// The api of every tenant.
    pub async fn apps(&self) -> Result<Vec<App>, CatalogError> {
        let others = all(&*self.first.catalog).await?.into_iter().skip(1);
        Ok([self.first.clone()].into_iter().chain(others.map(|tenant| self.enter(tenant).app)).collect())
    }
}
