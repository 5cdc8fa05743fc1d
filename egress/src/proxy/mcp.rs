//! Calls of MCP servers: from the service, never from a sandbox. The credential goes in here, to exactly the URL that the
//! session's agent names, and comes back in nothing that the server says.

use super::{Body, Proxy, Refusal, Session, redact, refresh, upstream};
use crate::idle;
use bytes::Bytes;
use domain::egress::McpServer;
use domain::limits::MCP_CALL_TIMEOUT_MS;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// One message to a server.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a server may say in answer to one request, and on one stream.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A server answers within the time that a call may take, and the one who called is the first to lose patience.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(MCP_CALL_TIMEOUT_MS + 30_000);
/// A server that says nothing for so long has nothing to say any more.
const SILENCE_MAX: Duration = ANSWER_WITHIN;
/// What of a request goes on, and what of an answer comes back.
const PASSED: [HeaderName; 5] = [
    ACCEPT,
    CONTENT_TYPE,
    HeaderName::from_static("mcp-session-id"),
    HeaderName::from_static("mcp-protocol-version"),
    HeaderName::from_static("last-event-id"),
];
const PASSED_BACK: [HeaderName; 2] = [CONTENT_TYPE, HeaderName::from_static("mcp-session-id")];

/// `name` is the server's in the session's agent.
pub async fn send(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let server = session.policy.mcp_servers.iter().find(|server| server.name == name);
    let server = server.ok_or_else(|| Refusal::new(StatusCode::GONE, "the session's agent has no such MCP server"))?;
    if !matches!(*request.method(), Method::POST | Method::GET | Method::DELETE) {
        return Err(Refusal::bad("an MCP server is not asked like this"));
    }
    let (parts, body) = request.into_parts();
    // Whole, so that it can be sent again with another token.
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the message is too long"))?.to_bytes();
    let first = attempt(proxy, session, server, &parts.method, &parts.headers, body.clone()).await?;
    if first.answer.status() != StatusCode::UNAUTHORIZED || server.refresh.is_none() {
        return passed_back(session, first);
    }
    // Nothing was done: the server did not know who asks.
    refresh::refresh(proxy, session, server, first.token.as_deref().map(String::as_str)).await?;
    passed_back(session, attempt(proxy, session, server, &parts.method, &parts.headers, body).await?)
}

/// What came of asking once, and with which token.
struct Attempt {
    answer: Response<Incoming>,
    token: Option<Zeroizing<String>>,
}

async fn attempt(
    proxy: &Proxy,
    session: &Session,
    server: &McpServer,
    method: &Method,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Attempt, Refusal> {
    let place = Place::of(&server.url)?;
    let to = proxy.guard.check(session, &place.host, place.port).await?;
    if !place.tls && !to.listed {
        return Err(Refusal::denied("MCP servers are reached by https"));
    }
    session.opening(&proxy.audit, &to.host, to.port)?;
    let mut request = Request::builder().method(method).uri(&place.path).header(HOST, &place.authority);
    for name in PASSED {
        for value in headers.get_all(&name) {
            request = request.header(&name, value);
        }
    }
    let token = server.credential.as_ref().map(|id| proxy.secret(id)).transpose()?;
    if let Some(token) = &token {
        let mut value = HeaderValue::from_str(&Zeroizing::new(format!("Bearer {}", **token)))
            .map_err(|_| Refusal::denied("its credential cannot be sent"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let request = request.body(body).map_err(|_| Refusal::bad("the request cannot be passed on"))?;
    let until = upstream::Until { over: session.over.clone(), answer_within: ANSWER_WITHIN };
    let answer = upstream::send(proxy, until, &to, place.tls, request).await?;
    if let Some(id) = &server.credential {
        proxy.used(session, id, &to.host, "mcp", answer.status());
    }
    Ok(Attempt { answer, token })
}

fn passed_back(session: &Session, attempt: Attempt) -> Result<Response<Body>, Refusal> {
    let (parts, body) = attempt.answer.into_parts();
    if parts.status.is_redirection() {
        return Err(Refusal::gateway("the MCP server has moved; redirects are not followed"));
    }
    if matches!(parts.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(challenge(parts.status));
    }
    let secrets: redact::Secrets = attempt.token.into_iter().collect();
    let body = redact::body(body, secrets.clone());
    let mut response = Response::new(idle::bounded(body, SILENCE_MAX, ANSWER_BYTES_MAX));
    *response.status_mut() = parts.status;
    for name in PASSED_BACK {
        if let Some(value) = parts.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    redact::headers(response.headers_mut(), &secrets);
    tracing::debug!(session_id = session.id, status = parts.status.as_u16(), "MCP server answered");
    Ok(response)
}

/// The server, or whoever gives out tokens for it, does not let the session in. How it would have others come in is none of
/// the caller's business; that there is a challenge tells it from a refusal of egress.
fn challenge(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(super::full(""));
    *response.status_mut() = status;
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// An answer of egress itself.
pub fn own(refusal: Refusal) -> Response<Body> {
    if refusal.status == StatusCode::UNAUTHORIZED {
        return challenge(refusal.status);
    }
    let mut response = Response::new(super::full(refusal.words));
    *response.status_mut() = refusal.status;
    response
}

/// Where a URL leads.
pub struct Place {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub authority: String,
    /// With the query.
    pub path: Uri,
}

impl Place {
    pub fn of(url: &str) -> Result<Self, Refusal> {
        let wrong = || Refusal::bad("the server's URL is https://HOST/PATH");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            tls,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: path.parse().map_err(|_| wrong())?,
        })
    }
}
