//! Pages of the web, fetched for the service and never for a sandbox: from hosts that the session's agent may read, at public
//! addresses, without any credential. Every redirect is judged as the first request was.

use super::{Body, Proxy, Refusal, Session, full, upstream};
use crate::idle;
use domain::egress::{WEB_REFUSED, WEB_URL};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::time::Duration;
use url::Url;

/// Of one page, as it comes.
const PAGE_BYTES_MAX: u64 = 10 * 1024 * 1024;
const SILENCE_MAX: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 5;
/// Ports of the web; others are reached where the operator lists them.
const WEB_PORTS: [u16; 2] = [80, 443];

pub async fn fetch(proxy: &Proxy, session: &Session, asked: &str) -> Result<Response<Body>, Refusal> {
    let mut url = Url::parse(asked).map_err(|_| Refusal::bad("that is no URL"))?;
    for _ in 0..=REDIRECTS_MAX {
        let answer = attempt(proxy, session, &url).await?;
        let to = answer.headers().get(LOCATION).filter(|_| answer.status().is_redirection());
        let Some(to) = to else { return passed_back(&url, answer) };
        let to = to.to_str().ok().and_then(|to| url.join(to).ok());
        url = to.ok_or_else(|| Refusal::gateway("the page leads to what is no URL"))?;
    }
    Err(Refusal::gateway("the page leads on and on"))
}

async fn attempt(proxy: &Proxy, session: &Session, url: &Url) -> Result<Response<Incoming>, Refusal> {
    let tls = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(Refusal::bad("pages are fetched by http and https")),
    };
    let host = url.host_str().filter(|_| url.username().is_empty() && url.password().is_none());
    let host = host.ok_or_else(|| Refusal::bad("a page's URL is https://HOST/PATH, without a user"))?;
    let domains = session.policy.web.as_ref().ok_or_else(|| Refusal::denied("the session's agent fetches no pages"))?;
    if !domains.allow(host.trim_end_matches('.')) {
        return Err(Refusal::denied(format!("{host} is not among the domains that the agent may fetch from")));
    }
    let port = url.port_or_known_default().unwrap_or_default();
    let to = proxy.guard.check_bound(session, host, port).await?;
    if !WEB_PORTS.contains(&port) && !to.listed {
        return Err(Refusal::denied("pages are fetched from ports 80 and 443"));
    }
    session.opening(&proxy.audit, &to.host, to.port)?;
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let request = Request::get(path)
        .header(HOST, authority)
        .header(USER_AGENT, "steadyhand")
        .header(ACCEPT, "text/html, text/*;q=0.9, application/json;q=0.8, */*;q=0.1")
        .header(ACCEPT_ENCODING, "identity")
        .body(full(""))
        .map_err(|_| Refusal::bad("that URL cannot be asked for"))?;
    upstream::send(proxy, session, &to, tls, request).await
}

/// The page, what it is, and where it was; nothing else of the answer.
fn passed_back(url: &Url, answer: Response<Incoming>) -> Result<Response<Body>, Refusal> {
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(idle::bounded(body, SILENCE_MAX, PAGE_BYTES_MAX));
    *response.status_mut() = parts.status;
    if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
    }
    let url = HeaderValue::from_str(url.as_str()).map_err(|_| Refusal::gateway("the page is at no URL"))?;
    response.headers_mut().insert(WEB_URL, url);
    Ok(response)
}

/// An answer of egress itself, in the words that the tool has for it.
pub fn own(refusal: Refusal) -> Response<Body> {
    let code = match refusal.status {
        StatusCode::FORBIDDEN => "url_not_allowed",
        StatusCode::BAD_REQUEST => "invalid_tool_input",
        StatusCode::BAD_GATEWAY => "url_not_accessible",
        _ => "unavailable",
    };
    let mut response = Response::new(full(refusal.words));
    *response.status_mut() = refusal.status;
    response.headers_mut().insert(WEB_REFUSED, HeaderValue::from_static(code));
    response
}
