//! `call_model`: one model request. Reads its slice of the log, makes the request by its recipe, sends it, and
//! gives back events, private part and digest. A failure of the provider is a result.

use crate::{
    answer::{self, Origin, Parts, Previews},
    brain::BrainActivities,
    judge::{self, Judge, Verdicts},
    model::{self, FailureClass, Model, OnDelta, Outcome, Request},
    url_sources,
};
use domain::{
    Failure, RetryClass,
    agent::{AgentFacts, AgentSnapshot},
    content::Json,
    failure::FailureKind,
    ids,
    limits::{INLINE_BYTES_MAX, STATE_INPUT_BYTES_MAX},
    model::{ModelPrivate, Range, Recipe},
    outcome::{ModelDigest, ModelOutcome},
    session::{LogEntry, ModelInput},
};
use futures::{FutureExt as _, future::BoxFuture};
use harness::context::{self, Shape};
use store::Blobs;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read the log of session {session_id}")]
    Log {
        session_id: String,
        #[source]
        source: log::segment::Error,
    },
    #[error("the log of session {session_id} ends before position {to}")]
    Short { session_id: String, to: u64 },
    #[error(transparent)]
    Blob(#[from] log::blobs::Error),
}

/// `None`: nobody wants the answer any more.
pub async fn call_model(
    brain: &BrainActivities,
    origin: Origin,
    input: &ModelInput,
    cancelled: BoxFuture<'_, ()>,
) -> Result<Option<ModelOutcome>, Error> {
    let entries = slice(brain, input).await?;
    let snapshot: AgentSnapshot = log::blobs::get_json(&*brain.blobs, &input.agent.snapshot).await?;
    let shape = Shape { strategy: &input.strategy, suffix: &input.suffix, purpose: input.purpose };
    let body = match context::request(&entries, &snapshot, shape) {
        Ok(body) => body,
        // No attempt on any worker of this build can be better: the harness is told.
        Err(error) => {
            let failure = Failure::permanent(FailureKind::Request, format!("this build lacks {error}"));
            let digest = ModelDigest::Failed { failure };
            return Ok(Some(ModelOutcome { digest, events: Vec::new(), private: None }));
        }
    };
    let recipe = Recipe {
        from: input.from,
        to: input.to,
        keep: input.keep.clone(),
        purpose: input.purpose,
        strategy: input.strategy.clone(),
        snapshot: input.agent.snapshot.clone(),
        serializer: context::SERIALIZER,
        suffix: input.suffix.clone(),
        request_sha256: ids::content_hash(&context::serialize(&body)),
    };
    let request = Request { body, betas: Vec::new(), session_id: input.session_id.clone(), tries: input.tries };
    let asking =
        Asking { origin: &origin, agent: &input.agent, request, recipe, entries: &entries, snapshot: &snapshot };
    let mut previews = Previews::new(origin.clone());
    let deltas = &brain.deltas;
    let mut on_delta = |delta| {
        // A summary becomes no message.
        if input.purpose.is_answer()
            && let Some(delta) = previews.next(delta)
        {
            deltas.publish(delta);
        }
    };
    ask(&*brain.model, brain.judge.as_ref(), &*brain.blobs, asking, &mut on_delta, cancelled).await
}

/// A request that is ready to be sent, and what its answer is made into events with.
pub struct Asking<'a> {
    pub origin: &'a Origin,
    pub agent: &'a AgentFacts,
    pub request: Request,
    pub recipe: Recipe,
    /// What the request was made of: where URLs stand that may be fetched, and what the user said, to judge calls by.
    pub entries: &'a [LogEntry],
    pub snapshot: &'a AgentSnapshot,
}

