//! A hand at rest is put away and comes back with what was in its workspace: with a real sandbox, on both engines, and when its
//! worker dies in the middle of it. And what is in a hand goes to another session.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use domain::fault::{Fault, Point};
use reqwest::Method;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::Temporal,
    service::{Layout, Options, Role, Service, is_strict_possible},
    shims,
};
use tokio::net::TcpListener;

const PARK_AFTER_S: u64 = 1;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at which hands there are.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "make it", results = 0 }
answer = [{ tool = "bash", input = { command = "mkdir -p deep/er && git init -q repo && git -C repo commit -q --allow-empty -m first && echo kept > deep/er/file && ln -s deep link && chmod 771 deep && echo out > /mnt/session/outputs/result && export LOST=1 && touch /tmp/lost && (sleep 600 &) && echo made" } }]
[[rules]]
when = { user_contains = "again", results = 0 }
answer = [{ tool = "bash", input = { command = "cat link/er/file; stat -c %a deep; cat /mnt/session/outputs/result; echo \"${LOST:-unset}\"; ls /tmp; set -- /proc/[0-9]*; echo $#" } }]
[[rules]]
when = { user_contains = "again", results = 1 }
answer = [{ tool = "bash", input = { command = "pwd" } }]
[[rules]]
when = { user_contains = "take over", results = 0 }
answer = [{ tool = "bash", input = { command = "cat deep/er/file; git -C repo log --format=%s" } }]
[[rules]]
when = { user_contains = "what is left", results = 0 }
answer = [{ tool = "bash", input = { command = "ls" } }]
[[rules]]
answer = [{ text = "done" }]
"#;

const RESTORED: &str = "[This sandbox begins with what was in an earlier one";

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_at_rest_is_put_away_and_comes_back_embedded() -> anyhow::Result<()> {
    put_away(Layout::One, None, None, Vec::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_at_rest_is_put_away_and_comes_back_on_temporal() -> anyhow::Result<()> {
    let temporal = Temporal::start(None)?;
    put_away(Layout::One, Some(&temporal), None, Vec::new()).await
}

/// Everything is kept, and nobody knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_while_it_parks_loses_nothing() -> anyhow::Result<()> {
    put_away(Layout::Hand, None, Some(Fault { point: Point::HandKept, nth: 1 }), Vec::new()).await
}

/// With sandboxes as the environment says.
pub async fn put_away(
    layout: Layout,
    temporal: Option<&Temporal>,
    fault: Option<Fault>,
    environment: Vec<(&'static str, String)>,
) -> anyhow::Result<()> {
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("parking.toml"))?)?;
    let options = Options {
        layout,
        temporal: temporal.map(|temporal| (temporal.addr, "default".to_owned())),
        park_after_s: Some(PARK_AFTER_S),
        environment,
        fault: fault.map(|fault| (Role::Hand, fault)),
        ..Options::new(model.url())
    };
    let mut service = Service::start(options).await?;
    let outcome = scenario(&mut service, fault.is_some()).await;
    outcome.with_context(|| service.logs())?;
    service.stop().await.map(drop)
}

/// Each hand has a disk of its own. The service ends as its shim has, and before everything else of it is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_while_it_puts_a_hand_away_leaves_no_disk_mounted() -> anyhow::Result<()> {
    if !is_strict_possible()? {
        // No hand has a disk of its own here.
        return Ok(());
    }
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("parking.toml"))?)?;
    let park_after_s = Some(PARK_AFTER_S);
    let mut service =
        Service::start(Options { hands_mode: "strict", park_after_s, ..Options::new(model.url()) }).await?;
    let outcome = ended_while_parking(&mut service).await;
    outcome.with_context(|| service.logs())?;
    service.stop().await.map(drop)
}

