//! The brain worker: sessions, rollouts, trials and what they ask of the brain, on queue `brain`; what-ifs, which may last for
//! hours, on a queue of their own, so that they take no place that a session waits for.

use crate::{
    deployment,
    thread::{Error, WorkerThread},
};
use activities::BrainActivities;
use domain::{limits, session::queue};
use std::time::Duration;
use temporalio_client::Client;
use temporalio_sdk::{
    Runtime, Worker, WorkerOptions,
    runtime::{
        PollerBehavior,
        worker_tuner::{FixedSizeSlotSupplier, TunerHolder},
    },
};
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
    /// What-ifs at a time.
    pub trials: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cached_sessions: 1000,
            grace: Duration::from_secs(5),
            workflow_pollers: 5,
            activity_pollers: 5,
            trials: limits::TRIALS_OF_A_WORKER_MAX,
        }
    }
}

/// Starts a brain worker.
pub async fn start(client: Client, activities: BrainActivities, options: Options) -> Result<WorkerThread, Error> {
    WorkerThread::start("brain", move || {
        let trials = trials(client.clone(), activities.clone(), options)?;
        Ok(vec![worker(client, activities, options)?, trials])
    })
    .await
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

fn trials(client: Client, activities: BrainActivities, options: Options) -> Result<Worker, Error> {
    let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
    let runtime = Runtime::from_current_tokio(Default::default()).map_err(|error| setup(&error))?;
    let slots = || FixedSizeSlotSupplier::new(options.trials);
    let tuner = TunerHolder::builder()
        .activity_task_slot_supplier(slots())
        .workflow_task_slot_supplier(slots())
        .local_activity_task_slot_supplier(slots())
        .nexus_task_slot_supplier(slots())
        .build();
    let options = WorkerOptions::new(queue::TRIALS)
        .register_activities(activities)
        .deployment_options(deployment::options())
        .activity_task_poller_behavior(PollerBehavior::SimpleMaximum(1))
        .tuner(tuner)
        .max_heartbeat_throttle_interval(Duration::from_millis(500))
        .graceful_shutdown_period(options.grace)
        .build();
    Worker::new(&runtime, client, options).map_err(|error| setup(&error))
}
