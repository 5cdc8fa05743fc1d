//! `whatif`: a recorded session gone through again. Reads its log, makes the requests, and asks the model where the record has no
//! answer and asking is allowed. It runs no tool, writes to no log, and keeps what a model says to itself; where a session is to go
//! on from a call that is new, it leaves what that needs.

use crate::{
    answer::Origin,
    aside::Aside,
    brain::BrainActivities,
    call_model::{self, Asking},
    decide::Guarded,
    gate,
    harnesses::Found,
    model::Request,
};
use domain::{
    EventBody,
    agent::{AgentSnapshot, HarnessRef},
    content::{BlobRef, Block, Json},
    ids,
    limits::TRIAL_PAUSE_MS_MAX,
    model::Recipe,
    session::{Attributes, LogEntry},
    trial::Tried,
};
use futures::future::BoxFuture;
use harness::{
    SessionState,
    context::{self, Shape},
    whatif::{self, Asked, Changes, Input, Need, OtherModel, Record, Report, Side, Trial, Variant, says},
};
use log::blobs;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::Blobs;
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
    // A trial may last longer than blobs are kept that nobody refers to, and nobody refers to these.
    let aside = Aside::over(brain.blobs.clone());
    let blobs = &aside;
    let Variation { attributes, harness } = variation(blobs, &record.before, &input.variant).await?;
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
            Need::Pause { ms } if ms > TRIAL_PAUSE_MS_MAX => {
                return failed(format!("the model asks to be left alone for {} s", ms / 1_000));
            }
            // The provider's wish, not the record's.
            Need::Pause { ms } => tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(ms)) => {}
                () = cancelled() => return Err(ActivityError::cancelled()),
            },
            Need::Request(asked) => {
                if !answer(brain, blobs, input, attempt, &mut trial, &asked, cancelled()).await? {
                    return Err(ActivityError::cancelled());
                }
            }
        }
    }
    let words = words(blobs, &trial, input).await?;
    let mut report = trial.report(input, &words);
    let [step, request] = trial.sides();
    for (difference, sides) in [(&mut report.first_step, step), (&mut report.first_request, request)] {
        let (Some(difference), Some((recorded, tried))) = (difference, sides) else { continue };
        let recorded = shown(blobs, recorded, None).await;
        let tried = shown(blobs, tried, input.variant.model.as_ref()).await;
        // A record of another build may have been made in a way that this one does not know: what was paid for is told all the same.
        difference.changes = recorded.ok().zip(tried.ok()).map(|(recorded, tried)| Changes::between(&recorded, &tried));
    }
    if input.live
        && let Some(mut left) = trial.left(input, &words)
    {
        // From here on the report refers to it, until a session does.
        left.kept = aside.keep().await?;
        report.left = Some(blobs::put_json(&*brain.blobs, &left).await?);
    }
    Ok(Tried::Report { report })
}

/// Which of the last messages that are kept by reference say what was expected.
async fn words(blobs: &dyn Blobs, trial: &Trial, input: &Input) -> Result<BTreeMap<String, bool>, log::blobs::Error> {
    let mut words = BTreeMap::new();
    let Some(expected) = &input.expect else { return Ok(words) };
    for (hash, blob) in trial.last_words(input) {
        let blocks: Vec<Block> = blobs::get_json(blobs, &blob).await?;
        words.insert(hash, says(&blocks, expected));
    }
    Ok(words)
}

/// What one side did, to be held against the other: the request, or the names and inputs of the calls.
async fn shown(blobs: &dyn Blobs, side: Side, model: Option<&OtherModel>) -> Result<Value, ActivityError> {
    match side {
        Side::Request { shape, mut entries } => {
            call_model::resolve(blobs, &mut entries).await?;
            let snapshot = snapshot(blobs, &shape.snapshot, model).await?;
            request(&entries, &shape, &snapshot)
        }
        Side::Calls(mut entries) => {
            call_model::resolve(blobs, &mut entries).await?;
            Ok(json!({"calls": entries.into_iter().map(|entry| entry.event.body).map(call).collect::<Vec<_>>()}))
        }
    }
}

