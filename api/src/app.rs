//! What every handler is given.

use std::sync::Arc;

use domain::session::Tuning;
use log::follow::Followed;
use log::{Follower, TemporalReader};
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Blobs, Catalog, Durability, Record, Table};
use temporalio_client::Connection;
use tokio::sync::watch;

use crate::auth::Keys;
use crate::deltas::Hub;
use crate::egress::Egress;
use crate::gateway::Gateway;
use crate::hands::Hands;
use crate::ids;
use crate::resources::events::retry::{Answered, UnderWay};
use crate::resources::sessions::{BuiltinTool, SessionRows};
use crate::time::{Clock, SystemClock};

/// The state of the api. Cheap to clone: everything in it is shared.
#[derive(Clone)]
pub struct App {
    pub catalog: Arc<dyn Catalog>,
    pub blobs: Arc<dyn Blobs>,
    pub clock: Arc<dyn Clock>,
    pub keys: Keys,
    pub tenant: Arc<Tenant>,
    pub gateway: Gateway,
    pub follower: Follower,
    pub deltas: Hub,
    /// The tools of `agent_toolset_20260401` that hands of this service have.
    pub builtin_tools: Arc<[BuiltinTool]>,
    /// What new sessions are tuned to.
    pub tuning: Tuning,
    /// None where this service runs no hands.
    pub hands: Option<Arc<dyn Hands>>,
    /// None where this service runs no hands.
    pub egress: Option<Arc<dyn Egress>>,
    pub(crate) answered: Answered,
    pub(crate) under_way: UnderWay,
    closing: Arc<watch::Sender<bool>>,
}

pub struct Options {
    /// A key that is accepted beside those in the catalog.
    pub admin_key: Option<String>,
    pub clock: Arc<dyn Clock>,
    pub builtin_tools: Arc<[BuiltinTool]>,
    pub tuning: Tuning,
    /// The engine keeps histories for ever: those of runs that were sealed are deleted.
    pub delete_sealed_runs: bool,
    pub hands: Option<Arc<dyn Hands>>,
    pub egress: Option<Arc<dyn Egress>>,
}

impl Default for Options {
    fn default() -> Self {
        let builtin_tools = Arc::new([]);
        Self {
            admin_key: None,
            clock: Arc::new(SystemClock),
            builtin_tools,
            tuning: Tuning::default(),
            delete_sealed_runs: false,
            hands: None,
            egress: None,
        }
    }
}

/// The engine that runs the sessions: a cluster, or the embedded one behind the same connection.
pub struct Engine {
    pub connection: Connection,
    pub namespace: String,
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
    /// Opens the api on its stores and its engine.
    pub async fn open(
        catalog: Arc<dyn Catalog>,
        blobs: Arc<dyn Blobs>,
        engine: Engine,
        options: Options,
    ) -> Result<Self, CatalogError> {
        let Engine { connection, namespace } = engine;
        let tenant = Arc::new(tenant(&*catalog).await?);
        let rows = SessionRows {
            catalog: catalog.clone(),
            blobs: blobs.clone(),
            clock: options.clock.clone(),
            delete_sealed_runs: options.delete_sealed_runs,
        };
        let reader = Arc::new(TemporalReader::new(connection.clone(), namespace.as_str(), blobs.clone()));
        Ok(Self {
            keys: Keys::new(catalog.clone(), options.admin_key.as_deref()),
            gateway: Gateway::new(connection, &namespace, blobs.clone()),
            follower: Follower::new(reader, blobs.clone(), Arc::new(rows)),
            deltas: Hub::default(),
            clock: options.clock,
            builtin_tools: options.builtin_tools,
            tuning: options.tuning,
            hands: options.hands,
            egress: options.egress,
            answered: Answered::default(),
            under_way: UnderWay::default(),
            closing: Arc::new(watch::channel(false).0),
            catalog,
            blobs,
            tenant,
        })
    }

    /// A session's log, for a request that uses it.
    pub fn session(&self, session_id: &str) -> Arc<Followed> {
        self.follower.session(session_id)
    }

    /// Lets go of the log of a session that is gone.
    pub(crate) fn forget(&self, session_id: &str) {
        self.follower.forget(session_id);
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
