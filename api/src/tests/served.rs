//! The api on a real socket and on real stores.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use store::{Durability, FjallCatalog, FolderBlobs};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use super::engine::FakeEngine;
use super::{KEY, id};
use crate::auth::Scope;
use crate::resources::sessions::row::{self, SessionRow};
use crate::{App, Options, Patience};

pub(super) struct Service {
    pub base: String,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<()>,
    app: App,
}

async fn start(folder: &std::path::Path) -> Service {
    start_with(folder, Patience::default()).await
}

pub(super) async fn start_with(folder: &std::path::Path, patience: Patience) -> Service {
    let catalog = FjallCatalog::open(&folder.join("catalog")).unwrap();
    let blobs = FolderBlobs::open(&folder.join("blobs")).unwrap();
    let options = Options { admin_key: Some(KEY.to_owned()), patience, ..Options::default() };
    let app = App::open(Arc::new(catalog), Arc::new(blobs), FakeEngine::new().connect().await, options).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let socket = folder.join("api.sock");
    // That of a service before.
    std::fs::remove_file(&socket).ok();
    let local = UnixListener::bind(socket).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(crate::serve(listener, local, app.clone(), async move {
        stopped.await.ok();
    }));
    Service { base, stop, served, app }
}

impl Service {
    pub async fn call(&self, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base)).header("x-api-key", KEY);
        let response = client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_made_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path()).await;
    assert_eq!(service.call("GET", "/healthz", "").await.0, 200);
    let (_, agent) = service.call("POST", "/v1/agents", json!({"name": "a", "model": "m"}).to_string()).await;
    let key = service.app.keys.create("laptop", Scope::All, None, service.app.clock.now()).await.unwrap();
    let tenant = service.app.tenant.clone();
    service.stop().await;

    let service = start(folder.path()).await;
    assert_eq!(service.call("GET", &format!("/v1/agents/{}", id(&agent)), "").await, (200, agent));
    let found = service.app.keys.check(&key.token, &tenant.workspace_id, service.app.clock.now()).await;
    assert!(found.unwrap().is_some());
    assert_eq!(service.app.tenant, tenant);
    service.stop().await;
}

/// A client that is still sending its body gets to read the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_a_large_body_reads_its_413() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path()).await;
    let (status, answer) = service.call("POST", "/v1/agents", vec![b'x'; 40_000_000]).await;
    assert_eq!((status, &answer["error"]["type"]), (413, &json!("request_too_large")));
    service.stop().await;
}

/// Requests of one client, one after the other on one connection, each answered before its body was of interest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_leaves_the_connection_open_for_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path()).await;
    let stream = tokio::net::TcpStream::connect(service.base.strip_prefix("http://").unwrap()).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for (method, path, key, status) in [
        ("POST", "/v1/agents", "wrong", 401),
        ("POST", "/v1/sessions/sesn_no/events", KEY, 404),
        ("POST", "/v1/no_such_path", KEY, 404),
        ("PUT", "/v1/agents", KEY, 405),
        ("DELETE", "/v1/environments/env_no", KEY, 404),
        ("POST", "/v1/skills", KEY, 501),
        ("GET", "/v1/agents", KEY, 200),
    ] {
        // More than fits into the buffers on the way.
        let body = if method == "GET" { Bytes::new() } else { Bytes::from(vec![b' '; 4_000_000]) };
        let request = Request::builder().method(method).uri(path).header("x-api-key", key).header("host", "api");
        client.ready().await.unwrap_or_else(|error| panic!("closed before {method} {path}: {error}"));
        let response = client.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert!(response.headers().get("connection").is_none(), "{method} {path}");
        response.into_body().collect().await.unwrap();
    }
    drop(client);
    connection.await.unwrap().unwrap();
    service.stop().await;
}

/// A client that asks first is not made to send what nobody wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_was_announced_and_refused_is_not_asked_for() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path()).await;
    let mut stream = tokio::net::TcpStream::connect(service.base.strip_prefix("http://").unwrap()).await.unwrap();
    let head = "POST /v1/agents HTTP/1.1\r\nhost: api\r\nx-api-key: wrong\r\ncontent-length: 5000000\r\n\
                expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_is_told_to_those_who_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path()).await;
    let closing = service.app.closing();
    service.stop().await;
    closing.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_half_done_is_finished_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let service = start(folder.path()).await;
    let (_, agent) = service.call("POST", "/v1/agents", r#"{"name":"a","model":"m"}"#).await;
    let (_, environment) = service.call("POST", "/v1/environments", r#"{"name":"e"}"#).await;
    let body = json!({"agent": id(&agent), "environment_id": id(&environment)}).to_string();
    let (status, session) = service.call("POST", "/v1/sessions", body).await;
    assert_eq!(status, 200, "{session}");
    let session = id(&session);
    // Deleted, and the service died before it was erased.
    let deleted = row::change(&*service.app.catalog, &session, Durability::Synced, |row, batch| {
        Some((SessionRow { deleted: true, ..row.clone() }, batch))
    });
    assert!(deleted.await.unwrap().is_some());
    service.stop().await;

    let service = start(folder.path()).await;
    let erased = async {
        while service.app.catalog.row::<SessionRow>(&session).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), erased).await.expect("the session is erased");
    service.stop().await;
}
