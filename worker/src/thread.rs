//! A thread for SDK workers: they do not move between threads, and all workflows of one share its thread.

use futures::future::{FutureExt as _, Shared};
use std::{future::Future, pin::Pin, thread::JoinHandle};
use temporalio_sdk::Worker;
use tokio::sync::oneshot;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start a thread for a worker")]
    Thread(#[source] std::io::Error),
    #[error("set up a worker: {0}")]
    Setup(String),
    #[error("run a worker: {0}")]
    Run(String),
    #[error("a worker panicked")]
    Panicked,
}

type Shutdown = Box<dyn Fn() + Send + Sync>;

/// Workers on a thread of their own.
pub struct WorkerThread {
    thread: JoinHandle<Result<(), Error>>,
    shutdown: Shutdown,
    ended: Shared<oneshot::Receiver<()>>,
}

impl WorkerThread {
    /// `make` runs on the new thread. Returns once the workers are made and about to poll.
    pub async fn start(
        name: &str,
        make: impl FnOnce() -> Result<Vec<Worker>, Error> + Send + 'static,
    ) -> Result<Self, Error> {
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let handle = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _end = end;
                let _entered = handle.enter();
                handle.block_on(run(make()?, ready))
            })
            .map_err(Error::Thread)?;
        match started.await {
            Ok(shutdown) => Ok(WorkerThread { thread, shutdown, ended: ended.shared() }),
            Err(_) => Err(thread.join().unwrap_or(Err(Error::Panicked)).err().unwrap_or(Error::Panicked)),
        }
    }

    /// Stops polling, lets what runs finish within the grace period.
    pub fn shutdown(&self) {
        (self.shutdown)();
    }

    /// Until the workers have ended, by shutdown or by an error.
    pub async fn ended(&self) {
        // Dropped by the thread when it is done: nothing is ever sent.
        let _ = self.ended.clone().await;
    }

    /// What they ended with. Call it after [`WorkerThread::ended`].
    pub fn join(self) -> Result<(), Error> {
        self.thread.join().unwrap_or(Err(Error::Panicked))
    }
}

async fn run(mut workers: Vec<Worker>, ready: oneshot::Sender<Shutdown>) -> Result<(), Error> {
    let handles: Vec<Shutdown> = workers.iter().map(|worker| Box::new(worker.shutdown_handle()) as Shutdown).collect();
    let _ = ready.send(Box::new(move || handles.iter().for_each(|shutdown| shutdown())));
    let runs = workers.iter_mut().map(|worker| {
        Box::pin(async move { worker.run().await.map_err(|error| Error::Run(error.to_string())) })
            as Pin<Box<dyn Future<Output = Result<(), Error>>>>
    });
    futures::future::try_join_all(runs).await.map(|_| ())
}
