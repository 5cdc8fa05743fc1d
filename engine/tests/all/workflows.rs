//! The workflows and activities that the scenarios run.

use std::time::Duration;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use temporalio_sdk::{
    ActivityOptions, LocalActivityOptions, SyncWorkflowContext, WorkflowContext, WorkflowContextView, WorkflowResult,
};

macro_rules! register {
    ($($workflow:ident),+ $(,)?) => {
        /// Registers every workflow of this file.
        pub fn register(options: &mut temporalio_sdk::WorkerOptions) {
            $(options.register_workflow::<$workflow>().expect("registers");)+
        }
    };
}

register!(Everything);

/// An activity, a signal, a timer, and a local activity as a marker.
#[workflow]
#[derive(Default)]
pub struct Everything {
    gone: bool,
}

#[workflow_methods]
impl Everything {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, input: String) -> WorkflowResult<String> {
        let told = ctx.execute_activity(Acts::echo, input, not_eager()).await?;
        ctx.wait_condition(|s| s.gone).await?;
        ctx.timer(Duration::from_millis(20)).await;
        let marked = ctx
            .execute_local_activity(
                Acts::echo,
                told,
                LocalActivityOptions::builder().start_to_close_timeout(Duration::from_secs(5)).build(),
            )
            .await?;
        Ok(marked)
    }

    #[signal]
    pub fn go(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: u32) {
        self.gone = true;
    }

    #[query]
    pub fn is_gone(&self, _ctx: &WorkflowContextView) -> bool {
        self.gone
    }
}

/// Dispatched through its queue, not with the workflow task.
pub fn not_eager() -> ActivityOptions {
    let mut options = ActivityOptions::start_to_close_timeout(Duration::from_secs(10));
    options.do_not_eagerly_execute = true;
    options
}

pub struct Acts;

#[activities]
impl Acts {
    #[activity]
    pub async fn echo(_ctx: ActivityContext, input: String) -> Result<String, ActivityError> {
        Ok(format!("<{input}>"))
    }
}
