//! The scripted model as an HTTP server that speaks the Anthropic Messages API, so that a real client can be run
//! against a script.
//!
//! As stateless as the model itself: which try a request is, is what its `x-stainless-retry-count` says. It remembers
//! what it received, for whoever wants to look, and nothing else.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinSet},
};
use tracing::warn;

use super::{
    Script,
    play::{self, Reply, Step},
};
use crate::model::anthropic::TRIES;

/// As the Messages API.
const BODY_BYTES_MAX: usize = 32 << 20;
/// How many received requests are kept, and how many bytes of their bodies.
const RECEIVED_MAX: usize = 1_000;
const RECEIVED_BYTES_MAX: usize = 64 << 20;

type Body = UnsyncBoxBody<Bytes, Cut>;

/// The scripted end of a connection.
#[derive(Debug, thiserror::Error)]
#[error("cut the connection, as the script says")]
struct Cut;

/// One request that came, of whatever kind.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    /// `null` when it was not JSON.
    pub body: Value,
}

/// A running server. It ends when this is dropped.
pub struct Server {
    address: SocketAddr,
    log: Arc<Log>,
    task: AbortHandle,
}

struct Log {
    received: Mutex<Kept>,
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct Kept {
    /// With the bytes of each body.
    requests: VecDeque<(usize, Received)>,
    bytes: usize,
}

/// Serves `script` on the listener, in the background.
pub fn serve(listener: TcpListener, script: Script) -> std::io::Result<Server> {
    let address = listener.local_addr()?;
    let log = Arc::new(Log { received: Mutex::default(), count: watch::Sender::new(0) });
    let task = tokio::spawn(accept(listener, Arc::new(script), log.clone())).abort_handle();
    Ok(Server { address, log, task })
}

impl Server {
    /// The base URL for a client.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests have come.
    pub fn count(&self) -> usize {
        *self.log.count.borrow()
    }

    /// The latest requests, oldest first: at most 1,000, and at most 64 MiB of bodies.
    pub fn received(&self) -> Vec<Received> {
        self.log.received.lock().requests.iter().map(|(_, received)| received.clone()).collect()
    }

    /// Resolves when at least `count` requests have come.
    pub async fn wait_for(&self, count: usize) {
        let mut counts = self.log.count.subscribe();
        counts.wait_for(|got| *got >= count).await.expect("the log lives as long as the server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, script: Arc<Script>, log: Arc<Log>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let socket = match accepted {
                    Ok((socket, _)) => socket,
                    Err(error) => {
                        warn!(%error, "scripted model cannot accept connections any more");
                        return;
                    }
                };
                let (script, log) = (script.clone(), log.clone());
                let service = service_fn(move |request| answer(request, script.clone(), log.clone()));
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
            // A connection that the script cuts ends in an error, as does one that the client drops.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, script: Arc<Script>, log: Arc<Log>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let bytes = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(error(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", "the body is too large")),
    };
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let received = Received { path: head.uri.path().to_owned(), headers: head.headers.clone(), body: body.clone() };
    log.add(bytes.len(), received);

    if head.method != Method::POST || head.uri.path() != "/v1/messages" {
        return Ok(error(StatusCode::NOT_FOUND, "not_found_error", "there is only POST /v1/messages"));
    }
    let Value::Object(mut body) = body else {
        return Ok(error(StatusCode::BAD_REQUEST, "invalid_request_error", "the body is not a JSON object"));
    };
    if body.remove("stream") != Some(Value::Bool(true)) {
        return Ok(error(StatusCode::BAD_REQUEST, "invalid_request_error", "the scripted model only streams"));
    }
    let tries = head.headers.get(TRIES).and_then(|tries| tries.to_str().ok()?.parse().ok()).unwrap_or(0);
    let play = play::play(&script, &Value::Object(body), "", tries);
    if !play.delay.is_zero() {
        tokio::time::sleep(play.delay).await;
    }
    match play.reply {
        Reply::Closed => Err(Cut),
        Reply::Refused { status, headers, body } => Ok(refused(status, headers, body)),
        Reply::Stream(steps) => {
            let mut response = Response::new(stream_body(steps));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response.headers_mut().insert("request-id", HeaderValue::from_static("req_scripted"));
            Ok(response)
        }
    }
}

impl Log {
    fn add(&self, bytes: usize, received: Received) {
        let mut kept = self.received.lock();
        kept.requests.push_back((bytes, received));
        kept.bytes += bytes;
        while kept.requests.len() > RECEIVED_MAX || kept.bytes > RECEIVED_BYTES_MAX {
            let Some((bytes, _)) = kept.requests.pop_front() else { break };
            kept.bytes -= bytes;
        }
        drop(kept);
        self.count.send_modify(|count| *count += 1);
    }
}

fn stream_body(steps: Vec<Step>) -> Body {
    let frames = stream::iter(steps).then(|step| async {
        match step {
            Step::Wait(time) => {
                tokio::time::sleep(time).await;
                Ok(Bytes::new())
            }
            Step::Event { name, data } => Ok(Bytes::from(format!("event: {name}\ndata: {data}\n\n"))),
            Step::Cut => {
                // Coming back later lets the server flush the events before the cut.
                tokio::task::yield_now().await;
                Err(Cut)
            }
            Step::Stall => std::future::pending().await,
        }
    });
    // An empty frame would not be sent, but need not be made either.
    let frames = frames.filter(|frame| std::future::ready(frame.as_ref().map_or(true, |bytes| !bytes.is_empty())));
    StreamBody::new(frames.map(|frame| frame.map(Frame::data))).boxed_unsync()
}

fn refused(status: StatusCode, headers: HeaderMap, body: Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("request-id", HeaderValue::from_static("req_scripted"));
    response
}

fn error(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    refused(status, HeaderMap::new(), play::error(kind, message))
}
