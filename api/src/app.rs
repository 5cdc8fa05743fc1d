//! What every handler is given.

use std::sync::Arc;

use domain::session::Tuning;
use log::follow::Followed;
use log::{Follower, HistoryReader, TemporalReader};
use store::catalog::Error as CatalogError;
use store::{Blobs, Catalog};
use temporalio_client::Connection;
use tokio::sync::watch;

use crate::auth::Keys;
use crate::auth::limits::{Limits, Rates};
use crate::deltas::Hub;
use crate::egress::Egress;
use crate::gateway::Gateway;
use crate::hands::Hands;
use crate::resources::environments::work::queue::WorkQueues;
use crate::resources::events::retry::{Answered, UnderWay};
use crate::resources::sessions::{BuiltinTool, SessionRows};
use crate::serve::Patience;
use crate::tenants::scope::Scoped;
use crate::tenants::{self, Tenant};
use crate::time::{Clock, SystemClock};

/// The state of the api. Cheap to clone: everything in it is shared.
#[derive(Clone)]
pub struct App {
    /// The tenant's part of it.
    pub catalog: Arc<dyn Catalog>,
    pub blobs: Arc<dyn Blobs>,
    pub clock: Arc<dyn Clock>,
    pub keys: Keys,
    pub(crate) limits: Limits,
    pub(crate) work: WorkQueues,
    pub tenant: Arc<Tenant>,
    pub gateway: Gateway,
    pub follower: Follower,
    pub deltas: Hub,
    /// The tools of `agent_toolset_20260401` that hands of this service have.
    pub builtin_tools: Arc<[BuiltinTool]>,
    /// What new sessions are tuned to.
    pub tuning: Tuning,
    /// A model judges calls under the policy `auto`.
    pub(crate) judges: bool,
    pub(crate) patience: Patience,
    /// None where this service runs no hands.
    pub hands: Option<Arc<dyn Hands>>,
    /// None where this service runs no hands.
    pub egress: Option<Arc<dyn Egress>>,
    /// Counts what the keeper of rollouts may have to act on: rows of sessions that were written, and rollouts made.
    pub(crate) rollouts: Arc<watch::Sender<u64>>,
    pub(crate) reader: Arc<dyn HistoryReader>,
    whole: Whole,
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
    /// How often an organization may call.
    pub rates: Rates,
    /// A model judges calls under the policy `auto`.
    pub judges: bool,
    /// How long clients may take.
    pub patience: Patience,
}

/// What the part of a tenant is made of.
#[derive(Clone)]
struct Whole {
    catalog: Arc<dyn Catalog>,
    reader: Arc<dyn HistoryReader>,
    delete_sealed_runs: bool,
    /// Counts rows of sessions that were written.
    written: Arc<watch::Sender<u64>>,
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
            rates: Rates::default(),
            judges: false,
            patience: Patience::default(),
        }
    }
}

/// The engine that runs the sessions: a cluster, or the embedded one behind the same connection.
pub struct Engine {
    pub connection: Connection,
    pub namespace: String,
}

impl App {
    /// Opens the api on its stores and its engine.
    pub async fn open(
        catalog: Arc<dyn Catalog>,
        blobs: Arc<dyn Blobs>,
        engine: Engine,
        options: Options,
    ) -> Result<Self, CatalogError> {
        let Engine { connection, namespace } = engine;
        let tenant = tenants::first(&*catalog, options.clock.now()).await?;
        let reader: Arc<dyn HistoryReader> =
            Arc::new(TemporalReader::new(connection.clone(), namespace.as_str(), blobs.clone()));
        let rollouts = Arc::new(watch::channel(0).0);
        let whole = Whole {
            catalog: catalog.clone(),
            reader: reader.clone(),
            delete_sealed_runs: options.delete_sealed_runs,
            written: rollouts.clone(),
        };
        let part: Arc<dyn Catalog> = Arc::new(Scoped::first(catalog.clone()));
        Ok(Self {
            keys: Keys::new(catalog, options.admin_key.as_deref()),
            limits: Limits::new(options.rates),
            work: WorkQueues::default(),
            gateway: Gateway::new(connection, &namespace, blobs.clone()),
            follower: follower(&whole, &part, &blobs, &options.clock),
            rollouts,
            reader,
            deltas: Hub::default(),
            clock: options.clock,
            builtin_tools: options.builtin_tools,
            tuning: options.tuning,
            judges: options.judges,
            patience: options.patience,
            hands: options.hands,
            egress: options.egress,
            answered: Answered::default(),
            under_way: UnderWay::default(),
            closing: Arc::new(watch::channel(false).0),
            catalog: part,
            blobs,
            tenant: Arc::new(tenant),
            whole,
        })
    }

    /// The api of another tenant: the same service over that tenant's part of the catalog.
    pub(crate) fn for_tenant(&self, tenant: Tenant) -> Self {
        let part: Arc<dyn Catalog> = Arc::new(Scoped::of(self.whole.catalog.clone(), &tenant.workspace_id));
        Self {
            follower: follower(&self.whole, &part, &self.blobs, &self.clock),
            catalog: part,
            tenant: Arc::new(tenant),
            ..self.clone()
        }
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

fn follower(whole: &Whole, part: &Arc<dyn Catalog>, blobs: &Arc<dyn Blobs>, clock: &Arc<dyn Clock>) -> Follower {
    let rows = SessionRows {
        catalog: part.clone(),
        blobs: blobs.clone(),
        clock: clock.clone(),
        delete_sealed_runs: whole.delete_sealed_runs,
        written: whole.written.clone(),
    };
    Follower::new(whole.reader.clone(), blobs.clone(), Arc::new(rows))
}
