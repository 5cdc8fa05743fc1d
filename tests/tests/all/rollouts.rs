//! Rollouts of harnesses, from outside: stopped by their gate, rolled back by what live sessions do, promoted, and the
//! worker that decides about them killed at every step. On both engines.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use domain::fault::{Fault, Point};
use harness::rollout::is_among;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::engine,
    ground::Ground,
    on_each_engine,
    service::{Layout, Options, Role, Service},
};
use tokio::{net::TcpListener, task::JoinSet};

const SCRIPT: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"Heard.\" }]\n";
/// Sessions after which a version that fails must have been noticed: at 10 percent, three of its sessions are enough.
const SESSIONS_MAX: usize = 150;

/// A service without hands, as no tool is called here.
async fn service(fault: Option<Fault>, temporal: Option<SocketAddr>) -> anyhow::Result<(Service, Server)> {
    let script = Script::from_toml(SCRIPT, Path::new("rollouts.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let options = Options {
        layout: Layout::Split,
        temporal: temporal.map(|addr| (addr, "default".to_owned())),
        // Low, so that rollouts and sessions continue as new on the way.
        decisions_per_run: 3,
        fault: fault.map(|fault| (Role::Brain, fault)),
        ..Options::new(model.url())
    };
    Ok((Service::start(options).await?, model))
}

/// A harness that keeps the contract and gives up every turn.
fn failing() -> anyhow::Result<Vec<u8>> {
    let answer = r#"{\"step\":{\"step\":\"fail\",\"message\":\"not today\"}}"#;
    let bytes = answer.replace('\\', "").len();
    Ok(wat::parse_str(format!(
        r#"(module (@custom "steadyhand" "{{\"abi\":1,\"name\":\"failing\",\"version\":1,\"view\":2}}")
            (memory (export "memory") 1)
            (data (i32.const 0) "{answer}")
            (func (export "next") (param i32 i32) (result i64) (i64.const {bytes})))"#
    ))?)
}

fn stop_of(events: &[LoggedEvent]) -> &str {
    events.last().and_then(|event| event.rest["stop_reason"]["type"].as_str()).unwrap_or_default()
}

