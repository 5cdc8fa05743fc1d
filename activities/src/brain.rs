//! The brain's activities, as a worker registers them.

use crate::{
    answer::Origin, beat::beating, call_model, decide, deltas::Deltas, gate, harnesses::Harnesses, judge::Judge,
    log_cache::LogCache, model::Model, read_log, turn, whatif,
};
use domain::{
    Commit,
    fault::{self, Point},
    outcome::{ModelOutcome, SealOutcome, ToolOutcome},
    session::{ModelInput, ReadLogInput, SealInput},
    trial::Tried,
};
use futures::FutureExt as _;
use harness::{
    SessionState,
    rollout::{GateInput, GateReport, Rollout},
    whatif::{Input as WhatIf, Report as WhatIfReport},
};
use log::{HistoryReader, history::Run, segment};
use std::sync::Arc;
use store::Blobs;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tracing::{Instrument, field::Empty, info_span};
use workflows::contract::{self, DecideInput, DecideRolloutInput};

/// Cheap to clone.
#[derive(Clone)]
pub struct BrainActivities {
    pub(crate) model: Arc<dyn Model>,
    pub(crate) judge: Option<Judge>,
    pub(crate) reader: Arc<dyn HistoryReader>,
    pub(crate) blobs: Arc<dyn Blobs>,
    pub(crate) deltas: Arc<dyn Deltas>,
    pub(crate) logs: Arc<LogCache>,
    pub(crate) harnesses: Arc<Harnesses>,
}

impl BrainActivities {
    pub fn new(
        model: Arc<dyn Model>,
        reader: Arc<dyn HistoryReader>,
        blobs: Arc<dyn Blobs>,
        deltas: Arc<dyn Deltas>,
    ) -> Self {
        let logs = Arc::new(LogCache::new(reader.clone(), blobs.clone()));
        let harnesses = Arc::new(Harnesses::new(blobs.clone()));
        BrainActivities { model, judge: None, reader, blobs, deltas, logs, harnesses }
    }

    /// Has the same provider's model of that name judge calls under the policy `auto`.
    pub fn judged_by(self, name: Option<&str>) -> Self {
        let judge = name.map(|name| Judge::new(self.model.clone(), name));
        BrainActivities { judge, ..self }
    }
}

#[activities]
impl BrainActivities {
    #[activity(definition = contract::Decide)]
    pub async fn decide(self: Arc<Self>, _ctx: ActivityContext, input: DecideInput) -> Result<Commit, ActivityError> {
        let SessionState { session_id, summary, .. } = &input.state;
        let span = info_span!("decide", session_id, turn = summary.turn, step = summary.n, turn_event = Empty);
        fault::pass(Point::TaskStarted);
        let found = self.harnesses.find(&input.state.summary.harness).await?;
        let deciding = move || {
            let commit = span.in_scope(|| decide::decide(&input, &found));
            turn::record(&span, &input, &commit);
            commit
        };
        let decided = tokio::task::spawn_blocking(deciding).await?;
        fault::pass(Point::DecisionMade);
        Ok(decided)
    }

    #[activity(definition = contract::CallModel)]
    pub async fn call_model(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ModelInput,
    ) -> Result<ModelOutcome, ActivityError> {
        let info = ctx.info();
        let (activity_id, attempt) = (info.activity_id.clone(), info.attempt);
        let (session_id, turn) = (&input.session_id, input.turn);
        let turn_event = input.turn_event.as_deref();
        let span = info_span!("call_model", session_id, turn, turn_event, activity = activity_id, attempt);
        let origin = Origin { session_id: input.session_id.clone(), activity_id, attempt };
        fault::pass(Point::DecisionRecorded);
        let call = call_model::call_model(&self, origin, &input, ctx.cancelled().boxed());
        let answered = beating(&ctx, call).instrument(span).await?;
        fault::pass(Point::ModelAnswered);
        match answered {
            Some(outcome) => Ok(outcome),
            None => Err(ActivityError::cancelled()),
        }
    }

    #[activity(definition = contract::Seal)]
    pub async fn seal(self: Arc<Self>, ctx: ActivityContext, input: SealInput) -> Result<SealOutcome, ActivityError> {
        let SealInput { session_id, run_id, turn_event, .. } = &input;
        let span = info_span!("seal", session_id, run_id, turn_event);
        let run = Run { session_id: input.session_id, run_id: input.run_id };
        fault::pass(Point::RunSealing);
        let sealing = segment::seal(&*self.reader, &*self.blobs, &run, input.manifest.as_ref());
        let manifest = beating(&ctx, sealing).instrument(span).await?;
        fault::pass(Point::RunSealed);
        Ok(SealOutcome { run_id: run.run_id, manifest })
    }

    #[activity(definition = contract::ReadLog)]
    pub async fn read_log(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ReadLogInput,
    ) -> Result<ToolOutcome, ActivityError> {
        let info = ctx.info();
        let (activity_id, attempt) = (info.activity_id.clone(), info.attempt);
        let ReadLogInput { session_id, turn_event, call, .. } = &input;
        let (tool, tool_use_id) = (&call.name, &call.tool_use_id);
        let span = info_span!("read_log", session_id, turn_event, activity = activity_id, attempt, tool, tool_use_id);
        Ok(beating(&ctx, read_log::read_log(&self, &input)).instrument(span).await?)
    }

    #[activity(definition = contract::DecideRollout)]
    pub async fn decide_rollout(
        self: Arc<Self>,
        _ctx: ActivityContext,
        input: DecideRolloutInput,
    ) -> Result<Rollout, ActivityError> {
        let span = info_span!("decide_rollout", rollout_id = input.state.rollout_id, step = input.state.n);
        fault::pass(Point::RolloutDeciding);
        let decided = span.in_scope(|| input.state.decided(input.intake));
        fault::pass(Point::RolloutDecided);
        Ok(decided)
    }

    #[activity(definition = contract::Gate)]
    pub async fn gate(self: Arc<Self>, ctx: ActivityContext, input: GateInput) -> Result<GateReport, ActivityError> {
        let (rollout_id, from, sessions) = (&input.rollout_id, input.from, input.sessions);
        let span = info_span!("gate", rollout_id, from, sessions);
        fault::pass(Point::GateStarted);
        let report = beating(&ctx, gate::gate(&self, &input)).instrument(span).await?;
        fault::pass(Point::GateReported);
        Ok(report)
    }

    #[activity(definition = contract::Whatif)]
    pub async fn whatif(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: WhatIf,
    ) -> Result<Tried<WhatIfReport>, ActivityError> {
        let (session_id, turn) = (&input.session.session_id, input.turn);
        let span = info_span!("whatif", session_id, turn);
        fault::pass(Point::TrialStarted);
        let attempt = ctx.info().attempt;
        let tried = beating(&ctx, whatif::whatif(&self, &input, attempt, || ctx.cancelled().boxed()));
        let tried = tried.instrument(span).await?;
        fault::pass(Point::TrialReported);
        Ok(tried)
    }
}
