//! What a session stores goes when nobody needs it, and not before: blobs by references, histories once they are sealed.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use api::{App, tenants::Tenants, upkeep};
use engine::{Engine, Store};
use jiff::{SignedDuration, Timestamp};
use std::{path::Path, sync::Arc, time::Duration};
use steadyhand_tests::{
    bed,
    client::{Client, LoggedEvent, Mark},
    service::{Options, Service},
};
use store::{Blobs as _, FjallCatalog, FolderBlobs};
use tokio::net::TcpListener;

/// Messages, answers and results are all too large for history, and are told again in the other session.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ text = "{{user}}" }, { tool = "bash", input = { command = "seq 1 20000; echo out > /mnt/session/outputs/a.txt" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;
const TURNS: usize = 4;

/// What one round of upkeep found.
struct Round {
    blobs_before: usize,
    blobs: usize,
    runs_before: u64,
    runs: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_goes_and_every_log_reads_on() -> anyhow::Result<()> {
    let script = Script::from_toml(SCRIPT, Path::new("data.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let model_url = model.url();
    let options = Options { decisions_per_run: 2, ..Options::new(model_url) };
    let mut service = Service::start(options).await?;
    let client = service.client();
    let (first, second) = service.with_logs(live(&client).await)?;
    let told = (client.events(&first).await?, client.events(&second).await?);

    // An hour and more later nothing of them is gone but the histories that are in segments too.
    service.rest().await?;
    let round = upkeep_later(&service.data_dir(), SignedDuration::from_hours(2)).await?;
    ensure!(round.blobs > 0 && round.runs < round.runs_before, "no sealed run was deleted: {}", round.runs);
    service.verify().await?;
    service.start_missing().await?;
    for (session, told) in [(&first, &told.0), (&second, &told.1)] {
        ensure!(client.events(session).await? == *told, "a log is not what it was");
    }
    turn(&client, &second, TURNS + 1).await?;
    let told = client.events(&second).await?;

    // What the other one needs stays, also what both needed.
    client.delete(&first).await?;
    service.rest().await?;
    let round = upkeep_later(&service.data_dir(), SignedDuration::from_hours(4)).await?;
    ensure!(0 < round.blobs && round.blobs < round.blobs_before, "{} of {}", round.blobs, round.blobs_before);
    service.verify().await?;
    service.start_missing().await?;
    ensure!(client.events(&second).await? == told, "a log is not what it was");

    client.delete(&second).await?;
    service.rest().await?;
    let round = upkeep_later(&service.data_dir(), SignedDuration::from_hours(6)).await?;
    ensure!((round.blobs, round.runs) == (0, 0), "{} blobs and {} runs are left", round.blobs, round.runs);
    service.verify().await
}

/// Two sessions that say the same, and one of them a little more.
async fn live(client: &Client) -> anyhow::Result<(String, String)> {
    let (first, second) = (client.session().await?, client.session().await?);
    for number in 1..=TURNS {
        turn(client, &first, number).await?;
        turn(client, &second, number).await?;
    }
    turn(client, &first, 100).await?;
    Ok((first, second))
}

async fn turn(client: &Client, session: &str, number: usize) -> anyhow::Result<()> {
    let idle = |events: &[LoggedEvent]| events.iter().filter(|event| event.is_idle()).count();
    let before = idle(&client.events(session).await?);
    client.send(session, &format!("{number} ").repeat(30_000), Mark::RetryCount).await?;
    client.until(session, |events| idle(events) > before).await.map(drop)
}

/// One round of upkeep on a service's folder, as if so much later.
async fn upkeep_later(data: &Path, later: SignedDuration) -> anyhow::Result<Round> {
    let catalog = Arc::new(FjallCatalog::open(&data.join("catalog"))?);
    let held = Arc::downgrade(&catalog);
    let blobs = Arc::new(FolderBlobs::open(&data.join("blobs"))?);
    let engine = Engine::open(engine::Options::new(Store::Fjall(data.join("engine"))))?;
    let connection = bed::embedded(engine.clone()).await?;
    let options = api::Options { delete_sealed_runs: true, ..api::Options::default() };
    let at = api::Engine { connection, namespace: bed::NAMESPACE.to_owned() };
    let app = App::open(catalog, blobs.clone(), at, options).await?;
    let (blobs_before, runs_before) = (blobs.list(None, usize::MAX).await?.len(), engine.verify()?.runs);
    let swept = upkeep::round(&Tenants::new(app.clone()), Timestamp::MAX, Timestamp::now() + later).await;
    let swept = swept.map_err(|error| anyhow::anyhow!("{}", error.message()))?;
    ensure!(swept.is_some(), "not every session could be read");
    let (blobs, runs) = (blobs.list(None, usize::MAX).await?.len(), engine.verify()?.runs);
    app.close();
    engine.shutdown().await;
    drop(app);
    // Whoever follows a session hears of the engine's end and lets go.
    let let_go = async {
        while held.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), let_go).await.context("the catalog is still held")?;
    Ok(Round { blobs_before, blobs, runs_before, runs })
}
