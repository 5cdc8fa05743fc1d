//! The HTTP API as the commands use it. Every failure comes back with a hint and an exit code: no answer is
//! `Unreachable`, the API's error envelope is `Refused`.

use crate::{
    error::{Code, Hinted, failed},
    remote, service,
};
use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use reqwest::{Body, RequestBuilder, Response, Url};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for a whole answer; uploads, downloads and streams have none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts to send what may be sent twice, and the first pause between them.
const ATTEMPTS: u32 = 4;
const PAUSE_FIRST: Duration = Duration::from_millis(100);

const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");
const BETA: (&str, &str) = ("anthropic-beta", "managed-agents-2026-04-01");
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const LAST_EVENT_ID: &str = "last-event-id";

#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: HeaderValue,
}

/// Query parameters, in order.
pub type Query = Vec<(&'static str, String)>;

impl Client {
    /// With `socket` everything goes over that, whatever the URL says.
    pub fn new(base: Url, key: String, socket: Option<PathBuf>) -> anyhow::Result<Self> {
        remote::install_tls();
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
        if service::is_here(&base) {
            builder = builder.no_proxy();
        }
        if let Some(socket) = socket {
            builder = builder.unix_socket(socket);
        }
        let mut key = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| failed(Code::Usage, "the API key is not one line of visible characters", "copy it again"))?;
        key.set_sensitive(true);
        Ok(Client { http: builder.build().context("set up HTTP")?, base, key })
    }

    pub fn base(&self) -> &Url {
        &self.base
    }

    /// Whether the service says that it is up.
    pub async fn is_up(&self) -> bool {
        let request = self.http.get(self.url(&["healthz"], &Query::new())).timeout(CONNECT_TIMEOUT);
        request.send().await.is_ok_and(|response| response.status().is_success())
    }

    pub async fn get(&self, path: &[&str], query: &Query) -> anyhow::Result<Value> {
        self.value(self.request(Method::GET, path, query).timeout(ANSWER_TIMEOUT)).await
    }

    pub async fn post(&self, path: &[&str], body: &Value) -> anyhow::Result<Value> {
        self.value(self.request(Method::POST, path, &Query::new()).timeout(ANSWER_TIMEOUT).json(body)).await
    }

    /// A POST whose body is not JSON.
    pub async fn post_bytes(&self, path: &[&str], kind: &'static str, bytes: Vec<u8>) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path, &Query::new()).timeout(ANSWER_TIMEOUT);
        self.value(request.header(header::CONTENT_TYPE, kind).body(bytes)).await
    }

    pub async fn delete(&self, path: &[&str]) -> anyhow::Result<Value> {
        self.value(self.request(Method::DELETE, path, &Query::new()).timeout(ANSWER_TIMEOUT)).await
    }

    /// The items of a list, page after page, until `limit` of them.
    pub async fn list(&self, path: &[&str], query: &Query, limit: usize) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut query = query.clone();
        loop {
            let mut page = self.get(path, &query).await?;
            if let Value::Array(data) = page["data"].take() {
                items.extend(data);
            }
            let next = page["next_page"].as_str().filter(|next| !next.is_empty());
            let Some(next) = next.filter(|_| items.len() < limit) else { break };
            query.retain(|(name, _)| *name != "page");
            query.push(("page", next.to_owned()));
        }
        items.truncate(limit);
        Ok(items)
    }

    /// Sends events to a session. A connection that breaks is tried again: the key lets the service tell that it has
    /// the events already.
    pub async fn send_events(&self, session_id: &str, events: &[Value]) -> anyhow::Result<Value> {
        let key = hex::encode(rand::random::<[u8; 16]>());
        let mut pause = PAUSE_FIRST;
        for attempt in 1.. {
            let request = self.request(Method::POST, &["v1", "sessions", session_id, "events"], &Query::new());
            let request = request.header(IDEMPOTENCY_KEY, &key).json(&json!({"events": events}));
            match self.value(request.timeout(ANSWER_TIMEOUT)).await {
                Err(error) if attempt < ATTEMPTS && is_unreachable(&error) => tokio::time::sleep(pause).await,
                answer => return answer,
            }
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    /// Opens the stream of a session, behind the event at position `last` if one is named.
    pub async fn stream(&self, session_id: &str, last: Option<u64>, previews: bool) -> anyhow::Result<Response> {
        let mut query = Query::new();
        if previews {
            query.push(("event_deltas[]", "agent.message".to_owned()));
        }
        let mut request = self.request(Method::GET, &["v1", "sessions", session_id, "events", "stream"], &query);
        if let Some(last) = last {
            request = request.header(LAST_EVENT_ID, last);
        }
        // The headers come at once; what follows comes when it happens.
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.send(request)).await;
        answer.map_err(|_| self.unreachable(format!("{} did not open the stream in time", self.base)))?
    }

    /// The bytes behind a path, as they come.
    pub async fn open(&self, path: &[&str], query: &Query) -> anyhow::Result<Response> {
        self.send(self.request(Method::GET, path, query)).await
    }

    /// The next bytes of an answer.
    pub async fn chunk(&self, response: &mut Response) -> anyhow::Result<Option<Bytes>> {
        response.chunk().await.map_err(|error| self.broken(error))
    }

    /// Uploads a file; the bytes go out as they are read.
    pub async fn upload(&self, name: &str, file: tokio::fs::File) -> anyhow::Result<Value> {
        let size = file.metadata().await.context("read the size of the file")?.len();
        let boundary = hex::encode(rand::random::<[u8; 16]>());
        let head = format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{}\"\r\n\
             content-type: application/octet-stream\r\n\r\n",
            quoted(name)
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let length = (head.len() + tail.len()) as u64 + size;
        let body = Body::wrap_stream(multipart(head, file, tail));
        let request = self
            .request(Method::POST, &["v1", "files"], &Query::new())
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .header(header::CONTENT_LENGTH, length)
            .body(body);
        self.value(request).await
    }

    fn url(&self, path: &[&str], query: &Query) -> Url {
        let mut url = self.base.clone();
        // A URL of a service always has a path: `Service` refuses others.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn request(&self, method: Method, path: &[&str], query: &Query) -> RequestBuilder {
        let request = self.http.request(method, self.url(path, query));
        request.header(header::AUTHORIZATION, self.key.clone()).header(VERSION.0, VERSION.1).header(BETA.0, BETA.1)
    }

    async fn value(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let response = self.send(request).await?;
        response.json().await.map_err(|error| self.broken(error))
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        let response = request.send().await.map_err(|error| self.broken(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Err(refused(status, &body))
    }

    fn broken(&self, error: reqwest::Error) -> anyhow::Error {
        let at = self.base.as_str().trim_end_matches('/');
        let message = if error.is_connect() {
            format!("no service answers at {at}")
        } else if error.is_timeout() {
            format!("{at} did not answer in time")
        } else if error.is_decode() {
            format!("{at} did not answer as a Steadyhand service does")
        } else {
            format!("the connection to {at} broke")
        };
        // The URL is in the message already.
        let source = Some(error.without_url().into());
        Hinted { message, hint: Some(START.to_owned()), code: Code::Unreachable, source }.into()
    }

    fn unreachable(&self, message: String) -> anyhow::Error {
        failed(Code::Unreachable, message, START)
    }
}

const START: &str = "start the service with `steadyhand serve`, or name another with --url or --data";

/// Whether nothing is known of what became of a request.
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Hinted>().is_some_and(|hinted| hinted.code == Code::Unreachable)
}

/// Whether the service has no such thing, or has it no more.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == 404))
}

