//! A model reads slices of its own log: what its context does not show any more is still there. On both engines.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::engine,
    on_each_engine,
    service::{Layout, Options, Service},
};
use tokio::net::TcpListener;

/// The model looks back when it is told to; what it read it says.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "look back", results = 0 }
answer = [{ tool = "get_events", input = { from = 0, types = ["user.message"] } }]
[[rules]]
when = { user_contains = "look far", results = 0 }
answer = [{ tool = "get_events", input = { from = 100000 } }]
[[rules]]
when = { results = { min = 1 } }
answer = [{ text = "I read: {{result}}" }]
[[rules]]
answer = [{ text = "Heard." }]
"#;

async fn service(temporal: Option<SocketAddr>) -> anyhow::Result<(Service, Server)> {
    let script = Script::from_toml(SCRIPT, Path::new("own_log.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let options = Options {
        layout: Layout::Split,
        temporal: temporal.map(|addr| (addr, "default".to_owned())),
        // Low, so that what is read was sealed.
        decisions_per_run: 3,
        ..Options::new(model.url())
    };
    Ok((Service::start(options).await?, model))
}

/// A session of an agent with that tool and no other, which sees the task and the last round.
async fn session(client: &Client, tool: &Value) -> anyhow::Result<String> {
    let agent = client.make("/v1/agents", &json!({"name": "tester", "model": "scripted", "tools": [tool]})).await?;
    let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
    let strategy = json!({"name": "window", "version": 1, "params": {"rounds": 1, "leap": 1}});
    let body = json!({"agent": agent, "environment_id": environment, "strategy": strategy});
    client.make("/v1/sessions", &body).await
}

async fn turn(client: &Client, session: &str, text: &str) -> anyhow::Result<Vec<LoggedEvent>> {
    client.send(session, text, Mark::IdempotencyKey).await?;
    let said = |events: &[LoggedEvent]| events.iter().rposition(|event| event.text() == text);
    let rests = move |events: &[LoggedEvent]| {
        said(events).is_some_and(|at| events[at..].iter().any(LoggedEvent::is_idle))
            && events.last().is_some_and(LoggedEvent::is_idle)
    };
    client.until(session, rests).await
}

fn last_said(events: &[LoggedEvent]) -> String {
    let messages = events.iter().rev().find(|event| event.kind == "agent.message");
    messages.map(LoggedEvent::text).unwrap_or_default()
}

async fn the_model_reads_what_its_context_does_not_show(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (service, _model) = service(temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let client = service.client();
        let session = session(&client, &json!({"type": "session_log"})).await?;
        for text in ["one: the task", "two: the code is 4711", "three", "four"] {
            turn(&client, &session, text).await?;
        }
        let events = turn(&client, &session, "five: look back").await?;
        let context = client.ok(Method::GET, &format!("/v1/sessions/{session}/context?turn=5&round=1"), None).await?;
        ensure!(!context["request"].to_string().contains("4711"), "its context does not have it: {context:#}");
        ensure!(context["request"]["tools"][0]["name"] == "get_events", "{context:#}");
        let said = last_said(&events);
        ensure!(said.contains("two: the code is 4711") && !said.contains("Heard."), "{said}");
        let read: Vec<Value> = said.trim_start_matches("I read: ").lines().flat_map(serde_json::from_str).collect();
        let (last, lines) = read.split_last().context("it read something")?;
        ensure!(lines.len() == 5 && lines.iter().all(|line| line["type"] == "user.message"), "{lines:#?}");
        let positions = lines.iter().map(|line| line["position"].as_u64().unwrap_or(u64::MAX) as usize);
        for (line, position) in lines.iter().zip(positions) {
            ensure!(line["id"] == json!(events[position].id), "{line} is not at {position}");
        }
        let asked = events.iter().position(|event| event.kind == "agent.tool_use").context("it asked")?;
        ensure!(last["end"].as_u64() == Some(asked as u64 + 1 + 1), "up to its own request: {last}");

        let told = last_said(&turn(&client, &session, "six: look far").await?);
        ensure!(told.contains("position 100000 is behind the end of the log"), "{told}");
        let recording = client.ok(Method::GET, &format!("/v1/sessions/{session}/recording"), None).await?;
        ensure!(!recording.to_string().contains("hand_provisioned"), "nothing of it needs a sandbox");
        let replayed = client.ok(Method::GET, &format!("/v1/sessions/{session}/replay"), None).await?;
        ensure!(replayed["identical"] == true, "{replayed:#}");
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.with_logs(ended)?;
    service.stop().await.map(drop)
}

async fn it_waits_to_be_allowed_where_that_is_wanted(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (service, _model) = service(temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let client = service.client();
        let ask = json!({"type": "session_log", "permission_policy": {"type": "always_ask"}});
        let session = session(&client, &ask).await?;
        let events = turn(&client, &session, "look back").await?;
        let stop = events.last().context("it rests")?;
        ensure!(stop.rest["stop_reason"]["type"] == "requires_action", "{stop:?}");
        let used = events.iter().find(|event| event.kind == "agent.tool_use").context("it asked")?;
        let allow = json!({"type": "user.tool_confirmation", "tool_use_id": used.id, "result": "allow"});
        let path = format!("/v1/sessions/{session}/events");
        client.ok(Method::POST, &path, Some(&json!({"events": [allow]}))).await?;
        let ended = |events: &[LoggedEvent]| {
            let last = events.last().filter(|event| event.is_idle());
            last.is_some_and(|event| event.rest["stop_reason"]["type"] == "end_turn")
        };
        let said = last_said(&client.until(&session, ended).await?);
        ensure!(said.contains("\"look back\""), "{said}");
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.with_logs(ended)?;
    service.stop().await.map(drop)
}

on_each_engine![the_model_reads_what_its_context_does_not_show, it_waits_to_be_allowed_where_that_is_wanted];
