//! `TrialWorkflow`: some what-ifs, a few at a time, and then their reports. It decides nothing, and no session notices.

use crate::contract::Brain;
use domain::{
    limits,
    session::queue,
    trial::{TrialInput, Tried},
};
use futures::future::join_all;
use harness::whatif::{Input, Report};
use std::time::Duration;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    ActivityCancellationType, ActivityOptions, RetryPolicy, WorkflowContext, WorkflowContextView, WorkflowResult,
};

#[workflow]
pub struct TrialWorkflow {
    trials: Vec<Input>,
}

#[workflow_methods]
impl TrialWorkflow {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: TrialInput<Input>) -> Self {
        TrialWorkflow { trials: input.trials }
    }

    #[run(name = "TrialWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<Vec<Tried<Report>>> {
        let ctx = &*ctx;
        let trials = ctx.state(|trial| trial.trials.clone());
        let mut tried = Vec::new();
        for (at, inputs) in trials.chunks(limits::TRIALS_AT_ONCE).enumerate() {
            let first = at * limits::TRIALS_AT_ONCE;
            let together = inputs.iter().enumerate().map(|(at, input)| one(ctx, first + at, input.clone()));
            tried.extend(join_all(together).await);
        }
        Ok(tried)
    }
}

async fn one(ctx: &WorkflowContext<TrialWorkflow>, at: usize, input: Input) -> Tried<Report> {
    let options = ActivityOptions::with_start_to_close_timeout(Duration::from_millis(limits::TRIAL_TIMEOUT_MS))
        .activity_id(format!("whatif-{at}"))
        .task_queue(queue::TRIALS.to_owned())
        .heartbeat_timeout(Duration::from_millis(limits::HEARTBEAT_TIMEOUT_MS))
        .cancellation_type(ActivityCancellationType::TryCancel)
        .do_not_eagerly_execute(true)
        // Each attempt may ask a model anew, which costs money.
        .retry_policy(RetryPolicy::builder().maximum_attempts(limits::TRIAL_ATTEMPTS_MAX).build())
        .build();
    match ctx.execute_activity(Brain::whatif, input, options).await {
        Ok(tried) => tried,
        Err(error) => Tried::Failed { why: error.to_string() },
    }
}
