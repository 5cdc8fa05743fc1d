//! Ids of traces and spans.
//!
//! A turn is one trace, but no context travels with it: nothing is added to what is recorded, and replay exports
//! nothing. Instead everybody who works for a turn derives the same ids from the event that began it.

use opentelemetry::trace::{SpanId, TraceId};

/// The trace of the turn that this event began.
pub fn trace(turn_event: &str) -> TraceId {
    TraceId::from_bytes(digest("trace", turn_event))
}

/// The span of the request that brought that event: the root of the trace.
pub fn root(turn_event: &str) -> SpanId {
    SpanId::from_bytes(digest("root", turn_event))
}

/// The span of the turn.
pub fn turn(turn_event: &str) -> SpanId {
    SpanId::from_bytes(digest("turn", turn_event))
}

pub fn random_trace() -> TraceId {
    TraceId::from_bytes(rand::random())
}

pub fn random_span() -> SpanId {
    SpanId::from_bytes(rand::random())
}

/// The first bytes of a sha-256.
fn digest<const N: usize>(what: &str, turn_event: &str) -> [u8; N] {
    let hex = domain::ids::content_hash(format!("{what}/{turn_event}").as_bytes());
    let mut bytes = [0; N];
    hex::decode_to_slice(&hex[..2 * N], &mut bytes).expect("a digest is hex");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_derives_the_same_ids() {
        assert_eq!(trace("sevt_1").to_string(), "0ce89366ff1feb7d17ee5d263adccbce");
        assert_ne!(trace("sevt_1"), trace("sevt_2"));
        assert_ne!(root("sevt_1"), turn("sevt_1"));
    }
}
