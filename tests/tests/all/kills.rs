//! `kill -9` in a loop while many clients send: whatever was acknowledged is in the log, once, in its client's order.
//!
//! `scripts/long kills` runs it longer: `STEADYHAND_KILLS` kills, from `STEADYHAND_SEED`.

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{path::Path, sync::Arc, time::Instant};
use steadyhand_tests::{
    afterwards,
    client::{Client, LoggedEvent, Mark},
    long,
    service::{Options, Role, Service},
    transcript::check_log,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

const KILLS: usize = 20;
const CLIENTS: usize = 8;
const SESSIONS: usize = 2;
/// Messages that may be sent, and model requests that are waited for, between two kills.
const MESSAGES_BETWEEN_MAX: usize = 16;
const REQUESTS_BETWEEN_MAX: usize = 2;
/// Low, so that kills fall between runs too.
const DECISIONS_PER_RUN: u64 = 4;

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ tool = "bash", input = { command = "echo once >> counter" } }]
[[rules]]
answer = [{ text = "Heard." }]
"#;

/// What a client sent: the ids that it was told, in order.
struct Said {
    session: String,
    name: String,
    ids: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled() -> anyhow::Result<()> {
    let (kills, seed) = (long::number("STEADYHAND_KILLS", KILLS)?, long::seed()?);
    println!("kills {kills}, seed {seed}");
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("kills.toml"))?)?;
    let mut service =
        Service::start(Options { decisions_per_run: DECISIONS_PER_RUN, ..Options::new(model.url()) }).await?;
    let begun = Instant::now();
    match load(&mut service, &model, kills, seed).await {
        Ok(sessions) => {
            let effects = service.effects();
            let dir = service.stop().await?;
            let mut figures = (0, 0, 0);
            for (session, events) in &sessions {
                figures.0 += events.iter().filter(|event| event.kind == "user.message").count();
                figures.1 += afterwards::of_engine(dir.path(), session, events).await?;
                figures.2 += events.iter().filter(|event| event.kind == "agent.tool_result").count();
            }
            let (messages, runs, calls) = figures;
            ensure!(effects == calls, "{calls} tool calls took effect {effects} times");
            let seconds = begun.elapsed().as_secs();
            println!("figures: {kills} kills, {messages} messages, {calls} tool calls, {runs} runs, {seconds} s");
            Ok(())
        }
        Err(error) => Err(error.context(format!("rerun: scripts/long kills {kills} {seed}\n{}", service.logs()))),
    }
}

async fn load(
    service: &mut Service,
    model: &Server,
    kills: usize,
    seed: u64,
) -> anyhow::Result<Vec<(String, Vec<LoggedEvent>)>> {
    let client = service.client();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(client.session().await?);
    }
    let (allowed, acknowledged) = (Arc::new(Semaphore::new(0)), watch::Sender::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let session = sessions[number % SESSIONS].clone();
        let mark = if number < CLIENTS / 2 { Mark::RetryCount } else { Mark::IdempotencyKey };
        clients.spawn(send(client.clone(), session, number, mark, allowed.clone(), acknowledged.clone()));
    }
    let mut chance = StdRng::seed_from_u64(seed);
    let mut counted = acknowledged.subscribe();
    for _ in 0..kills {
        let messages = chance.random_range(1..=MESSAGES_BETWEEN_MAX);
        let enough = *counted.borrow() + chance.random_range(0..=messages);
        // A message begins a turn, and a turn takes two requests: they come.
        let requests = model.count() + chance.random_range(0..=REQUESTS_BETWEEN_MAX);
        allowed.add_permits(messages);
        let busy = async {
            model.wait_for(requests).await;
            counted.wait_for(|count| *count >= enough).await.map(drop)
        };
        tokio::select! {
            reached = tokio::time::timeout(long::patience(), busy) => reached.context("nothing moves any more")??,
            Some(ended) = clients.join_next() => {
                ended??;
                anyhow::bail!("a client has nothing to say any more");
            }
        }
        if chance.random_bool(0.3) {
            // Its supervisor starts it again.
            service.process(Role::Serve)?.kill_children()?;
        } else {
            service.process(Role::Serve)?.kill().await?;
            service.start_missing().await?;
        }
    }
    allowed.close();
    let mut said = Vec::new();
    while let Some(ended) = clients.join_next().await {
        said.push(ended??);
    }
    let mut logs = Vec::new();
    for session in sessions {
        let events = client.until(&session, is_at_rest).await?;
        check_log(&client, &session, &events).await?;
        for said in said.iter().filter(|said| said.session == session) {
            check_said(said, &events)?;
        }
        logs.push((session, events));
    }
    Ok(logs)
}

fn is_at_rest(events: &[LoggedEvent]) -> bool {
    events.last().is_some_and(LoggedEvent::is_idle)
}

async fn send(
    client: Client,
    session: String,
    number: usize,
    mark: Mark,
    allowed: Arc<Semaphore>,
    acknowledged: watch::Sender<usize>,
) -> anyhow::Result<Said> {
    let name = format!("client-{number}:");
    let mut ids = Vec::new();
    // Closed when the last kill is over.
    while let Ok(permit) = allowed.acquire().await {
        permit.forget();
        ids.push(client.send(&session, &format!("{name}{}", ids.len()), mark).await?);
        acknowledged.send_modify(|count| *count += 1);
    }
    Ok(Said { session, name, ids })
}

/// The log has exactly what a client sent, in its order, under the ids that it was told.
fn check_said(said: &Said, events: &[LoggedEvent]) -> anyhow::Result<()> {
    let messages = events.iter().filter(|event| event.kind == "user.message");
    let logged: Vec<(String, &str)> = messages
        .map(|event| (event.text(), event.id.as_str()))
        .filter(|(text, _)| text.starts_with(&said.name))
        .collect();
    let expected: Vec<(String, &str)> =
        said.ids.iter().enumerate().map(|(at, id)| (format!("{}{at}", said.name), id.as_str())).collect();
    ensure!(logged == expected, "the log has {logged:?} instead of {expected:?}");
    Ok(())
}
