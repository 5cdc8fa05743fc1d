//! One connection out of a sandbox: HTTP by absolute URL, CONNECT, and the routes of the session's repositories.
//!
//! Every request is judged by itself: by the target that it names, whatever the connection carried before it. When the
//! session's policy is replaced, everything under the old one is cut.

mod forward;
mod git;
mod mcp;
mod noted;
mod redact;
mod refresh;
mod tunnel;
mod upstream;
mod web;

use crate::audit::{Audit, Entry};
use crate::resolve::{self, Denied, Guard};
use crate::vault::Vault;
use bytes::Bytes;
use domain::egress::{CredentialId, Policy, read_mcp_path, read_web_path};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use noted::{Noted, Unnoted};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

const HEADERS_WITHIN: Duration = Duration::from_secs(30);
const BUFFER_BYTES: usize = 64 * 1024;
/// A body of which nothing comes for so long, either way, gives its connection back.
const SILENCE_MAX: Duration = Duration::from_secs(300);

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub use git::route as git_route;
pub use refresh::Refreshes;

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What all sessions share.
pub struct Proxy {
    pub guard: Guard,
    pub vault: Arc<Vault>,
    pub audit: Arc<Audit>,
    pub tls: Arc<rustls::ClientConfig>,
    pub refreshes: Refreshes,
}

/// One session under one policy.
pub struct Session {
    pub id: String,
    pub policy: Policy,
    /// The policy is no longer in force.
    pub over: CancellationToken,
    /// A tunnel outlives the connection that asked for it, so it has a place of its own.
    tunnels: Arc<Semaphore>,
    noted: Noted,
    /// Names that are looked up for it at a time.
    pub lookups: Arc<Semaphore>,
}

/// Tunnels that a session may have at once. Each holds two descriptors of this process, which all sessions share.
pub const TUNNELS_MAX: usize = 48;

impl Session {
    pub fn new(id: &str, policy: Policy) -> Self {
        Self {
            id: id.to_owned(),
            policy,
            over: CancellationToken::new(),
            tunnels: Arc::new(Semaphore::new(TUNNELS_MAX)),
            noted: Noted::new(id),
            lookups: Arc::new(Semaphore::new(resolve::SESSION_LOOKUPS_MAX)),
        }
    }

    /// A connection is about to be made.
    fn opening(&self, audit: &Audit, host: &str, port: u16) -> Result<(), Refusal> {
        self.noted.opening(audit, host, port).map_err(|error| {
            if let Unnoted::Audit(_) = error {
                tracing::error!(error = &error as &dyn std::error::Error, "audit log not written");
            }
            Refusal::busy(error.to_string())
        })
    }

    /// The policy ends: connections are cut, and what was left out of the audit log is counted in it.
    pub fn end(&self, audit: &Audit) {
        self.over.cancel();
        self.noted.end(audit);
    }
}

/// An answer of the proxy itself. Its words are for whoever runs the command inside.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    words: String,
}

impl Refusal {
    fn new(status: StatusCode, words: impl Into<String>) -> Self {
        Self { status, words: words.into() }
    }

    fn bad(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, words)
    }

    fn denied(words: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, words)
    }

    fn busy(words: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, words)
    }

    fn gateway(words: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, words)
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let status = if denied.is_refusal() { StatusCode::FORBIDDEN } else { StatusCode::BAD_GATEWAY };
        Self::new(status, denied.to_string())
    }
}

