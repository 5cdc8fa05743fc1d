//! A session with more than one hand: the model says which one a call is for, each has files of its own, and one of them can be lost
//! or given to another session without the others. With real sandboxes, on both engines.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use std::{path::Path, process::Command, time::Duration};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::engine,
    git::Forge,
    on_each_engine,
    service::{Options, Service, program},
};
use tokio::net::TcpListener;

/// Between two looks at which hands there are.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "begin", results = 0 }
answer = [
    { tool = "bash", input = { command = "echo main > where; cat where; ls" } },
    { tool = "bash", input = { command = "echo build > where; cat where; echo made > /mnt/session/outputs/report", hand = "build" } },
    { tool = "write", input = { file_path = "/workspace/note", content = "written there", hand = "build" } },
    { tool = "bash", input = { command = "touch /workspace/never", hand = "elsewhere" } },
]
[[rules]]
when = { user_contains = "look", results = 0 }
answer = [
    { tool = "bash", input = { command = "cat where note", hand = "main" } },
    { tool = "bash", input = { command = "cat where note", hand = "build" } },
]
[[rules]]
when = { user_contains = "theirs", results = 0 }
answer = [
    { tool = "bash", input = { command = "ls" } },
    { tool = "bash", input = { command = "cat where note", hand = "theirs" } },
]
[[rules]]
answer = [{ text = "done" }]
"#;

/// The repository is cloned in both hands, and changed in each.
const CHANGES: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [
    { tool = "bash", input = { command = "echo in-main >>/workspace/app/a.txt" } },
    { tool = "bash", input = { command = "echo in-build >>/workspace/app/a.txt", hand = "build" } },
]
[[rules]]
answer = [{ text = "done" }]
"#;
const TOKEN: &str = "CANARY-hands";

on_each_engine!(hands_are_made_lost_and_given_one_by_one, each_hand_has_a_diff_of_its_own);

