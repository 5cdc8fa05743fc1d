//! Workflows that have to do with other workflows: parents, children, and those that reach out to strangers.

use std::time::Duration;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::{
    ApplicationFailure, ChildWorkflowOptions, ContinueAsNewOptions, ParentClosePolicy, SyncWorkflowContext,
    WorkflowContext, WorkflowResult,
};

crate::workflows::registered!(Offspring, Raising, Leaving, Reaching);

/// How an [`Offspring`] is told to end.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    Completes,
    Fails,
    /// Not yet: it begins again, as another run.
    ContinuesAsNew,
}

/// Ends as it is told, or when it is cancelled.
#[workflow]
#[derive(Default)]
pub struct Offspring {
    fate: Option<Fate>,
}

#[workflow_methods]
impl Offspring {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, name: String) -> WorkflowResult<String> {
        ctx.wait_condition(|s| s.fate.is_some()).await?;
        match ctx.state(|s| s.fate) {
            Some(Fate::Fails) => Err(ApplicationFailure::new("came to nothing").into()),
            Some(Fate::ContinuesAsNew) => {
                ctx.continue_as_new(format!("{name} again"), ContinueAsNewOptions::default())?;
                Ok(name)
            }
            _ => Ok(format!("{name} is done")),
        }
    }

    #[signal]
    pub fn end(&mut self, _ctx: &mut SyncWorkflowContext<Self>, fate: Fate) {
        self.fate = Some(fate);
    }
}

/// What [`Raising`] does about its child once it runs.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Debug)]
pub enum Plan {
    Waits,
    Cancels,
    Signals,
    /// Gives it a second to live.
    Limits,
}

/// Has one child and says what became of it.
#[workflow]
#[derive(Default)]
pub struct Raising;

#[workflow_methods]
impl Raising {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, plan: Plan) -> WorkflowResult<String> {
        let mut options = of_id(format!("{}-child", ctx.info().workflow_id()), ParentClosePolicy::Unspecified);
        if matches!(plan, Plan::Limits) {
            options.run_timeout = Some(Duration::from_secs(1));
        }
        let Ok(child) = ctx.start_child_workflow(Offspring::run, "it".to_owned(), options).await else {
            return Ok("it was not started".to_owned());
        };
        match plan {
            Plan::Cancels => child.cancel("enough".to_owned()),
            Plan::Signals => child.signal(Offspring::end, Fate::Completes, Default::default()).await?,
            Plan::Waits | Plan::Limits => {}
        }
        Ok(child.result().await.unwrap_or_else(|_| "it did not do well".to_owned()))
    }
}

/// Has one child of each parent-close policy, and leaves them when it is told to: by ending, or by beginning again.
#[workflow]
#[derive(Default)]
pub struct Leaving {
    leaves: bool,
    begins_again: bool,
}

#[workflow_methods]
impl Leaving {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, has_children: bool) -> WorkflowResult<()> {
        if !has_children {
            return Ok(());
        }
        let id = ctx.info().workflow_id().to_owned();
        let policies = [
            ("terminated", ParentClosePolicy::Terminate),
            ("abandoned", ParentClosePolicy::Abandon),
            ("cancelled", ParentClosePolicy::RequestCancel),
        ];
        for (name, policy) in policies {
            let options = of_id(format!("{id}-{name}"), policy);
            ctx.start_child_workflow(Offspring::run, name.to_owned(), options).await.expect("is started");
        }
        ctx.wait_condition(|s| s.leaves).await?;
        if ctx.state(|s| s.begins_again) {
            ctx.continue_as_new(false, ContinueAsNewOptions::default())?;
        }
        Ok(())
    }

    #[signal]
    pub fn leave(&mut self, _ctx: &mut SyncWorkflowContext<Self>, begins_again: bool) {
        self.leaves = true;
        self.begins_again = begins_again;
    }
}

fn of_id(id: String, policy: ParentClosePolicy) -> ChildWorkflowOptions {
    let options = ChildWorkflowOptions::builder().workflow_id(id).parent_close_policy(policy);
    options.task_timeout(Duration::from_secs(5)).build()
}

/// Signals another workflow, and cancels it when it is told to; then tries the same with nobody.
#[workflow]
#[derive(Default)]
pub struct Reaching {
    goes_on: bool,
}

#[workflow_methods]
impl Reaching {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<Vec<bool>> {
        let target = format!("{}-target", ctx.info().workflow_id());
        let mut reached = Vec::new();
        for id in [target, "nobody".to_owned()] {
            let other = ctx.external_workflow(id, None);
            reached.push(other.signal(Offspring::end, Fate::ContinuesAsNew, Default::default()).await.is_ok());
            ctx.wait_condition(|s| s.goes_on).await?;
            reached.push(other.cancel(Some("enough".to_owned())).await.is_ok());
        }
        Ok(reached)
    }

    #[signal]
    pub fn go_on(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: ()) {
        self.goes_on = true;
    }
}
