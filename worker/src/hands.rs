//! The hand worker of one host: takes `provision` and calls of MCP servers from queue `hands` and everything else about its own hands from
//! `hand-host-<host>`.

use crate::{
    deployment,
    thread::{Error, WorkerThread},
};
use activities::hands::{HandsActivities, McpServers, Provider};
use domain::session::queue;
use std::{sync::Arc, time::Duration};
use store::Blobs;
use temporalio_client::Client;
use temporalio_sdk::{Runtime, Worker, WorkerOptions, runtime::PollerBehavior};

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long calls may go on after a shutdown began. They outlive it in their hands anyway.
    pub grace: Duration,
    /// Open polls on each queue.
    pub pollers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { grace: Duration::from_secs(2), pollers: 5 }
    }
}

/// Starts the hand worker of `host`.
pub async fn start(
    client: Client,
    host: &str,
    provider: Arc<dyn Provider>,
    blobs: Arc<dyn Blobs>,
    mcp: McpServers,
    options: Options,
) -> Result<WorkerThread, Error> {
    let queues = [queue::HANDS.to_owned(), queue::hand_host(host)];
    WorkerThread::start("hands", move || {
        let activities = || HandsActivities::new(provider.clone(), blobs.clone(), mcp.clone());
        queues.iter().map(|queue| worker(client.clone(), queue, activities(), options)).collect()
    })
    .await
}

fn worker(client: Client, queue: &str, activities: HandsActivities, options: Options) -> Result<Worker, Error> {
    let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
    let runtime = Runtime::from_current_tokio(Default::default()).map_err(|error| setup(&error))?;
    let options = WorkerOptions::new(queue)
        .register_activities(activities)
        .deployment_options(deployment::options())
        .activity_task_poller_behavior(PollerBehavior::SimpleMaximum(options.pollers))
        .max_heartbeat_throttle_interval(Duration::from_millis(500))
        .graceful_shutdown_period(options.grace)
        .build();
    Worker::new(&runtime, client, options).map_err(|error| setup(&error))
}
