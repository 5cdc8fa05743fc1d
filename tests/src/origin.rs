//! A server on the other side of egress that holds the first request of each kind where it stands: before it is read, in the middle of
//! an answer, in the middle of an upload, in front of a refresh of a token, in a call of a tool. It counts what took effect.

use crate::hold::Hold;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::net::TcpListener;

pub const BEARER: &str = "CANARY-origin-bearer";
pub const REFRESH: &str = "CANARY-origin-refresh";
/// What the token endpoint gives.
const MINTED: &str = "CANARY-origin-minted";
/// In one piece of an answer or of an upload, and in all of it.
pub const PIECE_BYTES: usize = 64 << 10;
pub const WHOLE_BYTES: usize = 16 * PIECE_BYTES;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One for each kind of request.
#[derive(Default)]
pub struct Holds {
    pub connect: Hold,
    pub answer: Hold,
    pub upload: Hold,
    pub refresh: Hold,
    pub call: Hold,
}

/// What took effect, each a time.
#[derive(Default)]
pub struct Counts {
    pub uploads: AtomicUsize,
    pub refreshes: AtomicUsize,
    pub calls: AtomicUsize,
}

pub struct Origin {
    pub addr: SocketAddr,
    /// A listener of its own, as such a request is not looked at.
    pub connect_addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    holds: Holds,
    counts: Counts,
}

impl Origin {
    pub async fn start() -> anyhow::Result<Self> {
        let (listener, connecting) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (addr, connect_addr) = (listener.local_addr()?, connecting.local_addr()?);
        let shared = Arc::new(Shared::default());
        serve(listener, Arc::clone(&shared), false);
        serve(connecting, Arc::clone(&shared), true);
        Ok(Origin { addr, connect_addr, shared })
    }

    pub fn holds(&self) -> &Holds {
        &self.shared.holds
    }

    /// Uploads that came whole, refreshes that were asked for, and calls that were begun.
    pub fn counts(&self) -> [usize; 3] {
        let Counts { uploads, refreshes, calls } = &self.shared.counts;
        [uploads, refreshes, calls].map(|count| count.load(Ordering::SeqCst))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>, is_held: bool) {
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                if is_held {
                    shared.holds.connect.pass().await;
                }
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(shared.answer(request).await) }
                });
                // A connection that is cut is one of the ways to end.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        match (&parts.method, parts.uri.path()) {
            (&Method::GET, "/body") => self.pieces(),
            (&Method::PUT, "/upload") => self.upload(body).await,
            (&Method::POST, "/docs/mcp") => self.mcp(&parts.headers, BEARER, body).await,
            (&Method::POST, "/oauth/mcp") => self.mcp(&parts.headers, MINTED, body).await,
            (&Method::POST, "/oauth/token") => self.token(body).await,
            // Streams of an MCP server, which has nothing to say by itself.
            (_, "/docs/mcp" | "/oauth/mcp") => empty(StatusCode::METHOD_NOT_ALLOWED),
            _ => empty(StatusCode::OK),
        }
    }

    /// A whole body, which is held after its first piece.
    fn pieces(self: Arc<Self>) -> Response<Body> {
        let pieces = stream::iter(0..WHOLE_BYTES / PIECE_BYTES).then(move |at| {
            let shared = Arc::clone(&self);
            async move {
                if at == 1 {
                    shared.holds.answer.pass().await;
                }
                Ok(Frame::data(Bytes::from(vec![b'x'; PIECE_BYTES])))
            }
        });
        let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_LENGTH, WHOLE_BYTES.into());
        response
    }

    async fn upload(&self, mut body: Incoming) -> Response<Body> {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes >= PIECE_BYTES {
                self.holds.upload.pass().await;
            }
        }
        if bytes != WHOLE_BYTES {
            return empty(StatusCode::BAD_REQUEST);
        }
        self.counts.uploads.fetch_add(1, Ordering::SeqCst);
        empty(StatusCode::OK)
    }

    /// With one tool, `ping`.
    async fn mcp(&self, headers: &HeaderMap, token: &str, body: Incoming) -> Response<Body> {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if shown != Some(&format!("Bearer {token}")) {
            let mut response = empty(StatusCode::UNAUTHORIZED);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            return response;
        }
        let Ok(body) = body.collect().await else { return empty(StatusCode::BAD_REQUEST) };
        let Ok(message) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let result = match message["method"].as_str() {
            Some("initialize") => json!({"protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "origin", "version": "1"}}),
            Some("tools/list") => {
                json!({"tools": [{"name": "ping", "description": "Answer", "inputSchema": {"type": "object"}}]})
            }
            Some("tools/call") => {
                self.counts.calls.fetch_add(1, Ordering::SeqCst);
                self.holds.call.pass().await;
                json!({"content": [{"type": "text", "text": "pong"}]})
            }
            _ => return empty(StatusCode::ACCEPTED),
        };
        json_of(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    }

    async fn token(&self, body: Incoming) -> Response<Body> {
        let Ok(body) = body.collect().await else { return empty(StatusCode::BAD_REQUEST) };
        if !String::from_utf8_lossy(&body.to_bytes()).contains(&format!("refresh_token={REFRESH}")) {
            return empty(StatusCode::BAD_REQUEST);
        }
        self.counts.refreshes.fetch_add(1, Ordering::SeqCst);
        self.holds.refresh.pass().await;
        json_of(&json!({"access_token": MINTED, "token_type": "Bearer", "expires_in": 3600}))
    }
}

fn json_of(value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed_unsync());
    *response.status_mut() = status;
    response
}
