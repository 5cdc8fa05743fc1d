//! A model over HTTP that answers at once and says when it was asked, and when it began to answer.
//!
//! It speaks the streaming Messages API. Asked to use a hand, it calls `bash`; to everything else it says a few words.

use crate::clock;
use anyhow::Context as _;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// In a user's message: the model is to call a tool.
pub const USE_A_HAND: &str = "use a hand";

/// How long a request may be awaited.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running model; it ends when this is dropped.
pub struct Model {
    pub url: String,
    asked: watch::Receiver<Vec<Asked>>,
    task: AbortHandle,
}

/// One request, on [`clock::now`].
#[derive(Clone, Copy)]
pub struct Asked {
    pub received: Duration,
    pub first_byte: Option<Duration>,
}

impl Model {
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (tell, asked) = watch::channel(Vec::new());
        let task = tokio::spawn(accept(listener, Arc::new(tell))).abort_handle();
        Ok(Model { url, asked, task })
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        self.asked.borrow().len()
    }

    /// The request that `before` others came before, once its answer has begun.
    pub async fn request(&self, before: usize) -> anyhow::Result<(Duration, Duration)> {
        let mut asked = self.asked.clone();
        let begun = |asked: &Vec<Asked>| asked.get(before).and_then(|it| Some((it.received, it.first_byte?)));
        let waiting = asked.wait_for(|asked| begun(asked).is_some());
        let asked = tokio::time::timeout(PATIENCE, waiting).await.context("the model is not asked")??;
        begun(&asked).context("waited for")
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, tell: Arc<watch::Sender<Vec<Asked>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { return };
                // Without it the last bytes of an answer may wait for the client's acknowledgement.
                let _ = socket.set_nodelay(true);
                let tell = tell.clone();
                let service = service_fn(move |request| answer(request, tell.clone()));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    tell: Arc<watch::Sender<Vec<Asked>>>,
) -> Result<Response<StreamBody<impl Stream<Item = Result<Frame<Bytes>, Infallible>>>>, hyper::Error> {
    let received = clock::now();
    let body = request.into_body().collect().await?.to_bytes();
    let mut before = 0;
    tell.send_modify(|asked| {
        before = asked.len();
        asked.push(Asked { received, first_byte: None });
    });
    let events = events(&serde_json::from_slice(&body).unwrap_or_default(), before);
    let frames = stream::iter(events).enumerate().map(move |(at, event)| {
        if at == 0 {
            tell.send_modify(|asked| asked[before].first_byte = Some(clock::now()));
        }
        let name = event["type"].as_str().unwrap_or_default();
        Ok(Frame::data(Bytes::from(format!("event: {name}\ndata: {event}\n\n"))))
    });
    let mut response = Response::new(StreamBody::new(frames));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    Ok(response)
}

fn events(request: &Value, before: usize) -> Vec<Value> {
    let last = request["messages"].as_array().and_then(|messages| messages.last()).map(Value::to_string);
    // A result of the tool is what was asked for, so it ends the turn.
    let is_tool = last.is_some_and(|last| last.contains(USE_A_HAND) && !last.contains("tool_result"));
    let usage = json!({"input_tokens": 10, "output_tokens": 5});
    let message = json!({
        "id": format!("msg_{before}"), "type": "message", "role": "assistant", "model": request["model"],
        "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage,
    });
    let mut events = vec![json!({"type": "message_start", "message": message})];
    let text = json!({"type": "text_delta", "text": "I see."});
    events.extend(block(0, json!({"type": "text", "text": ""}), text));
    if is_tool {
        let tool = json!({"type": "tool_use", "id": format!("toolu_{before}"), "name": "bash", "input": {}});
        let input = json!({"type": "input_json_delta", "partial_json": r#"{"command": "true"}"#});
        events.extend(block(1, tool, input));
    }
    let stop_reason = if is_tool { "tool_use" } else { "end_turn" };
    let delta = json!({"stop_reason": stop_reason, "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}}));
    events.push(json!({"type": "message_stop"}));
    events
}

fn block(index: usize, block: Value, delta: Value) -> [Value; 3] {
    [
        json!({"type": "content_block_start", "index": index, "content_block": block}),
        json!({"type": "content_block_delta", "index": index, "delta": delta}),
        json!({"type": "content_block_stop", "index": index}),
    ]
}
