//! The workflows and activities that the scenarios run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use temporalio_common::RetryPolicy;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use temporalio_sdk::{
    ActivityOptions, ApplicationFailure, ContinueAsNewOptions, LocalActivityOptions, MemoValue, SyncWorkflowContext,
    WorkflowContext, WorkflowContextView, WorkflowResult,
};

macro_rules! registered {
    ($($workflow:ident),+ $(,)?) => {
        /// The workflows of this file.
        pub const NAMES: &[&str] = &[$(stringify!($workflow)),+];

        /// Registers every workflow of this file.
        pub fn register(options: &mut temporalio_sdk::WorkerOptions) {
            $(options.register_workflow::<$workflow>().expect("registers");)+
        }

        /// The same, to replay what they did.
        pub fn register_again(options: &mut temporalio_sdk::workflow_replayer::WorkflowReplayerOptions) {
            $(options.register_workflow::<$workflow>().expect("registers");)+
        }
    };
}

pub(crate) use registered;

registered!(
    Everything,
    Mailbox,
    Cancelled,
    Counted,
    Patient,
    Failing,
    Stumbling,
    Sleeping,
    Steps,
    Remembering,
    Hopping,
    Account,
);

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
        Ok(ctx.execute_local_activity(Acts::echo, told, local()).await?)
    }

    #[signal]
    pub fn go(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: u32) {
        self.gone = true;
    }
}

/// Collects signals until one says "stop"; queries tell what it has.
#[workflow]
#[derive(Default)]
pub struct Mailbox {
    mail: Vec<String>,
}

#[workflow_methods]
impl Mailbox {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<Vec<String>> {
        ctx.wait_condition(|s| s.mail.last().is_some_and(|m| m == "stop")).await?;
        Ok(ctx.state(|s| s.mail.clone()))
    }

    #[signal]
    pub fn post(&mut self, _ctx: &mut SyncWorkflowContext<Self>, mail: String) {
        self.mail.push(mail);
    }

    #[query]
    pub fn mail(&self, _ctx: &WorkflowContextView) -> Vec<String> {
        self.mail.clone()
    }
}

/// Waits in an activity that ends when it is cancelled.
#[workflow]
#[derive(Default)]
pub struct Cancelled;

#[workflow_methods]
impl Cancelled {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<String> {
        let mut options = not_eager();
        options.heartbeat_timeout = Some(Duration::from_secs(2));
        options.cancellation_type = temporalio_sdk::ActivityCancellationType::WaitCancellationCompleted;
        Ok(ctx.execute_activity(Acts::until_cancelled, (), options).await?)
    }
}

/// Continues as new until it has counted down.
#[workflow]
#[derive(Default)]
pub struct Counted;

#[workflow_methods]
impl Counted {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, left: u32) -> WorkflowResult<u32> {
        if left > 0 {
            ctx.continue_as_new(left - 1, ContinueAsNewOptions::default())?;
        }
        Ok(left)
    }
}

/// What an activity of [`Patient`] is to suffer from.
#[derive(serde::Serialize, serde::Deserialize, Clone, Copy, Debug)]
pub enum Ill {
    FailsTwice,
    FailsForGood,
    NeverBeats,
    NeverReturns,
    NobodyThere,
    RunsOutOfTime,
}

/// Runs one activity that suffers from something.
#[workflow]
#[derive(Default)]
pub struct Patient;

#[workflow_methods]
impl Patient {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, ill: Ill) -> WorkflowResult<String> {
        let mut options = ActivityOptions::start_to_close_timeout(Duration::from_secs(5));
        options.do_not_eagerly_execute = true;
        let retry = |attempts| {
            RetryPolicy::builder().initial_interval(Duration::from_millis(50)).maximum_attempts(attempts).build()
        };
        options.retry_policy = Some(retry(2));
        match ill {
            Ill::FailsTwice => options.retry_policy = Some(retry(3)),
            Ill::FailsForGood => {}
            Ill::NeverBeats => options.heartbeat_timeout = Some(Duration::from_millis(300)),
            Ill::NeverReturns => options.close_timeouts = start_to_close(300),
            Ill::NobodyThere => {
                options.task_queue = Some("nobody".to_owned());
                options.schedule_to_start_timeout = Some(Duration::from_millis(200));
            }
            Ill::RunsOutOfTime => {
                options = ActivityOptions::schedule_to_close_timeout(Duration::from_millis(400));
                options.do_not_eagerly_execute = true;
                options.retry_policy =
                    Some(RetryPolicy::builder().initial_interval(Duration::from_secs(10)).maximum_attempts(0).build());
            }
        }
        Ok(ctx.execute_activity(Acts::suffer, ill, options).await?)
    }
}

fn start_to_close(millis: u64) -> temporalio_sdk::ActivityCloseTimeouts {
    temporalio_sdk::ActivityCloseTimeouts::StartToClose(Duration::from_millis(millis))
}

/// Fails on the first attempts of its retry policy.
#[workflow]
#[derive(Default)]
pub struct Failing;

#[workflow_methods]
impl Failing {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, good_attempt: u32) -> WorkflowResult<u32> {
        let attempt = ctx.info().attempt();
        if attempt < good_attempt {
            return Err(ApplicationFailure::new(anyhow_like("not yet")).into());
        }
        Ok(attempt)
    }
}

fn anyhow_like(text: &str) -> Box<dyn std::error::Error + Send + Sync> {
    text.into()
}

