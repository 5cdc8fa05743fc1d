//! Repositories that a session is given by URL: git's own server behind a token, through the API, egress and a sandbox, on
//! both engines.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use http::{Method, StatusCode};
use serde_json::json;
use std::{path::Path, process::Command};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::engine,
    git::Forge,
    on_each_engine,
    service::{Options, Service},
};
use tokio::net::TcpListener;

const TOKEN: &str = "CANARY-repository-4d1f";
const OTHER_TOKEN: &str = "CANARY-repository-rotated";

/// What the agent does in its first turn, and in every later one.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { turn = 0, results = { max = 0 } }
answer = [{ tool = "bash", input = { command = """
set -e
cd /workspace/app
git config --get remote.origin.url
cat a.txt; echo two >>a.txt
git switch -qc agent/x; git commit -qam second
git push -q origin agent/x 2>&1
if git push origin HEAD:main 2>&1 | grep -q 403; then echo main refused; fi
ls /workspace; env; git config -l; cat .git/config
""" } }]
[[rules]]
when = { results = { max = 0 } }
answer = [{ tool = "bash", input = { command = "cd /workspace/app && git pull -q origin main 2>&1 && echo pulled" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

fn result(events: &[LoggedEvent]) -> String {
    events.iter().rfind(|event| event.kind == "agent.tool_result").map(LoggedEvent::text).unwrap_or_default()
}

async fn turn(client: &Client, session: &str, text: &str) -> anyhow::Result<Vec<LoggedEvent>> {
    let before = client.events(session).await?.len();
    client.send(session, text, Mark::IdempotencyKey).await?;
    let idle = |events: &[LoggedEvent]| events.len() > before && events.last().is_some_and(LoggedEvent::is_idle);
    client.until(session, idle).await
}

async fn repositories_are_worked_in_and_their_token_is_nowhere(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let forge = Forge::start(TOKEN).await?;
    for name in ["acme/app", "acme/private", "acme/branchless"] {
        forge.repository(name)?;
    }
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("git.toml"))?)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let options = Options { private_addresses: vec![forge.addr], temporal: temporal_at, ..Options::new(model.url()) };
    let service = Service::start(options).await?;
    let client = service.client();
    let agent = json!({"name": "a", "model": "scripted", "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = client.make("/v1/agents", &agent).await?;
    // Nothing of the network is allowed but what the resources say.
    let config = json!({"type": "cloud", "networking": {"type": "limited"}});
    let environment = client.make("/v1/environments", &json!({"name": "net", "config": config})).await?;
    let body = json!({"agent": agent, "environment_id": environment, "resources": [
        {"type": "github_repository", "url": forge.url("acme/app"), "authorization_token": TOKEN,
            "push": ["refs/heads/agent/*"]},
        {"type": "github_repository", "url": forge.url("acme/private")},
        {"type": "github_repository", "url": forge.url("acme/none"), "authorization_token": TOKEN},
        {"type": "github_repository", "url": forge.url("acme/branchless"), "authorization_token": TOKEN,
            "mount_path": "/workspace/deep/er", "checkout": {"type": "branch", "name": "none"}},
    ]});
    let (status, session) = client.call(Method::POST, "/v1/sessions", Some(&body)).await?;
    ensure!(status == StatusCode::OK, "{session}");
    ensure!(!session.to_string().contains("CANARY"), "{session}");
    let resources = session["resources"].as_array().context("a list")?;
    ensure!(resources[0]["type"] == "github_repository" && resources[0]["mount_path"] == "/workspace/app");
    ensure!(resources[3]["checkout"] == json!({"type": "branch", "name": "none"}), "{resources:?}");
    let resource = resources[0]["id"].as_str().context("an id")?.to_owned();
    let session = session["id"].as_str().context("an id")?.to_owned();

    let events = turn(&client, &session, "work").await?;
    let said = result(&events);
    let expected = format!("{}\none\nmain refused\napp\n", forge.url("acme/app"));
    ensure!(said.starts_with(&expected), "{said}\n{}", service.logs());
    ensure!(!said.contains("CANARY") && !said.to_lowercase().contains("authorization"), "{said}");
    ensure!(forge.git("acme/app", &["log", "--format=%s", "agent/x"])? == "second\nfirst\n");
    ensure!(forge.git("acme/app", &["log", "--format=%s", "main"])? == "first\n");
    let errors: Vec<_> = events
        .iter()
        .filter(|event| event.kind == "session.error")
        .map(|event| event.rest["error"].clone())
        .map(|error| (error["type"].clone(), error["repository_url"].clone(), error["retry_status"]["type"].clone()))
        .collect();
    let error = |kind: &str, name: &str| (json!(kind), json!(forge.url(name)), json!("retrying"));
    ensure!(
        errors
            == [
                error("repository_authentication_error", "acme/private"),
                error("repository_not_found_error", "acme/none"),
                error("repository_checkout_error", "acme/branchless"),
            ],
        "{errors:?}"
    );

    // The server wants another token. It is rotated under the living sandbox; a fork has it too.
    forge.ask_for(OTHER_TOKEN);
    ensure!(result(&turn(&client, &session, "pull").await?).contains("does not accept the session's credential"));
    let at = format!("/v1/sessions/{session}/resources/{resource}");
    let (status, rotated) = client.call(Method::POST, &at, Some(&json!({"authorization_token": OTHER_TOKEN}))).await?;
    ensure!(status == StatusCode::OK && !rotated.to_string().contains("CANARY"), "{rotated}");
    ensure!(result(&turn(&client, &session, "pull again").await?).contains("pulled"));
    let (_, fork) = client.call(Method::POST, &format!("/v1/sessions/{session}/fork"), Some(&json!({}))).await?;
    let fork = fork["id"].as_str().with_context(|| fork.to_string())?.to_owned();
    let said = result(&turn(&client, &fork, "pull in the fork").await?);
    ensure!(said.contains("pulled"), "{said}");

    // What the service has on disk and what it said: nowhere in the clear, and gone with its session.
    let vaults = service.hands_dir().join(".egress");
    let held = |session: &str| find(&vaults, &format!("{session}.json"), "vault");
    ensure!(held(&session) && held(&fork), "the tokens are in the sessions' own vaults");
    for session in [&session, &fork] {
        client.delete(session).await?;
    }
    ensure!(!held(&session) && !held(&fork), "and go with them");
    for dir in [service.data_dir(), service.hands_dir()] {
        let found = Command::new("grep").args(["-rla", "CANARY"]).arg(&dir).output()?;
        ensure!(found.stdout.is_empty(), "in the clear: {}", String::from_utf8_lossy(&found.stdout));
    }
    ensure!(!service.logs().contains("CANARY"));
    service.stop().await?;
    Ok(())
}

/// Whether there is a file of that name in a folder of that name, somewhere below.
fn find(root: &Path, name: &str, folder: &str) -> bool {
    std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).any(|path| {
        (path.file_name().is_some_and(|own| own == folder) && path.join(name).is_file())
            || (path.is_dir() && find(&path, name, folder))
    })
}

on_each_engine![repositories_are_worked_in_and_their_token_is_nowhere];
