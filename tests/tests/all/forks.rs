//! Sessions that go on from any place of another one. On both engines.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path, sync::Arc};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::engine,
    long, on_each_engine,
    service::{Layout, Options, Service},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// Two requests a turn: one asks for a tool that the client runs.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "and now" }
answer = [{ text = "Heard." }]
[[rules]]
when = { user_contains = "look", results = 0 }
answer = [{ text = "Looking." }, { tool = "lookup", input = { q = "1" } }]
[[rules]]
answer = [{ text = "Heard." }]
"#;

async fn service(temporal: Option<SocketAddr>) -> anyhow::Result<(Service, Server)> {
    let script = Script::from_toml(SCRIPT, Path::new("forks.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let options = Options {
        layout: Layout::Split,
        temporal: temporal.map(|addr| (addr, "default".to_owned())),
        // Low, so that places fall into sealed runs, into the last one, and between them.
        decisions_per_run: 2,
        ..Options::new(model.url())
    };
    Ok((Service::start(options).await?, model))
}

/// Three turns, the second of which waits for the client's tool on the way.
async fn parent(client: &Client) -> anyhow::Result<(String, Vec<LoggedEvent>)> {
    let schema = json!({"type": "object", "properties": {"q": {"type": "string"}}});
    let tool = json!({"type": "custom", "name": "lookup", "description": "looks up", "input_schema": schema});
    let agent = client.make("/v1/agents", &json!({"name": "tester", "model": "scripted", "tools": [tool]})).await?;
    let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
    let body = json!({"agent": agent, "environment_id": environment, "title": "the first"});
    let session = client.make("/v1/sessions", &body).await?;
    let idles = |count: usize| {
        move |events: &[LoggedEvent]| events.iter().filter(|event| event.is_idle()).count() == count && ended(events)
    };
    client.send(&session, "one", Mark::RetryCount).await?;
    client.until(&session, idles(1)).await?;
    client.send(&session, "look", Mark::RetryCount).await?;
    let events = client.until(&session, idles(2)).await?;
    let used = events.iter().find(|event| event.kind == "agent.custom_tool_use").context("it asks for the tool")?;
    let result = json!({"type": "user.custom_tool_result", "custom_tool_use_id": used.id,
        "content": [{"type": "text", "text": "found"}]});
    client.ok(Method::POST, &format!("/v1/sessions/{session}/events"), Some(&json!({"events": [result]}))).await?;
    client.until(&session, idles(3)).await?;
    client.send(&session, "three", Mark::RetryCount).await?;
    Ok((session.clone(), client.until(&session, idles(4)).await?))
}

fn ended(events: &[LoggedEvent]) -> bool {
    events.last().is_some_and(LoggedEvent::is_idle)
}

async fn fork(client: &Client, parent: &str, body: &Value) -> anyhow::Result<String> {
    client.make(&format!("/v1/sessions/{parent}/fork"), body).await
}

/// A fork has its parent's log up to its place, rests, and goes on; its log decides the same again.
async fn check(client: &Client, parent: &[LoggedEvent], fork: &str, at: usize) -> anyhow::Result<()> {
    // Committed by its first decision, whether or not that has an event.
    client.send(fork, "and now", Mark::RetryCount).await?;
    let answered = |events: &[LoggedEvent]| {
        let last = events.iter().rposition(|event| event.kind == "user.message").map(|at| events[at].text());
        last.as_deref() == Some("and now") && ended(events)
    };
    let events = client.until(fork, answered).await?;
    let shared = events.iter().zip(parent).take_while(|(one, other)| one == other).count();
    ensure!(shared <= at, "a fork at {at} shares {shared} events");
    let (_, own) = events.split_at(shared);
    ensure!(parent.iter().take(at).skip(shared).all(|event| !own.iter().any(|own| own.id == event.id)));
    let said = own.iter().find(|event| event.kind == "user.message").map(LoggedEvent::text);
    ensure!(said.as_deref() == Some("and now"), "at {at}: {own:#?}");
    ensure!(own.iter().any(|event| event.kind == "agent.message" && event.text() == "Heard."), "at {at}: {own:#?}");
    ensure!(own.iter().all(|event| event.kind != "session.error"), "at {at}: {own:#?}");
    for from in [0, shared.saturating_sub(1), shared] {
        let slice = client.slice(fork, from, shared + 2).await?;
        ensure!(slice == events[from..events.len().min(shared + 2)], "positions are those of the one log");
    }
    let replayed = client.ok(Method::GET, &format!("/v1/sessions/{fork}/replay"), None).await?;
    ensure!(replayed["identical"] == true, "at {at}: {replayed:#}");
    let context = client.ok(Method::GET, &format!("/v1/sessions/{fork}/context"), None).await?;
    ensure!(context["is_as_sent"] == true, "at {at}: the request can be made again");
    Ok(())
}

async fn a_session_can_be_forked_at_every_place(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (service, _model) = service(temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let client = service.client();
        let (session, events) = parent(&client).await?;
        let mut last = String::new();
        for at in 0..=events.len() {
            last = fork(&client, &session, &json!({"at": at})).await?;
            check(&client, &events, &last, at).await.with_context(|| format!("forked at {at}"))?;
        }
        ensure!(client.events(&session).await? == events, "the parent is as it was");
        let behind = client.request(Method::POST, &format!("/v1/sessions/{session}/fork"));
        let refused = behind.json(&json!({"at": events.len() + 1})).send().await?;
        ensure!(refused.status() == StatusCode::BAD_REQUEST);

        // With another harness and strategy; and a fork of that.
        let strategy = json!({"name": "window", "version": 1, "params": {"rounds": 2}});
        let other = json!({"harness": "loop@2", "strategy": strategy, "title": "the second"});
        let second = fork(&client, &last, &other).await?;
        client.send(&second, "go on", Mark::RetryCount).await?;
        let own = client.until(&second, |events| ended(events) && events.iter().any(|e| e.text() == "go on")).await?;
        let shown = client.ok(Method::GET, &format!("/v1/sessions/{second}"), None).await?;
        ensure!(shown["title"] == "the second", "{shown:#}");
        let context = client.ok(Method::GET, &format!("/v1/sessions/{second}/context"), None).await?;
        ensure!(context["strategy"]["name"] == "window", "{context:#}");
        let third = fork(&client, &second, &json!({"at": events.len() + 2})).await?;
        check(&client, &own, &third, events.len() + 2).await?;
        let replayed = client.ok(Method::GET, &format!("/v1/sessions/{second}/replay"), None).await?;
        ensure!(replayed["identical"] == true, "{replayed:#}");

        // What a fork shares outlives the session that it was made from.
        for gone in [&session, &last] {
            client.delete(gone).await?;
        }
        ensure!(client.events(&second).await? == own, "it is read as before");
        check(&client, &own, &fork(&client, &second, &json!({})).await?, own.len()).await?;
        anyhow::Ok(())
    };
    let checked = scenario.await;
    service.finish(checked).await
}

/// Forks that are made side by side, and kills of the api between them.
const FORKERS: usize = 4;
const KILLS: usize = 3;
const FORKS_BETWEEN: usize = 6;

/// Forks until it is told to stop; those that were acknowledged.
async fn forker(
    client: Client,
    parent: String,
    places: usize,
    made: Arc<watch::Sender<usize>>,
    stop: watch::Receiver<bool>,
) -> Vec<(String, usize)> {
    let mut forks = Vec::new();
    for number in 0.. {
        if *stop.borrow() {
            break;
        }
        let at = number % places;
        // Without an answer nobody knows what became of it.
        if let Ok(id) = fork(&client, &parent, &json!({"at": at})).await {
            forks.push((id, at));
            made.send_modify(|count| *count += 1);
        }
    }
    forks
}

async fn the_api_dies_while_forks_are_made(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (mut service, _model) = service(temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let client = service.client();
        let (session, events) = parent(&client).await?;
        let (made, (stop, stopped)) = (Arc::new(watch::Sender::new(0)), watch::channel(false));
        let mut forkers = JoinSet::new();
        for _ in 0..FORKERS {
            forkers.spawn(forker(client.clone(), session.clone(), events.len(), made.clone(), stopped.clone()));
        }
        let mut counted = made.subscribe();
        for kill in 1..=KILLS {
            let enough = counted.wait_for(|count| *count >= kill * FORKS_BETWEEN);
            tokio::time::timeout(long::patience(), enough).await.context("no fork is made any more")??;
            service.lose().await?;
        }
        stop.send_replace(true);
        let forks: Vec<(String, usize)> = forkers.join_all().await.into_iter().flatten().collect();
        ensure!(forks.len() >= KILLS * FORKS_BETWEEN, "{} forks", forks.len());
        for (fork, at) in &forks {
            let own = client.events(fork).await?;
            let shared = own.iter().zip(&events).take_while(|(one, other)| one == other).count();
            ensure!(shared <= *at && own.len() >= shared, "{fork} at {at} shares {shared} events");
        }
        // What nobody was told of is a whole session, or none.
        let listed = client.ok(Method::GET, "/v1/sessions?limit=100", None).await?;
        for listed in listed["data"].as_array().context("a page of sessions")? {
            let id = listed["id"].as_str().context("it has an id")?;
            client.events(id).await?;
        }
        let (last, at) = forks.last().context("there is one")?;
        check(&client, &events, last, *at).await
    };
    let checked = scenario.await;
    service.finish(checked).await
}

on_each_engine![a_session_can_be_forked_at_every_place, the_api_dies_while_forks_are_made];
