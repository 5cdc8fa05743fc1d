//! `whatif`: a recorded session gone through again. Reads its log, makes the requests, and asks the model where the record has no
//! answer and asking is allowed. It runs no tool and writes to no log; where a session is to go on from a call that is new, it leaves
//! what that needs.

use crate::{
    answer::Origin,
    brain::BrainActivities,
    call_model::{self, Asking},
    decide::Guarded,
    gate,
    harnesses::Found,
    model::Request,
};
use domain::{
    agent::{AgentSnapshot, HarnessRef},
    content::BlobRef,
    ids,
    limits::TRIAL_TURNS_TOLD_MAX,
    model::Recipe,
    session::Attributes,
    trial::Tried,
};
use futures::future::BoxFuture;
use harness::{
    SessionState,
    context::{self, Shape},
    whatif::{Asked, Input, Need, Record, Report, Trial, Variant},
};
use log::blobs;
use std::{sync::Arc, time::Duration};
use temporalio_sdk::activities::ActivityError;

pub async fn whatif<'a>(
    brain: &BrainActivities,
    input: &Input,
    attempt: u32,
    cancelled: impl Fn() -> BoxFuture<'a, ()>,
) -> Result<Tried<Report>, ActivityError> {
    let failed = |why: String| Ok(Tried::Failed { why });
    let Some(recording) = gate::recording(brain, &input.session).await? else {
        return failed(format!("session {} cannot be read any more", input.session.session_id));
    };
    let turn = input.turn;
    let record = match tokio::task::spawn_blocking(move || Record::of(&recording, turn)).await? {
        Ok(record) => record,
        Err(error) => return failed(format!("cannot {error}")),
    };
    let Variation { attributes, harness, snapshot } = variation(brain, &record.before, input).await?;
    let found = brain.harnesses.find(&harness).await?;
    if let Found::Gone(why) = &found {
        return failed(format!("harness {harness} {why}"));
    }
    let found = Arc::new(found);
    let mut trial = Trial::new(record, input, attributes, harness.clone());
    loop {
        let (by, harness) = (found.clone(), harness.clone());
        // A harness has a thread of its own; whoever waits for it must not hold one of the runtime's.
        let need;
        (trial, need) = tokio::task::spawn_blocking(move || {
            let need = trial.go_on(&mut Guarded::new(&harness, &by));
            (trial, need)
        })
        .await?;
        match need {
            Need::Nothing => break,
            // The provider's wish, not the record's.
            Need::Pause { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
            Need::Request(asked) => {
                if !answer(brain, input, attempt, &mut trial, &asked, &snapshot, cancelled()).await? {
                    return Err(ActivityError::cancelled());
                }
            }
        }
    }
    let mut report = trial.report(input);
    report.turns.truncate(TRIAL_TURNS_TOLD_MAX);
    if let Some(left) = trial.left().filter(|_| input.live) {
        report.left = Some(blobs::put_json(&*brain.blobs, &left).await?);
    }
    Ok(Tried::Report { report })
}

struct Variation {
    attributes: Attributes,
    harness: HarnessRef,
    snapshot: AgentSnapshot,
}

/// The session as it was before the turn, with what is to be otherwise.
async fn variation(brain: &BrainActivities, before: &SessionState, input: &Input) -> Result<Variation, ActivityError> {
    let Variant { harness, strategy, model, shims_off } = input.variant.clone();
    let mut attributes = before.summary.attributes.clone();
    let agent = &mut attributes.agent;
    let mut snapshot: AgentSnapshot = blobs::get_json(&*brain.blobs, &agent.snapshot).await?;
    if let Some(model) = model
        && model.id != agent.model
    {
        snapshot.model.id.clone_from(&model.id);
        snapshot.model.max_tokens = model.max_tokens;
        agent.snapshot = match input.live {
            true => blobs::put_json(&*brain.blobs, &snapshot).await?,
            // It is named in no log, so nobody reads it by its hash.
            false => {
                let bytes = serde_json::to_vec(&snapshot).unwrap_or_default();
                BlobRef { blob: ids::content_hash(&bytes), bytes: bytes.len() as u64 }
            }
        };
        (agent.model, agent.window_tokens, agent.max_tokens) = (model.id, model.window_tokens, model.max_tokens);
    }
    if let Some(strategy) = strategy {
        agent.strategy = strategy;
    }
    agent.shims_off.extend(shims_off);
    agent.shims_off.sort();
    agent.shims_off.dedup();
    let harness = harness.unwrap_or_else(|| before.summary.harness.clone());
    Ok(Variation { attributes, harness, snapshot })
}

/// Has a request answered, by the record or a model, or ends the trial. False if nobody wants it any more.
async fn answer(
    brain: &BrainActivities,
    input: &Input,
    attempt: u32,
    trial: &mut Trial,
    asked: &Asked,
    snapshot: &AgentSnapshot,
    cancelled: BoxFuture<'_, ()>,
) -> Result<bool, ActivityError> {
    let mut entries = asked.entries.clone();
    call_model::resolve(brain, &mut entries).await?;
    let harness::whatif::Shape { purpose, slice, strategy, suffix, snapshot: reference } = asked.shape.clone();
    let shape = Shape { strategy: &strategy, suffix: &suffix, purpose };
    let body = match context::request(&entries, snapshot, shape) {
        Ok(body) => body,
        Err(error) => return Err(ActivityError::from(error)),
    };
    let bytes = context::serialize(&body);
    let request_sha256 = ids::content_hash(&bytes);
    if trial.recall(asked, &request_sha256) {
        return Ok(true);
    }
    if input.variant.model.is_none() {
        trial.stop(bytes.len() as u64);
        return Ok(true);
    }
    if trial.requests_live() >= u64::from(input.requests_max) {
        trial.exhaust();
        return Ok(true);
    }
    let recipe = Recipe {
        from: slice.from,
        to: slice.to,
        keep: slice.keep,
        purpose,
        strategy,
        snapshot: reference,
        serializer: context::SERIALIZER,
        suffix,
        request_sha256,
    };
    let origin = Origin { session_id: input.id.clone(), activity_id: asked.activity.clone(), attempt };
    let request = Request { body, betas: Vec::new(), session_id: input.id.clone(), tries: asked.tries };
    let asking = Asking { origin: &origin, agent: &asked.agent, request, recipe };
    // Nobody watches a session that is not there.
    let told = call_model::ask(brain, asking, &mut |_| {}, cancelled).await?;
    let is_told = told.is_some();
    if let Some(outcome) = told {
        trial.told(asked, outcome);
    }
    Ok(is_told)
}
