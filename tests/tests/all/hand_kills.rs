//! The crash matrix of `execute`: the hand worker, the shim, the brain, the service or egress dies while a hand's journal is in
//! each of its states. A file in the workspace counts effects: never more than one, and one unless the hand itself died. What the
//! log says of it is what the model was told.
//!
//! `scripts/long hands` runs all of it on both engines; a sample of it is run otherwise.

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use domain::fault::{Fault, Point};
use serde_json::Value;
use std::{net::SocketAddr, path::Path, sync::Arc};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::{Temporal, free_addr},
    gate::{self, Gate},
    long,
    service::{Layout, Options, Role, Service},
    shims::{self, Foreign},
    transcript::check_log,
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Worker,
    Shim,
    Brain,
    Service,
    Egress,
}

/// What the hand's journal, or the hand's worker, knows of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Journal {
    /// The worker has the call, the hand knows nothing.
    Nothing,
    Begun,
    Running,
    /// It is over, and that is not written.
    Ended,
    Recorded,
    /// The worker was told, and has told nobody.
    Told,
}

use Journal::{Begun, Ended, Nothing, Recorded, Running, Told};
use Victim::{Brain, Egress, Shim, Worker};

const VICTIMS: [Victim; 5] = [Worker, Shim, Brain, Victim::Service, Egress];
const STATES: [Journal; 6] = [Nothing, Begun, Running, Ended, Recorded, Told];

/// Each state for the shim, which alone can lose a call; each state once for whom a call outlives.
const SAMPLE: [(Victim, Journal); 12] = [
    (Shim, Nothing),
    (Shim, Begun),
    (Shim, Running),
    (Shim, Ended),
    (Shim, Recorded),
    (Shim, Told),
    (Worker, Begun),
    (Worker, Recorded),
    (Brain, Ended),
    (Victim::Service, Begun),
    (Victim::Service, Recorded),
    (Egress, Running),
];
/// What differs by engine is who asks again, and when.
const TEMPORAL_SAMPLE: [(Victim, Journal); 4] =
    [(Shim, Begun), (Worker, Ended), (Brain, Recorded), (Victim::Service, Begun)];