async fn ended_while_parking(service: &mut Service) -> anyhow::Result<()> {
    let client = service.client();
    let session = client.session().await?;
    for turn in 1..=3 {
        let text = if turn == 1 { "make it".to_owned() } else { format!("again, {turn}") };
        client.send(&session, &text, Mark::IdempotencyKey).await?;
        let events = at_rest(&client, &session, turn).await?;
        ensure!(results(&events).iter().all(|text| !text.contains("lost")), "{:?}", results(&events));
        let hands_dir = service.hands_dir();
        ensure!(is_mounted(&hands_dir)?, "the hand has a disk");
        let shim = shims::shim(&hands_dir)?;
        tokio::task::spawn_blocking(move || shim.ended()).await??;
        service.rest().await?;
        ensure!(!is_mounted(&hands_dir)? && is_empty(service), "what was begun is not finished");
        service.start_missing().await?;
    }
    Ok(())
}

fn is_mounted(hands_dir: &Path) -> anyhow::Result<bool> {
    let below = format!("{}/", hands_dir.display());
    Ok(std::fs::read_to_string("/proc/self/mountinfo")?.contains(&below))
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

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_goes_to_another_session_embedded() -> anyhow::Result<()> {
    handed_over(None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hand_goes_to_another_session_on_temporal() -> anyhow::Result<()> {
    let temporal = Temporal::start(None)?;
    handed_over(Some(&temporal)).await
}

async fn handed_over(temporal: Option<&Temporal>) -> anyhow::Result<()> {
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("parking.toml"))?)?;
    let temporal = temporal.map(|temporal| (temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal, ..Options::new(model.url()) }).await?;
    hand_over(&service).await.with_context(|| service.logs())?;
    service.stop().await.map(drop)
}

async fn hand_over(service: &Service) -> anyhow::Result<()> {
    let client = service.client();
    let (from, to) = (client.session().await?, client.session().await?);
    ensure!(transfer(&client, &from, &to).await?.0 == 400, "it has none to give");
    client.send(&from, "make it", Mark::RetryCount).await?;
    at_rest(&client, &from, 1).await?;
    let old = hands(&client, &from).await?;
    let [(old_hand, state)] = &old[..] else { anyhow::bail!("{old:?}") };
    ensure!(state == "running", "{old:?}");

    let (status, answer) = transfer(&client, &from, &to).await?;
    ensure!(status == 200 && answer["type"] == "hand_transfer" && answer["to_session_id"] == to, "{status}: {answer}");
    let arriving = async {
        loop {
            let hands = hands(&client, &to).await?;
            if hands == [(old_hand.clone(), "parked".to_owned())] {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    tokio::time::timeout(PATIENCE, arriving).await.context("it does not arrive")??;
    gone(service).await?;
    ensure!(hands(&client, &from).await?.is_empty(), "the first one has it no more");

    client.send(&to, "take over", Mark::RetryCount).await?;
    let taken = results(&at_rest(&client, &to, 1).await?);
    ensure!(taken[0].starts_with("kept\nfirst\n[This sandbox begins with"), "{taken:?}");
    client.send(&from, "what is left", Mark::RetryCount).await?;
    let left = results(&at_rest(&client, &from, 2).await?);
    ensure!(left[1] == "(no output)", "a new one, with nothing of the other: {left:?}");
    let (status, answer) = transfer(&client, &from, &to).await?;
    ensure!(status == 400 && answer.to_string().contains("has a hand of its own"), "{status}: {answer}");
    let (new, own) = (hands(&client, &to).await?, hands(&client, &from).await?);
    ensure!(new[0].0 != *old_hand && new[0].0 != own[0].0, "each has its own: {new:?} {own:?}");
    Ok(())
}

async fn transfer(client: &Client, from: &str, to: &str) -> anyhow::Result<(u16, Value)> {
    let body = json!({"from_session_id": from, "to_session_id": to});
    let answer = client.request(Method::POST, "/v1/hands/transfer").json(&body).send().await?;
    Ok((answer.status().as_u16(), answer.json().await?))
}

/// Ids and states of a session's hands.
async fn hands(client: &Client, session: &str) -> anyhow::Result<Vec<(String, String)>> {
    let listed = client.request(Method::GET, &format!("/v1/hands?session_id={session}")).send().await?;
    let listed: Value = listed.error_for_status()?.json().await?;
    let text = |hand: &Value, field: &str| hand[field].as_str().unwrap_or_default().to_owned();
    let hands = listed["data"].as_array().context("hands are listed")?;
    Ok(hands.iter().map(|hand| (text(hand, "id"), text(hand, "state"))).collect())
}
