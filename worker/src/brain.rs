//! The brain worker: sessions, rollouts, trials and what they ask of the brain, on queue `brain`.

use crate::{
    deployment,
    thread::{Error, WorkerThread},
};
use activities::BrainActivities;
use domain::session::queue;
use std::time::Duration;
use temporalio_client::Client;
use temporalio_sdk::{Runtime, Worker, WorkerOptions, runtime::PollerBehavior};
use workflows::{RolloutWorkflow, SessionWorkflow, TrialWorkflow};

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

/// Starts a brain worker.
pub async fn start(client: Client, activities: BrainActivities, options: Options) -> Result<WorkerThread, Error> {
    WorkerThread::start("brain", move || Ok(vec![worker(client, activities, options)?])).await
}

fn worker(client: Client, activities: BrainActivities, options: Options) -> Result<Worker, Error> {
    let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
    let runtime = Runtime::from_current_tokio(Default::default()).map_err(|error| setup(&error))?;
    let options = WorkerOptions::new(queue::BRAIN)
        .register_workflow::<SessionWorkflow>()
        .map_err(|error| setup(&error))?
        .register_workflow::<RolloutWorkflow>()
        .map_err(|error| setup(&error))?
        .register_workflow::<TrialWorkflow>()
        .map_err(|error| setup(&error))?
        .register_activities(activities)
        .deployment_options(deployment::options())
        .max_cached_workflows(options.cached_sessions)
        .workflow_task_poller_behavior(PollerBehavior::SimpleMaximum(options.workflow_pollers))
        .activity_task_poller_behavior(PollerBehavior::SimpleMaximum(options.activity_pollers))
        .sticky_queue_schedule_to_start_timeout(Duration::from_secs(2))
        .max_heartbeat_throttle_interval(Duration::from_millis(500))
        .graceful_shutdown_period(options.grace)
        .build();
    Worker::new(&runtime, client, options).map_err(|error| setup(&error))
}
