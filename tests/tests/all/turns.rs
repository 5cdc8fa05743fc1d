//! A single turn over many runs: its log reads as one, and `kill -9` in the middle changes nothing.
//!
//! `scripts/long turns` runs it longer: `STEADYHAND_TURN_CALLS` tool calls.

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use activities::model::scripted::{Script, Server, serve};
use anyhow::ensure;
use std::{path::Path, time::Instant};
use steadyhand_tests::{
    afterwards, bed,
    client::{LoggedEvent, Mark},
    engines::{Temporal, free_addr},
    long,
    service::{Options, Role, Service},
    transcript::check_log,
};
use tokio::net::TcpListener;

/// As many as fit into a minute and a half of CI.
const CALLS: usize = 1_000;
const CALLS_ON_TEMPORAL: usize = 200;
/// Calls in one answer of the model.
const CALLS_AT_ONCE: usize = 20;
const RUNS_MIN: usize = 8;

/// Each of them ends its run.
const TURNS: usize = 60;
const RUNS_OF_A_SESSION_MIN: usize = 50;
const RUNS_OF_A_SESSION_MAX: usize = 2 * TURNS;

#[tokio::test(flavor = "multi_thread")]
async fn one_turn_of_many_runs_embedded() -> anyhow::Result<()> {
    one_turn(long::number("STEADYHAND_TURN_CALLS", CALLS)?, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_turn_of_many_runs_on_temporal() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Temporal::start_at(free_addr()?, Some(&dir.path().join("temporal.db")), &[])?;
    one_turn(long::number("STEADYHAND_TURN_CALLS", CALLS_ON_TEMPORAL)?, Some(&server)).await
}

async fn one_turn(calls: usize, temporal: Option<&Temporal>) -> anyhow::Result<()> {
    let answers = calls / CALLS_AT_ONCE;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script(calls)?)?;
    // Each answer takes two decisions at least, so this makes more runs than are asked for.
    let decisions_per_run = (answers / RUNS_MIN).max(1) as u64;
    let mut service = start(&model, decisions_per_run, temporal).await?;
    let begun = Instant::now();
    let ended = killed_in_the_middle(&mut service, &model, answers).await;
    let (session, events) = service.with_logs(ended)?;
    let seconds = begun.elapsed().as_secs_f64();
    let results = events.iter().filter(|event| event.kind == "agent.tool_result").count();
    ensure!(results == calls, "{results} results of {calls} calls");
    ensure!(events.iter().filter(|event| event.is_idle()).count() == 1, "it was to be one turn");
    let effects = service.effects();
    ensure!(effects == calls, "{calls} calls took effect {effects} times");
    let dir = service.stop().await?;
    let runs = runs(dir.path(), &session, &events, temporal).await?;
    ensure!(runs >= RUNS_MIN, "{runs} runs instead of at least {RUNS_MIN}");
    println!("figures: {calls} calls, {runs} runs, {} events, {seconds:.1} s", events.len());
    Ok(())
}

async fn killed_in_the_middle(
    service: &mut Service,
    model: &Server,
    answers: usize,
) -> anyhow::Result<(String, Vec<LoggedEvent>)> {
    let client = service.client();
    let session = client.session().await?;
    client.send(&session, "go", Mark::IdempotencyKey).await?;
    model.wait_for(answers / 2).await;
    service.process(Role::Serve)?.kill().await?;
    service.start_missing().await?;
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    check_log(&client, &session, &events).await?;
    Ok((session, events))
}

fn script(calls: usize) -> anyhow::Result<Script> {
    let call = r#"{ tool = "bash", input = { command = "echo once >> counter" } }"#;
    let answer = vec![call; CALLS_AT_ONCE].join(", ");
    let text = format!(
        "version = 1\n[[rules]]\nwhen = {{ results = {{ max = {} }} }}\nanswer = [{answer}]\n\
         [[rules]]\nanswer = [{{ text = \"Done.\" }}]\n",
        calls - 1
    );
    Ok(Script::from_toml(&text, Path::new("turns.toml"))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_fifty_runs() -> anyhow::Result<()> {
    let script = "version = 1\n[[rules]]\nanswer = [{ text = \"You said {{user}}.\" }]\n";
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(script, Path::new("runs.toml"))?)?;
    // The lowest limit there is; a session at rest must not go from run to run by itself.
    let mut service = start(&model, 1, None).await?;
    let client = service.client();
    let session = client.session().await?;
    let mut events = Vec::new();
    for turn in 1..=TURNS {
        client.send(&session, &turn.to_string(), Mark::RetryCount).await?;
        if turn == TURNS / 2 {
            service.process(Role::Serve)?.kill().await?;
            service.start_missing().await?;
        }
        let idle = |events: &[LoggedEvent]| events.iter().filter(|event| event.is_idle()).count() == turn;
        events = client.until(&session, idle).await?;
    }
    check_log(&client, &session, &events).await?;
    let answers: Vec<String> =
        events.iter().filter(|event| event.kind == "agent.message").map(LoggedEvent::text).collect();
    let expected: Vec<String> = (1..=TURNS).map(|turn| format!("You said {turn}.")).collect();
    ensure!(answers == expected, "the answers are {answers:?}");
    let dir = service.stop().await?;
    let runs = runs(dir.path(), &session, &events, None).await?;
    let expected = RUNS_OF_A_SESSION_MIN..=RUNS_OF_A_SESSION_MAX;
    ensure!(expected.contains(&runs), "{runs} runs instead of {expected:?}");
    Ok(())
}

async fn start(model: &Server, decisions_per_run: u64, temporal: Option<&Temporal>) -> anyhow::Result<Service> {
    let temporal = temporal.map(|server| (server.addr, bed::NAMESPACE.to_owned()));
    let model_url = model.url();
    Service::start(Options { temporal, decisions_per_run, ..Options::new(model_url) }).await
}

async fn runs(dir: &Path, session: &str, events: &[LoggedEvent], temporal: Option<&Temporal>) -> anyhow::Result<usize> {
    match temporal {
        None => afterwards::of_engine(dir, session, events).await,
        Some(server) => afterwards::of_log(bed::cluster(server).await?, bed::NAMESPACE, dir, session, events).await,
    }
}
