//! `RolloutWorkflow`: the thin shell around a rollout's decisions. Each of its states is the marker of one local activity;
//! it runs the gate, keeps the timer of the stage, and decides nothing itself.
//!
//! Who gets which version is not done here: the api reads the state and goes by it.

use crate::contract::{Brain, DecideRolloutInput};
use domain::{
    Time,
    fault::{self, Point},
    limits,
    rollout::{Command, Mail, Observed, Origin, RolloutInput},
    session::queue,
};
use futures::future::{FutureExt as _, LocalBoxFuture};
use harness::rollout::{GateReport, Intake, Rollout};
use std::{
    task::{Context, Poll},
    time::Duration,
};
use temporalio_macros::{workflow, workflow_methods};
use temporalio_workflow::{
    ActivityCancellationType, ActivityOptions, ContinueAsNewOptions, LocalActivityOptions, SyncWorkflowContext,
    TimerOptions, WorkflowCancellationToken, WorkflowContext, WorkflowContextView, WorkflowResult,
};

/// A rollout, until it is over; a run of it continues as new before it grows too long.
#[workflow]
pub struct RolloutWorkflow {
    state: Rollout,
    /// Delivered and not yet decided about, in order of arrival.
    mailbox: Vec<Mail>,
    /// Signals that this run received.
    signals: u32,
}

#[workflow_methods]
impl RolloutWorkflow {
    #[init]
    fn new(_ctx: &WorkflowContextView, input: RolloutInput<Rollout>) -> Self {
        let (state, mailbox) = match input.from {
            Origin::Created { created_at, spec } => {
                (Rollout::created(&input.rollout_id, created_at, *spec), Vec::new())
            }
            Origin::Continued { state, mailbox } => (*state, mailbox),
        };
        RolloutWorkflow { state, mailbox, signals: 0 }
    }

    #[run(name = "RolloutWorkflow")]
    pub async fn run(ctx: &mut WorkflowContext<Self>) -> WorkflowResult<()> {
        let ctx = &*ctx;
        let first = ctx.state(|rollout| rollout.state.n);
        let mut doing = Doing::default();
        loop {
            doing.reconcile(ctx);
            let intake = wait_until_due(ctx, &mut doing).await;
            let taken = intake.mail.len();
            let decided = decide(ctx, intake).await?;
            ctx.state_mut(|rollout| {
                rollout.state = decided;
                rollout.mailbox.drain(..taken);
            });
            if ctx.state(|rollout| rollout.state.is_over()) {
                return Ok(());
            }
            let is_long = ctx.state(|rollout| rollout.is_run_long(first)) || ctx.continue_as_new_suggested();
            if is_long && doing.gate.is_none() {
                let input = ctx.state(RolloutWorkflow::next_run);
                fault::pass(Point::RolloutContinued);
                ctx.continue_as_new(input, ContinueAsNewOptions::default())?;
            }
        }
    }

    #[signal(name = "command")]
    pub fn command(&mut self, _ctx: &mut SyncWorkflowContext<Self>, command: Command) {
        self.signals += 1;
        self.mailbox.push(Mail::Command { command });
    }

    #[signal(name = "observed")]
    pub fn observed(&mut self, _ctx: &mut SyncWorkflowContext<Self>, observed: Observed) {
        self.signals += 1;
        self.mailbox.push(Mail::Observed { observed: Box::new(observed) });
    }
}

impl RolloutWorkflow {
    fn is_run_long(&self, first: u64) -> bool {
        let most = self.state.spec.decisions_per_run;
        self.signals >= limits::SIGNALS_PER_RUN_MAX || (most > 0 && self.state.n - first >= most)
    }

    fn next_run(&self) -> RolloutInput<Rollout> {
        let from = Origin::Continued { state: Box::new(self.state.clone()), mailbox: self.mailbox.clone() };
        RolloutInput { rollout_id: self.state.rollout_id.clone(), from }
    }
}

