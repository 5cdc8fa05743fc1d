//! An MCP server that speaks stdio, in a session's sandbox: made with the official SDK, through the API and a hand worker, on both
//! engines. It is listed and called, dies, is interrupted, and takes effect once though the hand worker is killed meanwhile.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::json;
use std::path::Path;
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark, of_kind},
    engines::engine,
    gate::{self, Gate},
    mcp, on_each_engine,
    service::{Layout, Options, Role, Service},
    transcript::check_log,
};
use tokio::net::TcpListener;

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "work", tool_offered = "mcp__inside__add", results = 0 }
answer = [
    { tool = "mcp__inside__add", input = { a = 2, b = 3 } },
    { tool = "mcp__inside__add", input = { a = "x" } },
    { tool = "mcp__inside__surroundings", input = {} },
]
[[rules]]
when = { user_contains = "die", results = 0 }
answer = [{ tool = "mcp__inside__die", input = {} }]
[[rules]]
when = { user_contains = "die", results = 1 }
answer = [{ tool = "mcp__inside__count", input = { word = "after" } }]
[[rules]]
when = { user_contains = "kill", results = 0 }
answer = [{ tool = "bash", input = { command = "pkill -9 -f server.py; sleep 0.2; pgrep -fc server.py" } }]
[[rules]]
when = { user_contains = "kill", results = 1 }
answer = [{ tool = "mcp__inside__count", input = { word = "killed" } }]
[[rules]]
when = { user_contains = "once", results = 0 }
answer = [{ tool = "mcp__inside__wait", input = { word = "once" } }]
[[rules]]
when = { user_contains = "stop", results = 0 }
answer = [{ tool = "mcp__inside__wait", input = { word = "stop" } }]
[[rules]]
when = { user_contains = "see", results = 0 }
answer = [{ tool = "bash", input = { command = "sort /workspace/counter | uniq -c" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

const START: &str = "[ -d ~/site ] || { mkdir ~/site && tar -xf /mnt/session/uploads/site.tar -C ~/site; } && exec python3 ~/site/server.py";

on_each_engine![servers_in_a_hand_are_listed_called_and_started_again];

async fn servers_in_a_hand_are_listed_called_and_started_again(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let script = Script::from_toml(SCRIPT, Path::new("mcp_inside.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let temporal = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    // The hand worker is a process that a test can kill.
    let mut service = Service::start(Options { layout: Layout::Hand, temporal, ..Options::new(model.url()) }).await?;
    let outcome = scenario(&mut service, &model).await;
    outcome.with_context(|| service.logs())?;
    service.stop().await.map(drop)
}

/// A session of an agent with a server in its sandbox, and one that cannot be started.
async fn session(client: &Client) -> anyhow::Result<String> {
    let file = client.upload("site.tar", &mcp::packed()?).await?;
    let allow = json!({"type": "always_allow"});
    let agent = json!({"name": "a", "model": "scripted",
    "mcp_servers": [
        {"type": "stdio", "name": "inside", "command": "sh", "args": ["-c", START], "env": {"LEVEL": "high"}},
        {"type": "stdio", "name": "broken", "command": "no-such-program"}],
    "tools": [
        {"type": "agent_toolset_20260401"},
        {"type": "mcp_toolset", "mcp_server_name": "inside", "default_config": {"permission_policy": allow}, "configs": [
            {"name": "surroundings", "permission_policy": {"type": "always_ask"}}, {"name": "hidden", "enabled": false}]},
        {"type": "mcp_toolset", "mcp_server_name": "broken"},
    ]});
    let agent = client.make("/v1/agents", &agent).await?;
    let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
    let resource = json!({"type": "file", "file_id": file, "mount_path": "/mnt/session/uploads/site.tar"});
    client.make("/v1/sessions", &json!({"agent": agent, "environment_id": environment, "resources": [resource]})).await
}

async fn scenario(service: &mut Service, model: &Server) -> anyhow::Result<()> {
    let client = service.client();
    let session = session(&client).await?;

    // What cannot be started is said, and the turn goes on with what can. What asks first, waits.
    let events = client.turn(&session, "work").await?;
    let errors: Vec<_> = of_kind(&events, "session.error").into_iter().map(|event| &event.rest["error"]).collect();
    ensure!(errors.len() == 1 && errors[0]["type"] == "mcp_connection_failed_error", "{errors:?}");
    ensure!(errors[0]["mcp_server_name"] == "broken" && errors[0]["retry_status"]["type"] == "retrying", "{errors:?}");
    let message = errors[0]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("no-such-program: No such file or directory"), "{message}");
    let uses = of_kind(&events, "agent.mcp_tool_use");
    let used = |event: &LoggedEvent| {
        let rest = &event.rest;
        (rest["mcp_server_name"].clone(), rest["name"].clone(), rest["evaluated_permission"].clone())
    };
    let expected = [("add", "allow"), ("add", "allow"), ("surroundings", "ask")];
    let expected = expected.map(|(name, permission)| (json!("inside"), json!(name), json!(permission)));
    ensure!(uses.iter().map(|event| used(event)).collect::<Vec<_>>() == expected, "{uses:?}");
    let results = of_kind(&events, "agent.mcp_tool_result");
    let (wrong, right): (Vec<&LoggedEvent>, Vec<_>) =
        results.iter().copied().partition(|event| event.rest["is_error"] == true);
    ensure!(right.len() == 1 && right[0].text() == "5" && wrong.len() == 1, "{results:?}");
    ensure!(wrong[0].text().to_lowercase().contains("validation error"), "a wrong input is a result: {wrong:?}");
    let before = client.events(&session).await?.len();
    let allowed = json!({"type": "user.tool_confirmation", "tool_use_id": uses[2].id, "result": "allow"});
    let path = format!("/v1/sessions/{session}/events");
    client.ok(Method::POST, &path, Some(&json!({"events": [allowed]}))).await?;
    let events = client.rest(&session, before).await?;
    // It is in the sandbox, with its own variables beside the sandbox's, and nothing of the service's.
    let [seen] = &of_kind(&events, "agent.mcp_tool_result")[..] else { anyhow::bail!("{events:?}") };
    ensure!(seen.text().starts_with("/workspace high ['recipe'] ") && !seen.text().contains("STEADYHAND"), "{seen:?}");
    let offered = offered(model)?;
    ensure!(offered.iter().any(|name| name == "mcp__inside__count"), "{offered:?}");
    ensure!(!offered.iter().any(|name| name.contains("hidden") || name.contains("broken")), "{offered:?}");

    // One that dies in the middle of a call is told, and started again by the next one.
    let events = client.turn(&session, "die").await?;
    let [died, after] = &of_kind(&events, "agent.mcp_tool_result")[..] else { anyhow::bail!("{events:?}") };
    let told = died.text();
    ensure!(died.rest["is_error"] == true && told.contains("it ended (exit code 3)"), "{told}");
    ensure!(told.contains("these are its last words") && told.contains("may or may not have taken effect"), "{told}");
    ensure!(after.text() == "after 1" && after.rest["is_error"] == false, "{after:?}");
    // So is one that was killed while nobody called it.
    let events = client.turn(&session, "kill").await?;
    let killed = of_kind(&events, "agent.tool_result").first().map(|event| event.text()).context("a result")?;
    let [after] = &of_kind(&events, "agent.mcp_tool_result")[..] else { anyhow::bail!("{events:?}") };
    ensure!(after.text() == "killed 1", "{killed:?} {after:?}");

    // The hand worker dies with a call under way: another one is told what becomes of it.
    let mut gate = Gate::new(&service.hands_dir())?;
    let before = client.events(&session).await?.len();
    client.send(&session, "once", Mark::RetryCount).await?;
    let workspace = gate.reached().await?;
    service.process(Role::Hand)?.kill().await?;
    service.start_missing().await?;
    let open = gate::open(&workspace)?;
    let events = client.rest(&session, before).await?;
    drop(open);
    let [once] = &of_kind(&events, "agent.mcp_tool_result")[..] else { anyhow::bail!("{events:?}") };
    ensure!(once.text() == "went on" && once.rest["is_error"] == false, "{once:?}");

    // A call that is interrupted takes its server with it, and the next one has a new one.
    std::fs::remove_file(workspace.join("started"))?;
    let before = client.events(&session).await?.len();
    client.send(&session, "stop", Mark::RetryCount).await?;
    gate.reached().await?;
    let stop = json!({"events": [{"type": "user.interrupt"}]});
    client.ok(Method::POST, &path, Some(&stop)).await?;
    let events = client.rest(&session, before).await?;
    let [stopped] = &of_kind(&events, "agent.mcp_tool_result")[..] else { anyhow::bail!("{events:?}") };
    ensure!(stopped.text().starts_with("interrupted; the MCP server inside was told so and ended"), "{stopped:?}");
    let events = client.turn(&session, "die again").await?;
    ensure!(of_kind(&events, "agent.mcp_tool_result")[1].text() == "after 2", "{events:?}");

    // Everything took effect once.
    let events = client.turn(&session, "see").await?;
    let counted = of_kind(&events, "agent.tool_result").first().map(|event| event.text()).context("a result")?;
    let counted: Vec<&str> = counted.split_whitespace().collect();
    ensure!(counted == ["2", "after", "1", "killed", "1", "once", "1", "stop"], "{counted:?}");

    // The log has all of it: what the model was offered can be made again, and so can what it was told.
    let events = client.events(&session).await?;
    check_log(&client, &session, &events).await?;
    let replayed = client.ok(Method::GET, &format!("/v1/sessions/{session}/replay"), None).await?;
    ensure!(replayed["identical"] == true, "{replayed:#}");
    let context = client.ok(Method::GET, &format!("/v1/sessions/{session}/context"), None).await?;
    ensure!(context["is_as_sent"] == true, "{context:#}");
    client.delete(&session).await
}

/// Names of the tools in the model's last request.
fn offered(model: &Server) -> anyhow::Result<Vec<String>> {
    let last = model.received().into_iter().next_back().context("the model was asked")?;
    let tools = last.body["tools"].as_array().context("tools")?.clone();
    Ok(tools.iter().filter_map(|tool| tool["name"].as_str().map(str::to_owned)).collect())
}