/// What the service answered instead of doing what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Refusal {
    status: u16,
    message: String,
}

/// An error envelope as a failure of the command.
fn refused(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let envelope: Value = serde_json::from_slice(body).unwrap_or_default();
    let message = match envelope["error"]["message"].as_str() {
        Some(message) => message.to_owned(),
        None => format!("the service answered {status}"),
    };
    let (code, hint) = match status.as_u16() {
        401 => (Code::Refused, "check STEADYHAND_API_KEY, or whether --data is the folder of that service"),
        403 => (Code::Refused, "the key may not do this"),
        404 => (Code::Refused, "the id may be mistyped: the `list` commands show what there is"),
        409 => (Code::Refused, "somebody else changed it: look at it again, then repeat"),
        429 => (Code::Refused, "wait until the session has taken up what was sent"),
        501 => (Code::Refused, "this version of the service cannot do that yet"),
        502..=504 => (Code::Unreachable, "try again; `steadyhand doctor` says what is wrong"),
        500.. => (Code::Failed, "the service's log says more"),
        _ => (Code::Refused, "see --help for what the command takes"),
    };
    let hint = match envelope["request_id"].as_str() {
        Some(id) => format!("{hint} ({id})"),
        None => hint.to_owned(),
    };
    let source = Refusal { status: status.as_u16(), message: message.clone() };
    Hinted { message, hint: Some(hint), code, source: Some(source.into()) }.into()
}

