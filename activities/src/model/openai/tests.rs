//! The client against a server of fixed bytes: what is sent, and the ends that only this API has.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::{
    FailureClass, Timeouts,
    testing::{RawServer, Reply, STREAM, answer, failure, patient, request, settings, stream_of_length},
};

const TEXT: &str = "data: {\"model\":\"m-1\",\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn client(url: &str, timeouts: Timeouts) -> Arc<dyn Model> {
    make(&settings(url, timeouts)).unwrap()
}

#[tokio::test]
async fn sends_chat_completions_and_reads_the_answer() {
    let whole = stream_of_length(&[TEXT, STOP, USAGE, DONE].concat());
    let server = RawServer::start([Reply::Send(whole.clone()), Reply::Send(whole)]).await;
    let client = client(&server.url, patient());
    for _ in 0..2 {
        let answer = answer(&*client, &request("hello")).await;
        assert_eq!(answer.blocks, [json!({"type": "text", "text": "hi"})]);
        assert_eq!((answer.usage.input_tokens, answer.model_id.as_str()), (3, "m-1"));
    }
    assert_eq!(server.connections(), 1);
    let sent = server.requests().remove(0);
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer sk-canary\r\n"), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["messages"], json!([{"role": "user", "content": "hello"}]));
    assert_eq!((&body["stream"], &body["stream_options"]), (&json!(true), &json!({"include_usage": true})));
}

#[tokio::test]
async fn a_local_server_gets_no_key() {
    let server = RawServer::start([Reply::Send(stream_of_length(&[TEXT, STOP].concat()))]).await;
    let settings = Settings { key: None, ..settings(&server.url, patient()) };
    answer(&*make(&settings).unwrap(), &request("hi")).await;
    assert!(!server.requests()[0].contains("authorization"));
}

#[tokio::test]
async fn the_end_may_be_missing_once_the_answer_is_whole() {
    let bytes = |events: &[&str]| format!("{STREAM}{}", events.concat()).into_bytes();
    let idle = Duration::from_millis(50);
    // Closed or silent behind the finish_reason, with and without usage, and with a last line that is not ended.
    for reply in [
        Reply::SendAndClose(bytes(&[TEXT, STOP])),
        Reply::SendAndClose(bytes(&[TEXT, STOP, USAGE.trim_end()])),
        Reply::SendAndHang(bytes(&[TEXT, STOP])),
        Reply::SendAndHang(bytes(&[TEXT, DONE])),
    ] {
        let server = RawServer::start([reply.clone()]).await;
        let answer = answer(&*client(&server.url, Timeouts { idle, ..patient() }), &request("hi")).await;
        assert_eq!(answer.blocks, [json!({"type": "text", "text": "hi"})], "{reply:?}");
    }
    // But not before it.
    let server = RawServer::start([Reply::SendAndClose(bytes(&[TEXT]))]).await;
    let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!((failed.class, failed.partial), (FailureClass::Stream, true));
}

#[tokio::test]
async fn a_spent_quota_is_no_rate_limit() {
    let body = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    let head = format!("HTTP/1.1 429 Too Many\r\nx-request-id: req_7\r\ncontent-length: {}\r\n\r\n", body.len());
    let server = RawServer::start([Reply::Send(format!("{head}{body}").into_bytes())]).await;
    let failed = failure(&*client(&server.url, patient()), &request("hi")).await;
    assert_eq!((failed.class, failed.status), (FailureClass::Billing, Some(429)));
    assert_eq!(failed.request_id.as_deref(), Some("req_7"));
}

#[tokio::test]
async fn what_cannot_be_converted_is_not_sent() {
    let server = RawServer::start([]).await;
    let mut request = request("hi");
    request.body["tools"] = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    let failed = failure(&*client(&server.url, patient()), &request).await;
    assert_eq!(failed.class, FailureClass::Request);
    assert_eq!(server.connections(), 0);
}

#[test]
fn the_limit_has_two_names() {
    let check = |url: &str, field: &str| {
        assert_eq!(TokenLimit::of(&Url::parse(url).unwrap()).field(), field, "{url}");
    };
    check("https://api.openai.com/v1/chat/completions", "max_completion_tokens");
    check("https://me.openai.azure.com/v1/chat/completions", "max_completion_tokens");
    check("http://127.0.0.1:8080/v1/chat/completions", "max_tokens");
    check("https://notopenai.com/v1/chat/completions", "max_tokens");
}
