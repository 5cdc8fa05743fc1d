//! Black-box tests of the router, in process.

mod agents;
mod api_keys;
mod coverage;
mod engine;
mod environments;
mod events;
mod files;
mod fit;
mod forks;
mod fuzz;
mod hands;
mod harnesses;
mod mcp;
mod openapi;
mod patience;
mod repositories;
mod rollouts;
mod served;
mod sessions;
mod story;
mod stream;
mod tenants;
mod transport;
mod trials;
mod upkeep;
mod vaults;
mod work;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::Value;
use store::{MemoryBlobs, MemoryCatalog};
use tower::ServiceExt;

use self::engine::FakeEngine;
use crate::time::Clock;
use crate::{App, Options, router};

const KEY: &str = "the admin key";

/// A clock that moves when it is told to, and by a millisecond with each reading so that times differ.
struct TestClock(Mutex<Timestamp>);

impl TestClock {
    fn advance(&self, by: SignedDuration) {
        *self.0.lock() += by;
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.advance(SignedDuration::from_millis(1));
        *self.0.lock()
    }
}

/// An api of its own, on empty stores.
struct Api {
    app: App,
    clock: Arc<TestClock>,
    router: Router,
    engine: FakeEngine,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Api {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// One that was started with other options.
    async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let start = "2026-11-22T12:00:00Z".parse().unwrap();
        let clock = Arc::new(TestClock(Mutex::new(start)));
        let engine = FakeEngine::new();
        let mut options = Options { admin_key: Some(KEY.to_owned()), clock: clock.clone(), ..Options::default() };
        change(&mut options);
        let (catalog, blobs) = (Arc::new(MemoryCatalog::new()), Arc::new(MemoryBlobs::new()));
        let app = App::open(catalog, blobs, engine.connect().await, options).await.unwrap();
        Self { router: router(app.clone()), app, clock, engine }
    }

    /// The answer with its body still to be read.
    async fn open(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        self.exchange(request, None).await
    }

    /// The answer, which has to be what the OpenAPI document says; so has the body, where it is given and was taken.
    async fn exchange(&self, request: Request<Body>, body: Option<&[u8]>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let (parts, answered) = self.open(request).await.into_parts();
        let answered = answered.collect().await.unwrap().to_bytes().to_vec();
        let answer = Answer { status: parts.status, headers: parts.headers, body: answered };
        fit::check(&method, &path, body, &answer);
        answer
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let body = body.into().collect().await.unwrap().to_bytes();
        self.exchange(request(method, path).body(body.clone().into()).unwrap(), Some(&body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Body::empty()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body.to_string()).await
    }

    /// A POST without a body, as the SDKs send it for actions.
    async fn act(&self, path: &str) -> Answer {
        self.call(Method::POST, path, Body::empty()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Body::empty()).await
    }

    /// The ids on every page of a list, page by page.
    async fn walk(&self, path: &str, limit: usize) -> Vec<String> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let (mut ids, mut page) = (Vec::new(), String::new());
        loop {
            let answer = self.get(&format!("{path}{separator}limit={limit}{page}")).await.ok();
            let rows = answer["data"].as_array().unwrap();
            assert!(rows.len() <= limit);
            assert!(answer.get("prev_page").is_none());
            ids.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            match answer["next_page"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => return ids,
            }
        }
    }
}

/// A request as an SDK makes it.
fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {KEY}"))
        .header("anthropic-version", "2026-10-21")
        .header("anthropic-beta", "managed-agents-2026-04-01")
        .header("content-type", "application/json")
        .header("accept", "application/json")
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// The body of a success.
    #[track_caller]
    fn ok(self) -> Value {
        let body = self.json();
        assert_eq!(self.status, StatusCode::OK, "{body}");
        body
    }

    /// The message of an error, after a look at its envelope.
    #[track_caller]
    fn refused(self, status: u16, kind: &str) -> String {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        assert_eq!(body["type"], "error");
        assert_eq!(body["error"]["type"], kind, "{body}");
        assert_eq!(body["request_id"], self.headers["request-id"].to_str().unwrap());
        body["error"]["message"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn invalid(self) -> String {
        self.refused(400, "invalid_request_error")
    }

    /// The `error_code` of an error.
    #[track_caller]
    fn code(self, status: u16) -> String {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        body["error"]["details"]["error_code"].as_str().unwrap_or_default().to_owned()
    }
}

fn id(object: &Value) -> String {
    object["id"].as_str().unwrap().to_owned()
}