/// Cells that run at the same time: they mostly wait for timeouts of the engine.
const CELLS_AT_ONCE: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_effect_once_whoever_dies_embedded() -> anyhow::Result<()> {
    matrix("embedded", cells(&SAMPLE)?, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_effect_once_whoever_dies_on_temporal() -> anyhow::Result<()> {
    let cells = cells(&TEMPORAL_SAMPLE)?;
    let dir = tempfile::tempdir()?;
    let namespaces: Vec<String> = (0..cells.len()).map(namespace).collect();
    let server = Temporal::start_at(free_addr()?, Some(&dir.path().join("temporal.db")), &namespaces)?;
    matrix("temporal", cells, Some(server.addr)).await
}

/// Services on one Temporal server keep apart by their namespaces.
fn namespace(cell: usize) -> String {
    format!("cell-{cell}")
}

fn cells(sample: &[(Victim, Journal)]) -> anyhow::Result<Vec<(Victim, Journal)>> {
    if long::number("STEADYHAND_HAND_KILLS_ALL", 0)? == 0 {
        return Ok(sample.to_vec());
    }
    let all = VICTIMS.into_iter().flat_map(|victim| STATES.map(|state| (victim, state)));
    Ok(all.filter(|(victim, state)| is_possible(*victim, *state)).collect())
}

/// Where egress runs, the worker is a child of the service, and nothing of a test's can let it go on.
fn is_possible(victim: Victim, state: Journal) -> bool {
    victim != Egress || !matches!(state, Nothing | Told)
}

async fn matrix(engine: &str, cells: Vec<(Victim, Journal)>, temporal: Option<SocketAddr>) -> anyhow::Result<()> {
    let (count, slots) = (cells.len(), Arc::new(Semaphore::new(CELLS_AT_ONCE)));
    let mut running = JoinSet::new();
    for (at, (victim, state)) in cells.into_iter().enumerate() {
        let slots = slots.clone();
        let temporal = temporal.map(|addr| (addr, namespace(at)));
        running.spawn(async move {
            let _slot = slots.acquire().await.expect("nobody closes it");
            let outcome = cell(victim, state, temporal).await;
            outcome.map_err(|error| format!("== {victim:?} dies, {state:?}: {error:?}"))
        });
    }
    let (mut failed, mut lost) = (Vec::new(), 0);
    for outcome in running.join_all().await {
        match outcome {
            Ok(was_lost) => lost += usize::from(was_lost),
            Err(error) => failed.push(error),
        }
    }
    ensure!(failed.is_empty(), "{} of {count} cells failed:\n{}", failed.len(), failed.join("\n"));
    println!("figures: {engine}: {count} cells, {lost} calls lost and said so, no effect twice");
    Ok(())
}

/// What becomes of the call: whether it is lost, and how often it took effect.
fn expected(victim: Victim, state: Journal) -> (bool, usize) {
    match (victim, state) {
        (Shim, Begun) => (true, 0),
        (Shim, Running | Ended) => (true, 1),
        _ => (false, 1),
    }
}

fn script(state: Journal) -> anyhow::Result<Script> {
    let wait = if state == Running { format!(" && {}", gate::WAIT) } else { String::new() };
    let text = format!(
        r#"
        version = 1
        [[rules]]
        when = {{ results = 0 }}
        answer = [{{ tool = "bash", input = {{ command = "echo one >> counter{wait}" }} }}]
        [[rules]]
        when = {{ results = 1 }}
        answer = [{{ tool = "bash", input = {{ command = "echo two >> counter" }} }}]
        [[rules]]
        when = {{ results = 2 }}
        answer = [{{ tool = "bash", input = {{ command = "cat counter" }} }}]
        [[rules]]
        answer = [{{ text = "Counted: {{{{result}}}}" }}]
        "#
    );
    Ok(Script::from_toml(&text, Path::new("hand_kills.toml"))?)
}

/// Where who is to stop stops, and who passes on that it is to.
fn fault(victim: Victim, state: Journal) -> Option<(Role, Fault)> {
    let point = match state {
        Nothing => Point::ExecuteDispatched,
        Begun => Point::CallBegun,
        Ended => Point::CallEnded,
        Recorded => Point::CallRecorded,
        Told => Point::ToolFinished,
        Running => return None,
    };
    let role = if victim == Egress { Role::Serve } else { Role::Hand };
    Some((role, Fault { point, nth: 1 }))
}

async fn cell(victim: Victim, state: Journal, temporal: Option<(SocketAddr, String)>) -> anyhow::Result<bool> {
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script(state)?)?;
    let layout = match victim {
        Egress => Layout::One,
        Brain => Layout::Split,
        _ => Layout::Hand,
    };
    let options = Options { layout, temporal, fault: fault(victim, state), ..Options::new(model.url()) };
    let mut service = Service::start(options).await?;
    let lost = disturbed(&mut service, victim, state, &model).await;
    let lost = lost.with_context(|| service.logs())?;
    service.stop().await?;
    Ok(lost)
}

async fn disturbed(service: &mut Service, victim: Victim, state: Journal, model: &Server) -> anyhow::Result<bool> {
    let client = service.client();
    let session = client.session().await?;
    let mut gate = Gate::new(&service.hands_dir())?;
    client.send(&session, "go", Mark::RetryCount).await?;
    let mut stopped = None;
    let mut workspace = None;
    match state {
        Running => workspace = Some(gate.reached().await?),
        Nothing | Told => service.process(Role::Hand)?.stopped().await?,
        Begun | Ended | Recorded => stopped = Some(shims::stopped_shim(&service.hands_dir()).await?),
    }
    strike(service, victim, stopped.as_ref()).await?;
    drop(stopped);
    service.go_on();
    let _open = match &workspace {
        Some(workspace) if victim != Shim => Some(gate::open(workspace)?),
        _ => None,
    };
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    check_log(&client, &session, &events).await?;

    let (lost, effects) = expected(victim, state);
    let counted: Vec<usize> = ["one", "two"].map(|line| count(service, line)).into();
    ensure!(counted == [effects, 1], "the calls took effect {counted:?} times instead of {effects} and once");
    let result = events.iter().find(|event| event.kind == "agent.tool_result").context("the call has a result")?;
    let (text, is_error) = (result.text(), result.rest["is_error"] == true);
    ensure!((text.starts_with("lost:"), is_error) == (lost, lost), "the log says {text:?}");
    ensure!(
        told(model, 1).as_deref() == Some(text.as_str()),
        "the model was told {:?}, the log {text:?}",
        told(model, 1)
    );
    Ok(lost)
}

/// Kills, and starts again what nobody else does.
async fn strike(service: &mut Service, victim: Victim, stopped: Option<&Foreign>) -> anyhow::Result<()> {
    match victim {
        Worker => service.process(Role::Hand)?.kill().await?,
        Brain => service.process(Role::Brain)?.kill().await?,
        Victim::Service => service.kill_all().await?,
        Egress => shims::child(service.process(Role::Serve)?.pid(), "egress")?.kill()?,
        Shim => match stopped {
            Some(shim) => shim.kill()?,
            None => shims::shim(&service.hands_dir())?.kill()?,
        },
    }
    service.start_missing().await
}

fn count(service: &Service, line: &str) -> usize {
    let hands = std::fs::read_dir(service.hands_dir()).into_iter().flatten().flatten();
    let counters = hands.filter_map(|hand| std::fs::read_to_string(hand.path().join("workspace/counter")).ok());
    counters.map(|text| text.lines().filter(|found| *found == line).count()).sum()
}

/// The `nth` tool result, from 1, in the last request that has it.
fn told(model: &Server, nth: usize) -> Option<String> {
    let last = model.received().into_iter().next_back()?;
    let messages = last.body["messages"].as_array()?.clone();
    let blocks = messages.iter().filter_map(|message| message["content"].as_array()).flatten();
    let result = blocks.filter(|block| block["type"] == "tool_result").nth(nth - 1)?;
    match &result["content"] {
        Value::String(text) => Some(text.clone()),
        content => Some(content.as_array()?.iter().filter_map(|block| block["text"].as_str()).collect()),
    }
}
