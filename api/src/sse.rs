//! Server-sent events as the official SDKs read them: every message has an `event:` line, or they drop it.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use http::{HeaderValue, header};
use serde_json::Value;

/// One message.
#[derive(Clone, PartialEq, Debug)]
pub struct Message {
    pub name: String,
    /// What a client says it saw last when it comes back.
    pub id: Option<u64>,
    pub data: Value,
}

impl Message {
    fn bytes(&self) -> Bytes {
        let id = self.id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        // Compact JSON has no line breaks, so one data line carries it.
        format!("event: {}\n{id}data: {}\n\n", self.name, self.data).into()
    }
}

/// The answer that sends messages as they come.
pub fn response(messages: impl Stream<Item = Message> + Send + 'static) -> Response {
    let frames = messages.map(|message| Ok::<_, Infallible>(message.bytes()));
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // A proxy that collects the answer would hold every event back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_one_block_of_lines() {
        let mut message = Message { name: "ping".to_owned(), id: None, data: json!({"type": "ping"}) };
        assert_eq!(message.bytes(), "event: ping\ndata: {\"type\":\"ping\"}\n\n");
        message = Message { name: "agent.message".to_owned(), id: Some(7), data: json!({"text": "a\nb"}) };
        assert_eq!(message.bytes(), "event: agent.message\nid: 7\ndata: {\"text\":\"a\\nb\"}\n\n");
    }
}
