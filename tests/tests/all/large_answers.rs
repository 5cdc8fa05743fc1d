//! What a model says that is more than anybody can use: an argument that no tool takes is a result that the model reads, an
//! answer that cannot be kept ends its turn, and neither is asked for again. The session goes on.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::path::Path;
use steadyhand_tests::{
    client::LoggedEvent,
    engines::engine,
    on_each_engine,
    service::{Options, Service},
    transcript::check_log,
};
use tokio::net::TcpListener;

const MIB: usize = 1 << 20;
/// What may be left in the context of an argument that was too large.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// A call that writes that much.
fn write(results: usize, bytes: usize) -> Value {
    let input = json!({"file_path": format!("file-{results}"), "content": "x".repeat(bytes)});
    let when = json!({"user_contains": "write", "results": results});
    json!({"when": when, "literal": true, "chunk_chars": MIB, "answer": [{"tool": "write", "input": input}]})
}

fn script() -> anyhow::Result<Script> {
    let endless = "x".repeat(65 * MIB);
    let rules = json!([
        write(0, 17 * MIB),
        write(1, 64 * MIB),
        write(2, 4 * MIB),
        {"when": {"user_contains": "write", "results": 3},
            "answer": [{"tool": "bash", "input": {"command": "wc -c file-*"}}]},
        // What was said before stands beside it, as nothing answered that.
        {"when": {"user_contains": "go on"}, "answer": [{"text": "Done."}]},
        {"when": {"user_contains": "speak"}, "literal": true, "chunk_chars": MIB, "answer": [{"text": endless}]},
        {"answer": [{"text": "Done."}]},
    ]);
    let script = json!({"version": 1, "rules": rules}).to_string();
    Ok(Script::from_json(&script, Path::new("large_answers.json"))?)
}

async fn what_is_too_large_is_told_once_and_the_session_goes_on(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script()?)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal: temporal_at, ..Options::new(model.url()) }).await?;
    let ended = scenario(&service, &model).await;
    service.finish(ended).await
}

async fn scenario(service: &Service, model: &Server) -> anyhow::Result<()> {
    let client = service.client();
    let session = client.session().await?;
    let events = client.turn(&session, "write").await?;
    let results: Vec<(String, bool)> = events
        .iter()
        .filter(|event| event.kind == "agent.tool_result")
        .map(|event| (event.text(), event.rest["is_error"] == true))
        .collect();
    ensure!(results.len() == 4, "{results:?}");
    for (text, is_error) in &results[..2] {
        ensure!(*is_error && text.contains("a call takes at most 16777216: nothing was run"), "{text}");
        ensure!(text.contains("in smaller pieces"), "it says what to do: {text}");
    }
    ensure!(results[2] == ("wrote 4194304 bytes to file-2".to_owned(), false), "{results:?}");
    ensure!(results[3].0.starts_with("4194304 file-2"), "nothing else was written: {results:?}");
    ensure!(!events.iter().any(|event| event.kind == "session.error"), "{events:?}");
    // A request for each answer, none of them twice; what was too large is in none.
    ensure!(model.count() == 5, "{} requests", model.count());
    let third = &model.received()[2];
    let bytes = third.body.to_string().len();
    ensure!(bytes < REQUEST_BYTES_MAX, "{bytes} bytes go on");

    let events = client.turn(&session, "speak").await?;
    let error = events.iter().find(|event| event.kind == "session.error").context("it is said")?;
    let said = error.rest["error"].to_string();
    ensure!(said.contains("too long to be kept") && said.contains("exhausted"), "{said}");
    ensure!(model.count() == 6, "{} requests: it is not asked for again", model.count());

    let events = client.turn(&session, "go on").await?;
    let last = events.iter().rfind(|event| event.kind == "agent.message").map(LoggedEvent::text);
    ensure!(last.as_deref() == Some("Done."), "{last:?}");
    check_log(&client, &session, &client.events(&session).await?).await
}

on_each_engine![what_is_too_large_is_told_once_and_the_session_goes_on];
