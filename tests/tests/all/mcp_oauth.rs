//! OAuth's access tokens are replaced in egress, against FastMCP's own authorization server, on both engines: once, whoever
//! asks, and with the refresh token that the server gave last.

use activities::model::scripted::{Script, serve};
use anyhow::ensure;
use serde_json::json;
use std::{path::Path, process::Command};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::{Temporal, free_addr},
    mcp::McpServer,
    service::{Options, Service},
};
use tokio::net::TcpListener;

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "work", tool_offered = "mcp__docs__add", results = 0 }
answer = [{ tool = "mcp__docs__expire", input = {} }]
[[rules]]
when = { user_contains = "work", results = 1 }
answer = [
    { tool = "mcp__docs__add", input = { a = 1, b = 1 } },
    { tool = "mcp__docs__add", input = { a = 1, b = 2 } },
    { tool = "mcp__docs__add", input = { a = 1, b = 3 } },
]
[[rules]]
when = { user_contains = "close", results = 0 }
answer = [{ tool = "mcp__docs__revoke", input = {} }]
[[rules]]
when = { user_contains = "close", results = 1 }
answer = [{ tool = "mcp__docs__add", input = { a = 1, b = 1 } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

async fn tokens_are_replaced_once_whoever_asks(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = is_temporal.then(|| Temporal::start_at(free_addr()?, None, &[])).transpose()?;
    let dir = tempfile::tempdir()?;
    let docs = McpServer::start_oauth(dir.path()).await?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("oauth.toml"))?)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let options = Options { private_addresses: vec![docs.addr], temporal: temporal_at, ..Options::new(model.url()) };
    let service = Service::start(options).await?;
    if let Err(error) = scenario(&service, &docs).await {
        return Err(error.context(format!("{:?}\n{}", docs.refreshes(), service.logs())));
    }
    service.stop().await?;
    Ok(())
}

async fn scenario(service: &Service, docs: &McpServer) -> anyhow::Result<()> {
    let client = service.client();
    let vault = client.make("/v1/vaults", &json!({"display_name": "mine"})).await?;
    let auth = json!({"type": "mcp_oauth", "mcp_server_url": docs.url(), "access_token": "CANARY-expired", "refresh": {
        "client_id": "steadyhand", "token_endpoint": format!("http://{}/token", docs.addr),
        "token_endpoint_auth": {"type": "client_secret_post", "client_secret": "CANARY-client-secret"},
        "refresh_token": "CANARY-refresh", "resource": docs.url()}});
    client.make(&format!("/v1/vaults/{vault}/credentials"), &json!({"auth": auth})).await?;
    let toolset = json!({"type": "mcp_toolset", "mcp_server_name": "docs",
        "default_config": {"permission_policy": {"type": "always_allow"}}});
    let agent = json!({"name": "a", "model": "scripted", "tools": [toolset],
        "mcp_servers": [{"type": "url", "name": "docs", "url": docs.url()}]});
    let agent = client.make("/v1/agents", &agent).await?;
    let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": [vault]});
    let session = async || client.make("/v1/sessions", &body).await;
    let sessions = [session().await?, session().await?, session().await?, session().await?];
    // Texts of results, and of errors.
    let turn = async |session: &str, text: &str| {
        let before = client.events(session).await?.len();
        client.send(session, text, Mark::IdempotencyKey).await?;
        let idle = |events: &[LoggedEvent]| events.len() > before && events.last().is_some_and(LoggedEvent::is_idle);
        let events = client.until(session, idle).await?.split_off(before);
        let results = events.iter().filter(|event| event.kind == "agent.mcp_tool_result").map(LoggedEvent::text);
        let errors = events.iter().filter(|event| event.kind == "session.error").map(|event| format!("{event:?}"));
        let mut results: Vec<String> = results.chain(errors).collect();
        results.sort();
        anyhow::Ok(results)
    };

    // All of them ask for the tools with a token that is of no use. The refresh token can be used once.
    let said = futures::future::try_join_all(sessions.iter().map(|session| turn(session, "hello"))).await?;
    ensure!(said.concat().is_empty(), "{said:?}");
    ensure!(docs.refreshes() == ["CANARY-refresh"]);
    // The next one is what the server gave in its place.
    ensure!(turn(&sessions[0], "work").await? == ["2", "3", "4", "expired"]);
    let refreshes = docs.refreshes();
    ensure!(refreshes.len() == 2 && refreshes[1] != refreshes[0]);

    // What the server takes back for good is said.
    let said = turn(&sessions[0], "close").await?;
    ensure!(said.len() == 2 && said[0].contains("does not accept the session's credential"), "{said:?}");
    ensure!(docs.refreshes().len() == 2);

    for dir in [service.data_dir(), service.hands_dir()] {
        for secret in std::iter::once("CANARY").chain(refreshes.iter().map(String::as_str)) {
            let found = Command::new("grep").args(["-rla", "--", secret]).arg(&dir).output()?;
            ensure!(found.stdout.is_empty(), "in the clear: {}", String::from_utf8_lossy(&found.stdout));
        }
    }
    ensure!(!service.logs().contains("CANARY"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth_on_the_embedded_engine() -> anyhow::Result<()> {
    tokens_are_replaced_once_whoever_asks(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth_on_temporal() -> anyhow::Result<()> {
    tokens_are_replaced_once_whoever_asks(true).await
}