static STUMBLED: AtomicBool = AtomicBool::new(false);

/// Its first workflow task panics.
#[workflow]
#[derive(Default)]
pub struct Stumbling;

#[workflow_methods]
impl Stumbling {
    #[run]
    pub async fn run(_ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<String> {
        if !STUMBLED.swap(true, Ordering::SeqCst) {
            panic!("the first time always fails");
        }
        Ok("up again".to_owned())
    }
}

/// Sleeps for so many milliseconds.
#[workflow]
#[derive(Default)]
pub struct Sleeping;

#[workflow_methods]
impl Sleeping {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, millis: u64) -> WorkflowResult<()> {
        ctx.timer(Duration::from_millis(millis)).await;
        Ok(())
    }
}

/// So many activities, one after the other, eager or not.
#[workflow]
#[derive(Default)]
pub struct Steps;

#[workflow_methods]
impl Steps {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, args: (u32, bool)) -> WorkflowResult<u32> {
        let (steps, eager) = args;
        for step in 0..steps {
            let mut options = not_eager();
            options.do_not_eagerly_execute = !eager;
            ctx.execute_activity(Acts::echo, step.to_string(), options).await?;
        }
        Ok(steps)
    }
}

/// Writes into its memo.
#[workflow]
#[derive(Default)]
pub struct Remembering;

#[workflow_methods]
impl Remembering {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, word: String) -> WorkflowResult<()> {
        ctx.upsert_memo([("word", Some(MemoValue::new(word)))]).expect("a memo");
        Ok(())
    }
}

/// A step for each signal; continues as new after each five, and ends after so many in all.
#[workflow]
#[derive(Default)]
pub struct Hopping {
    waiting: u32,
}

#[workflow_methods]
impl Hopping {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, args: (u32, u32)) -> WorkflowResult<u32> {
        let (mut done, all) = args;
        let mut here = 0;
        loop {
            ctx.wait_condition(|s| s.waiting > 0).await?;
            ctx.state_mut(|s| s.waiting -= 1);
            ctx.execute_activity(Acts::echo, done.to_string(), not_eager()).await?;
            done += 1;
            here += 1;
            if done == all {
                return Ok(done);
            }
            if here >= 5 && ctx.state(|s| s.waiting) == 0 {
                ctx.continue_as_new((done, all), ContinueAsNewOptions::default())?;
            }
        }
    }

    #[signal]
    pub fn hop(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: u32) {
        self.waiting += 1;
    }
}

/// Keeps a balance that updates change, until a signal closes it.
#[workflow]
#[derive(Default)]
pub struct Account {
    balance: i64,
    closed: bool,
}

#[workflow_methods]
impl Account {
    #[run]
    pub async fn run(ctx: &mut WorkflowContext<Self>, _: ()) -> WorkflowResult<i64> {
        ctx.wait_condition(|s| s.closed).await?;
        Ok(ctx.state(|s| s.balance))
    }

    #[signal]
    pub fn close(&mut self, _ctx: &mut SyncWorkflowContext<Self>, _: ()) {
        self.closed = true;
    }

    #[update_validator(pay)]
    fn check_pay(
        &self,
        _ctx: &WorkflowContextView,
        amount: &i64,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        if self.balance + *amount < 0 { Err(anyhow_like("not that much is there")) } else { Ok(()) }
    }

    /// Answers at once.
    #[update]
    pub fn pay(&mut self, _ctx: &mut SyncWorkflowContext<Self>, amount: i64) -> i64 {
        self.balance += amount;
        self.balance
    }

    /// Answers after an activity.
    #[update]
    pub async fn transfer(
        ctx: &mut WorkflowContext<Self>,
        amount: i64,
    ) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
        ctx.execute_activity(Acts::echo, amount.to_string(), not_eager()).await?;
        Ok(ctx.state_mut(|s| {
            s.balance += amount;
            s.balance
        }))
    }
}

/// Dispatched through its queue, not with the workflow task.
pub fn not_eager() -> ActivityOptions {
    let mut options = ActivityOptions::start_to_close_timeout(Duration::from_secs(10));
    options.do_not_eagerly_execute = true;
    options
}

fn local() -> LocalActivityOptions {
    LocalActivityOptions::builder().start_to_close_timeout(Duration::from_secs(5)).build()
}

pub struct Acts;

#[activities]
impl Acts {
    #[activity]
    pub async fn echo(_ctx: ActivityContext, input: String) -> Result<String, ActivityError> {
        Ok(format!("<{input}>"))
    }

    #[activity]
    pub async fn until_cancelled(ctx: ActivityContext, _: ()) -> Result<String, ActivityError> {
        while !ctx.is_cancelled() {
            ctx.record_heartbeat(()).await?;
            let _or_time_for_a_beat = tokio::time::timeout(Duration::from_millis(50), ctx.cancelled()).await;
        }
        Err(ActivityError::cancelled())
    }

    #[activity]
    pub async fn suffer(ctx: ActivityContext, ill: Ill) -> Result<String, ActivityError> {
        let attempt = ctx.info().attempt;
        match ill {
            Ill::FailsTwice if attempt > 2 => Ok(format!("well at attempt {attempt}")),
            Ill::NeverBeats | Ill::NeverReturns => {
                ctx.cancelled().await; // so that its worker can stop
                Err(ActivityError::cancelled())
            }
            _ => Err(ApplicationFailure::new(anyhow_like("it hurts")).into()),
        }
    }
}