async fn a_harness_that_breaks_recorded_sessions_is_stopped(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (service, _model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        ground.add(failing()?).await?;
        for _ in 0..3 {
            ground.turn().await?;
        }
        let rollout = ground.rollout(&json!({"from": "loop@1", "to": "failing@1"})).await?;
        let shown = ground.until(&rollout, |shown| shown["status"] != "gating").await?;
        ensure!(shown["status"] == "stopped", "{shown:#}");
        ensure!(shown["gate"]["sessions"] == 3 && shown["gate"]["failure"]["why"] == "not today", "{shown:#}");
        let parts = &shown["gate"]["failure"]["at"]["divergence"];
        ensure!(parts["commit"] == 0 && parts["recorded"]["step"]["step"] == "call_model", "both sides: {parts:#}");
        ensure!(shown["reason"].as_str().is_some_and(|why| why.contains("not today")), "{shown:#}");
        let (_, events, harness) = ground.turn().await?;
        ensure!((stop_of(&events), harness.as_str()) == ("end_turn", "loop@1"), "nobody was given it");
        // In strict mode a harness that is meant to differ is stopped too, and without it is not.
        let gate = json!({"strict": true});
        let body = json!({"from": "loop@1", "to": "plan-act@1", "gate": gate, "stages": [10]});
        let strict = ground.rollout(&body).await?;
        let shown = ground.until(&strict, |shown| shown["status"] != "gating").await?;
        ensure!(shown["status"] == "stopped" && shown["gate"]["differing"] != 0, "{shown:#}");
        let body = json!({"from": "loop@1", "to": "plan-act@1", "stages": [10]});
        let shown = ground.until(&ground.rollout(&body).await?, |shown| shown["status"] != "gating").await?;
        ensure!(shown["status"] == "ramping" && shown["gate"]["sessions_differing"] == 4, "{shown:#}");
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.finish(ended).await
}

async fn one_that_raises_the_error_rate_rolls_back_by_itself(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (service, _model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        ground.add(failing()?).await?;
        let watch = json!({"sessions_min": 3, "stage_s": 3600});
        // No gate: what the record does not show.
        let body =
            json!({"from": "loop@1", "to": "failing@1", "stages": [10, 100], "gate": {"sessions": 0}, "watch": watch});
        let rollout = ground.rollout(&body).await?;
        ground.until(&rollout, |shown| shown["percent"] == 10).await?;
        let removed = ground.client.call(Method::DELETE, "/v1/harnesses/failing@1", None).await?;
        ensure!(removed.0 == StatusCode::CONFLICT, "it is in use: {removed:?}");
        let (mut failed, mut made) = (Vec::new(), 0);
        while ground.look(&rollout).await?["status"] == "ramping" {
            ensure!(made < SESSIONS_MAX, "nothing was noticed in {made} sessions, {} of which failed", failed.len());
            let (id, events, harness) = ground.turn().await?;
            let expected = if harness == "failing@1" { "retries_exhausted" } else { "end_turn" };
            ensure!(stop_of(&events) == expected, "{harness}: {}", stop_of(&events));
            ensure!(harness == "loop@1" || is_among(&id, 10), "{id} is not of the tenth that gets it");
            failed.extend((harness == "failing@1").then_some(id));
            made += 1;
        }
        let shown = ground.look(&rollout).await?;
        ensure!(shown["status"] == "rolled_back" && shown["percent"] == 0, "{shown:#}");
        let reason = shown["reason"].as_str().unwrap_or_default();
        ensure!(reason.starts_with("error rate rose from 0.0000 to 1.0000 at 10 percent (p = "), "{reason}");
        // Nobody gets it any more, and those who had it go on with what was there before.
        let (_, events, harness) = ground.turn().await?;
        ensure!((stop_of(&events), harness.as_str()) == ("end_turn", "loop@1"));
        for session in failed {
            ground.holds(&session, "loop@1").await?;
            ground.client.send(&session, "again", Mark::IdempotencyKey).await?;
            let ends = |events: &[LoggedEvent]| events.iter().filter(|event| event.is_idle()).count() == 2;
            let events = ground.client.until(&session, ends).await?;
            ensure!(stop_of(&events) == "end_turn", "{}", stop_of(&events));
        }
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.finish(ended).await
}

async fn one_that_is_no_worse_is_promoted_and_live_sessions_come_along(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (service, _model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        let (before, ..) = ground.turn().await?;
        let rollout = ground.rollout(&promising()).await?;
        let meeting = ground.client.call(Method::POST, "/v1/harness_rollouts", Some(&promising())).await?;
        ensure!(meeting.0 == StatusCode::CONFLICT, "one at a time: {meeting:?}");
        ground.until(&rollout, |shown| shown["percent"] == 50).await?;
        let path = |order: &str| format!("/v1/harness_rollouts/{rollout}/{order}");
        let paused = ground.client.ok(Method::POST, &path("pause"), None).await?;
        ensure!(paused["paused"] == true && paused["order"]["is_followed"] == true, "{paused:#}");
        let resumed = ground.client.ok(Method::POST, &path("resume"), None).await?;
        ensure!(resumed["paused"] == false, "{resumed:#}");
        let (old, new) = promoted(&ground, &rollout).await?;
        ensure!(old > 0 && new > 0, "both versions were used: {old}, {new}");
        let (_, events, harness) = ground.turn().await?;
        ensure!((stop_of(&events), harness.as_str()) == ("end_turn", "loop@2"), "everybody gets it: {harness}");
        ground.holds(&before, "loop@2").await?;
        let late = ground.client.call(Method::POST, &path("rollback"), None).await?;
        ensure!(late.0 == StatusCode::CONFLICT, "it is over: {late:?}");
        // Back again is a rollout in the other direction.
        let back = json!({"from": "loop@2", "to": "loop@1", "stages": [10], "gate": {"strict": false}});
        let rollout = ground.rollout(&back).await?;
        ground.until(&rollout, |shown| shown["status"] == "ramping").await?;
        ground.client.ok(Method::POST, &format!("/v1/harness_rollouts/{rollout}/promote"), None).await?;
        let (_, _, harness) = ground.turn().await?;
        ensure!(harness == "loop@1", "{harness}");
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.finish(ended).await
}

fn promising() -> Value {
    // What a turn takes says little where turns take milliseconds.
    let watch = json!({"sessions_min": 2, "stage_s": 0, "tolerance": 100.0});
    json!({"from": "loop@1", "to": "loop@2", "stages": [50, 100], "live": true, "watch": watch})
}

/// Makes sessions until the rollout is over. How many of them had the old version, and how many the new one.
async fn promoted(ground: &Ground, rollout: &str) -> anyhow::Result<(usize, usize)> {
    let (mut old, mut new) = (0, 0);
    while ground.look(rollout).await?["status"] == "ramping" {
        ensure!(old + new < SESSIONS_MAX, "not promoted after {old} and {new}: {:#}", ground.look(rollout).await?);
        let (_, events, harness) = ground.turn().await?;
        ensure!(stop_of(&events) == "end_turn", "{harness}: {}", stop_of(&events));
        match harness.as_str() {
            "loop@1" => old += 1,
            _ => new += 1,
        }
    }
    let shown = ground.look(rollout).await?;
    ensure!(shown["status"] == "promoted", "{shown:#}");
    Ok((old, new))
}

/// Where the brain worker dies, and in which passage.
const MOMENTS: [(Point, u64); 7] = [
    (Point::RolloutDeciding, 1),
    (Point::RolloutDecided, 1),
    (Point::GateStarted, 1),
    (Point::GateReported, 1),
    (Point::RolloutDecided, 2),
    (Point::RolloutDecided, 3),
    (Point::RolloutContinued, 1),
];
const CELLS_AT_ONCE: usize = 3;

/// The worker is killed at a step; whoever takes over ends the rollout as if nothing had happened.
async fn cell(point: Point, nth: u64, temporal: Option<SocketAddr>) -> anyhow::Result<()> {
    let (mut service, _model) = service(Some(Fault { point, nth }), temporal).await?;
    let ended = async {
        let ground = Ground::new(&service).await?;
        ground.turn().await?;
        let rollout = ground.rollout(&promising()).await?;
        let brain = service.process(Role::Brain)?;
        // Sessions are what moves it on to its later steps.
        let working = async {
            loop {
                if let Err(error) = ground.turn().await {
                    return error;
                }
            }
        };
        tokio::select! {
            stopped = brain.stopped() => stopped.context("the moment does not come")?,
            error = working => return Err(error),
        }
        brain.kill().await?;
        service.start_missing().await?;
        promoted_after(&ground, &rollout).await
    };
    let ended = ended.await;
    service.finish(ended).await
}

async fn promoted_after(ground: &Ground, rollout: &str) -> anyhow::Result<()> {
    ground.until(rollout, |shown| shown["status"] != "gating").await?;
    promoted(ground, rollout).await?;
    let shown = ground.look(rollout).await?;
    let notes: Vec<&str> =
        shown["notes"].as_array().into_iter().flatten().filter_map(|note| note["what"].as_str()).collect();
    let [gate, rest @ ..] = notes.as_slice() else { anyhow::bail!("{shown:#}") };
    ensure!(gate.starts_with("gate passed: 1 sessions"), "{notes:?}");
    ensure!(rest == ["50 percent", "100 percent", "promoted: the last stage held"], "each step once: {notes:?}");
    Ok(())
}

async fn the_worker_dies_at_every_step(is_temporal: bool) -> anyhow::Result<()> {
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(CELLS_AT_ONCE));
    let mut cells = JoinSet::new();
    for (point, nth) in MOMENTS {
        let slots = slots.clone();
        cells.spawn(async move {
            let _slot = slots.acquire().await.map_err(|error| error.to_string())?;
            let temporal = engine(is_temporal).map_err(|error| format!("{error:?}"))?;
            let ended = cell(point, nth, temporal.as_ref().map(|temporal| temporal.addr)).await;
            ended.map_err(|error| format!("== {}:{nth}: {error:?}", point.name()))
        });
    }
    let failed: Vec<String> = cells.join_all().await.into_iter().filter_map(Result::err).collect();
    ensure!(failed.is_empty(), "{} of {} cells failed:\n{}", failed.len(), MOMENTS.len(), failed.join("\n"));
    Ok(())
}

/// Killed while the gate is on and while sessions are given the new version, the api goes on where it was.
async fn the_api_dies_on_the_way(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (mut service, _model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        let (before, ..) = ground.turn().await?;
        let rollout = ground.rollout(&promising()).await?;
        service.lose().await?;
        ground.until(&rollout, |shown| shown["percent"] == 50).await?;
        service.lose().await?;
        promoted_after(&ground, &rollout).await?;
        ground.holds(&before, "loop@2").await?;
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.finish(ended).await
}

on_each_engine![
    a_harness_that_breaks_recorded_sessions_is_stopped,
    one_that_raises_the_error_rate_rolls_back_by_itself,
    one_that_is_no_worse_is_promoted_and_live_sessions_come_along,
    the_worker_dies_at_every_step,
    the_api_dies_on_the_way,
];
