//! Clients that take their time, or all the room there is, on a real socket: they are given up, and disturb nobody. Their
//! numbers are small here; `scripts/long load` has large ones.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::served::{Service, start_with};
use super::{Api, KEY};
use crate::Patience;
use crate::body;

/// For a test to wait for.
fn short() -> Patience {
    let little = Duration::from_millis(300);
    Patience { connections_max: 16, head: little, body: little, body_bytes_per_s: 1_000 }
}

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.base.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Everything that is sent until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut read)).await.expect("it closes").unwrap();
    String::from_utf8(read).unwrap()
}

fn head(path: &str, kind: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: api\r\nx-api-key: {KEY}\r\ncontent-type: {kind}\r\ncontent-length: 1000\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_does_not_end_is_given_up_and_so_is_who_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = start_with(folder.path(), short()).await;
    for said in ["", "GET /v1/agents HTTP/1.1\r\nhost: api\r\nx-a"] {
        let mut slow = connect(&service).await;
        slow.write_all(said.as_bytes()).await.unwrap();
        let answer = rest(&mut slow).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    // One that was served, and then says nothing more.
    let mut idle = connect(&service).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: api\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.contains("200 OK"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_comes_byte_by_byte_is_given_up_and_said_so() {
    let folder = tempfile::tempdir().unwrap();
    let service = start_with(folder.path(), short()).await;
    for (path, kind, begun) in [
        ("/v1/agents", "application/json", "{\"name\":"),
        (
            "/v1/files",
            "multipart/form-data; boundary=b",
            "--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nx",
        ),
    ] {
        let mut slow = connect(&service).await;
        slow.write_all(head(path, kind).as_bytes()).await.unwrap();
        slow.write_all(begun.as_bytes()).await.unwrap();
        let answer = rest(&mut slow).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        assert!(answer.contains("timeout_error") && answer.contains("request-id"), "{path}: {answer}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_make_room_for_who_has_something_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let patience = Patience { connections_max: 4, ..Patience::default() };
    let service = start_with(folder.path(), patience).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(connect(&service).await);
    }
    assert_eq!(service.call("GET", "/healthz", "").await.0, 200);
    // The oldest were sent away for it.
    assert_eq!(rest(&mut idle[0]).await, "");
    service.stop().await;
}

#[tokio::test]
async fn large_bodies_wait_for_memory_and_small_ones_do_not() {
    let api = Api::new().await;
    let large = json!({"name": "a", "model": "m", "system": "x".repeat(300_000)}).to_string();
    let all = body::all_memory_for_large_bodies();
    let answer = api.call(Method::POST, "/v1/agents", large.clone()).await;
    assert_eq!(
        (&answer.headers["retry-after"], &answer.headers["x-should-retry"]),
        (&"1".parse().unwrap(), &"true".parse().unwrap())
    );
    answer.refused(503, "api_error");
    api.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok();
    drop(all);
    // Now it is read, and refused for what is in it.
    assert!(api.call(Method::POST, "/v1/agents", large).await.invalid().starts_with("system: "));
}

#[tokio::test]
async fn lists_in_lists_without_end_are_no_json() {
    let api = Api::new().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 1_000_000] {
            // In a place that takes any JSON.
            let deep = format!("{{\"multiagent\":{}1{}}}", open.repeat(depth), close.repeat(depth));
            assert!(api.call(Method::POST, "/v1/agents", deep).await.invalid().contains("recursion limit"));
        }
    }
}
