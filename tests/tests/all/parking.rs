//! A hand at rest is put away and comes back with what was in its workspace: with a real sandbox, on both engines, and when its
//! worker dies in the middle of it.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use domain::fault::{Fault, Point};
use reqwest::Method;
use serde_json::Value;
use std::{path::Path, time::Duration};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::Temporal,
    service::{Layout, Options, Role, Service},
};
use tokio::net::TcpListener;

const PARK_AFTER_S: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at which hands there are.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { turn = 1, results = 0 }
answer = [{ tool = "bash", input = { command = "mkdir -p deep/er && echo kept > deep/er/file && ln -s deep link && chmod 771 deep && echo out > /mnt/session/outputs/result && export LOST=1 && touch /tmp/lost && (sleep 600 &) && echo made" } }]
[[rules]]
when = { turn = 2, results = 0 }
answer = [{ tool = "bash", input = { command = "cat link/er/file; stat -c %a deep; cat /mnt/session/outputs/result; echo \"${LOST:-unset}\"; ls /tmp; set -- /proc/[0-9]*; echo $#" } }]
[[rules]]
when = { turn = 2, results = 1 }
answer = [{ tool = "bash", input = { command = "pwd" } }]
[[rules]]
answer = [{ text = "done" }]
"#;

const RESTORED: &str = "[The sandbox was put away while the session rested";

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_at_rest_is_put_away_and_comes_back_embedded() -> anyhow::Result<()> {
    put_away(Layout::One, None, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_at_rest_is_put_away_and_comes_back_on_temporal() -> anyhow::Result<()> {
    let temporal = Temporal::start(None)?;
    put_away(Layout::One, Some(&temporal), None).await
}

/// Everything is kept, and nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_it_parks_loses_nothing() -> anyhow::Result<()> {
    put_away(Layout::Hand, None, Some(Fault { point: Point::HandKept, nth: 1 })).await
}

async fn put_away(layout: Layout, temporal: Option<&Temporal>, fault: Option<Fault>) -> anyhow::Result<()> {
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("parking.toml"))?)?;
    let options = Options {
        layout,
        temporal: temporal.map(|temporal| (temporal.addr, "default".to_owned())),
        park_after_s: Some(PARK_AFTER_S),
        fault: fault.map(|fault| (Role::Hand, fault)),
        ..Options::new(model.url())
    };
    let mut service = Service::start(options).await?;
    let outcome = scenario(&mut service, fault.is_some()).await;
    outcome.with_context(|| service.logs())?;
    service.stop().await.map(drop)
}

async fn scenario(service: &mut Service, worker_dies: bool) -> anyhow::Result<()> {
    let client = service.client();
    let session = client.session().await?;
    client.send(&session, "make it", Mark::RetryCount).await?;
    let made = results(&at_rest(&client, &session, 1).await?);
    ensure!(made == ["made\n"], "{made:?}");
    if worker_dies {
        service.process(Role::Hand)?.stopped().await?;
        ensure!(!is_empty(service), "the hand is there until it is recorded that it is kept");
        service.process(Role::Hand)?.kill().await?;
        service.start_missing().await?;
    }
    gone(service).await?;
    let outputs = outputs(&client, &session).await?;
    ensure!(outputs == ["result"], "{outputs:?}");

    client.send(&session, "again", Mark::RetryCount).await?;
    let events = at_rest(&client, &session, 2).await?;
    let [_, again, after] = &results(&events)[..] else { anyhow::bail!("{:?}", results(&events)) };
    let (said, note) = again.split_once(RESTORED).with_context(|| format!("the model is not told: {again}"))?;
    // Two processes: init and the shell.
    ensure!(said == "kept\n771\nout\nunset\n2\n", "{said:?}");
    ensure!(note.contains("/workspace") && note.ends_with(']'), "{note}");
    ensure!(after == "/workspace\n", "it is told once: {after}");
    gone(service).await?;
    ensure!(self::outputs(&client, &session).await? == ["result"], "what the session made is still its own");
    Ok(())
}

/// The log when the turn of that number is over.
async fn at_rest(client: &Client, session: &str, turns: usize) -> anyhow::Result<Vec<LoggedEvent>> {
    client.until(session, |events| events.iter().filter(|event| event.is_idle()).count() == turns).await
}

fn results(events: &[LoggedEvent]) -> Vec<String> {
    events.iter().filter(|event| event.kind == "agent.tool_result").map(LoggedEvent::text).collect()
}

async fn outputs(client: &Client, session: &str) -> anyhow::Result<Vec<String>> {
    let listed = client.request(Method::GET, &format!("/v1/files?scope_id={session}")).send().await?;
    let listed: Value = listed.error_for_status()?.json().await?;
    let files = listed["data"].as_array().context("files are listed")?;
    Ok(files.iter().filter_map(|file| Some(file["filename"].as_str()?.to_owned())).collect())
}

fn is_empty(service: &Service) -> bool {
    let entries = std::fs::read_dir(service.hands_dir()).into_iter().flatten().flatten();
    !entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("hand_"))
}

/// Until nothing is left of any hand. Whoever puts it away is not asked: the folder is looked at.
async fn gone(service: &Service) -> anyhow::Result<()> {
    let going = async {
        while !is_empty(service) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, going).await.context("the hand is not put away")
}
