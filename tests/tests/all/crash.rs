//! The crash matrix: `kill -9` of the whole service, the hand worker or the brain worker at every moment that matters,
//! on both engines. Afterwards the session ends as an undisturbed one does, and every side effect is there once.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use domain::fault::{Fault, Point};
use std::{net::SocketAddr, path::Path, sync::Arc};
use steadyhand_tests::{
    afterwards,
    client::{LoggedEvent, Mark},
    engines::{Temporal, free_addr},
    gate::{self, Gate},
    service::{Layout, Options, Role, Service},
    transcript::{check_log, difference, transcript},
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Service,
    Hand,
    Brain,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(Point, u64),
    ModelRequestInFlight,
    ToolRunning,
}

const MOMENTS: [Moment; 13] = [
    Moment::At(Point::EventAccepted, 1),
    Moment::At(Point::TaskStarted, 1),
    Moment::At(Point::DecisionMade, 3),
    Moment::At(Point::DecisionRecorded, 2),
    Moment::ModelRequestInFlight,
    Moment::At(Point::ModelAnswered, 1),
    Moment::At(Point::HandProvisioned, 1),
    Moment::At(Point::ExecuteDispatched, 1),
    Moment::ToolRunning,
    Moment::At(Point::ToolFinished, 1),
    Moment::At(Point::RunContinued, 2),
    Moment::At(Point::RunSealing, 1),
    Moment::At(Point::RunSealed, 1),
];

