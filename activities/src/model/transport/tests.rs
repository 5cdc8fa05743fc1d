use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::model::{
    Model, Outcome, anthropic,
    testing::{self, RawServer, Reply, STREAM, answer, call, failure, hello, patient, request, stream_of_length},
};

#[test]
fn endpoints() {
    let check = |base: &str, expect: &str| {
        assert_eq!(endpoint(base, "messages").unwrap().as_str(), expect, "{base}");
    };
    check("https://api.anthropic.com", "https://api.anthropic.com/v1/messages");
    check("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages");
    check("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages");
    check("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages");
    check("https://api.anthropic.com/v1/messages", "https://api.anthropic.com/v1/messages");
    check("http://127.0.0.1:1/anthropic/", "http://127.0.0.1:1/anthropic/v1/messages");
    check("http://[::1]:1/a/v1/", "http://[::1]:1/a/v1/messages");
}

#[test]
fn refuses_urls_that_cannot_be_right() {
    let check = |base: &str, part: &str| {
        let error = endpoint(base, "messages").unwrap_err().to_string();
        assert!(error.contains(part), "{base}: {error}");
    };
    check("127.0.0.1:80", "relative URL without a base");
    check("ftp://host", "neither http nor https");
    check("http://host/?a=b", "query");
    check("http://u:canary@host/", "a key belongs into the key setting");
    assert!(!endpoint("http://u:canary@host/", "messages").unwrap_err().to_string().contains("canary"));
}

#[test]
fn only_this_machine_is_loopback() {
    let check = |url: &str, expect: bool| assert_eq!(is_loopback(&Url::parse(url).unwrap()), expect, "{url}");
    check("http://localhost:1", true);
    check("http://127.0.0.1", true);
    check("http://[::1]:1", true);
    check("http://10.0.0.1", false);
    check("http://localhost.example.com", false);
}

fn client(url: &str, timeouts: Timeouts) -> Arc<dyn Model> {
    anthropic::make(&testing::settings(url, timeouts)).unwrap()
}

fn stream(events: &str) -> Vec<u8> {
    format!("{STREAM}{events}").into_bytes()
}

