//! What is under way outside the workflow. `SessionState::pending` says what should be; this makes it so.

use super::SessionWorkflow;
use crate::contract::{Brain, Hands};
use domain::{
    HandName,
    agent::{StrategyRef, ToolKind},
    commit::Closed,
    content::BlobRef,
    limits,
    model::Purpose,
    outcome::Call,
    session::{
        ExecuteInput, HandInput, HandRef, ListInput, McpCallInput, ModelInput, PageInput, ProvisionInput, ReadLogInput,
        SealInput, queue,
    },
};
use futures::future::LocalBoxFuture;
use harness::{
    Closing, Intake, Outcome, SessionState,
    state::{Op, Pending, Slice},
};
use serde_json::Value;
use std::{
    task::{Context, Poll},
    time::Duration,
};
use temporalio_workflow::{
    ActivityCancellationType, ActivityExecutionError, ActivityOptions, SignalWorkflowOptions, TimeoutType,
    TimerOptions, TimerResult, WorkflowCancellationToken, WorkflowContext,
};

/// How an operation ended: its outcome, or what became of it.
type Ended = Result<Outcome, Closed>;

/// Operations in flight, by activity id, in the order in which they were started.
#[derive(Default)]
pub struct Ops<'a> {
    flying: Vec<Flying<'a>>,
    closed: Vec<Closing>,
}

struct Flying<'a> {
    activity: String,
    token: WorkflowCancellationToken,
    future: LocalBoxFuture<'a, Ended>,
}

impl<'a> Ops<'a> {
    /// Starts what is pending and not in flight; stops what is in flight and no longer wanted.
    pub fn reconcile(&mut self, ctx: &'a WorkflowContext<SessionWorkflow>) {
        let state = ctx.state(|session| session.state.clone());
        for flying in &self.flying {
            if state.pending(&flying.activity).is_none_or(|pending| pending.cancelling) {
                flying.token.cancel();
            }
        }
        self.flying.retain(|flying| state.pending(&flying.activity).is_some());
        let waiting: Vec<&Pending> = state.pending.iter().filter(|pending| !self.is_known(&pending.activity)).collect();
        for pending in waiting {
            let token = ctx.cancellation_token().child_token();
            if let Some(future) = start(ctx, &state, pending, token.clone()) {
                self.flying.push(Flying { activity: pending.activity.clone(), token, future });
            }
        }
    }

    fn is_known(&self, activity: &str) -> bool {
        self.flying.iter().any(|flying| flying.activity == activity)
            || self.closed.iter().any(|closing| closing.activity == activity)
    }

    /// Collects what ended, in the order of starting: the same at every replay.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        let closed = &mut self.closed;
        self.flying.retain_mut(|flying| match flying.future.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(ended) => {
                let activity = std::mem::take(&mut flying.activity);
                closed.push(match ended {
                    Ok(outcome) => Closing { activity, how: Closed::Finished, outcome: Some(outcome) },
                    Err(how) => Closing { activity, how, outcome: None },
                });
                false
            }
        });
    }

    pub fn closed(&self) -> &[Closing] {
        &self.closed
    }

    /// What a decision was made on is decided: what it did not take is not part of the log.
    pub fn forget(&mut self, intake: &Intake) {
        self.closed.retain(|closing| intake.closing(&closing.activity).is_none());
    }

    pub fn is_quiet(&self) -> bool {
        self.flying.is_empty() && self.closed.is_empty()
    }
}

