//! The clients against model servers that nobody here wrote. The environment names their programs, as `scripts/test`
//! does: `STEADYHAND_LLMOCK` (PyPI llmock) and `STEADYHAND_AIMOCK` (npm @copilotkit/aimock, whose program is `llmock`
//! too). Without them these tests fail: what was not tried against strangers does not work.

use std::{process::Stdio, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{
    FailureClass, Model, Outcome, Request, Timeouts, make,
    testing::{answer, call, patient, request, request_of, settings},
    transport::install_tls,
};

/// A running server; it is killed when this is dropped.
struct Program {
    url: String,
    _child: Child,
}

impl Program {
    /// Starts it on a free port and waits until it says where it listens.
    async fn start(variable: &str, arguments: &[&str]) -> Program {
        let path = std::env::var_os(variable);
        let path = path.unwrap_or_else(|| panic!("{variable} is not set: run the tests through scripts/test"));
        let mut child = Command::new(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{variable} cannot be started: {error}"));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut out = BufReader::new(stdout).lines();
        let mut err = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        let url = loop {
            let line = tokio::select! {
                Ok(Some(line)) = out.next_line() => line,
                Ok(Some(line)) = err.next_line() => line,
                else => panic!("{variable} ended before it listened: {said:#?}"),
            };
            if let Some(port) = port_in(&line) {
                break format!("http://127.0.0.1:{port}");
            }
            said.push(line);
        };
        // Read on, so that it never waits for a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = out.next_line().await {} });
        tokio::spawn(async move { while let Ok(Some(_)) = err.next_line().await {} });
        Program { url, _child: child }
    }
}

/// The port that the line tells. llmock first tells the one that it was asked for, 0.
fn port_in(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("http://127.0.0.1:")?;
    let digits = rest.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|port| *port != 0)
}

/// Calls as a harness does, until there is an answer: the classes of the failures before it. `ended` resolves when the
/// server has seen the end of an attempt: on a busy machine that is later than the client has, and the server would not
/// know the next one for its retry.
async fn persist(model: &dyn Model, request: &Request, ended: impl AsyncFn()) -> Vec<FailureClass> {
    let mut classes = Vec::new();
    loop {
        let tries = classes.len() as u32;
        let request = Request { tries, ..request.clone() };
        match call(model, &request).await.0 {
            Outcome::Answer(_) => return classes,
            Outcome::Failed(failure) => {
                assert!(failure.class.is_retryable() && tries < 5, "{failure:?}");
                ended().await;
                let wait_ms = failure.retry_after_ms.unwrap_or(100 << tries);
                tokio::time::sleep(Duration::from_millis(wait_ms + 10)).await;
                classes.push(failure.class);
            }
            Outcome::Cancelled => unreachable!("nobody cancels"),
        }
    }
}

fn client(backend: &str, url: &str) -> Arc<dyn Model> {
    let timeouts = Timeouts { idle: Duration::from_millis(500), ..patient() };
    make(backend, &settings(url, timeouts)).unwrap()
}

/// For the server's own endpoints.
fn plain_client() -> reqwest::Client {
    install_tls();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn llmock_finds_no_fault_with_either_client() {
    use FailureClass::*;
    // Slowly, or a short answer is sent whole before the server can see that the client hung up at a malformed chunk;
    // it would take the retry for another call, and the fault for one that nobody noticed.
    let server = Program::start("STEADYHAND_LLMOCK", &["serve", "--port", "0", "--stream-chunk-delay-ms", "50"]).await;
    let http = plain_client();
    let admin = |path: &str| format!("{}/_llmock/{path}", server.url);
    let stream_fault =
        |kind: &str| json!({"type": "stream_fault", "kind": kind, "after_chunks": 2, "stall_seconds": 3});
    let faults = [
        (json!({"type": "fail", "status": 429, "retry_after": 1}), RateLimited),
        (json!({"type": "fail", "status": 529}), Overloaded),
        (json!({"type": "fail", "status": 500}), Server),
        (json!({"type": "fail", "status": 502}), Server),
        (stream_fault("disconnect"), Stream),
        (stream_fault("truncate"), Stream),
        (stream_fault("malformed"), Stream),
        (stream_fault("stall"), Stream),
    ];
    for (backend, path) in [("anthropic", "anthropic"), ("openai", "v1")] {
        let client = client(backend, &format!("{}/{path}", server.url));
        for (at, (fault, class)) in faults.iter().enumerate() {
            let mut behavior = fault.clone();
            behavior["match"] = json!({"provider": backend});
            let scenario = http.post(admin("scenario")).json(&json!({"behaviors": [behavior]})).send();
            assert_eq!(scenario.await.unwrap().status(), 201);
            // It answers when no request is under way.
            let ended = async || drop(http.get(admin("verdict")).send().await.unwrap());
            let classes = persist(&*client, &request(&format!("call {at} of {backend}")), ended).await;
            assert_eq!(classes, [*class], "{backend}: {fault}");
        }
    }
    let verdict: Value = http.get(admin("verdict")).send().await.unwrap().json().await.unwrap();
    assert_eq!(verdict["findings"], json!([]), "{verdict}");
    assert_eq!(verdict["faults_injected"], json!(2 * faults.len()), "{verdict}");
}

#[tokio::test]
async fn llmock_tool_calls_reach_both_clients() {
    let server = Program::start("STEADYHAND_LLMOCK", &["serve", "--port", "0"]).await;
    let http = plain_client();
    for (backend, path) in [("anthropic", "anthropic"), ("openai", "v1")] {
        let calls = json!([{"name": "bash", "arguments": {"command": "ls"}}, {"name": "bash", "arguments": {}}]);
        let matches = json!({"provider": backend});
        let behaviors = json!([
            {"type": "reply", "text": "I look", "tool_calls": calls, "match": matches},
            {"type": "tool_fault", "kind": "malformed_arguments", "match": {"provider": backend, "model": "broken"}},
        ]);
        let scenario = http.post(format!("{}/_llmock/scenario", server.url)).json(&json!({"behaviors": behaviors}));
        assert_eq!(scenario.send().await.unwrap().status(), 201);
        let client = client(backend, &format!("{}/{path}", server.url));
        let body = |model: &str| {
            json!({"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "look"}],
                "tools": [{"name": "bash", "description": "runs", "input_schema": {"type": "object",
                    "properties": {"command": {"type": "string"}}}}]})
        };
        let good = answer(&*client, &request_of(body("m"))).await;
        let inputs: Vec<&Value> = good.blocks.iter().filter_map(|block| block.get("input")).collect();
        assert_eq!(inputs, [&json!({"command": "ls"}), &json!({})], "{backend}");
        assert_eq!((good.stop_reason.as_str(), good.bad_inputs.len()), ("tool_use", 0), "{backend}");
        let bad = answer(&*client, &request_of(body("broken"))).await;
        assert_eq!(bad.bad_inputs.len(), 1, "{backend}: {:?}", bad.blocks);
    }
}

#[tokio::test]
async fn aimock_plays_two_turns_with_thinking_and_parallel_tools() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = folder.path().join("fixtures.json");
    let calls = json!([
        {"id": "toolu_a", "name": "bash", "arguments": "{\"command\":\"ls -l\"}"},
        {"id": "toolu_b", "name": "read", "arguments": "{\"file_path\":\"grün\"}"},
    ]);
    let script = json!({"fixtures": [
        {"match": {"userMessage": "look", "hasToolResult": false},
            "response": {"content": "I look.", "reasoning": "what is there?", "toolCalls": calls}},
        {"match": {"hasToolResult": true, "toolCallId": "toolu_b"}, "response": {"content": "Two files."}},
    ]});
    std::fs::write(&fixtures, script.to_string()).unwrap();
    let arguments = ["-p", "0", "-c", "3", "--strict", "-f", fixtures.to_str().unwrap()];
    let server = Program::start("STEADYHAND_AIMOCK", &arguments).await;
    for backend in ["anthropic", "openai"] {
        let client = client(backend, &server.url);
        let question = json!({"role": "user", "content": "look"});
        let first =
            answer(&*client, &request_of(json!({"model": "claude-x", "max_tokens": 64, "messages": [question]}))).await;
        let mut blocks = vec![
            json!({"type": "text", "text": "I look."}),
            json!({"type": "tool_use", "id": "toolu_a", "name": "bash", "input": {"command": "ls -l"}}),
            json!({"type": "tool_use", "id": "toolu_b", "name": "read", "input": {"file_path": "grün"}}),
        ];
        if backend == "anthropic" {
            let signature = "aimock-placeholder-signature";
            blocks.insert(0, json!({"type": "thinking", "thinking": "what is there?", "signature": signature}));
        }
        assert_eq!(first.blocks, blocks, "{backend}");
        assert_eq!(first.stop_reason, "tool_use");
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "ok"});
        let messages = json!([
            question,
            {"role": "assistant", "content": first.blocks},
            {"role": "user", "content": [result("toolu_a"), result("toolu_b")]},
        ]);
        let second = json!({"model": "claude-x", "max_tokens": 64, "messages": messages});
        let second = answer(&*client, &request_of(second)).await;
        assert_eq!(second.blocks, [json!({"type": "text", "text": "Two files."})], "{backend}");
        assert_eq!(second.stop_reason, "end_turn");
    }
}
