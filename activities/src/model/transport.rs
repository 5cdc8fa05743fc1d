//! One POST and the event stream that answers it: connecting, timeouts, the one reconnect, and what each way of
//! breaking is called. What the events mean is the [`Assemble`] of the backend.
//!
//! Never follows a redirect (the key would travel with it) and never reads more than it must.

use std::{net::IpAddr, sync::Once, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Response, Url, redirect};
use tokio::time::{Duration, Instant, timeout_at};
use tracing::debug;

use super::{Answer, ApiKey, Delta, Error, Failure, FailureClass, OnDelta, Timeouts, failure, sse};

/// One event of a stream. Some servers send the arguments of a call in one piece, however long they are.
const EVENT_BYTES_MAX: usize = 72 << 20;
/// What is kept of one answer: far above any model's output.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// One whole answer, as sent: many times what is kept of it, as each few characters come in an event of their own. A
/// server that streams for ever is stopped here.
const STREAM_BYTES_MAX: usize = 1 << 30;
/// As much of an error's body as is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// How long a stream that has all but its usage may still take, and the body of a refusal.
const TAIL_WAIT: Duration = Duration::from_secs(5);
/// How long a finished stream may take to close, so that its connection can be used again.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Turns the events of one stream into previews and an answer. Pure: no clock, no IO.
pub(super) trait Assemble: Send {
    fn event(&mut self, event: sse::Event, on_delta: &mut OnDelta<'_>) -> Result<Flow, Failure>;

    /// Whether what has come is a whole answer, though the stream has not said that it is over.
    fn is_whole(&self) -> bool;

    /// How much of what has come is kept, in bytes.
    fn held_bytes(&self) -> usize;

    /// Called once, after [`Flow::Done`] or at the end of the stream, which may have come too early.
    fn finish(self, on_delta: &mut OnDelta<'_>) -> Result<Answer, Failure>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    More,
    Done,
}

pub(super) struct Transport {
    client: Client,
    url: Url,
    key: Option<ApiKey>,
    timeouts: Timeouts,
}

/// An accepted request whose answer has begun.
struct Opened {
    response: Response,
    first: Bytes,
    request_id: Option<String>,
}

impl Transport {
    pub(super) fn new(url: Url, key: Option<ApiKey>, timeouts: Timeouts) -> Result<Transport, Error> {
        install_tls();
        let mut builder = Client::builder()
            .connect_timeout(timeouts.connect)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("steadyhand/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        Ok(Transport { client: builder.build().map_err(Error::Client)?, url, key, timeouts })
    }

    /// Sends `body` and reads the answer with `assemble`.
    pub(super) async fn ask(
        &self,
        headers: HeaderMap,
        body: Vec<u8>,
        assemble: impl Assemble,
        on_delta: &mut OnDelta<'_>,
    ) -> Result<Answer, Failure> {
        let started = Instant::now();
        let deadline = started + self.timeouts.overall;
        let body = Bytes::from(body);
        let mut opened = self.open(&headers, &body, deadline).await;
        if opened.as_ref().is_err_and(|failure| failure.class == FailureClass::Connection) {
            debug!("reconnecting to the model server once");
            opened = self.open(&headers, &body, deadline).await;
        }
        let mut published = false;
        let mut request_id = None;
        let result = match opened {
            Ok(opened) => {
                request_id = opened.request_id.clone();
                let mut on_delta = |delta: Delta| {
                    published = true;
                    on_delta(delta);
                };
                self.read(opened, assemble, deadline, &mut on_delta).await.map_err(|failure| Failure {
                    status: Some(StatusCode::OK.as_u16()),
                    request_id: request_id.clone(),
                    ..failure
                })
            }
            Err(failure) => Err(failure),
        };
        let elapsed_ms = started.elapsed().as_millis() as u64;
        match result {
            Ok(answer) => {
                debug!(elapsed_ms, request_id, blocks = answer.blocks.len(), "model answered");
                Ok(Answer { request_id, ..answer })
            }
            Err(failure) => {
                debug!(elapsed_ms, class = ?failure.class, status = failure.status, "model call failed");
                let message = match &self.key {
                    Some(key) => key.redact(&failure.message),
                    None => failure.message,
                };
                Err(Failure { message: failure::bounded(&message), partial: published, ..failure })
            }
        }
    }

    /// Sends the request and waits for the first byte of the answer.
    async fn open(&self, headers: &HeaderMap, body: &Bytes, deadline: Instant) -> Result<Opened, Failure> {
        let until = deadline.min(Instant::now() + self.timeouts.first_byte);
        let late = |_| Failure::new(FailureClass::Timeout, "the model server did not begin to answer in time");
        let request = self.client.post(self.url.clone()).headers(headers.clone()).body(body.clone());
        let response = timeout_at(until, request.send()).await.map_err(late)?.map_err(|error| self.unsent(error))?;
        if response.status() != StatusCode::OK {
            let wait = TAIL_WAIT.min(self.timeouts.idle);
            return Err(refused(response, until.min(Instant::now() + wait)).await);
        }
        if let Some(kind) = not_a_stream(response.headers()) {
            let message = format!("the server answered with {kind} instead of an event stream: is the URL right?");
            let status = Some(StatusCode::OK.as_u16());
            return Err(Failure { status, ..Failure::new(FailureClass::Request, message) });
        }
        let request_id = failure::request_id(response.headers());
        let mut response = response;
        match timeout_at(until, response.chunk()).await.map_err(late)? {
            Ok(first) => Ok(Opened { response, first: first.unwrap_or_default(), request_id }),
            Err(error) => Err(self.unsent(error)),
        }
    }

    /// Reads the stream to its end, or to where it breaks.
    async fn read<A: Assemble>(
        &self,
        opened: Opened,
        mut assemble: A,
        deadline: Instant,
        on_delta: &mut OnDelta<'_>,
    ) -> Result<Answer, Failure> {
        let Opened { mut response, first, .. } = opened;
        let mut parser = sse::Parser::new(EVENT_BYTES_MAX);
        let mut left = STREAM_BYTES_MAX;
        let mut chunk = first;
        loop {
            left = left.checked_sub(chunk.len()).ok_or_else(|| too_long(STREAM_BYTES_MAX))?;
            for event in parser.push(&chunk).map_err(|sse::Error::TooLarge { bytes_max }| too_long(bytes_max))? {
                if assemble.event(event, on_delta)? == Flow::Done {
                    close(response);
                    return assemble.finish(on_delta);
                }
                if assemble.held_bytes() > ANSWER_BYTES_MAX {
                    return Err(too_long(ANSWER_BYTES_MAX));
                }
            }
            let wait = if assemble.is_whole() { TAIL_WAIT.min(self.timeouts.idle) } else { self.timeouts.idle };
            match timeout_at(deadline.min(Instant::now() + wait), response.chunk()).await {
                Ok(Ok(Some(next))) => chunk = next,
                Ok(Ok(None)) => {
                    if let Some(event) = parser.finish() {
                        assemble.event(event, on_delta)?;
                    }
                    return assemble.finish(on_delta);
                }
                Ok(Err(_)) | Err(_) if assemble.is_whole() => return assemble.finish(on_delta),
                Ok(Err(error)) => {
                    return Err(broken(format!("the connection broke inside the answer: {}", chain(error))));
                }
                Err(_) if Instant::now() >= deadline => {
                    return Err(Failure::new(FailureClass::Timeout, "the answer did not end in time"));
                }
                Err(_) => return Err(broken(format!("the answer stalled for {} ms", wait.as_millis()))),
            }
        }
    }

    /// The failure of a request that got no answer.
    fn unsent(&self, error: reqwest::Error) -> Failure {
        let class = if error.is_timeout() { FailureClass::Timeout } else { FailureClass::Connection };
        let origin = self.url.origin().ascii_serialization();
        Failure::new(class, format!("no answer from the model server at {origin}: {}", chain(error)))
    }
}

/// `{base}/v1/{path}`, where `base` may already end in `/v1` or in the whole path.
pub(super) fn endpoint(base: &str, path: &str) -> Result<Url, Error> {
    let bad = |reason: String| Error::BadUrl { url: base.to_owned(), reason };
    let mut url = Url::parse(base).map_err(|error| bad(error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        // Not quoted: it holds a secret.
        let url = "with a user or password in it".to_owned();
        return Err(Error::BadUrl { url, reason: "a key belongs into the key setting".to_owned() });
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it is neither http nor https".to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it has a query or fragment".to_owned()));
    }
    let whole = url.path().trim_end_matches('/');
    let root = whole.strip_suffix(path).map_or(whole, |root| root.trim_end_matches('/'));
    let root = root.strip_suffix("/v1").unwrap_or(root).to_owned();
    url.set_path(&format!("{root}/v1/{path}"));
    Ok(url)
}

/// The headers that every backend sends.
pub(super) fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers
}

/// An answer that broke after it had begun.
pub(super) fn broken(message: impl Into<String>) -> Failure {
    Failure::new(FailureClass::Stream, message)
}

/// What cannot be kept would be no shorter if it were asked for again.
fn too_long(bytes_max: usize) -> Failure {
    let message =
        format!("the model's answer is too long to be kept: more than {bytes_max} bytes, or one piece of it is");
    Failure::new(FailureClass::Request, message)
}

/// The TLS library wants to know its cryptography once a process. Another part of it may have been first.
pub(super) fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            debug!("a TLS provider was installed before");
        }
    });
}