fn start<'a>(
    ctx: &'a WorkflowContext<SessionWorkflow>,
    state: &SessionState,
    pending: &Pending,
    token: WorkflowCancellationToken,
) -> Option<LocalBoxFuture<'a, Ended>> {
    let activity = Activity { id: pending.activity.clone(), token };
    let turn_event = turn_event(state);
    Some(match &pending.op {
        Op::CallModel { span_id, slice, strategy, suffix } => {
            let request = Request { span_id, slice, strategy, suffix, purpose: Purpose::Answer };
            call_model(ctx, state, activity, request)
        }
        Op::Compact { span_id, slice, strategy } => {
            let request = Request { span_id, slice, strategy, suffix: &[], purpose: Purpose::Summary };
            call_model(ctx, state, activity, request)
        }
        Op::Execute { call: call @ Call { kind: ToolKind::Mcp { server, tool, inside: None }, .. } } => {
            let input = McpCallInput {
                session_id: state.session_id.clone(),
                server: server.clone(),
                tool: tool.clone(),
                call: call.clone(),
                turn_event,
            };
            let options = activity.outside(
                state,
                limits::EXECUTE_TIMEOUT_MS,
                ActivityCancellationType::WaitCancellationCompleted,
            );
            let call = ctx.execute_activity(Hands::call_mcp, input, options);
            Box::pin(async move { Ok(Outcome::Tool { digest: call.await.map_err(closed)?.digest }) })
        }
        Op::Execute { call: call @ Call { kind: ToolKind::Log, .. } } => {
            let (session_id, end) = (state.session_id.clone(), state.summary.position);
            let input = ReadLogInput { session_id, end, call: call.clone(), turn_event };
            // Another attempt reads the same: nothing happens by it.
            let options = activity.options(
                queue::BRAIN,
                limits::READ_LOG_TIMEOUT_MS,
                ActivityCancellationType::WaitCancellationCompleted,
            );
            let call = ctx.execute_activity(Brain::read_log, input, options);
            Box::pin(async move { Ok(Outcome::Tool { digest: call.await.map_err(closed)?.digest }) })
        }
        Op::Execute { call: call @ Call { kind: ToolKind::Web, .. } } => {
            let input = PageInput {
                session_id: state.session_id.clone(),
                snapshot: state.summary.attributes.agent.snapshot.clone(),
                call: call.clone(),
                turn_event,
            };
            let options = activity.outside(
                state,
                limits::EXECUTE_TIMEOUT_MS,
                ActivityCancellationType::WaitCancellationCompleted,
            );
            let call = ctx.execute_activity(Hands::fetch_page, input, options);
            Box::pin(async move { Ok(Outcome::Tool { digest: call.await.map_err(closed)?.digest }) })
        }
        Op::Execute { call } => {
            // Started when the hand is there.
            let hand = state.hand(&call.hand).filter(|_| state.has_hand(&call.hand))?.clone();
            let host = Host::of(state, &hand);
            let (session_id, restored) = (state.session_id.clone(), state.work(&call.hand).restored);
            // What is built in needs no agent to say how it is run.
            let is_mcp = matches!(call.kind, ToolKind::Mcp { .. });
            let snapshot = is_mcp.then(|| state.summary.attributes.agent.snapshot.clone());
            let input = ExecuteInput { session_id, hand, call: call.clone(), snapshot, restored, turn_event };
            let dispatch = move || {
                let options = activity.on_host(
                    &host,
                    limits::EXECUTE_TIMEOUT_MS,
                    ActivityCancellationType::WaitCancellationCompleted,
                );
                ctx.execute_activity(Hands::execute, input.clone(), options)
            };
            let first = dispatch();
            Box::pin(async move { Ok(Outcome::Tool { digest: twice(first, dispatch).await?.digest }) })
        }
        Op::Provision { hand, name } => {
            let parked = state.summary.held(name).and_then(|held| held.parked.as_ref());
            let input = ProvisionInput {
                session_id: state.session_id.clone(),
                hand: hand.clone(),
                name: name.clone(),
                environment_id: state.summary.attributes.environment_id.clone(),
                resources: state.summary.attributes.resources.clone(),
                restore: parked.map(|parked| parked.workspace.clone()),
                turn_event,
            };
            let options =
                activity.options(queue::HANDS, limits::PROVISION_TIMEOUT_MS, ActivityCancellationType::TryCancel);
            let call = ctx.execute_activity(Hands::provision, input, options);
            Box::pin(async move { Ok(Outcome::Provision { outcome: call.await.map_err(closed)? }) })
        }
        // Started when the hand is there and the list before it is in the agent.
        Op::ListTools { .. } if !state.is_startable(&pending.op) => return None,
        Op::ListTools { hand: name } => {
            let agent = &state.summary.attributes.agent;
            let unlisted = agent.mcp.iter().filter(|server| !server.listed && server.inside == *name);
            let input = ListInput {
                session_id: state.session_id.clone(),
                snapshot: agent.snapshot.clone(),
                servers: unlisted.map(|server| server.server.clone()).collect(),
                hand: name.as_ref().and_then(|name| state.hand(name)).cloned(),
                turn_event,
            };
            let Some(hand) = &input.hand else {
                let options = activity.outside(state, limits::LIST_TIMEOUT_MS, ActivityCancellationType::TryCancel);
                let call = ctx.execute_activity(Hands::list_tools, input, options);
                return Some(Box::pin(async move { Ok(Outcome::List { outcome: call.await.map_err(closed)? }) }));
            };
            let host = Host::of(state, hand);
            let dispatch = move || {
                let options = activity.on_host(&host, limits::LIST_TIMEOUT_MS, ActivityCancellationType::TryCancel);
                ctx.execute_activity(Hands::list_tools, input.clone(), options)
            };
            let first = dispatch();
            Box::pin(async move { Ok(Outcome::List { outcome: twice(first, dispatch).await? }) })
        }
        Op::Seal { run_id } => {
            let input = SealInput {
                session_id: state.session_id.clone(),
                run_id: run_id.clone(),
                manifest: state.summary.manifest.clone(),
                turn_event,
            };
            let options = activity.options(queue::BRAIN, limits::SEAL_TIMEOUT_MS, ActivityCancellationType::TryCancel);
            let call = ctx.execute_activity(Brain::seal, input, options);
            Box::pin(async move { Ok(Outcome::Seal { outcome: call.await.map_err(closed)? }) })
        }
        Op::Collect { name } => {
            let (input, host) = hand_input(state, name, turn_event)?;
            let dispatch = move || {
                let options =
                    activity.on_host(&host, limits::PROVISION_TIMEOUT_MS, ActivityCancellationType::TryCancel);
                ctx.execute_activity(Hands::collect, input.clone(), options)
            };
            let first = dispatch();
            Box::pin(async move { Ok(Outcome::Collect { outcome: twice(first, dispatch).await? }) })
        }
        Op::Park { name } => {
            let (input, host) = hand_input(state, name, turn_event)?;
            let dispatch = move || {
                let options =
                    activity.on_host(&host, limits::PROVISION_TIMEOUT_MS, ActivityCancellationType::TryCancel);
                ctx.execute_activity(Hands::park, input.clone(), options)
            };
            let first = dispatch();
            Box::pin(async move { Ok(Outcome::Park { outcome: twice(first, dispatch).await? }) })
        }
        // Nothing of it is asked for any more.
        Op::Discard { hand } => release(ctx, activity, input_of(state, hand.clone(), None, turn_event)),
        Op::Release { name } => release(ctx, activity, hand_input(state, name, turn_event)?),
        Op::Hand { to, handed } => {
            let sent = ctx.external_workflow(to, None).signal(
                SessionWorkflow::handed,
                handed.clone(),
                SignalWorkflowOptions::default(),
            );
            Box::pin(async move {
                match sent.await {
                    Ok(()) => Ok(Outcome::Done {}),
                    Err(error) => Err(Closed::Failed { message: error.to_string() }),
                }
            })
        }
        Op::Timer { until } | Op::Rest { until } => {
            let now = ctx.workflow_time().map_or(*until, super::to_time);
            let mut options = TimerOptions::from(Duration::from_millis(until.since(now)));
            options.cancellation_token = Some(activity.token);
            let timer = ctx.timer(options);
            Box::pin(async move {
                match timer.await {
                    TimerResult::Fired => Ok(Outcome::Done {}),
                    TimerResult::Cancelled => Err(Closed::Cancelled),
                }
            })
        }
    })
}

