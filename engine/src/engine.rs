//! The engine as others hold it: open, call, verify, shut down.

use crate::backup::Moment;
use crate::format;
use crate::host::{self, Host, Kept, Settings, recovered};
use crate::options::{Options, Store};
use crate::rpc::{self, Call, Namespaces};
use crate::store::committer::Committer;
use crate::store::{FjallStore, MemoryStore, Storage};
use crate::verify::{self, Report};
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tonic::Status;
use tracing::debug;

/// Why an engine could not be opened or examined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Format(#[from] format::Error),
    #[error("start the commit thread")]
    Thread(#[source] std::io::Error),
    #[error("recover the runs that were busy")]
    Recover(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("read what the store holds")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A handle to a running engine; clones are the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    host: Arc<Host>,
    namespaces: Arc<Namespaces>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// Without a shutdown the engine ends with its last handle: what was accepted is written, nobody waits for it.
impl Drop for Inner {
    fn drop(&mut self) {
        self.host.close();
    }
}

impl Engine {
    /// Opens the store, brings it to this build's format, recovers what was busy when it was closed, and starts the timers.
    /// Must be called within a tokio runtime.
    pub fn open(options: Options) -> Result<Engine, Error> {
        let store: Arc<dyn Storage> = match &options.store {
            Store::Memory => Arc::new(MemoryStore::default()),
            Store::Fjall(path) => Arc::new(FjallStore::open_with(path, options.journal_bytes)?),
        };
        format::bring_up(&*store)?;
        let committer = Committer::start(store.clone()).map_err(Error::Thread)?;
        let (host, namespaces) = parts(store, Some(committer), options)?;
        let pending = host.recover().map_err(|source| Error::Recover(source.into()))?;
        let wheel = tokio::spawn(host.clone().run_wheel());
        let errands = tokio::spawn(host.clone().run_errands());
        let keeping = tokio::spawn(host.clone().run_keeping());
        let recovery = tokio::spawn(async move {
            if let Err(error) = recovered(pending).await {
                tracing::error!(error = &error as &dyn std::error::Error, "recovery could not be stored");
            }
        });
        Ok(Engine(Arc::new(Inner { host, namespaces, tasks: Mutex::new(vec![wheel, errands, keeping, recovery]) })))
    }

    /// Opens a store that nobody else uses to look at it: nothing is recovered, no timer fires, and every call that
    /// would change something is refused. A folder must hold a database already, of this build's format.
    pub fn open_read_only(options: Options) -> Result<Engine, Error> {
        let store: Arc<dyn Storage> = match &options.store {
            Store::Memory => Arc::new(MemoryStore::default()),
            Store::Fjall(path) => Arc::new(FjallStore::open_existing(path)?),
        };
        format::must_be_current(&*store)?;
        let (host, namespaces) = parts(store, None, options)?;
        Ok(Engine(Arc::new(Inner { host, namespaces, tasks: Mutex::default() })))
    }

    /// Brings a store that nobody uses to this build's format, and does nothing else with it.
    pub fn bring_up(path: &Path) -> Result<(), Error> {
        let store = FjallStore::open_existing(path)?;
        format::bring_up(&store)?;
        store.close();
        Ok(())
    }

    /// Answers one RPC: `service` is the full name (`temporal.api.workflowservice.v1.WorkflowService`), `rpc` the
    /// method, `body` the encoded request; the answer is the encoded response. Polls wait inside this call; dropping it
    /// gives back what it had taken.
    ///
    /// # Errors
    /// The gRPC status that a Temporal server would answer, with its typed details; `UNIMPLEMENTED` for what is not
    /// implemented; `UNAVAILABLE` once the store has failed.
    pub async fn call(&self, service: &str, rpc: &str, headers: &HeaderMap, body: Bytes) -> Result<Vec<u8>, Status> {
        let call = Call::new(self.0.host.clone(), self.0.namespaces.clone(), headers);
        let answer = rpc::dispatch(call, service, rpc, body).await;
        if let Err(status) = &answer {
            debug!(rpc, code = status.code() as i32, "call refused");
        }
        answer
    }

    /// Answers every open poll with nothing, stops the timers, and returns when all that was accepted is on disk and the
    /// store is closed, whoever still holds a handle. Idempotent.
    pub async fn shutdown(&self) {
        self.0.host.close();
        let tasks = std::mem::take(&mut *self.0.tasks.lock());
        for task in tasks {
            if task.await.is_err() {
                tracing::error!("a task of the engine panicked");
            }
        }
        if let Err(error) = self.0.host.sync().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the store could not be synced");
        }
        self.0.host.close_store();
    }

    /// The store at one moment between two writes. `beside` runs at that moment, when all that was acknowledged before is
    /// there and nothing that comes after: what it looks at fits to the store. It must not block.
    pub async fn moment<T: Send + 'static>(
        &self,
        beside: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(Moment, T), Error> {
        let moment = self.0.host.at_rest(beside).await.map_err(|source| Error::Read(source.into()))?;
        Ok((Moment::new(moment.0), moment.1))
    }

    /// Examines every run and index of the store as it is at this moment, whatever happens meanwhile.
    pub fn verify(&self) -> Result<Report, Error> {
        let examine = || verify::verify(&*self.0.host.snapshot()?);
        examine().map_err(|source: host::Error| Error::Read(source.into()))
    }
}

fn parts(
    store: Arc<dyn Storage>,
    committer: Option<Committer>,
    options: Options,
) -> Result<(Arc<Host>, Arc<Namespaces>), Error> {
    let Options { clock, limits, cached_runs_max, seed, namespaces, .. } = options;
    let host = Arc::new(Host::new(store, committer, Settings { clock, limits, cached_runs_max, seed }));
    host.load_deployments().map_err(|source| Error::Read(source.into()))?;
    let stored = host.stored_namespaces().map_err(|source| Error::Read(source.into()))?;
    let configured = namespaces.into_iter().map(|name| (name, Kept::default()));
    let names: Vec<_> = configured.chain(stored).collect();
    let namespaces = Namespaces::new(names.iter().cloned());
    for (name, _) in names {
        let attributes = host.stored_attributes(&name).map_err(|source| Error::Read(source.into()))?;
        namespaces.add_attributes(&name, attributes);
    }
    Ok((host, Arc::new(namespaces)))
}