fn call(body: EventBody) -> Value {
    match body {
        EventBody::AgentToolUse { name, input: Json::Inline { value }, .. }
        | EventBody::AgentMcpToolUse { name, input: Json::Inline { value }, .. }
        | EventBody::AgentCustomToolUse { name, input: Json::Inline { value } } => {
            json!({"name": name, "input": value})
        }
        _ => Value::Null,
    }
}

fn request(entries: &[LogEntry], shape: &whatif::Shape, snapshot: &AgentSnapshot) -> Result<Value, ActivityError> {
    let shape = Shape { strategy: &shape.strategy, suffix: &shape.suffix, purpose: shape.purpose };
    context::request(entries, snapshot, shape).map_err(ActivityError::from)
}

struct Variation {
    attributes: Attributes,
    harness: HarnessRef,
}

/// The session as it was before the turn, with what is to be otherwise.
async fn variation(
    blobs: &dyn Blobs,
    before: &SessionState,
    variant: &Variant,
) -> Result<Variation, log::blobs::Error> {
    let Variant { harness, strategy, model, shims_off } = variant.clone();
    let mut attributes = before.summary.attributes.clone();
    let agent = &mut attributes.agent;
    if let Some(model) = model
        && model.id != agent.model
    {
        let snapshot = snapshot(blobs, &agent.snapshot, Some(&model)).await?;
        agent.snapshot = blobs::put_json(blobs, &snapshot).await?;
        (agent.model, agent.window_tokens, agent.max_tokens) = (model.id, model.window_tokens, model.max_tokens);
    }
    if let Some(strategy) = strategy {
        agent.strategy = strategy;
    }
    agent.shims_off.extend(shims_off);
    agent.shims_off.sort();
    agent.shims_off.dedup();
    let harness = harness.unwrap_or_else(|| before.summary.harness.clone());
    Ok(Variation { attributes, harness })
}

/// What the model is told of its agent. Tools that servers list come with a snapshot of the recorded agent, which had a model of
/// its own.
async fn snapshot(
    blobs: &dyn Blobs,
    reference: &BlobRef,
    model: Option<&OtherModel>,
) -> Result<AgentSnapshot, log::blobs::Error> {
    let mut snapshot: AgentSnapshot = blobs::get_json(blobs, reference).await?;
    if let Some(model) = model
        && model.id != snapshot.model.id
    {
        snapshot.model.id.clone_from(&model.id);
        snapshot.model.max_tokens = model.max_tokens;
    }
    Ok(snapshot)
}

/// Has a request answered, by the record or a model, or ends the trial. False if nobody wants it any more.
async fn answer(
    brain: &BrainActivities,
    blobs: &dyn Blobs,
    input: &Input,
    attempt: u32,
    trial: &mut Trial,
    asked: &Asked,
    cancelled: BoxFuture<'_, ()>,
) -> Result<bool, ActivityError> {
    let mut entries = asked.entries.clone();
    call_model::resolve(blobs, &mut entries).await?;
    let snapshot = snapshot(blobs, &asked.shape.snapshot, input.variant.model.as_ref()).await?;
    let body = request(&entries, &asked.shape, &snapshot)?;
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
    let whatif::Shape { purpose, slice, strategy, suffix, snapshot: reference } = asked.shape.clone();
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
    let asking =
        Asking { origin: &origin, agent: &asked.agent, request, recipe, entries: &entries, snapshot: &snapshot };
    // Nobody watches a session that is not there.
    let told = call_model::ask(&*brain.model, brain.judge.as_ref(), blobs, asking, &mut |_| {}, cancelled).await?;
    let is_told = told.is_some();
    if let Some(outcome) = told {
        trial.told(asked, outcome);
    }
    Ok(is_told)
}
