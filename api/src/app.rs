//! What every handler is given.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Blobs, Catalog, Durability, Record, Table};
use tokio::sync::watch;

use crate::auth::Keys;
use crate::ids;
use crate::time::{Clock, SystemClock};

/// The state of the api. Cheap to clone: everything in it is shared.
#[derive(Clone)]
pub struct App {
    pub catalog: Arc<dyn Catalog>,
    pub blobs: Arc<dyn Blobs>,
    pub clock: Arc<dyn Clock>,
    pub keys: Keys,
    pub tenant: Arc<Tenant>,
    closing: Arc<watch::Sender<bool>>,
}

pub struct Options {
    /// A key that is accepted beside those in the catalog.
    pub admin_key: Option<String>,
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self { admin_key: None, clock: Arc::new(SystemClock) }
    }
}

/// Whose service this is: ids made at the first start, shown to clients and the same ever after.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Tenant {
    pub organization_id: String,
    pub workspace_id: String,
}

impl Record for Tenant {
    const TABLE: Table = Table::new("tenant");
    const VERSION: u32 = 1;
}

const TENANT: &str = "tenant";

impl App {
    /// Opens the api on its stores.
    pub async fn open(
        catalog: Arc<dyn Catalog>,
        blobs: Arc<dyn Blobs>,
        options: Options,
    ) -> Result<Self, CatalogError> {
        let tenant = Arc::new(tenant(&*catalog).await?);
        let keys = Keys::new(catalog.clone(), options.admin_key.as_deref());
        let (closing, _) = watch::channel(false);
        Ok(Self { catalog, blobs, clock: options.clock, keys, tenant, closing: Arc::new(closing) })
    }

    /// Tells open streams to end. They would outlast any other request.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Resolves once the service is closing.
    pub fn closing(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closing = self.closing.subscribe();
        async move {
            // The sender outlives every handler, and if it does not, the service is closing too.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }
}

async fn tenant(catalog: &dyn Catalog) -> Result<Tenant, CatalogError> {
    loop {
        if let Some(tenant) = catalog.row::<Tenant>(TENANT).await? {
            return Ok(tenant.row);
        }
        let tenant = Tenant { organization_id: ids::new(ids::ORGANIZATION), workspace_id: ids::new(ids::WORKSPACE) };
        match catalog.write(Batch::new().insert(TENANT, &tenant), Durability::Synced).await {
            // Another api on the same catalog was first: take its ids.
            Err(CatalogError::Conflict { .. }) => {}
            written => return written.map(|()| tenant),
        }
    }
}