/// Cells that run at the same time: they mostly wait for timeouts of the engine.
const CELLS_AT_ONCE: usize = 7;
/// A run ends after so many decisions, so that one turn has several.
const DECISIONS_PER_RUN: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn the_service_dies_embedded() -> anyhow::Result<()> {
    matrix(Victim::Service, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hand_worker_dies_embedded() -> anyhow::Result<()> {
    matrix(Victim::Hand, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brain_worker_dies_embedded() -> anyhow::Result<()> {
    matrix(Victim::Brain, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_dies_on_temporal() -> anyhow::Result<()> {
    on_temporal(Victim::Service).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hand_worker_dies_on_temporal() -> anyhow::Result<()> {
    on_temporal(Victim::Hand).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brain_worker_dies_on_temporal() -> anyhow::Result<()> {
    on_temporal(Victim::Brain).await
}

/// The client learns late that it has to ask again: several runs after the one that accepted its message.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_finds_its_message_in_any_run() -> anyhow::Result<()> {
    for mark in [Mark::RetryCount, Mark::IdempotencyKey] {
        let script = "version = 1\n[[rules]]\nanswer = [{ text = \"Heard.\" }]\n";
        let script = Script::from_toml(script, Path::new("retry.toml"))?;
        let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
        let fault = Some((Role::Serve, Fault { point: Point::EventAccepted, nth: 1 }));
        let model_url = model.url();
        let options = Options { decisions_per_run: 2, fault, ..Options::new(model_url) };
        let mut service = Service::start(options).await?;
        let client = service.client();
        let session = client.session().await?;
        let first = tokio::spawn({
            let (client, session) = (client.clone(), session.clone());
            async move { client.try_to_send(&session, "once", mark, 0).await }
        });
        service.process(Role::Serve)?.stopped().await?;
        service.kill_all().await?;
        service.start_missing().await?;
        ensure!(first.await??.is_none(), "the first attempt has no answer");
        let rests = |events: &[LoggedEvent]| events.last().is_some_and(LoggedEvent::is_idle);
        let events = client.until(&session, rests).await?;
        let again = client.try_to_send(&session, "once", mark, 1).await?;
        ensure!(again.as_deref() == Some(events[0].id.as_str()), "{mark:?}: the retry was taken for a new message");
        ensure!(client.events(&session).await? == events, "{mark:?}: the retry changed something");
        let dir = service.stop().await?;
        let runs = afterwards::of_engine(dir.path(), &session, &events).await?;
        ensure!(runs > 1, "the message was to be accepted in an earlier run than the retry");
    }
    Ok(())
}

async fn on_temporal(victim: Victim) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let namespaces: Vec<String> = (0..=MOMENTS.len()).map(namespace).collect();
    let server = Temporal::start_at(free_addr()?, Some(&dir.path().join("temporal.db")), &namespaces)?;
    matrix(victim, Some(server.addr)).await
}

/// Services on one Temporal server keep apart by their namespaces.
fn namespace(cell: usize) -> String {
    format!("cell-{cell}")
}

async fn matrix(victim: Victim, temporal: Option<SocketAddr>) -> anyhow::Result<()> {
    let undisturbed = Arc::new(cell(victim, None, engine_of(temporal, MOMENTS.len())).await.context("undisturbed")?);
    let slots = Arc::new(Semaphore::new(CELLS_AT_ONCE));
    let mut cells = JoinSet::new();
    for (at, moment) in MOMENTS.into_iter().enumerate() {
        let (undisturbed, slots) = (undisturbed.clone(), slots.clone());
        cells.spawn(
            async move {
                let _slot = slots.acquire().await?;
                let ended = cell(victim, Some(moment), engine_of(temporal, at)).await?;
                ended.is_like(&undisturbed)?;
                anyhow::Ok(())
            }
            .map_err_with(moment),
        );
    }
    let failed: Vec<String> = cells.join_all().await.into_iter().filter_map(Result::err).collect();
    ensure!(failed.is_empty(), "{} of {} cells failed:\n{}", failed.len(), MOMENTS.len(), failed.join("\n"));
    Ok(())
}

fn engine_of(temporal: Option<SocketAddr>, cell: usize) -> Option<(SocketAddr, String)> {
    temporal.map(|addr| (addr, namespace(cell)))
}

/// Names the cell in its error.
trait Named<T>: Future<Output = anyhow::Result<T>> + Sized {
    async fn map_err_with(self, moment: Moment) -> Result<T, String> {
        self.await.map_err(|error| format!("== {moment:?}: {error:?}"))
    }
}

impl<T, F: Future<Output = anyhow::Result<T>>> Named<T> for F {}

/// How a session ended.
struct Ended {
    session: String,
    events: Vec<LoggedEvent>,
    model_requests: usize,
}

impl Ended {
    fn is_like(&self, undisturbed: &Ended) -> anyhow::Result<()> {
        if let Some(difference) = difference(&transcript(&undisturbed.events), &transcript(&self.events)) {
            anyhow::bail!("the log differs from an undisturbed one at {difference}");
        }
        let (expected, found) = (undisturbed.model_requests, self.model_requests);
        ensure!((expected..=expected + 1).contains(&found), "{found} model requests instead of {expected}");
        Ok(())
    }
}

/// One turn with three tool calls; the first waits inside the hand until it is let go.
fn script(moment: Option<Moment>) -> anyhow::Result<Script> {
    // Long enough to be killed in, as nothing else takes time there.
    let delay_ms = if moment == Some(Moment::ModelRequestInFlight) { 1000 } else { 0 };
    let wait = gate::WAIT;
    let text = format!(
        r#"
        version = 1
        [[rules]]
        when = {{ results = 0 }}
        delay_ms = {delay_ms}
        answer = [{{ text = "To work." }}, {{ tool = "bash", input = {{ command = "{wait} && echo one >> counter" }} }}]
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
    Ok(Script::from_toml(&text, Path::new("crash.toml"))?)
}

async fn cell(victim: Victim, moment: Option<Moment>, temporal: Option<(SocketAddr, String)>) -> anyhow::Result<Ended> {
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script(moment)?)?;
    let layout = if victim == Victim::Service { Layout::Hand } else { Layout::Split };
    let fault = match moment {
        Some(Moment::At(point, nth)) => Some((place(point, layout), Fault { point, nth })),
        _ => None,
    };
    let is_embedded = temporal.is_none();
    let options =
        Options { layout, temporal, decisions_per_run: DECISIONS_PER_RUN, fault, ..Options::new(model.url()) };
    let mut service = Service::start(options).await?;
    let ended = disturbed(&mut service, victim, moment, &model).await;
    let ended = service.with_logs(ended)?;
    let dir = service.stop().await?;
    if is_embedded {
        let runs = afterwards::of_engine(dir.path(), &ended.session, &ended.events).await?;
        // A run is not continued while the one before it waits to be sealed, and a seal whose worker died waits for
        // the heartbeat timeout: the rest of the turn may well fit into the run that it waits in.
        let waits_to_be_sealed = matches!(moment, Some(Moment::At(Point::RunSealing | Point::RunSealed, _)));
        let at_least = if waits_to_be_sealed { 2 } else { 3 };
        ensure!(runs >= at_least, "the turn was to take {at_least} runs and took {runs}");
    }
    Ok(ended)
}

/// Which process passes a point.
fn place(point: Point, layout: Layout) -> Role {
    match point {
        Point::HandProvisioned | Point::ExecuteDispatched | Point::ToolFinished => Role::Hand,
        Point::EventAccepted => Role::Serve,
        _ if layout == Layout::Split => Role::Brain,
        _ => Role::Serve,
    }
}

async fn disturbed(
    service: &mut Service,
    victim: Victim,
    moment: Option<Moment>,
    model: &Server,
) -> anyhow::Result<Ended> {
    let client = service.client();
    let session = client.session().await?;
    let mut gate = Gate::new(&service.hands_dir())?;
    let sending = tokio::spawn({
        let (client, session) = (client.clone(), session.clone());
        async move { client.send(&session, "go", Mark::RetryCount).await }
    });
    let _open = match moment {
        Some(Moment::ToolRunning) => {
            let workspace = gate.reached().await?;
            strike(service, victim).await?;
            gate::open(&workspace)?
        }
        Some(other) => {
            let working = tokio::spawn(async move { gate::open(&gate.reached().await?) });
            match other {
                Moment::At(point, _) => {
                    let place = place(point, service.layout());
                    service.process(place)?.stopped().await.context("the moment does not come")?;
                }
                _ => model.wait_for(1).await,
            }
            strike(service, victim).await?;
            working.await??
        }
        None => gate::open(&gate.reached().await?)?,
    };
    let sent = sending.await??;
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    ensure!(events[0].id == sent, "the first event is what the client was told: {sent}");
    check_log(&client, &session, &events).await?;
    let said: String = events.iter().filter(|event| event.kind == "agent.message").map(LoggedEvent::text).collect();
    ensure!(said.trim_end() == "To work.Counted: one\ntwo", "every tool took effect once: {said:?}");
    Ok(Ended { session, events, model_requests: model.count() })
}

/// Kills, lets go on what was held at the moment, and starts again what is gone.
async fn strike(service: &mut Service, victim: Victim) -> anyhow::Result<()> {
    match victim {
        Victim::Service => service.kill_all().await?,
        Victim::Hand => service.process(Role::Hand)?.kill().await?,
        Victim::Brain => service.process(Role::Brain)?.kill().await?,
    }
    service.go_on();
    service.start_missing().await
}
