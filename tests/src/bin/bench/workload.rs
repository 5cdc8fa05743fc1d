//! The workflows and the activity that are measured, and how they are started: the only file that the SDK's generics
//! are used in.
//!
//! A step is one activity on another connection, never run eagerly, with 1 KiB of result.

use crate::clock;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use temporalio_client::{
    Client, WorkflowFetchHistoryOptions, WorkflowGetResultOptions, WorkflowSignalOptions, WorkflowStartOptions,
};
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    ActivityOptions, Runtime, SyncWorkflowContext, Worker, WorkerOptions, WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
    runtime::PollerBehavior,
};

const WORKFLOWS: &str = "bench";
const STEPS: &str = "bench-steps";
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
const SLEEP: Duration = Duration::from_secs(24 * 3600);
const RESULT_BYTES: usize = 1024;
/// As the brain worker's defaults.
const POLLERS: usize = 5;
const CACHED_WORKFLOWS: usize = 1000;

/// Steps one after another.
#[workflow]
#[derive(Default)]
pub struct Steps;

#[workflow_methods]
impl Steps {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, steps: u64) -> WorkflowResult<()> {
        for seed in 0..steps {
            let step = Step { seed, mark: None };
            ctx.execute_activity(StepActivities::step, step, step_options()).await?;
        }
        Ok(())
    }
}

/// Steps, then a wait for the signal `go`, then one step more.
#[workflow]
#[derive(Default)]
pub struct Parked {
    go: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ParkedInput {
    pub name: String,
    pub steps: u64,
}

#[workflow_methods]
impl Parked {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: ParkedInput) -> WorkflowResult<()> {
        for seed in 0..input.steps {
            let step = Step { seed, mark: None };
            ctx.execute_activity(StepActivities::step, step, step_options()).await?;
        }
        clock::mark(&parked(&input.name));
        ctx.wait_condition(|state| state.go).await?;
        let step = Step { seed: input.steps, mark: Some(input.name) };
        ctx.execute_activity(StepActivities::step, step, step_options()).await?;
        Ok(())
    }

    #[signal]
    pub fn go(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _input: ()) {
        self.go = true;
    }
}

/// The mark of a workflow that waits for its signal.
pub fn parked(name: &str) -> String {
    format!("parked-{name}")
}

/// Takes notes until it has had enough.
#[workflow]
#[derive(Default)]
pub struct Mailbox {
    notes: u64,
}

#[workflow_methods]
impl Mailbox {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, enough: u64) -> WorkflowResult<()> {
        ctx.wait_condition(|state| state.notes >= enough).await?;
        Ok(())
    }

    #[signal]
    pub fn note(&mut self, _ctx: &mut SyncWorkflowContext<Self>, name: String) {
        clock::mark(&name);
        self.notes += 1;
    }
}

/// Does nothing for a day.
#[workflow]
#[derive(Default)]
pub struct Sleeper;

#[workflow_methods]
impl Sleeper {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, name: String) -> WorkflowResult<()> {
        clock::mark(&name);
        ctx.timer(SLEEP).await;
        Ok(())
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    seed: u64,
    /// Left at the step's first line.
    mark: Option<String>,
}

pub struct StepActivities;

#[activities]
impl StepActivities {
    #[activity]
    pub async fn step(_ctx: ActivityContext, input: Step) -> Result<String, ActivityError> {
        if let Some(mark) = &input.mark {
            clock::mark(mark);
        }
        Ok(incompressible(input.seed))
    }
}

fn step_options() -> ActivityOptions {
    ActivityOptions::with_start_to_close_timeout(STEP_TIMEOUT)
        .task_queue(STEPS.to_owned())
        .do_not_eagerly_execute(true)
        .build()
}

/// Text that a compressor of repetitions cannot shorten: six random bits a character.
fn incompressible(seed: u64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    // xorshift64*, from a state that is never zero.
    let mut state = clock::now().as_nanos() as u64 ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 58
    };
    (0..RESULT_BYTES).map(|_| char::from(ALPHABET[next() as usize])).collect()
}

/// A worker for the workflows.
pub fn workflow_worker(client: Client) -> Result<Worker, worker::Error> {
    let options = WorkerOptions::new(WORKFLOWS)
        .register_workflow::<Steps>()
        .and_then(|options| options.register_workflow::<Parked>())
        .and_then(|options| options.register_workflow::<Mailbox>())
        .and_then(|options| options.register_workflow::<Sleeper>())
        .map_err(setup)?
        .deployment_options(worker::deployment::options())
        .max_cached_workflows(CACHED_WORKFLOWS)
        .workflow_task_poller_behavior(PollerBehavior::SimpleMaximum(POLLERS))
        .build();
    let runtime = Runtime::from_current_tokio(Default::default()).map_err(setup)?;
    Worker::new(&runtime, client, options).map_err(setup)
}

/// A worker for the steps.
pub fn step_worker(client: Client) -> Result<Worker, worker::Error> {
    let options = WorkerOptions::new(STEPS)
        .register_activities(StepActivities)
        .deployment_options(worker::deployment::options())
        .activity_task_poller_behavior(PollerBehavior::SimpleMaximum(POLLERS))
        .build();
    let runtime = Runtime::from_current_tokio(Default::default()).map_err(setup)?;
    Worker::new(&runtime, client, options).map_err(setup)
}

fn setup(error: impl std::fmt::Display) -> worker::Error {
    worker::Error::Setup(error.to_string())
}

/// Runs steps to their end.
pub async fn run_steps(client: &Client, id: &str, steps: u64) -> anyhow::Result<()> {
    let started = client.start_workflow(Steps::run, steps, options(id)).await?;
    started.get_result(WorkflowGetResultOptions::default()).await.with_context(|| format!("run {id}"))
}

/// What is recorded of steps that were run.
pub async fn steps_history(client: &Client, id: &str) -> anyhow::Result<Vec<HistoryEvent>> {
    let handle = client.get_workflow_handle::<Steps>(id);
    Ok(handle.fetch_history(WorkflowFetchHistoryOptions::default()).into_events().await?)
}

pub async fn start_parked(client: &Client, input: ParkedInput) -> anyhow::Result<()> {
    let options = options(&input.name);
    client.start_workflow(Parked::run, input, options).await?;
    Ok(())
}

/// Lets a parked workflow go on.
pub async fn go(client: &Client, id: &str) -> anyhow::Result<()> {
    let handle = client.get_workflow_handle::<Parked>(id);
    Ok(handle.signal(Parked::go, (), WorkflowSignalOptions::default()).await?)
}

pub async fn start_mailbox(client: &Client, id: &str, enough: u64) -> anyhow::Result<()> {
    client.start_workflow(Mailbox::run, enough, options(id)).await?;
    Ok(())
}

pub async fn note(client: &Client, id: &str, name: &str) -> anyhow::Result<()> {
    let handle = client.get_workflow_handle::<Mailbox>(id);
    Ok(handle.signal(Mailbox::note, name.to_owned(), WorkflowSignalOptions::default()).await?)
}

pub async fn start_sleeper(client: &Client, name: &str) -> anyhow::Result<()> {
    client.start_workflow(Sleeper::run, name.to_owned(), options(name)).await?;
    Ok(())
}

fn options(id: &str) -> WorkflowStartOptions {
    WorkflowStartOptions::new(WORKFLOWS, id).build()
}
