//! The simulated machine: one engine over a store that fails, and calls that get lost on their way.

use super::dice::Dice;
use super::executor::{Executor, Kind};
use super::promises::Promises;
use super::store::FaultyStore;
use crate::clock::{Clock, SimulatedClock};
use crate::host::{Host, Kept, Settings, recovered};
use crate::options::Limits;
use crate::rpc::{self, Call, Namespaces};
use crate::store::committer::{Commits, Committer};
use crate::store::{Batch, Durability, Space, Storage};
use crate::time::Time;
use http::HeaderMap;
use prost::Message;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::{Code, Status};

pub const NAMESPACE: &str = "default";
pub const SECOND: i64 = 1_000_000_000;

pub struct World {
    pub dice: Dice,
    pub clock: SimulatedClock,
    pub executor: Executor,
    pub store: Arc<FaultyStore>,
    pub promises: RefCell<Promises>,
    /// Clients that have something left to do.
    pub acting: Cell<u64>,
    /// No more faults.
    pub calm: Cell<bool>,
    /// Nothing new is begun: what is open must come to its end.
    pub ending: Cell<bool>,
    engine: RefCell<Option<(Arc<Host>, Commits)>>,
    /// How often the engine was started.
    lives: Cell<u64>,
    names: Cell<u64>,
    seed: u64,
    /// How long closed runs are kept; 0: for good.
    pub retention_ns: i64,
    /// The latest that the clock has ever shown.
    latest: Cell<Time>,
}

/// What is known of the namespace.
fn kept(retention_ns: i64) -> Kept {
    Kept { retention_ns, ..Kept::default() }
}

/// Why there is no answer that counts.
#[derive(Debug)]
pub enum Failed {
    /// Nobody knows whether the request happened.
    Lost,
    Refused(Status),
}

impl Failed {
    /// Whether the answer says that there is nothing (any more) to do this to.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Failed::Refused(status) if status.code() == Code::NotFound)
    }
}

impl World {
    pub fn new(seed: u64, retention_ns: i64) -> Rc<World> {
        let store = Arc::new(FaultyStore::default());
        let mut namespace = Batch::default();
        namespace.put(Space::Namespace, NAMESPACE.as_bytes().to_vec(), kept(retention_ns).encode_to_vec());
        store.write(vec![namespace], Durability::Synced).expect("nothing goes wrong yet");
        Rc::new(World {
            dice: Dice::new(seed),
            clock: SimulatedClock::new(Time(1_700_000_000 * SECOND)),
            executor: Executor::default(),
            store,
            promises: RefCell::default(),
            acting: Cell::new(0),
            calm: Cell::new(false),
            ending: Cell::new(false),
            engine: RefCell::new(None),
            lives: Cell::new(0),
            names: Cell::new(0),
            seed,
            retention_ns,
            latest: Cell::new(Time(0)),
        })
    }

    /// A name that no other has.
    pub fn name(&self, what: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{what}-{}", self.names.get())
    }

    /// Starts the engine over what the store holds.
    pub fn start_engine(&self) {
        self.lives.set(self.lives.get() + 1);
        self.store.open();
        let (committer, commits) = Committer::unattended(self.store.clone());
        let limits = Limits {
            history_page_max: 9,
            suggest_history_events: 200,
            buffered_events_max: 12,
            signals_max: 200,
            pack_after_ns: 5 * SECOND,
            ..Limits::default()
        };
        let settings = Settings {
            clock: Arc::new(self.clock.clone()),
            limits,
            cached_runs_max: 3,
            seed: self.seed ^ (self.lives.get() << 32),
        };
        let host = Arc::new(Host::new(self.store.clone(), Some(committer), settings));
        host.load_deployments().expect("what is stored can be read");
        let pending = host.recover().expect("what is stored can be read");
        self.executor.spawn(Kind::Engine, host.clone().run_wheel());
        self.executor.spawn(Kind::Engine, host.clone().run_errands());
        self.executor.spawn(Kind::Engine, host.clone().run_keeping());
        self.executor.spawn(Kind::Engine, async move {
            // An error means that the store failed: the next life recovers.
            let _written = recovered(pending).await;
        });
        self.engine.replace(Some((host, commits)));
    }

    /// The engine's process is gone from one moment to the next.
    pub fn kill_engine(&self) {
        let engine = self.engine.take();
        self.executor.end(&[Kind::Engine, Kind::Call]);
        drop(engine);
    }

    /// Writes one group of what waits for the store; whether anything did.
    pub fn commit(&self) -> bool {
        // Out of its place meanwhile: what follows a write is the engine's own work.
        let Some((host, mut commits)) = self.engine.take() else { return false };
        self.latest.set(self.latest.get().max(self.clock.now()));
        let any = commits.turn();
        // Clocks are set back, also between a look at one and what follows from it.
        self.promises.borrow_mut().witnessed(self.store.witness(), self.latest.get().plus(-self.retention_ns));
        self.engine.replace(Some((host, commits)));
        any
    }

    /// Calls the engine, over a connection that loses things.
    pub async fn call<Request, Response>(
        self: &Rc<Self>,
        rpc: &'static str,
        request: Request,
    ) -> Result<Response, Failed>
    where
        Request: Message + Clone + 'static,
        Response: Message + Default + 'static,
    {
        let faults = !self.calm.get();
        if faults && self.dice.permille(15) {
            return Err(Failed::Lost); // on the way there
        }
        if faults && !rpc.starts_with("Poll") && self.dice.permille(15) {
            // Arrives twice; the answer to the first is lost.
            let _lost = self.arrive::<Request, Response>(rpc, request.clone()).await;
        }
        let answer = self.arrive(rpc, request).await;
        if faults && self.dice.permille(15) {
            return Err(Failed::Lost); // on the way back
        }
        answer
    }

    async fn arrive<Request, Response>(self: &Rc<Self>, rpc: &'static str, request: Request) -> Result<Response, Failed>
    where
        Request: Message + 'static,
        Response: Message + Default + 'static,
    {
        let host = self.engine.borrow().as_ref().map(|engine| engine.0.clone()).ok_or(Failed::Lost)?;
        let namespaces = Arc::new(Namespaces::new([(NAMESPACE.to_owned(), kept(self.retention_ns))]));
        let call = Call::new(host, namespaces, &HeaderMap::new());
        let (answer, answered) = oneshot::channel();
        let world = self.clone();
        self.executor.spawn(Kind::Call, async move {
            let service = "temporal.api.workflowservice.v1.WorkflowService";
            let body = request.encode_to_vec().into();
            let result = rpc::dispatch(call, service, rpc, body).await;
            if let Ok(bytes) = &result {
                world.promises.borrow_mut().handed_out(rpc, bytes);
            }
            let _caller_is_gone = answer.send(result);
        });
        match answered.await {
            Ok(Ok(bytes)) => Ok(Response::decode(bytes.as_slice()).expect("the engine's answers can be decoded")),
            // The store failed under it: whether it happened shows after the restart.
            Ok(Err(status)) if status.code() == Code::Unavailable => Err(Failed::Lost),
            Ok(Err(status)) => Err(Failed::Refused(status)),
            Err(_engine_died_or_call_was_aborted) => Err(Failed::Lost),
        }
    }

    /// Sets the clock back.
    pub fn set_back(&self, by: Duration) {
        self.latest.set(self.latest.get().max(self.clock.now()));
        self.clock.set_back(by);
    }

    /// Lets simulated time pass for the caller.
    pub async fn sleep(&self, nanos: i64) {
        let until = self.clock.now().plus(nanos);
        while self.clock.now() < until {
            self.clock.sleep_until(until).await;
        }
    }
}
