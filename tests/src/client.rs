//! A small HTTP client for tests: sends, lists and waits. It follows a service that is killed and started again.

use crate::long;
use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

const PAGE: usize = 1000;

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: watch::Receiver<String>,
    key: String,
}

/// An event as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedEvent {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub processed_at: Option<String>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Those of one type.
pub fn of_kind<'a>(events: &'a [LoggedEvent], kind: &str) -> Vec<&'a LoggedEvent> {
    events.iter().filter(|event| event.kind == kind).collect()
}

impl LoggedEvent {
    /// The text of its content.
    pub fn text(&self) -> String {
        let blocks = self.rest.get("content").and_then(Value::as_array).into_iter().flatten();
        blocks.filter_map(|block| block["text"].as_str()).collect()
    }

    pub fn is_idle(&self) -> bool {
        self.kind == "session.status_idle"
    }
}

#[derive(Deserialize)]
struct Listed {
    data: Vec<LoggedEvent>,
    next_page: Option<String>,
}

#[derive(Deserialize)]
struct Made {
    id: String,
}

/// How a message is marked that may be sent more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As the official SDKs mark what they repeat.
    RetryCount,
    IdempotencyKey,
}

impl Client {
    /// `base` changes when the service is started again.
    pub fn new(base: watch::Receiver<String>, key: &str) -> Self {
        // An error says that somebody installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client { http: reqwest::Client::new(), base, key: key.to_owned() }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    /// A session of a new agent with all tools, in a new environment.
    pub async fn session(&self) -> anyhow::Result<String> {
        let agent = json!({"name": "tester", "model": "scripted", "tools": [{"type": "agent_toolset_20260401"}]});
        let agent = self.make("/v1/agents", &agent).await?;
        let environment = self.make("/v1/environments", &json!({"name": "here"})).await?;
        self.make("/v1/sessions", &json!({"agent": agent, "environment_id": environment})).await
    }

    /// Makes something that has an id.
    pub async fn make(&self, path: &str, body: &Value) -> anyhow::Result<String> {
        let answer = self.request(Method::POST, path).json(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status != StatusCode::OK {
            bail!("POST {path}: {status}: {text}");
        }
        Ok(serde_json::from_str::<Made>(&text)?.id)
    }

    /// The status and the body, which is JSON whatever the status.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(StatusCode, Value)> {
        let request = self.request(method, path);
        let answer = if let Some(body) = body { request.json(body) } else { request }.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        let value = serde_json::from_str(&text).with_context(|| format!("{path}: {status}: {text}"))?;
        Ok((status, value))
    }

    /// Gives the id of the file that these bytes become.
    pub async fn upload(&self, name: &str, bytes: &[u8]) -> anyhow::Result<String> {
        let head = format!("--x-x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
        let form = [head.as_bytes(), bytes, b"\r\n--x-x--\r\n"].concat();
        let upload =
            self.request(Method::POST, "/v1/files").header("content-type", "multipart/form-data; boundary=x-x");
        Ok(upload.body(form).send().await?.error_for_status()?.json::<Made>().await?.id)
    }

    /// The same where nothing but 200 will do.
    pub async fn ok(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (status, value) = self.call(method, path, body).await?;
        ensure!(status == StatusCode::OK, "{path}: {status}: {value}");
        Ok(value)
    }

    pub async fn delete(&self, session: &str) -> anyhow::Result<()> {
        let answer = self.request(Method::DELETE, &format!("/v1/sessions/{session}")).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status != StatusCode::OK {
            bail!("DELETE {session}: {status}: {text}");
        }
        Ok(())
    }

    /// A request of the service as it runs now, with the key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", *self.base.borrow());
        self.http.request(method, url).header("x-api-key", &self.key)
    }

    /// Sends a message until it is accepted, however often the service dies meanwhile. Gives the event's id.
    pub async fn send(&self, session: &str, text: &str, mark: Mark) -> anyhow::Result<String> {
        let sending = async {
            for attempt in 0.. {
                if let Some(id) = self.try_to_send(session, text, mark, attempt).await? {
                    return Ok(id);
                }
            }
            unreachable!("attempts do not end")
        };
        tokio::time::timeout(long::patience(), sending).await.with_context(|| format!("{text:?} is not accepted"))?
    }

    /// Sends a message once; `attempt` counts from 0. `None`: nobody knows whether it was accepted; the service is back.
    pub async fn try_to_send(
        &self,
        session: &str,
        text: &str,
        mark: Mark,
        attempt: u32,
    ) -> anyhow::Result<Option<String>> {
        let mut base = self.base.clone();
        let used = base.borrow_and_update().clone();
        let event = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        let mut request = self.request(Method::POST, &format!("/v1/sessions/{session}/events"));
        request = match mark {
            Mark::RetryCount => request.header("x-stainless-retry-count", attempt),
            Mark::IdempotencyKey => request.header("idempotency-key", text),
        };
        let answer = async {
            let answer = request.json(&json!({"events": [event]})).send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
        };
        match answer.await {
            Ok((StatusCode::OK, text)) => {
                let listed: Listed = serde_json::from_str(&text).context("read the answer")?;
                Ok(listed.data.into_iter().next().map(|event| event.id))
            }
            // Too many wait, or the service is not quite there: both pass.
            Ok((StatusCode::TOO_MANY_REQUESTS, _)) => {
                self.changed(session).await;
                Ok(None)
            }
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => Ok(None),
            Ok((status, text)) => bail!("the message was refused: {status}: {text}"),
            Err(_) => {
                base.wait_for(|base| *base != used).await.context("the service does not come back")?;
                Ok(None)
            }
        }
    }

    /// All events, committed first, in the order of the log.
    pub async fn events(&self, session: &str) -> anyhow::Result<Vec<LoggedEvent>> {
        let mut events = Vec::new();
        let mut page = None::<String>;
        loop {
            let listed = self.list(session, &[("page", page.as_deref())]).await?;
            events.extend(listed.data);
            match listed.next_page {
                Some(next) => page = Some(next),
                None => return Ok(events),
            }
        }
    }

    /// Positions `[from, to)`.
    pub async fn slice(&self, session: &str, from: usize, to: usize) -> anyhow::Result<Vec<LoggedEvent>> {
        let (from, to) = (from.to_string(), to.to_string());
        Ok(self.list(session, &[("from_position", Some(&from)), ("to_position", Some(&to))]).await?.data)
    }

    async fn list(&self, session: &str, query: &[(&str, Option<&str>)]) -> anyhow::Result<Listed> {
        let mut path = format!("/v1/sessions/{session}/events?limit={PAGE}");
        for (name, value) in query {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={value}"));
            }
        }
        let answer = self.request(Method::GET, &path).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status != StatusCode::OK {
            bail!("GET {path}: {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }

    /// Sends a message and waits until the session rests; gives what is new.
    pub async fn turn(&self, session: &str, text: &str) -> anyhow::Result<Vec<LoggedEvent>> {
        let before = self.events(session).await?.len();
        self.send(session, text, Mark::IdempotencyKey).await?;
        self.rest(session, before).await
    }

    /// What came behind the first `before` events, once the session rests.
    pub async fn rest(&self, session: &str, before: usize) -> anyhow::Result<Vec<LoggedEvent>> {
        let idle = |events: &[LoggedEvent]| events.len() > before && events.last().is_some_and(LoggedEvent::is_idle);
        Ok(self.until(session, idle).await?.split_off(before))
    }

    /// The log once `is_done` holds of it. It is looked at whenever the session goes idle.
    pub async fn until(
        &self,
        session: &str,
        is_done: impl Fn(&[LoggedEvent]) -> bool,
    ) -> anyhow::Result<Vec<LoggedEvent>> {
        let waiting = async {
            loop {
                // Listening begins before looking, so nothing falls in between.
                let listening = self.listen(session, "session.status_idle").await;
                match (self.events(session).await, listening) {
                    (Ok(events), _) if is_done(&events) => return anyhow::Ok(events),
                    (Ok(_), Ok(listening)) => listening.await,
                    // What was not seen may be what is listened for: it is looked for again.
                    (Err(_), _) | (_, Err(_)) => self.back().await?,
                }
            }
        };
        match tokio::time::timeout(long::patience(), waiting).await {
            Ok(done) => done,
            Err(_) => {
                let events = self.events(session).await.unwrap_or_default();
                let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
                bail!("not done after {} s: {kinds:?}", long::patience().as_secs())
            }
        }
    }

    /// Until something happens in the session.
    async fn changed(&self, session: &str) {
        if let Ok(listening) = self.listen(session, "event:").await {
            listening.await;
        }
    }

    /// Until the service answers.
    async fn back(&self) -> anyhow::Result<()> {
        let mut base = self.base.clone();
        let used = base.borrow_and_update().clone();
        if self.request(Method::GET, "/healthz").send().await.is_err() {
            base.wait_for(|base| *base != used).await?;
        }
        Ok(())
    }

    /// Resolves once to a future that ends when `what` is on the stream, or the stream ends.
    async fn listen(&self, session: &str, what: &str) -> anyhow::Result<impl Future<Output = ()>> {
        let path = format!("/v1/sessions/{session}/events/stream");
        let answer = self.request(Method::GET, &path).send().await?.error_for_status()?;
        let mut chunks = answer.bytes_stream();
        let what = what.to_owned();
        Ok(async move {
            let mut read = String::new();
            while let Some(Ok(chunk)) = chunks.next().await {
                read.push_str(&String::from_utf8_lossy(&chunk));
                if read.contains(&what) {
                    return;
                }
                // What was looked for has no line break in it.
                if let Some((_, rest)) = read.rsplit_once('\n') {
                    read = rest.to_owned();
                }
            }
        })
    }
}
