//! What the tests of several backends need: a server of fixed bytes, and short ways to call a model.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{Answer, ApiKey, Cancelled, Delta, Failure, Model, Outcome, Request, Settings, Timeouts};

/// What the server does with one request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Sends the bytes and waits for the next request on the connection.
    Send(Vec<u8>),
    /// Sends the bytes and closes the connection.
    SendAndClose(Vec<u8>),
    /// Sends the bytes, and nothing until the client hangs up.
    SendAndHang(Vec<u8>),
}

/// A server that answers request number N with reply number N, and closes the connection when there are none left.
pub(super) struct RawServer {
    pub(super) url: String,
    state: Arc<State>,
}

struct State {
    replies: Mutex<VecDeque<Reply>>,
    /// Head and body of every request.
    requests: Mutex<Vec<String>>,
    connections: watch::Sender<usize>,
    ended: watch::Sender<usize>,
}

impl RawServer {
    pub(super) async fn start(replies: impl IntoIterator<Item = Reply>) -> RawServer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            replies: Mutex::new(replies.into_iter().collect()),
            requests: Mutex::default(),
            connections: watch::Sender::new(0),
            ended: watch::Sender::new(0),
        });
        let accepting = state.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepting.connections.send_modify(|count| *count += 1);
                let state = accepting.clone();
                tokio::spawn(async move {
                    // A client that is gone is one of the ways to end.
                    let _ = converse(socket, state.clone()).await;
                    state.ended.send_modify(|count| *count += 1);
                });
            }
        });
        RawServer { url, state }
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().clone()
    }

    pub(super) fn connections(&self) -> usize {
        *self.state.connections.borrow()
    }

    /// Resolves when a connection has ended: on a reply that hangs, when the client has hung up.
    pub(super) async fn ended(&self) {
        self.state.ended.subscribe().wait_for(|count| *count > 0).await.unwrap();
    }
}

/// Replies until one side has had enough.
async fn converse(mut socket: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    let mut held = Vec::new();
    while let Some(request) = read_request(&mut socket, &mut held).await? {
        state.requests.lock().push(request);
        let reply = state.replies.lock().pop_front();
        match reply {
            Some(Reply::Send(bytes)) => socket.write_all(&bytes).await?,
            Some(Reply::SendAndClose(bytes)) => {
                socket.write_all(&bytes).await?;
                break;
            }
            Some(Reply::SendAndHang(bytes)) => {
                socket.write_all(&bytes).await?;
                let mut rest = [0; 64];
                while socket.read(&mut rest).await? > 0 {}
                break;
            }
            None => break,
        }
    }
    Ok(())
}

/// The next request, once it is whole. None when the client has closed.
async fn read_request(socket: &mut TcpStream, held: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        let text = String::from_utf8_lossy(held).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                held.clear();
                return Ok(Some(text));
            }
        }
        if socket.read_buf(held).await? == 0 {
            return Ok(None);
        }
    }
}

/// The head of an event stream that ends with the connection.
pub(super) const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_raw\r\n\r\n";

/// A whole answer of fixed length, so that the connection can be used again.
pub(super) fn stream_of_length(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// The events of a short answer of the Messages API.
pub(super) fn hello() -> String {
    let events = [
        json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}),
        json!({"type": "message_stop"}),
    ];
    events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())).collect()
}

pub(super) fn request(text: &str) -> Request {
    let body = json!({"model": "m", "max_tokens": 64, "messages": [{"role": "user", "content": text}]});
    request_of(body)
}

pub(super) fn request_of(body: Value) -> Request {
    Request { body, betas: Vec::new(), session_id: String::new(), tries: 0 }
}

pub(super) fn settings(url: &str, timeouts: Timeouts) -> Settings {
    Settings { url: Some(url.to_owned()), key: Some(ApiKey::new("sk-canary").unwrap()), script: None, timeouts }
}

/// All long, so that only what a test shortens can be up.
pub(super) fn patient() -> Timeouts {
    let long = Duration::from_secs(60);
    Timeouts { connect: long, first_byte: long, idle: long, overall: long }
}

pub(super) async fn call(model: &dyn Model, request: &Request) -> (Outcome, Vec<Delta>) {
    let never: Cancelled<'_> = Box::pin(std::future::pending());
    let mut deltas = Vec::new();
    let outcome = model.call(request, &mut |delta| deltas.push(delta), never).await;
    (outcome, deltas)
}

pub(super) async fn answer(model: &dyn Model, request: &Request) -> Answer {
    match call(model, request).await.0 {
        Outcome::Answer(answer) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

pub(super) async fn failure(model: &dyn Model, request: &Request) -> Failure {
    match call(model, request).await.0 {
        Outcome::Failed(failure) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

/// An address where nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap()
}
