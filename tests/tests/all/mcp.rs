//! MCP servers of an agent: FastMCP behind a bearer token, through the API, a hand worker and egress, on both engines.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::{Value, json};
use std::{path::Path, process::Command};
use steadyhand_tests::{
    client::{LoggedEvent, of_kind},
    engines::{engine, free_addr},
    mcp::McpServer,
    on_each_engine,
    service::{Options, Service},
};
use tokio::net::TcpListener;

const TOKEN: &str = "CANARY-mcp-77aa01";

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "work", tool_offered = "mcp__docs__add", results = 0 }
answer = [{ tool = "mcp__docs__add", input = { a = 2, b = 3 } }]
[[rules]]
when = { user_contains = "work", results = 1 }
answer = [{ tool = "mcp__docs__show_authorization", input = {} }, { tool = "mcp__docs__fail", input = {} }]
[[rules]]
when = { user_contains = "again", tool_offered = "mcp__down__count", results = 0 }
answer = [{ tool = "mcp__down__count", input = {} }, { tool = "mcp__docs__add", input = { a = "x" } }]
[[rules]]
when = { user_contains = "inside", results = 0 }
answer = [{ tool = "bash", input = { command = """
for path in mcp/SESSION/646f6373 git/0~; do curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:3128/$path; done
ls -A /run/egress /run/egress/..; env""" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

/// Type and server of every `session.error`.
fn errors(events: &[LoggedEvent]) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut errors: Vec<_> = of_kind(events, "session.error")
        .into_iter()
        .map(|event| (word(&event.rest["error"]["type"]), word(&event.rest["error"]["mcp_server_name"])))
        .collect();
    errors.sort();
    errors
}

fn error(kind: &str, server: &str) -> (String, String) {
    (format!("mcp_{kind}_error"), server.to_owned())
}

async fn tools_of_mcp_servers_are_offered_asked_about_and_called(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let dir = tempfile::tempdir()?;
    let (docs, locked) = tokio::try_join!(
        McpServer::start(dir.path(), None, Some(TOKEN)),
        McpServer::start(dir.path(), None, Some("another")),
    )?;
    let down = free_addr()?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("mcp.toml"))?)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let private_addresses = vec![docs.addr, locked.addr, down];
    let options = Options { private_addresses, temporal: temporal_at, ..Options::new(model.url()) };
    let service = Service::start(options).await?;
    service.with_logs(scenario(&service, &docs, &locked, down, dir.path()).await)?;
    service.stop().await.map(drop)
}

