//! A workspace at its quota: what ran is told, what is there can be looked at and removed, and then the session goes on. Where a
//! hand's disk is only watched, and where it is a file system of its own.

use activities::model::scripted::{Script, serve};
use anyhow::ensure;
use serde_json::{Value, json};
use std::path::Path;
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::engine,
    on_each_engine,
    service::{Options, Service, is_strict_possible},
};
use tokio::net::TcpListener;

/// As much as a hand may have, and nothing of it is written: room is taken for files as large as one may be.
const FILL: &str = "for n in 1 2 3 4 5 6; do fallocate -l 2000000000 big$n || break; done";

fn script(fill: &str) -> anyhow::Result<Script> {
    let bash = |command: &str| ("bash", json!({"command": command}));
    let write = ("write", json!({"file_path": "more", "content": "x".repeat(200_000)}));
    let calls = [bash(fill), write.clone(), bash("ls; rm big*"), write, bash("wc -c <more")];
    let rule = |(at, (tool, input)): (usize, (&str, Value))| json!({"when": {"results": at}, "answer": [{"tool": tool, "input": input}]});
    let mut rules: Vec<Value> = calls.into_iter().enumerate().map(rule).collect();
    rules.push(json!({"answer": [{"text": "Done."}]}));
    let script = json!({"version": 1, "rules": rules}).to_string();
    Ok(Script::from_json(&script, Path::new("full_disks.json"))?)
}

/// `says`: what the model is told while the disk is full.
async fn filled(is_temporal: bool, hands_mode: &'static str, fill: &str, says: &str) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script(fill)?)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal: temporal_at, hands_mode, ..Options::new(model.url()) }).await?;
    let ended = scenario(&service, says).await;
    service.finish(ended).await
}

async fn scenario(service: &Service, says: &str) -> anyhow::Result<()> {
    let client = service.client();
    let session = client.session().await?;
    client.send(&session, "go", Mark::RetryCount).await?;
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    let results: Vec<(String, bool)> = events
        .iter()
        .filter(|event| event.kind == "agent.tool_result")
        .map(|event| (event.text(), event.rest["is_error"] == true))
        .collect();
    let [full, refused, cleared, written, there] = &results[..] else { anyhow::bail!("{results:?}") };
    for (text, is_error) in [full, refused] {
        ensure!(*is_error && text.contains(says), "{results:?}");
    }
    ensure!(cleared.0.contains("big1") && !cleared.1, "{results:?}");
    ensure!(*written == ("wrote 200000 bytes to more".to_owned(), false), "{results:?}");
    ensure!(*there == ("200000\n".to_owned(), false), "{results:?}");
    client.delete(&session).await
}

async fn a_watched_workspace_at_its_quota_is_told_and_goes_on(is_temporal: bool) -> anyhow::Result<()> {
    filled(is_temporal, "dev", &format!("{FILL}; sleep 300"), "the disk is full: files hold").await
}

async fn a_hand_whose_own_disk_is_full_is_told_and_goes_on(is_temporal: bool) -> anyhow::Result<()> {
    if !is_strict_possible()? {
        // There is no strict hand on this machine, and no disk of its own in any other.
        return Ok(());
    }
    // What is left of its room is taken as well, in ever smaller pieces.
    let rest =
        "for size in 100000000 1000000 4096; do while fallocate -l $size \"big-$size-$((n += 1))\"; do :; done; done";
    filled(is_temporal, "strict", &format!("{FILL}; {rest}; echo x >big-last"), "No space left").await
}

on_each_engine![
    a_watched_workspace_at_its_quota_is_told_and_goes_on,
    a_hand_whose_own_disk_is_full_is_told_and_goes_on,
];