/// A proxy from the environment is for the world, not for a server on this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The content type, if it is one that no event stream has. Some servers label their streams oddly; pages and documents
/// are the sign of a wrong URL.
fn not_a_stream(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    ["text/html", "application/json"].into_iter().find(|kind| value.starts_with(kind))
}

/// Reads what a refusal says, as far as it comes in time.
async fn refused(mut response: Response, until: Instant) -> Failure {
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    while let Ok(Ok(Some(chunk))) = timeout_at(until, response.chunk()).await {
        body.extend_from_slice(&chunk);
        if body.len() >= ERROR_BYTES_MAX {
            body.truncate(ERROR_BYTES_MAX);
            break;
        }
    }
    failure::from_response(status, &headers, &body, SystemTime::now())
}

/// Reads the few bytes behind the last event beside the caller's next work: only a stream read to its end gives its
/// connection back.
fn close(mut response: Response) {
    tokio::spawn(async move {
        let end = Instant::now() + CLOSE_WAIT;
        let mut left = ERROR_BYTES_MAX;
        while let Ok(Ok(Some(chunk))) = timeout_at(end, response.chunk()).await {
            let Some(rest) = left.checked_sub(chunk.len()) else { break };
            left = rest;
        }
    });
}

/// An error with its causes, without the URL.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