async fn scenario(
    service: &Service,
    docs: &McpServer,
    locked: &McpServer,
    down: std::net::SocketAddr,
    dir: &Path,
) -> anyhow::Result<()> {
    let client = service.client();
    let vault = client.make("/v1/vaults", &json!({"display_name": "mine"})).await?;
    for (url, token) in [(docs.url(), TOKEN), (locked.url(), "CANARY-wrong")] {
        let auth = json!({"type": "static_bearer", "mcp_server_url": url, "token": token});
        client.make(&format!("/v1/vaults/{vault}/credentials"), &json!({"auth": auth})).await?;
    }
    let server = |name: &str, url: String| json!({"type": "url", "name": name, "url": url});
    let allow = json!({"type": "always_allow"});
    let agent = json!({"name": "a", "model": "scripted",
    "mcp_servers": [server("docs", docs.url()), server("locked", locked.url()),
        server("down", format!("http://{down}/mcp"))],
    "tools": [
        {"type": "agent_toolset_20260401"},
        {"type": "mcp_toolset", "mcp_server_name": "docs", "configs": [
            {"name": "add", "permission_policy": allow}, {"name": "fail", "permission_policy": allow},
            {"name": "count", "enabled": false}]},
        {"type": "mcp_toolset", "mcp_server_name": "locked"},
        {"type": "mcp_toolset", "mcp_server_name": "down", "default_config": {"permission_policy": allow}},
    ]});
    let agent = client.make("/v1/agents", &agent).await?;
    let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": [vault]});
    let session = client.make("/v1/sessions", &body).await?;

    // What cannot be reached is said, and the turn goes on with what can. What asks first, waits.
    let events = client.turn(&session, "work").await?;
    ensure!(errors(&events) == [error("authentication_failed", "locked"), error("connection_failed", "down")]);
    let uses = of_kind(&events, "agent.mcp_tool_use");
    let used = |event: &LoggedEvent| {
        let rest = &event.rest;
        (rest["mcp_server_name"].clone(), rest["name"].clone(), rest["evaluated_permission"].clone())
    };
    let expected = [("add", "allow"), ("show_authorization", "ask"), ("fail", "allow")];
    let expected = expected.map(|(name, permission)| (json!("docs"), json!(name), json!(permission)));
    ensure!(uses.iter().map(|event| used(event)).collect::<Vec<_>>() == expected, "{uses:?}");
    // What is allowed is called at once, though a call beside it waits.
    let results = of_kind(&events, "agent.mcp_tool_result");
    let answered: Vec<_> = results.iter().map(|event| event.rest["mcp_tool_use_id"].clone()).collect();
    ensure!(answered == [json!(uses[0].id), json!(uses[2].id)], "{results:?}");
    ensure!(results[0].text() == "5" && results[0].rest["is_error"] == false, "{results:?}");
    ensure!(results[1].text().contains("as it was told to") && results[1].rest["is_error"] == true, "{results:?}");
    let waits = events.last().context("an event")?;
    ensure!(waits.rest["stop_reason"] == json!({"type": "requires_action", "event_ids": [uses[1].id]}), "{waits:?}");

    let before = client.events(&session).await?.len();
    let allowed = json!({"type": "user.tool_confirmation", "tool_use_id": uses[1].id, "result": "allow"});
    let path = format!("/v1/sessions/{session}/events");
    client.ok(Method::POST, &path, Some(&json!({"events": [allowed]}))).await?;
    let events = client.rest(&session, before).await?;
    let results = of_kind(&events, "agent.mcp_tool_result");
    ensure!(results.len() == 1 && results[0].rest["mcp_tool_use_id"] == json!(uses[1].id), "{results:?}");
    let covered = format!("authorization: Bearer {}", "*".repeat(TOKEN.len()));
    ensure!(results[0].text() == covered, "the server had the token, and gave it back to nobody: {results:?}");

    // The server that was down is asked again when the session begins to work.
    let back = McpServer::start(dir, Some(down), None).await?;
    let events = client.turn(&session, "again").await?;
    ensure!(errors(&events) == [error("authentication_failed", "locked")], "{:?}", errors(&events));
    let results = of_kind(&events, "agent.mcp_tool_result");
    let (wrong, right): (Vec<&LoggedEvent>, Vec<_>) =
        results.iter().copied().partition(|event| event.rest["is_error"] == true);
    ensure!(right.len() == 1 && right[0].text() == "counted" && back.count() == 1, "{results:?}");
    ensure!(wrong.len() == 1 && wrong[0].text().contains("validation error"), "a wrong input is a result: {results:?}");

    // A sandbox can neither call them nor see how.
    let events = client.turn(&session, "inside").await?;
    let said = of_kind(&events, "agent.tool_result").first().map(|event| event.text()).context("a result")?;
    ensure!(said.starts_with("403\n403\n") && !said.contains("CANARY") && !said.contains(".calls.sock"), "{said}");

    // What the model was offered is what the log says, and can be made again.
    let replayed = client.ok(Method::GET, &format!("/v1/sessions/{session}/replay"), None).await?;
    ensure!(replayed["identical"] == true, "{replayed:#}");
    let context = client.ok(Method::GET, &format!("/v1/sessions/{session}/context"), None).await?;
    ensure!(context["is_as_sent"] == true, "{context:#}");
    // Gone through again it is answered by its own record, also what its servers said.
    let whatif = format!("/v1/sessions/{session}/whatif");
    let mut shown = client.ok(Method::POST, &whatif, Some(&json!({"turn": 1}))).await?;
    let trial = format!("{whatif}/{}", shown["id"].as_str().context("it has an id")?);
    while shown["status"] == "running" {
        shown = client.ok(Method::GET, &trial, None).await?;
    }
    let report = &shown["report"];
    let is_whole = report["turns"].as_array().is_some_and(|turns| turns.len() == 3);
    ensure!(report["end"]["end"] == "complete" && is_whole, "{shown:#}");
    ensure!(report["first_step"].is_null() && report["first_request"].is_null(), "{report:#}");
    for dir in [service.data_dir(), service.hands_dir()] {
        let found = Command::new("grep").args(["-rla", "CANARY"]).arg(&dir).output()?;
        ensure!(found.stdout.is_empty(), "in the clear: {}", String::from_utf8_lossy(&found.stdout));
    }
    ensure!(!service.logs().contains("CANARY"));
    client.delete(&session).await
}

on_each_engine![tools_of_mcp_servers_are_offered_asked_about_and_called];
