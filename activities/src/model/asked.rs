//! The span around one call of a model: who was asked, what it took, how it ended. Never what was said.

use tracing::{Instrument as _, Span, field::Empty, info_span};

use super::{Cancelled, Outcome, Request};

/// Runs `call` unless `cancelled` resolves first.
pub(super) async fn asked(
    backend: &'static str,
    request: &Request,
    call: impl Future<Output = Outcome> + Send,
    cancelled: Cancelled<'_>,
) -> Outcome {
    let span = info_span!(
        "model call",
        session_id = request.session_id,
        backend,
        model = request.body["model"].as_str(),
        tries = request.tries,
        input_tokens = Empty,
        output_tokens = Empty,
        cache_read_tokens = Empty,
        cache_creation_tokens = Empty,
        stop_reason = Empty,
        status = Empty,
        error_type = Empty,
    );
    let outcome = tokio::select! {
        biased;
        () = cancelled => Outcome::Cancelled,
        outcome = call.instrument(span.clone()) => outcome,
    };
    record(&span, &outcome);
    outcome
}

fn record(span: &Span, outcome: &Outcome) {
    match outcome {
        Outcome::Answer(answer) => {
            let usage = &answer.usage;
            span.record("input_tokens", usage.input_tokens);
            span.record("output_tokens", usage.output_tokens);
            span.record("cache_read_tokens", usage.cache_read_tokens);
            span.record("cache_creation_tokens", usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens);
            span.record("stop_reason", answer.stop_reason.as_str());
        }
        Outcome::Failed(failure) => {
            span.record("status", failure.status);
            span.record("error_type", failure.class.name());
        }
        Outcome::Cancelled => {
            span.record("error_type", "cancelled");
        }
    }
}