fn release(
    ctx: &WorkflowContext<SessionWorkflow>,
    activity: Activity,
    (input, host): (HandInput, Host),
) -> LocalBoxFuture<'_, Ended> {
    let dispatch = move || {
        let options = activity.on_host(&host, limits::PROVISION_TIMEOUT_MS, ActivityCancellationType::TryCancel);
        ctx.execute_activity(Hands::release, input.clone(), options)
    };
    let first = dispatch();
    Box::pin(async move {
        twice(first, dispatch).await?;
        Ok(Outcome::Done {})
    })
}

/// The event that began the turn: its trace is named after it.
fn turn_event(state: &SessionState) -> Option<String> {
    state.summary.began.as_ref().map(|began| began.event.clone())
}

/// A model request, whatever it is for.
struct Request<'r> {
    span_id: &'r str,
    slice: &'r Slice,
    strategy: &'r StrategyRef,
    suffix: &'r [Value],
    purpose: Purpose,
}

fn call_model<'a>(
    ctx: &'a WorkflowContext<SessionWorkflow>,
    state: &SessionState,
    activity: Activity,
    request: Request<'_>,
) -> LocalBoxFuture<'a, Ended> {
    let mut runs = state.summary.unsealed.clone();
    runs.push(ctx.run_id().to_owned());
    let input = ModelInput {
        session_id: state.session_id.clone(),
        manifest: state.summary.manifest.clone(),
        runs,
        from: request.slice.from,
        to: request.slice.to,
        keep: request.slice.keep.clone(),
        purpose: request.purpose,
        agent: state.summary.attributes.agent.clone(),
        strategy: request.strategy.clone(),
        suffix: request.suffix.to_vec(),
        span_id: request.span_id.to_owned(),
        turn: state.summary.turn,
        tries: state.tries,
        turn_event: turn_event(state),
    };
    let options = activity.options(queue::BRAIN, limits::MODEL_CALL_TIMEOUT_MS, ActivityCancellationType::TryCancel);
    let call = ctx.execute_activity(Brain::call_model, input, options);
    Box::pin(async move {
        let outcome = call.await.map_err(closed)?;
        Ok(Outcome::Model { digest: outcome.digest, events: outcome.events.len() })
    })
}

