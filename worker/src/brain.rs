//! The brain worker: sessions and what they ask of the brain, on queue `brain`.
//!
//! All workflows of a worker share one thread, and the SDK's worker does not move between threads, so it gets
//! a thread of its own.

use activities::BrainActivities;
use domain::session::queue;
use std::{thread::JoinHandle, time::Duration};
use temporalio_client::Client;
use temporalio_sdk::{Runtime, Worker, WorkerOptions, runtime::PollerBehavior};
use tokio::sync::oneshot;
use workflows::SessionWorkflow;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("start a runtime for the brain worker")]
    Runtime(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("register the brain's workflows and activities")]
    Register(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("run the brain worker")]
    Run(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the brain worker panicked")]
    Panicked,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Sessions kept in memory between their turns; others are replayed when something happens to them.
    pub cached_sessions: usize,
    /// How long activities may go on after a shutdown began.
    pub grace: Duration,
    /// Open polls for workflow tasks.
    pub workflow_pollers: usize,
    /// Open polls for activity tasks.
    pub activity_pollers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { cached_sessions: 1000, grace: Duration::from_secs(5), workflow_pollers: 5, activity_pollers: 5 }
    }
}

/// A brain worker on its own thread.
pub struct BrainWorker {
    thread: JoinHandle<Result<(), Error>>,
    shutdown: Box<dyn Fn() + Send + Sync>,
    ended: oneshot::Receiver<()>,
}

impl BrainWorker {
    /// Returns once the worker is registered and about to poll.
    pub async fn start(client: Client, activities: BrainActivities, options: Options) -> Result<Self, Error> {
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let handle = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new()
            .name("brain".to_owned())
            .spawn(move || {
                let _end = end;
                let local = handle.clone();
                local.block_on(run(client, activities, options, ready))
            })
            .map_err(|error| Error::Runtime(error.into()))?;
        match started.await {
            Ok(shutdown) => Ok(BrainWorker { thread, shutdown, ended }),
            Err(_) => Err(thread.join().unwrap_or(Err(Error::Panicked)).err().unwrap_or(Error::Panicked)),
        }
    }

    /// Stops polling, lets what runs finish within the grace period.
    pub fn shutdown(&self) {
        (self.shutdown)();
    }

    /// Until the worker has ended, by shutdown or by an error.
    pub async fn join(self) -> Result<(), Error> {
        // Dropped by the thread when it is done: nothing is ever sent.
        let _ = self.ended.await;
        self.thread.join().unwrap_or(Err(Error::Panicked))
    }
}

async fn run(
    client: Client,
    activities: BrainActivities,
    options: Options,
    ready: oneshot::Sender<Box<dyn Fn() + Send + Sync>>,
) -> Result<(), Error> {
    let runtime = Runtime::from_current_tokio(Default::default()).map_err(|error| Error::Runtime(error.into()))?;
    let worker_options = WorkerOptions::new(queue::BRAIN)
        .register_workflow::<SessionWorkflow>()
        .map_err(|error| Error::Register(error.into()))?
        .register_activities(activities)
        .max_cached_workflows(options.cached_sessions)
        .workflow_task_poller_behavior(PollerBehavior::SimpleMaximum(options.workflow_pollers))
        .activity_task_poller_behavior(PollerBehavior::SimpleMaximum(options.activity_pollers))
        .sticky_queue_schedule_to_start_timeout(Duration::from_secs(2))
        .max_heartbeat_throttle_interval(Duration::from_millis(500))
        .graceful_shutdown_period(options.grace)
        .build();
    let mut worker =
        Worker::new(&runtime, client, worker_options).map_err(|error| Error::Register(error.to_string().into()))?;
    let shutdown = worker.shutdown_handle();
    let _ = ready.send(Box::new(shutdown));
    worker.run().await.map_err(|error| Error::Run(error.to_string().into()))
}