async fn each_hand_has_a_diff_of_its_own(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let forge = Forge::start(TOKEN).await?;
    let url = forge.repository("acme/app")?;
    let script = Script::from_toml(CHANGES, Path::new("changes.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let temporal = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let options = Options { temporal, private_addresses: vec![forge.addr], ..Options::new(model.url()) };
    let service = Service::start(options).await?;
    service.with_logs(diffs(&service, &url).await)?;
    service.stop().await.map(drop)
}

async fn diffs(service: &Service, url: &str) -> anyhow::Result<()> {
    let client = service.client();
    let resource = json!({"type": "github_repository", "url": url, "authorization_token": TOKEN});
    let hands = [("build", "where things are made"), ("spare", "not used")];
    let mine = session_with(&client, &hands, json!([resource])).await?;
    client.send(&mine, "change it", Mark::RetryCount).await?;
    at_rest(&client, &mine, 1).await?;
    let diff = |hand: Option<&str>| {
        let mut command = Command::new(program("steadyhand"));
        command.args(["session", "diff", &mine, "--data"]).arg(service.data_dir());
        command.args(hand.into_iter().flat_map(|hand| ["--hand", hand]));
        let said = command.output()?;
        anyhow::Ok((said.status.success(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()))
    };
    // They are made when the turn is over.
    let made = async {
        while !(diff(None)?.0 && diff(Some("build"))?.0) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, made).await.context("no diff is made")??;
    for (hand, own, other) in [(None, "+in-main", "in-build"), (Some("build"), "+in-build", "in-main")] {
        let (_, said) = diff(hand)?;
        ensure!(said.contains(own) && !said.contains(other), "{hand:?}: {said}");
    }
    for (hand, says) in [("spare", "there is no diff"), ("../x", "is not the name of a hand")] {
        let (is_made, said) = diff(Some(hand))?;
        ensure!(!is_made && said.contains(says), "{hand}: {said}");
    }
    Ok(())
}

async fn hands_are_made_lost_and_given_one_by_one(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let script = Script::from_toml(SCRIPT, Path::new("several_hands.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let temporal = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal, ..Options::new(model.url()) }).await?;
    let outcome = scenario(&service).await;
    outcome.with_context(|| service.logs())?;
    let offered = model.received();
    let bash = offered[0].body["tools"].as_array().context("tools")?.iter().find(|tool| tool["name"] == "bash");
    let which = &bash.context("bash is offered")?["input_schema"]["properties"]["hand"];
    ensure!(which["enum"] == json!(["main", "build", "spare"]), "{which}");
    ensure!(which["description"].as_str().is_some_and(|text| text.contains("build: where things are made")), "{which}");
    service.stop().await.map(drop)
}

async fn scenario(service: &Service) -> anyhow::Result<()> {
    let client = service.client();
    let mine = session(&client, &[("build", "where things are made"), ("spare", "not used")]).await?;
    client.send(&mine, "begin", Mark::RetryCount).await?;
    let events = at_rest(&client, &mine, 1).await?;
    let [main, build, note, nobody] = &results(&events)[..] else { anyhow::bail!("{:?}", results(&events)) };
    ensure!((main.as_str(), build.as_str()) == ("main\nwhere\n", "build\n"), "{main:?} {build:?}");
    ensure!(note.contains("/workspace/note"), "{note:?}");
    ensure!(nobody.contains("there are main, build, spare") && nobody.contains("Nothing was run"), "{nobody:?}");
    let uses = events.iter().filter(|event| event.kind == "agent.tool_use");
    let uses: Vec<Option<&str>> = uses.map(|event| event.rest["input"]["hand"].as_str()).collect();
    ensure!(uses == [None, Some("build"), Some("build"), Some("elsewhere")], "{uses:?}");

    // The one that nobody used was not made.
    let held = hands(&client, &mine).await?;
    let names: Vec<&str> = held.iter().map(|(name, ..)| name.as_str()).collect();
    ensure!(names == ["build", "main"] && held[0].1 != held[1].1, "{held:?}");
    // They are collected when the turn is over.
    let collected = async {
        let path = format!("/v1/files?scope_id={mine}");
        while client.ok(Method::GET, &path, None).await?["data"][0]["filename"] != "report" {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, collected).await.context("the other hand's outputs are not collected")??;

    // One that is ended is lost, and the other one is as it was.
    let (_, build_id, _) = &held[0];
    client.ok(Method::DELETE, &format!("/v1/hands/{build_id}"), None).await?;
    client.send(&mine, "look", Mark::RetryCount).await?;
    let events = at_rest(&client, &mine, 2).await?;
    let [.., main, build] = &results(&events)[..] else { anyhow::bail!("{:?}", results(&events)) };
    ensure!(main.starts_with("main\n") && build.starts_with("lost: the sandbox is gone"), "{main:?} {build:?}");

    // A new one of that name, which goes to another session under another.
    client.send(&mine, "begin", Mark::RetryCount).await?;
    at_rest(&client, &mine, 3).await?;
    let theirs = session(&client, &[("theirs", "from somebody else")]).await?;
    for (to_hand, problem) in [("build", "knows no hand called build"), ("../x", "is not the name of a hand")] {
        let body = json!({"from_session_id": mine, "to_session_id": theirs, "hand": "build", "to_hand": to_hand});
        let (status, answer) = client.call(Method::POST, "/v1/hands/transfer", Some(&body)).await?;
        ensure!(status == 400 && answer.to_string().contains(problem), "{status} {answer}");
    }
    let body = json!({"from_session_id": mine, "to_session_id": theirs, "hand": "spare"});
    let (status, answer) = client.call(Method::POST, "/v1/hands/transfer", Some(&body)).await?;
    ensure!(status == 400 && answer.to_string().contains("has no hand called spare"), "{status} {answer}");
    let has = hands(&client, &mine).await?;
    let given = has.iter().find(|(name, ..)| name == "build").context("it has one")?.1.clone();
    let said = Command::new(program("steadyhand"))
        .args(["hand", "give", &mine, &theirs, "--hand", "build", "--as", "theirs", "--data"])
        .arg(service.data_dir())
        .output()?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let arriving = async {
        while hands(&client, &theirs).await? != [("theirs".to_owned(), given.clone(), "parked".to_owned())] {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, arriving).await.context("it does not arrive")??;
    let left = hands(&client, &mine).await?;
    ensure!(left.len() == 1 && left[0].0 == "main", "the first one keeps the other: {left:?}");

    client.send(&theirs, "theirs", Mark::RetryCount).await?;
    let taken = results(&at_rest(&client, &theirs, 1).await?);
    ensure!(taken[0] == "(no output)", "its own hand knows nothing of it: {taken:?}");
    ensure!(
        taken[1].starts_with("build\nwritten there") && taken[1].contains("[This sandbox begins with"),
        "{taken:?}"
    );
    Ok(())
}

async fn session(client: &Client, hands: &[(&str, &str)]) -> anyhow::Result<String> {
    session_with(client, hands, json!([])).await
}

async fn session_with(client: &Client, hands: &[(&str, &str)], resources: Value) -> anyhow::Result<String> {
    let hands = hands.iter().map(|(name, text)| json!({"type": "hand", "name": name, "description": text}));
    let tools: Vec<Value> = std::iter::once(json!({"type": "agent_toolset_20260401"})).chain(hands).collect();
    let agent = client.make("/v1/agents", &json!({"name": "a", "model": "scripted", "tools": tools})).await?;
    let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
    let body = json!({"agent": agent, "environment_id": environment, "resources": resources});
    client.make("/v1/sessions", &body).await
}

/// The log when the turn of that number is over.
async fn at_rest(client: &Client, session: &str, turns: usize) -> anyhow::Result<Vec<LoggedEvent>> {
    client.until(session, |events| events.iter().filter(|event| event.is_idle()).count() == turns).await
}

/// In the order in which the calls were made.
fn results(events: &[LoggedEvent]) -> Vec<String> {
    let uses = events.iter().filter(|event| event.kind == "agent.tool_use");
    let of = |call: &LoggedEvent| {
        let is_its = |event: &&LoggedEvent| event.rest.get("tool_use_id").is_some_and(|id| *id == call.id);
        events.iter().find(is_its).map(LoggedEvent::text)
    };
    uses.filter_map(of).collect()
}

/// Names, ids and states of a session's hands, by name.
async fn hands(client: &Client, session: &str) -> anyhow::Result<Vec<(String, String, String)>> {
    let listed = client.ok(Method::GET, &format!("/v1/hands?session_id={session}"), None).await?;
    let text = |hand: &Value, field: &str| hand[field].as_str().unwrap_or_default().to_owned();
    let hands = listed["data"].as_array().context("hands are listed")?;
    let mut hands: Vec<_> =
        hands.iter().map(|hand| (text(hand, "name"), text(hand, "id"), text(hand, "state"))).collect();
    hands.sort();
    Ok(hands)
}
