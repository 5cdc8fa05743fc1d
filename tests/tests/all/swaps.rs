//! Many live sessions are given other harnesses while they work, and the service another build, and nothing is lost. On both
//! engines.
//!
//! `scripts/long swaps` does it with more sessions (`STEADYHAND_SWAPS`), and from an older build if `STEADYHAND_OLD` names the folder
//! of one.

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use domain::fault::{Fault, Point};
use reqwest::Method;
use std::{net::SocketAddr, path::Path, sync::Arc, time::Instant};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::engine,
    ground::Ground,
    long, on_each_engine,
    service::{Layout, Options, Role, Service},
    transcript::check_log,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

const SESSIONS: usize = 20;
/// Messages of a session; before some of them it is given another harness.
const MESSAGES: usize = 8;
const SWAPS: [(usize, &str); 3] = [(1, "loop@2"), (3, "plan-act@1"), (5, "loop@2")];
/// Sessions that are in the middle of something side by side. The others live too, and rest.
const AT_ONCE: usize = 20;

/// Slow enough that swaps come in the middle of turns.
const SCRIPT: &str = r#"
version = 1
[[rules]]
delay_ms = 30
answer = [{ text = "Heard. PLAN COMPLETE" }]
"#;

async fn service(fault: Option<Fault>, temporal: Option<SocketAddr>) -> anyhow::Result<(Service, Server)> {
    let script = Script::from_toml(SCRIPT, Path::new("swaps.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let options = Options {
        layout: Layout::Split,
        temporal: temporal.map(|addr| (addr, "default".to_owned())),
        decisions_per_run: 6,
        fault: fault.map(|fault| (Role::Brain, fault)),
        ..Options::new(model.url())
    };
    let old = std::env::var_os("STEADYHAND_OLD").map(Into::into);
    Ok((Service::start_old(options, old).await?, model))
}

/// One session at work: messages that do not wait for turns to end, and swaps between them.
async fn work(
    ground: &Ground,
    session: &str,
    slots: &Semaphore,
    acknowledged: &watch::Sender<usize>,
) -> anyhow::Result<Vec<String>> {
    let mut ids = Vec::new();
    for pair in 0..MESSAGES / 2 {
        let _slot = slots.acquire().await?;
        for number in [2 * pair, 2 * pair + 1] {
            if let Some((_, harness)) = SWAPS.iter().find(|(before, _)| *before == number) {
                ground.swap(session, harness).await?;
            }
            // The second one comes into a turn that is on.
            ids.push(ground.client.send(session, &format!("message {number}"), Mark::IdempotencyKey).await?);
            acknowledged.send_modify(|count| *count += 1);
        }
        ground.client.until(session, |events| answered(events, ids.last())).await?;
    }
    Ok(ids)
}

/// The message is in the log and the session rests behind it.
fn answered(events: &[LoggedEvent], id: Option<&String>) -> bool {
    let at = events.iter().position(|event| Some(&event.id) == id);
    at.is_some_and(|at| events.iter().skip(at).any(LoggedEvent::is_idle))
        && events.last().is_some_and(LoggedEvent::is_idle)
}

async fn check(ground: &Ground, session: &str, ids: &[String]) -> anyhow::Result<usize> {
    let events = ground.client.events(session).await?;
    check_log(&ground.client, session, &events).await?;
    let logged: Vec<&String> =
        events.iter().filter(|event| event.kind == "user.message").map(|event| &event.id).collect();
    ensure!(logged.iter().copied().eq(ids), "{session} has {logged:?} instead of {ids:?}");
    let stops = events.iter().filter(|event| event.is_idle());
    for stop in stops {
        ensure!(stop.rest["stop_reason"]["type"] == "end_turn", "{session}: {stop:?}");
    }
    let held = ground.harnesses(session).await?;
    ensure!(held.last().map(String::as_str) == Some("loop@2"), "{session}: {held:?}");
    ensure!(held.len() > 2, "swaps were applied on the way: {session}: {held:?}");
    // What an older build or another harness decided, this one decides again.
    let replayed = ground.client.ok(Method::GET, &format!("/v1/sessions/{session}/replay"), None).await?;
    ensure!(replayed["identical"] == true, "{session}: {replayed:#}");
    Ok(held.len() - 1)
}

async fn sessions_are_swapped_and_the_service_upgraded_under_load(is_temporal: bool) -> anyhow::Result<()> {
    let count = long::number("STEADYHAND_SWAPS", SESSIONS)?;
    let temporal = engine(is_temporal)?;
    let (mut service, _model) = service(None, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let begun = Instant::now();
    let result = load(&mut service, count).await;
    let swaps = service.finish(result).await?;
    let seconds = begun.elapsed().as_secs();
    println!("figures: {count} sessions, {} messages, {swaps} swaps, 1 upgrade, {seconds} s", count * MESSAGES);
    Ok(())
}

async fn load(service: &mut Service, count: usize) -> anyhow::Result<usize> {
    let ground = Ground::new(service).await?;
    let acknowledged = Arc::new(watch::Sender::new(0));
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut sessions = Vec::new();
    for _ in 0..count {
        sessions.push(ground.session().await?);
    }
    let mut working = JoinSet::new();
    for session in sessions {
        let (ground, acknowledged, slots) = (ground.clone(), acknowledged.clone(), slots.clone());
        working.spawn(async move {
            let ids = work(&ground, &session, &slots, &acknowledged).await.with_context(|| session.clone())?;
            anyhow::Ok((session, ids))
        });
    }
    // In the middle of it.
    let mut counted = acknowledged.subscribe();
    let half = tokio::time::timeout(long::patience(), counted.wait_for(|sent| *sent >= count * MESSAGES / 2));
    tokio::pin!(half);
    let mut done = Vec::new();
    loop {
        tokio::select! {
            reached = &mut half => {
                reached.context("nothing moves any more")??;
                break;
            }
            Some(worked) = working.join_next() => done.push(worked??),
        }
    }
    service.upgrade().await?;
    while let Some(worked) = working.join_next().await {
        done.push(worked??);
    }
    let mut swaps = 0;
    for (session, ids) in &done {
        swaps += check(&ground, session, ids).await?;
    }
    ensure!(done.len() == count, "{} sessions", done.len());
    Ok(swaps)
}

/// Where the brain worker dies while a session is swapped in the middle of a turn.
const MOMENTS: [(Point, u64); 6] = [
    (Point::TaskStarted, 2),
    (Point::DecisionMade, 2),
    (Point::ModelAnswered, 1),
    (Point::RunContinued, 1),
    (Point::RunSealing, 1),
    (Point::RunSealed, 1),
];

async fn the_worker_dies_at_every_step_of_a_swap(is_temporal: bool) -> anyhow::Result<()> {
    let mut cells = JoinSet::new();
    let slots = Arc::new(Semaphore::new(3));
    for (point, nth) in MOMENTS {
        let slots = slots.clone();
        cells.spawn(async move {
            let _slot = slots.acquire().await.map_err(|error| error.to_string())?;
            let ended = cell(point, nth, is_temporal).await;
            ended.map_err(|error| format!("== {}:{nth}: {error:?}", point.name()))
        });
    }
    let failed: Vec<String> = cells.join_all().await.into_iter().filter_map(Result::err).collect();
    ensure!(failed.is_empty(), "{} of {} cells failed:\n{}", failed.len(), MOMENTS.len(), failed.join("\n"));
    Ok(())
}

async fn cell(point: Point, nth: u64, is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let fault = Some(Fault { point, nth });
    let (mut service, _model) = service(fault, temporal.as_ref().map(|temporal| temporal.addr)).await?;
    let scenario = async {
        let ground = Ground::new(&service).await?;
        let session = ground.session().await?;
        let mut ids = vec![ground.client.send(&session, "one", Mark::IdempotencyKey).await?];
        ground.swap(&session, "loop@2").await?;
        let brain = service.process(Role::Brain)?;
        brain.stopped().await.context("the moment does not come")?;
        brain.kill().await?;
        service.start_missing().await?;
        ids.push(ground.client.send(&session, "two", Mark::IdempotencyKey).await?);
        ground.client.until(&session, |events| answered(events, ids.last())).await?;
        ensure!(ground.harnesses(&session).await? == ["loop@1", "loop@2"], "it is swapped once");
        let events = ground.client.events(&session).await?;
        check_log(&ground.client, &session, &events).await?;
        let sent = events.iter().filter(|event| event.kind == "user.message").count();
        ensure!(sent == ids.len(), "{sent} messages");
        let replayed = ground.client.ok(Method::GET, &format!("/v1/sessions/{session}/replay"), None).await?;
        ensure!(replayed["identical"] == true, "{replayed:#}");
        anyhow::Ok(())
    };
    let ended = scenario.await;
    service.finish(ended).await
}

on_each_engine![sessions_are_swapped_and_the_service_upgraded_under_load, the_worker_dies_at_every_step_of_a_swap];