/// A file name inside a quoted string, as browsers write it.
fn quoted(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '"' => "%22".to_owned(),
            '\r' | '\n' => "_".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

fn multipart(
    head: String,
    file: tokio::fs::File,
    tail: String,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    enum Part {
        Head(String),
        File,
        End,
    }
    const CHUNK_BYTES: usize = 64 << 10;
    futures::stream::unfold((Part::Head(head), file, tail), async |(part, mut file, tail)| {
        use tokio::io::AsyncReadExt as _;
        match part {
            Part::Head(head) => Some((Ok(Bytes::from(head)), (Part::File, file, tail))),
            Part::File => {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                match file.read_buf(&mut chunk).await {
                    Ok(0) => Some((Ok(Bytes::from(tail.clone())), (Part::End, file, tail))),
                    Ok(_) => Some((Ok(Bytes::from(chunk)), (Part::File, file, tail))),
                    Err(error) => Some((Err(error), (Part::End, file, tail))),
                }
            }
            Part::End => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failed;

    #[test]
    fn ids_cannot_leave_their_segment() {
        let client = Client::new(Url::parse("http://127.0.0.1:1/base/").unwrap(), "k".into(), None).unwrap();
        let url = client.url(&["v1", "sessions", "../a b?c"], &vec![("types[]", "x&y".to_owned())]);
        assert_eq!(url.as_str(), "http://127.0.0.1:1/base/v1/sessions/..%2Fa%20b%3Fc?types%5B%5D=x%26y");
    }

    #[test]
    fn statuses_become_exit_codes() {
        for (status, code) in [
            (400, Code::Refused),
            (401, Code::Refused),
            (404, Code::Refused),
            (409, Code::Refused),
            (413, Code::Refused),
            (429, Code::Refused),
            (500, Code::Failed),
            (501, Code::Refused),
            (503, Code::Unreachable),
        ] {
            let body = br#"{"type":"error","error":{"type":"t","message":"why"},"request_id":"req_1"}"#;
            let failed = Failed::from(refused(StatusCode::from_u16(status).unwrap(), body));
            assert_eq!((failed.code, &failed.chain[..]), (code, &["why".to_owned()][..]), "{status}");
            assert!(failed.hint.unwrap().ends_with("(req_1)"));
        }
    }

    #[test]
    fn a_body_that_is_no_envelope_is_still_an_error() {
        let failed = Failed::from(refused(StatusCode::BAD_GATEWAY, b"<html>"));
        assert_eq!(failed.chain, ["the service answered 502 Bad Gateway"]);
    }
}
