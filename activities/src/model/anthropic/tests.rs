//! The client against the scripted model's server: what is sent, and that both speak the same language.

use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::model::{
    FailureClass, Timeouts,
    scripted::{Script, Scripted, Server, serve},
    testing::{answer, call, failure, patient, request, request_of, settings},
};

const SCRIPT: &str = r#"
version = 1

[[rules]]
when = { user_contains = "tools" }
answer = [
    { thinking = "a long enough thought to come in more than one piece", signature = "c2ln" },
    { redacted = "eA==" },
    { text = "schön und grün, in pieces of a few characters" },
    { tool = "bash", input = { command = "ls", n = 3 } },
    { tool = "read" },
    { block = { type = "hologram", beam = "x" } },
]
usage = { input_tokens = 11, output_tokens = 7, cache_read_tokens = 5, cache_creation_1h_tokens = 2 }
chunk_chars = 5

[[rules]]
when = { user_contains = "429" }
answer = [{ text = "now" }]
fault = { kind = "status", status = 429, retry_after_s = 2, tries = 2 }

[[rules]]
when = { user_contains = "refuse" }
fault = { kind = "refuse" }

[[rules]]
when = { user_contains = "drop" }
answer = [{ text = "hello" }]
fault = { kind = "drop", after_events = 3 }

[[rules]]
when = { user_contains = "end" }
answer = [{ text = "hello" }]
fault = { kind = "end", after_events = 99 }

[[rules]]
when = { user_contains = "stall" }
answer = [{ text = "hello" }]
fault = { kind = "stall", after_events = 2 }

[[rules]]
when = { user_contains = "malformed" }
answer = [{ text = "hello" }]
fault = { kind = "malformed" }

[[rules]]
when = { user_contains = "error" }
answer = [{ text = "hello" }]
fault = { kind = "error", after_events = 3, error_type = "rate_limit_error", message = "slower" }
"#;

fn script() -> Script {
    Script::from_toml(SCRIPT, "script".as_ref()).unwrap()
}

async fn server() -> Server {
    serve(TcpListener::bind(("127.0.0.1", 0)).await.unwrap(), script()).unwrap()
}

fn timeouts() -> Timeouts {
    Timeouts { idle: std::time::Duration::from_millis(500), ..patient() }
}

#[tokio::test]
async fn sends_the_request_as_it_is() {
    let server = server().await;
    let client = make(&settings(&format!("{}/v1/", server.url()), timeouts())).unwrap();
    let body = json!({
        "model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "429"}], "thinking": {"type": "enabled", "budget_tokens": 1024},
    });
    let request = Request { betas: vec!["a-1".to_owned(), "b-2".to_owned()], tries: 2, ..request_of(body.clone()) };
    answer(&*client, &request).await;

    let received = server.received().pop().unwrap();
    let mut expect = body;
    expect["stream"] = json!(true);
    assert_eq!((received.path.as_str(), received.body), ("/v1/messages", expect));
    let header = |name: &str| received.headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("x-api-key"), Some("sk-canary"));
    assert_eq!(header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(header("anthropic-beta"), Some("a-1,b-2"));
    assert_eq!(header("x-stainless-retry-count"), Some("2"));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("authorization"), None);
}

#[tokio::test]
async fn the_script_means_the_same_over_http_as_inside_the_process() {
    let server = server().await;
    let client = make(&settings(&server.url(), timeouts())).unwrap();
    let inside = Scripted::new(script(), timeouts());
    for text in ["tools", "429", "refuse", "drop", "end", "stall", "malformed", "error", "no rule for this"] {
        for tries in [0, 2] {
            let request = Request { tries, ..request(text) };
            let (over_http, http_deltas) = call(&*client, &request).await;
            let (within, deltas) = call(&inside, &request).await;
            assert_eq!(http_deltas, deltas, "{text}");
            assert_eq!(comparable(over_http), comparable(within), "{text}");
        }
    }
}

/// Without what only a connection has.
fn comparable(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Answer(answer) => Outcome::Answer(Answer { request_id: None, ..answer }),
        Outcome::Failed(failure) => {
            let lost = matches!(failure.class, FailureClass::Connection | FailureClass::Stream);
            let message = if lost { String::new() } else { failure.message };
            Outcome::Failed(Failure { message, request_id: None, ..failure })
        }
        Outcome::Cancelled => Outcome::Cancelled,
    }
}

#[tokio::test]
async fn every_fault_has_its_class() {
    let server = server().await;
    let client = make(&settings(&server.url(), timeouts())).unwrap();
    let check = async |text: &str, class: FailureClass, partial: bool, requests: usize| {
        let before = server.count();
        let failed = failure(&*client, &request(text)).await;
        assert_eq!((failed.class, failed.partial), (class, partial), "{text}: {failed:?}");
        assert_eq!(server.count() - before, requests, "{text}");
        failed
    };
    assert_eq!(check("429", FailureClass::RateLimited, false, 1).await.retry_after_ms, Some(2_000));
    check("refuse", FailureClass::Connection, false, 2).await;
    check("drop", FailureClass::Stream, true, 1).await;
    check("end", FailureClass::Stream, true, 1).await;
    check("stall", FailureClass::Stream, true, 1).await;
    check("malformed", FailureClass::Stream, false, 1).await;
    assert_eq!(check("error", FailureClass::RateLimited, true, 1).await.message, "slower");
    let failed = check("nothing fits", FailureClass::Request, false, 1).await;
    assert_eq!(failed.message, "no rule of the script fits (turn 0, results 0, tries 0)");
}

#[tokio::test]
async fn everything_in_an_answer_survives_the_round_trip() {
    let server = server().await;
    let client = make(&settings(&server.url(), timeouts())).unwrap();
    let first = answer(&*client, &request("tools")).await;
    assert_eq!(first.blocks[0]["signature"], "c2ln");
    assert_eq!(first.blocks[2]["text"], "schön und grün, in pieces of a few characters");
    assert_eq!(first.blocks[3]["input"], json!({"command": "ls", "n": 3}));
    assert_eq!(first.blocks[5], json!({"type": "hologram", "beam": "x"}));
    assert_eq!((first.stop_reason.as_str(), first.request_id.as_deref()), ("tool_use", Some("req_scripted")));
    assert_eq!((first.usage.input_tokens, first.usage.cache_creation_1h_tokens), (11, 2));

    let again = answer(&*client, &request("tools")).await;
    assert_eq!(again, first, "the same request has the same answer, ids included");

    // Sent back, the blocks arrive as they came.
    let results = json!([{"type": "tool_result", "tool_use_id": first.blocks[3]["id"], "content": "429"}]);
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "tools"},
        {"role": "assistant", "content": first.blocks},
        {"role": "user", "content": results},
    ]});
    answer(&*client, &request_of(body)).await;
    let sent = server.received().pop().unwrap().body;
    assert_eq!(sent["messages"][1]["content"], json!(first.blocks));
}

#[test]
fn the_own_api_needs_a_key() {
    let error = make(&Settings::default()).err().unwrap();
    assert_eq!(error.to_string(), "talk to https://api.anthropic.com without a model key");
}