const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn one_connection_serves_one_call_after_another() {
    let reply = Reply::Send(stream_of_length(&hello()));
    let server = RawServer::start([reply.clone(), reply.clone(), reply]).await;
    let client = client(&server.url, patient());
    for _ in 0..3 {
        answer(&*client, &request("hi")).await;
    }
    assert_eq!(server.requests().len(), 3);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn reconnects_once_before_the_first_byte_and_never_after() {
    let close = |bytes: Vec<u8>| Reply::SendAndClose(bytes);
    let whole = stream(&hello());
    let head_only = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\n".to_vec();
    for broken in [Vec::new(), b"HTTP/1.1 2".to_vec(), head_only] {
        let server = RawServer::start([close(broken.clone()), close(whole.clone())]).await;
        answer(&*client(&server.url, patient()), &request("hi")).await;
        assert_eq!(server.requests().len(), 2);

        let server = RawServer::start([close(broken.clone()), close(broken), close(whole.clone())]).await;
        let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
        assert_eq!((failed.class, failed.partial), (FailureClass::Connection, false));
        assert_eq!(server.requests().len(), 2);
    }
    // From the first byte on, each loss is told.
    let events = hello();
    for cut in [1, 60, events.len() / 2, events.len() - 30] {
        let server = RawServer::start([close(stream(&events[..cut])), close(whole.clone())]).await;
        let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
        assert_eq!((failed.class, failed.status), (FailureClass::Stream, Some(200)), "cut at {cut}: {failed:?}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_is_over_is_not_waited_for() {
    let server = RawServer::start([Reply::SendAndHang(stream(&hello()))]).await;
    let answer = answer(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!(answer.request_id.as_deref(), Some("req_raw"));
    // It gets its time to close, and no more.
    server.ended().await;
}

#[tokio::test]
async fn each_wait_has_its_end() {
    let events = hello();
    let begun = &events[..events.find("event: content_block_stop").unwrap()];
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    let check = async |sent: &str, timeouts: Timeouts, class: FailureClass, partial: bool, message: &str| {
        let server = RawServer::start([Reply::SendAndHang(sent.as_bytes().to_vec())]).await;
        let failed = failure(&*client(&server.url, timeouts), &request("hi")).await;
        assert_eq!((failed.class, failed.partial, failed.message.as_str()), (class, partial, message));
        server.ended().await;
        assert_eq!(server.connections(), 1, "a timeout is no reason to ask again");
    };
    let late = "the model server did not begin to answer in time";
    check("", Timeouts { first_byte: SHORT, ..patient() }, FailureClass::Timeout, false, late).await;
    check(head, Timeouts { first_byte: SHORT, ..patient() }, FailureClass::Timeout, false, late).await;
    check("", Timeouts { overall: SHORT, ..patient() }, FailureClass::Timeout, false, late).await;
    let begun = format!("{head}{begun}");
    let stalled = "the answer stalled for 50 ms";
    check(&begun, Timeouts { idle: SHORT, ..patient() }, FailureClass::Stream, true, stalled).await;
    let endless = "the answer did not end in time";
    check(&begun, Timeouts { overall: Duration::from_secs(2), ..patient() }, FailureClass::Timeout, true, endless)
        .await;
}

#[tokio::test]
async fn a_redirect_gets_neither_request_nor_key() {
    let elsewhere = RawServer::start([]).await;
    let reply = format!("HTTP/1.1 307 Moved\r\nlocation: {}/v1/messages\r\ncontent-length: 0\r\n\r\n", elsewhere.url);
    let server = RawServer::start([Reply::Send(reply.into_bytes())]).await;
    let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!((failed.class, failed.status), (FailureClass::Request, Some(307)));
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_page_or_document_is_a_wrong_url() {
    for (kind, said) in [("text/html; charset=utf-8", "text/html"), ("application/json", "application/json")] {
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 2\r\n\r\nhi");
        let server = RawServer::start([Reply::Send(reply.into_bytes())]).await;
        let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
        let message = format!("the server answered with {said} instead of an event stream: is the URL right?");
        assert_eq!((failed.class, failed.message), (FailureClass::Request, message));
    }
}

#[tokio::test]
async fn a_refusal_that_quotes_the_key_is_redacted() {
    let body = r#"{"error": {"type": "authentication_error", "message": "no such key: sk-canary"}}"#;
    let head = format!("HTTP/1.1 401 No\r\nrequest-id: req_9\r\ncontent-length: {}\r\n\r\n", body.len());
    let server = RawServer::start([Reply::Send(format!("{head}{body}").into_bytes())]).await;
    let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!(failed.message, "no such key: [key]");
    assert_eq!((failed.class, failed.request_id.as_deref()), (FailureClass::Auth, Some("req_9")));
    assert!(server.requests()[0].contains("x-api-key: sk-canary\r\n"));
}

#[tokio::test]
async fn a_long_message_is_cut_and_no_half_of_the_key_is_left() {
    let body = format!("{}sk-canary {}", "x".repeat(995), "y".repeat(5_000));
    let reply = format!("HTTP/1.1 400 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let server = RawServer::start([Reply::Send(reply.into_bytes())]).await;
    let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!(failed.message, format!("{}[key] [...]", "x".repeat(995)));
}

#[tokio::test]
async fn a_refusal_whose_body_breaks_or_stalls_is_still_that_refusal() {
    let head = b"HTTP/1.1 529 Busy\r\nretry-after: 3\r\ncontent-length: 500\r\n\r\n{\"err".to_vec();
    for reply in [Reply::SendAndClose(head.clone()), Reply::SendAndHang(head)] {
        let server = RawServer::start([reply]).await;
        let client = client(&server.url, Timeouts { idle: SHORT, ..patient() });
        let failed = failure(&*client, &request("hi")).await;
        assert_eq!((failed.class, failed.retry_after_ms), (FailureClass::Overloaded, Some(3_000)));
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn nobody_there() {
    let url = format!("http://{}", testing::nobody().await);
    let failed = failure(&*client(&url, patient()), &request("hi")).await;
    assert_eq!((failed.class, failed.status), (FailureClass::Connection, None));
    assert!(failed.message.starts_with(&format!("no answer from the model server at {url}: ")), "{}", failed.message);
    assert!(failed.message.contains("refused"), "the cause is told: {}", failed.message);
}

#[tokio::test]
async fn https_is_spoken() {
    // The server has only its own bytes to say, so the handshake cannot succeed; but it was begun.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let first_byte = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::io::AsyncReadExt::read_u8(&mut socket).await.unwrap()
    });
    let failed = failure(&*client(&url, patient()), &request("hi")).await;
    assert_eq!(failed.class, FailureClass::Connection);
    const HANDSHAKE: u8 = 22;
    assert_eq!(first_byte.await.unwrap(), HANDSHAKE);
}

#[tokio::test]
async fn an_endless_event_is_stopped() {
    let mut bytes = stream("data: ");
    bytes.resize(EVENT_BYTES_MAX + 1024, b'x');
    let server = RawServer::start([Reply::SendAndHang(bytes)]).await;
    let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!(failed.class, FailureClass::Request, "it is not asked for again");
    assert!(failed.message.contains("too long to be kept: more than 75497472 bytes"), "{}", failed.message);
}

#[tokio::test]
async fn what_is_kept_of_an_answer_is_bounded_and_inputs_count_as_what_is_kept_of_them() {
    let event = |value: serde_json::Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap());
    let piece = "x".repeat(4 << 20);
    let answer = |block: serde_json::Value, delta: serde_json::Value, pieces: usize| {
        let whole = hello();
        let (start, end) = (whole.find("event: content_block_start"), whole.find("event: content_block_stop"));
        let begun = event(json!({"type": "content_block_start", "index": 0, "content_block": block}));
        let more = event(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
        stream(&[&whole[..start.unwrap()], &begun, &more.repeat(pieces), &whole[end.unwrap()..]].concat())
    };
    let input = json!({"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}});
    let more = json!({"type": "input_json_delta", "partial_json": piece});
    let server = RawServer::start([Reply::SendAndClose(answer(input, more, 20))]).await;
    let kept = testing::answer(&*client(&server.url, patient()), &request("hi")).await;
    assert!(kept.bad_inputs[0].error.starts_with("the input has 83886080 bytes"), "{}", kept.bad_inputs[0].error);
    assert_eq!(kept.blocks[0]["input"]["TOO_LARGE"].as_str().map(str::len), Some(2048));

    let more = json!({"type": "text_delta", "text": piece});
    let text = answer(json!({"type": "text", "text": ""}), more, 17);
    let server = RawServer::start([Reply::SendAndClose(text)]).await;
    let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!((failed.class, server.requests().len()), (FailureClass::Request, 1));
}

#[tokio::test]
async fn cancelling_hangs_up_on_the_server() {
    let events = hello();
    let begun = &events[..events.find("event: content_block_stop").unwrap()];
    let server = RawServer::start([Reply::SendAndHang(stream(begun))]).await;
    let client = client(&server.url, patient());
    let seen = tokio::sync::Notify::new();
    let mut on_delta = |delta| {
        if matches!(delta, Delta::Text { .. }) {
            seen.notify_one();
        }
    };
    let cancelled = Box::pin(seen.notified());
    assert_eq!(client.call(&request("hi"), &mut on_delta, cancelled).await, Outcome::Cancelled);
    server.ended().await;
}

#[tokio::test]
async fn a_call_cancelled_before_it_begins_sends_nothing() {
    let server = RawServer::start([]).await;
    let client = client(&server.url, patient());
    let outcome = client.call(&request("hi"), &mut |_| {}, Box::pin(std::future::ready(()))).await;
    assert_eq!(outcome, Outcome::Cancelled);
    assert_eq!(server.connections(), 0);
    let (outcome, deltas) = call(&*client, &request("hi")).await;
    assert!(matches!(outcome, Outcome::Failed(_)) && deltas.is_empty());
}