/// What is under way outside the workflow.
#[derive(Default)]
struct Doing<'a> {
    gate: Option<LocalBoxFuture<'a, Result<GateReport, String>>>,
    gated: Option<Result<GateReport, String>>,
    timer: Option<Timer<'a>>,
}

struct Timer<'a> {
    at: Time,
    token: WorkflowCancellationToken,
    future: LocalBoxFuture<'a, ()>,
}

impl<'a> Doing<'a> {
    /// Starts what the state wants and is not under way; stops a timer that it does not want.
    fn reconcile(&mut self, ctx: &'a WorkflowContext<RolloutWorkflow>) {
        let (wanted, wakes_at) = ctx.state(|rollout| (rollout.state.gate_wanted(), rollout.state.wakes_at()));
        if let Some(input) = wanted
            && self.gate.is_none()
        {
            let options = ActivityOptions::with_start_to_close_timeout(Duration::from_millis(limits::GATE_TIMEOUT_MS))
                .activity_id(format!("gate-{}", input.from))
                .task_queue(queue::BRAIN.to_owned())
                .heartbeat_timeout(Duration::from_millis(limits::HEARTBEAT_TIMEOUT_MS))
                .cancellation_type(ActivityCancellationType::TryCancel)
                .do_not_eagerly_execute(true)
                .build();
            let gate = ctx.execute_activity(Brain::gate, input, options);
            self.gate = Some(Box::pin(async move { gate.await.map_err(|error| error.to_string()) }));
        }
        if self.timer.as_ref().map(|timer| timer.at) != wakes_at {
            if let Some(timer) = self.timer.take() {
                timer.token.cancel();
            }
            self.timer = wakes_at.map(|at| {
                let token = ctx.cancellation_token().child_token();
                let mut options = TimerOptions::from(Duration::from_millis(at.since(now(ctx))));
                options.cancellation_token = Some(token.clone());
                let timer = ctx.timer(options);
                Timer { at, token, future: Box::pin(timer.map(|_| ())) }
            });
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(gate) = &mut self.gate
            && let Poll::Ready(gated) = gate.as_mut().poll(cx)
        {
            self.gate = None;
            self.gated = Some(gated);
        }
        // That it fired shows in the time; a timer that was cancelled is not asked any more.
        if let Some(timer) = &mut self.timer
            && timer.future.as_mut().poll(cx).is_ready()
        {
            self.timer = None;
        }
    }
}

/// Sleeps until a decision would do something, and says what it is made on.
async fn wait_until_due(ctx: &WorkflowContext<RolloutWorkflow>, doing: &mut Doing<'_>) -> Intake {
    std::future::poll_fn(|cx| {
        doing.poll(cx);
        let mail = ctx.state(|rollout| rollout.mailbox.clone());
        let intake = Intake { now: now(ctx), mail, gated: doing.gated.clone() };
        if ctx.state(|rollout| rollout.state.is_due(&intake)) {
            doing.gated = None;
            return Poll::Ready(intake);
        }
        Poll::Pending
    })
    .await
}

fn now(ctx: &WorkflowContext<RolloutWorkflow>) -> Time {
    ctx.workflow_time().map_or(Time::default(), crate::session::to_time)
}

async fn decide(ctx: &WorkflowContext<RolloutWorkflow>, intake: Intake) -> WorkflowResult<Rollout> {
    let state = ctx.state(|rollout| rollout.state.clone());
    let options = LocalActivityOptions::builder()
        .activity_id(format!("decide-{}", state.n))
        .start_to_close_timeout(Duration::from_millis(limits::DECIDE_TIMEOUT_MS))
        .build();
    match ctx.execute_local_activity(Brain::decide_rollout, DecideRolloutInput { state, intake }, options).await {
        Ok(decided) => Ok(decided),
        Err(error) => {
            // Nothing was decided, so nothing may be recorded: the task fails and is tried again.
            ctx.force_task_fail(error);
            std::future::pending().await
        }
    }
}