/// Sends it. `None`: nobody wants the answer any more. What of the answer is large goes into `blobs`, and calls are refused that nobody
/// may make, whoever asks: also what a what-if is told may be done by the session that goes on from it.
pub async fn ask(
    model: &dyn Model,
    judge: Option<&Judge>,
    blobs: &dyn Blobs,
    asking: Asking<'_>,
    on_delta: &mut OnDelta<'_>,
    cancelled: BoxFuture<'_, ()>,
) -> Result<Option<ModelOutcome>, Error> {
    let Asking { origin, agent, request, recipe, entries, snapshot } = asking;
    let cancelled = cancelled.shared();
    match model.call(&request, on_delta, cancelled.clone().boxed()).await {
        Outcome::Answer(answer) => {
            let verdicts = match judge {
                Some(judge) => {
                    let (intent, cancelled) = (judge::intent(entries), || cancelled.clone().boxed());
                    judge.judge(&request.session_id, agent, &intent, &answer, cancelled).await
                }
                None => Some(Verdicts::new()),
            };
            let Some(verdicts) = verdicts else { return Ok(None) };
            let parts = answer::parts(origin, agent, &answer, &verdicts);
            let outcome = answered(blobs, parts, answer, recipe).await?;
            Ok(Some(url_sources::checked(outcome, entries, snapshot)))
        }
        Outcome::Failed(failure) => {
            let digest = ModelDigest::Failed { failure: failed(failure) };
            Ok(Some(ModelOutcome { digest, events: Vec::new(), private: None }))
        }
        Outcome::Cancelled => Ok(None),
    }
}

async fn slice(brain: &BrainActivities, input: &ModelInput) -> Result<Vec<LogEntry>, Error> {
    let session_id = &input.session_id;
    let mut entries = Vec::new();
    for range in input.keep.iter().chain([&Range { from: input.from, to: input.to }]) {
        let wrong = |source| Error::Log { session_id: session_id.clone(), source };
        entries.extend(brain.logs.slice(session_id, range.from, range.to).await.map_err(wrong)?);
    }
    if input.to > 0 && entries.last().is_none_or(|last| last.position + 1 < input.to) {
        return Err(Error::Short { session_id: session_id.clone(), to: input.to });
    }
    resolve(&*brain.blobs, &mut entries).await?;
    Ok(entries)
}

/// Puts content in the place of references to it.
pub async fn resolve(blobs: &dyn Blobs, entries: &mut [LogEntry]) -> Result<(), Error> {
    for entry in entries {
        log::blobs::resolve(blobs, &mut entry.event).await?;
        if let Some(private) = &mut entry.private {
            log::blobs::resolve_json(blobs, &mut private.blocks).await?;
        }
    }
    Ok(())
}

async fn answered(
    blobs: &dyn Blobs,
    mut parts: Parts,
    answer: model::Answer,
    recipe: Recipe,
) -> Result<ModelOutcome, Error> {
    for event in &mut parts.events {
        log::blobs::offload(blobs, event).await?;
    }
    if let ModelDigest::Answer { calls, .. } = &mut parts.digest {
        for call in calls {
            log::blobs::offload_json(blobs, &mut call.input, STATE_INPUT_BYTES_MAX).await?;
        }
    }
    let mut blocks = Json::Inline { value: answer.blocks.into() };
    log::blobs::offload_json(blobs, &mut blocks, INLINE_BYTES_MAX).await?;
    let private = ModelPrivate { blocks, tool_ids: parts.tool_ids, recipe };
    Ok(ModelOutcome { digest: parts.digest, events: parts.events, private: Some(private) })
}

/// The provider's failure in the words of the log.
fn failed(failure: model::Failure) -> Failure {
    let kind = match failure.class {
        FailureClass::RateLimited => FailureKind::RateLimited,
        FailureClass::Overloaded => FailureKind::Overloaded,
        FailureClass::Server | FailureClass::Stream => FailureKind::Provider,
        FailureClass::Timeout | FailureClass::Connection => FailureKind::Unreachable,
        FailureClass::Request | FailureClass::NotFound => FailureKind::Request,
        FailureClass::ContextLength => FailureKind::ContextLength,
        FailureClass::Auth => FailureKind::Authentication,
        FailureClass::Billing => FailureKind::Billing,
    };
    let retry = if failure.class.is_retryable() { RetryClass::Transient } else { RetryClass::Permanent };
    Failure { kind, message: failure.message, retry, retry_after_ms: failure.retry_after_ms }
}
