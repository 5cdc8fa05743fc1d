//! Slices of a long log by position: a page of 1,000 events takes as long at its end as at its beginning, wherever in the log it
//! lies, over HTTP and with every byte read. On both engines.
//!
//! The log is short here; `scripts/long pages` has one of 100,000 events, and a build that is optimised.

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use http::{Method, StatusCode};
use rand::Rng as _;
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use steadyhand_tests::{
    client::Client,
    engines::engine,
    long, on_each_engine,
    service::{Options, Service},
};
use tokio::net::TcpListener;

on_each_engine![pages_of_a_long_log];

const EVENTS: usize = 3_000;
const PAGE: usize = 1_000;
const PAGES: usize = 200;
/// Messages of one request, and so of a turn.
const MESSAGES: usize = 50;
/// What half of all pages have to keep; without optimisation only how long nothing may take.
const TIME_MAX: Duration = if cfg!(debug_assertions) { Duration::from_millis(500) } else { Duration::from_millis(10) };

const SCRIPT: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"Heard.\" }]\n";

/// Turns of many messages, until the log is that long.
async fn fill(client: &Client, session: &str, events: usize) -> anyhow::Result<()> {
    let path = format!("/v1/sessions/{session}/events");
    let answer = client.request(Method::GET, &format!("{path}/stream")).send().await?.error_for_status()?;
    let mut chunks = answer.bytes_stream();
    let (mut position, mut text, mut rests) = (0, String::new(), true);
    while position < events {
        if std::mem::take(&mut rests) {
            let messages: Vec<Value> = (0..MESSAGES)
                .map(|n| json!({"type": "user.message", "content": [{"type": "text", "text": format!("message {n}")}]}))
                .collect();
            let answer = client.request(Method::POST, &path).json(&json!({"events": messages})).send().await?;
            ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
        }
        let chunk = tokio::time::timeout(long::patience(), chunks.next()).await.context("the turn does not end")?;
        text.push_str(std::str::from_utf8(&chunk.context("the stream goes on")??)?);
        while let Some((message, behind)) = text.split_once("\n\n") {
            if let Some(id) = message.lines().find_map(|line| line.strip_prefix("id: ")) {
                position = id.parse::<usize>()? + 1;
            }
            rests |= message.starts_with("event: session.status_idle");
            text = behind.to_owned();
        }
    }
    Ok(())
}

async fn page(client: &Client, session: &str, from: usize) -> anyhow::Result<(Duration, usize)> {
    let path = format!("/v1/sessions/{session}/events?from_position={from}&limit={PAGE}");
    let begun = Instant::now();
    let answer = client.request(Method::GET, &path).send().await?.error_for_status()?.bytes().await?;
    let took = begun.elapsed();
    let listed: Value = serde_json::from_slice(&answer)?;
    let events = listed["data"].as_array().context("a page has events")?;
    ensure!(events.len() == PAGE, "{} events from {from} on", events.len());
    // The same events that a page which begins elsewhere has.
    let last = client.slice(session, from + PAGE - 1, from + PAGE).await?;
    ensure!(events.last().context("it has a last")?["id"] == last[0].id.as_str());
    Ok((took, answer.len()))
}

async fn pages_of_a_long_log(is_temporal: bool) -> anyhow::Result<()> {
    let events = long::number("STEADYHAND_PAGES_EVENTS", EVENTS)?;
    let script = Script::from_toml(SCRIPT, Path::new("script.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let cluster = engine(is_temporal)?;
    let temporal = cluster.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal, ..Options::new(model.url()) }).await?;
    let client = service.client();
    let agent = client.make("/v1/agents", &json!({"name": "a", "model": "scripted"})).await?;
    let environment = client.make("/v1/environments", &json!({"name": "e"})).await?;
    let strategy = json!({"name": "window", "version": 1, "params": {"rounds": 5, "leap": 5}});
    let body = json!({"agent": agent, "environment_id": environment, "strategy": strategy});
    let session = client.make("/v1/sessions", &body).await?;
    fill(&client, &session, events).await?;
    let mut times = Vec::new();
    let mut bytes = 0;
    for n in 0..PAGES {
        // The ends first, then anywhere.
        let from = match n {
            0 => 0,
            1 => events - PAGE,
            _ => rand::rng().random_range(0..=events - PAGE),
        };
        let (took, length) = page(&client, &session, from).await?;
        times.push(took);
        bytes += length;
    }
    times.sort_unstable();
    let (p50, p99) = (times[PAGES / 2], times[PAGES * 99 / 100]);
    let kib = bytes / PAGES / 1024;
    let engine = if is_temporal { "temporal" } else { "embedded" };
    println!(
        "figures: {engine}: {PAGES} pages of {PAGE} events, {kib} KiB each, of a log of {events}: p50 {p50:.1?}, p99 {p99:.1?}"
    );
    ensure!(p50 < TIME_MAX, "a page takes {p50:?}");
    service.stop().await.map(drop)
}