/// Serve one connection until it ends or its policy does.
pub async fn serve(proxy: Arc<Proxy>, session: Arc<Session>, stream: UnixStream) {
    let over = session.over.clone();
    let service = service_fn(move |request| {
        let (proxy, session) = (Arc::clone(&proxy), Arc::clone(&session));
        async move { Ok::<_, Infallible>(answer(&proxy, &session, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        served = connection => {
            if let Err(error) = served {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection out of a sandbox ended");
            }
        }
        () = over.cancelled() => {}
    }
}

/// Serve a connection of the service. `find` knows the session that a call is for.
pub async fn serve_calls(
    proxy: Arc<Proxy>,
    find: impl Fn(&str) -> Option<Arc<Session>> + Clone + Send + 'static,
    stream: UnixStream,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (proxy, find) = (Arc::clone(&proxy), find.clone());
        async move {
            let path = request.uri().path().to_owned();
            let gone = || Refusal::new(StatusCode::GONE, "there is no such session");
            let answer = if let Some((id, server)) = read_mcp_path(&path) {
                match find(id) {
                    Some(session) => call(&proxy, &session, &server, request).await,
                    None => Err(gone()),
                }
                .unwrap_or_else(mcp::own)
            } else if let Some((id, url)) = read_web_path(&path) {
                match find(id) {
                    Some(session) => fetch(&proxy, &session, &url).await,
                    None => Err(gone()),
                }
                .unwrap_or_else(web::own)
            } else {
                mcp::own(Refusal::bad("only MCP servers and pages of sessions are called here"))
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection of the service ended");
    }
}

async fn call(
    proxy: &Proxy,
    session: &Session,
    server: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    framed_once(request.headers())?;
    let called = tokio::select! {
        called = mcp::send(proxy, session, server, request) => called,
        () = session.over.cancelled() => Err(Refusal::busy("the session's policy has changed")),
    };
    if let Err(refusal) = &called {
        note_refused(proxy, session, server, refusal);
    }
    called
}

async fn fetch(proxy: &Proxy, session: &Session, url: &str) -> Result<Response<Body>, Refusal> {
    let fetched = tokio::select! {
        fetched = web::fetch(proxy, session, url) => fetched,
        () = session.over.cancelled() => Err(Refusal::busy("the session's policy has changed")),
    };
    if let Err(refusal) = &fetched {
        // No more of a URL than its host is anybody's business here.
        let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        note_refused(proxy, session, &host.unwrap_or_default(), refusal);
    }
    fetched
}

fn note_refused(proxy: &Proxy, session: &Session, host: &str, refusal: &Refusal) {
    let (session_id, why) = (session.id.clone(), refusal.words.clone());
    let host = host.chars().take(256).collect();
    session.noted.note(&proxy.audit, Entry::Denied { session_id, host, port: 0, why });
}

async fn answer(proxy: &Arc<Proxy>, session: &Arc<Session>, request: Request<Incoming>) -> Response<Body> {
    let (host, port) = target(&request);
    let outcome = match route(&request) {
        Ok(Route::Tunnel) => tunnel::open(proxy, session, request).await,
        Ok(Route::Forward) => forward::send(proxy, session, request).await,
        Ok(Route::Git) => git::send(proxy, session, request).await,
        Err(refusal) => Err(refusal),
    };
    outcome.unwrap_or_else(|refusal| {
        if refusal.status.is_client_error() {
            let (session_id, why) = (session.id.clone(), refusal.words.clone());
            session.noted.note(&proxy.audit, Entry::Denied { session_id, host, port, why });
        }
        let text = format!("steadyhand egress: {}\n", refusal.words);
        let mut response = Response::new(full(text));
        *response.status_mut() = refusal.status;
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
        response
    })
}

enum Route {
    Tunnel,
    Forward,
    Git,
}

fn route(request: &Request<Incoming>) -> Result<Route, Refusal> {
    framed_once(request.headers())?;
    if *request.method() == Method::CONNECT {
        return Ok(Route::Tunnel);
    }
    match request.uri().scheme_str() {
        Some("http") => Ok(Route::Forward),
        Some(_) => Err(Refusal::bad("only http:// is forwarded; for https use CONNECT")),
        None if request.uri().path().starts_with(git::PREFIX) => Ok(Route::Git),
        None => Err(Refusal::denied("this is a proxy and has no pages of its own")),
    }
}

/// Two ways to say how long a body is are two ways to read it.
fn framed_once(headers: &HeaderMap) -> Result<(), Refusal> {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let encodings = headers.get_all(TRANSFER_ENCODING).iter().count();
    if lengths + encodings > 1 { Err(Refusal::bad("the body's length is said twice")) } else { Ok(()) }
}

/// For the audit log: what was asked for, bounded.
fn target(request: &Request<Incoming>) -> (String, u16) {
    let default = if request.uri().path().starts_with(git::PREFIX) { "git" } else { "" };
    let host = request.uri().host().unwrap_or(default).chars().take(256).collect();
    (host, request.uri().port_u16().unwrap_or(80))
}

impl Proxy {
    /// A secret on its way to where it belongs.
    fn secret(&self, id: &CredentialId) -> Result<Zeroizing<String>, Refusal> {
        self.vault.open_secret(id).map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "credential not opened");
            Refusal::denied("its credential is not there any more")
        })
    }

    fn used(&self, session: &Session, id: &CredentialId, host: &str, purpose: &str, status: StatusCode) {
        self.audit.note(Entry::CredentialUsed {
            session_id: session.id.clone(),
            vault: id.vault.clone(),
            credential: id.credential.clone(),
            host: host.to_owned(),
            purpose: purpose.to_owned(),
            status: status.as_u16(),
        });
    }
}

/// Remove what is between two hops only, named by the connection or known to be.
fn end_to_end(headers: &mut HeaderMap) {
    const HOP: [&str; 9] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let named: Vec<String> = headers
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_owned())
        .collect();
    for name in HOP.into_iter().chain(named.iter().map(String::as_str)) {
        headers.remove(name);
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}