fn hand_input(state: &SessionState, name: &HandName, turn_event: Option<String>) -> Option<(HandInput, Host)> {
    let held = state.summary.held(name)?;
    Some(input_of(state, held.hand.clone()?, held.outputs.as_ref(), turn_event))
}

fn input_of(
    state: &SessionState,
    hand: HandRef,
    outputs: Option<&BlobRef>,
    turn_event: Option<String>,
) -> (HandInput, Host) {
    let host = Host::of(state, &hand);
    let last_listing = outputs.map(|listing| listing.blob.clone());
    (HandInput { session_id: state.session_id.clone(), hand, last_listing, turn_event }, host)
}

/// The one machine that has a hand.
struct Host {
    queue: String,
    /// How long its worker has to take something.
    takes_within: Duration,
}

impl Host {
    fn of(state: &SessionState, hand: &HandRef) -> Self {
        let takes_within = state.summary.attributes.tuning.host_wait();
        Host { queue: queue::hand_host(&hand.host), takes_within }
    }
}

/// The worker of a host may be on its way back: what nobody took in time is dispatched once more. Whatever it is, the
/// hand's journal makes that safe.
async fn twice<T, First, Again>(first: First, again: impl FnOnce() -> Again) -> Result<T, Closed>
where
    First: Future<Output = Result<T, ActivityExecutionError>>,
    Again: Future<Output = Result<T, ActivityExecutionError>>,
{
    match first.await {
        Err(error) if is_untaken(&error) => again().await,
        ended => ended,
    }
    .map_err(closed)
}

/// No worker took it in time.
fn is_untaken(error: &ActivityExecutionError) -> bool {
    error.as_timeout().is_some_and(|timeout| timeout.timeout_type() == TimeoutType::ScheduleToStart)
}

struct Activity {
    id: String,
    token: WorkflowCancellationToken,
}

impl Activity {
    /// Unlimited attempts: only a lost worker is a failure, everything else is a result.
    fn options(&self, queue: &str, start_to_close_ms: u64, cancellation: ActivityCancellationType) -> ActivityOptions {
        ActivityOptions::with_start_to_close_timeout(Duration::from_millis(start_to_close_ms))
            .activity_id(self.id.clone())
            .task_queue(queue.to_owned())
            .heartbeat_timeout(Duration::from_millis(limits::HEARTBEAT_TIMEOUT_MS))
            .cancellation_type(cancellation)
            .cancellation_token(self.token.clone())
            .do_not_eagerly_execute(true)
            .build()
    }

    /// For what any hand worker does out in the network. It waits for one no longer than for the host of a hand.
    fn outside(
        &self,
        state: &SessionState,
        start_to_close_ms: u64,
        cancellation: ActivityCancellationType,
    ) -> ActivityOptions {
        let mut options = self.options(queue::HANDS, start_to_close_ms, cancellation);
        options.schedule_to_start_timeout = Some(state.summary.attributes.tuning.host_wait());
        options
    }

    /// For what only one host can take.
    fn on_host(&self, host: &Host, start_to_close_ms: u64, cancellation: ActivityCancellationType) -> ActivityOptions {
        let mut options = self.options(&host.queue, start_to_close_ms, cancellation);
        options.schedule_to_start_timeout = Some(host.takes_within);
        options
    }
}

fn closed(error: ActivityExecutionError) -> Closed {
    match error {
        ActivityExecutionError::Cancelled(_) => Closed::Cancelled,
        other => Closed::Failed { message: other.to_string() },
    }
}
