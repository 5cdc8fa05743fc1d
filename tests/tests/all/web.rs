//! `web_fetch`: pages through the API, a hand worker and egress, on both engines; and that what is not offered is denied.

use activities::model::scripted::{Script, serve};
use anyhow::ensure;
use serde_json::{Value, json};
use std::{net::SocketAddr, path::Path};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::{Temporal, free_addr},
    service::{Options, Service},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// A site whose every page leads on to `/next`.
async fn site() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or_default();
                let head = String::from_utf8_lossy(&head[..read]);
                let path = head.split(' ').nth(1).unwrap_or_default();
                let page = format!(
                    "<script>no</script><h1>This is {path}</h1><a href='/next'>more</a>{}",
                    "word ".repeat(500)
                );
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                    page.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    Ok(addr)
}

fn script(site: SocketAddr, unlisted: SocketAddr) -> String {
    let fetch_at =
        |at: SocketAddr, path: &str| format!("{{ tool = \"web_fetch\", input = {{ url = \"http://{at}{path}\" }} }}");
    let fetch = |path: &str| fetch_at(site, path);
    format!(
        r#"
version = 1
[[rules]]
when = {{ user_contains = "read", tool_offered = "web_fetch", results = 0 }}
answer = [{}]
[[rules]]
when = {{ user_contains = "read", results = 1 }}
answer = [{}]
[[rules]]
when = {{ user_contains = "read", results = 2 }}
answer = [{}, {{ tool = "web_search", input = {{ query = "x" }} }}]
[[rules]]
when = {{ user_contains = "look", results = 0 }}
answer = [{}]
[[rules]]
when = {{ user_contains = "reach", results = 0 }}
answer = [{}]
[[rules]]
answer = [{{ text = "Done." }}]
"#,
        fetch("/first"),
        fetch("/next"),
        fetch("/made-up?stolen=1"),
        fetch("/first"),
        fetch_at(unlisted, "/"),
    )
}

async fn session(client: &Client, environment: Value, web_fetch: Value) -> anyhow::Result<String> {
    let toolset = json!({"type": "agent_toolset_20260401", "configs": [web_fetch]});
    let agent = client.make("/v1/agents", &json!({"name": "a", "model": "scripted", "tools": [toolset]})).await?;
    let environment = client.make("/v1/environments", &json!({"name": "e", "config": environment})).await?;
    client.make("/v1/sessions", &json!({"agent": agent, "environment_id": environment})).await
}

/// Texts of the turn's results, and which of them are errors.
async fn results(client: &Client, session: &str, message: &str) -> anyhow::Result<Vec<(String, bool)>> {
    let before = client.events(session).await?.len();
    client.send(session, message, Mark::IdempotencyKey).await?;
    let idle = |events: &[LoggedEvent]| events.len() > before && events.last().is_some_and(LoggedEvent::is_idle);
    let events = client.until(session, idle).await?;
    let results = events[before..].iter().filter(|event| event.kind == "agent.tool_result");
    Ok(results.map(|event| (event.text(), event.rest["is_error"] == true)).collect())
}

async fn pages_are_read_that_somebody_named(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = is_temporal.then(|| Temporal::start_at(free_addr()?, None, &[])).transpose()?;
    let (site, unlisted) = (site().await?, site().await?);
    let script = Script::from_toml(&script(site, unlisted), Path::new("web.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let options = Options { private_addresses: vec![site], temporal: temporal_at, ..Options::new(model.url()) };
    let service = Service::start(options).await?;
    if let Err(error) = scenario(&service, site, unlisted).await {
        return Err(error.context(service.logs()));
    }
    service.stop().await?;
    Ok(())
}

async fn scenario(service: &Service, site: SocketAddr, unlisted: SocketAddr) -> anyhow::Result<()> {
    let client = service.client();
    let any = || json!({"name": "web_fetch"});
    let closed = json!({"type": "cloud", "networking": {"type": "limited"}});
    let open = session(&client, closed.clone(), any()).await?;
    let said = results(&client, &open, &format!("read http://{site}/first")).await?;
    ensure!(said.len() == 4, "{said:?}");
    // The page, with a link that can be fetched; the link; and nothing that nobody has named.
    ensure!(said[0].0.contains("This is /first") && !said[0].1 && !said[0].0.contains("no\n"), "{said:?}");
    ensure!(said[0].0.contains(&format!("http://{site}/next")), "{said:?}");
    ensure!(said[1].0.contains("This is /next") && !said[1].1, "{said:?}");
    let refused: Vec<&(String, bool)> = said[2..].iter().filter(|(_, is_error)| *is_error).collect();
    ensure!(refused.len() == 2, "{said:?}");
    ensure!(refused.iter().any(|(text, _)| text.starts_with("url_not_allowed: ")), "{said:?}");
    ensure!(refused.iter().any(|(text, _)| text.contains("no tool \"web_search\"")), "{said:?}");
    // No sandbox was made for it, and what the model was offered can be made again.
    let hands = std::fs::read_dir(service.hands_dir())?.flatten();
    ensure!(hands.into_iter().all(|hand| hand.file_name().to_string_lossy().starts_with('.')));
    let events = client.events(&open).await?;
    let used = events.iter().find(|event| event.kind == "agent.tool_use").map(|event| event.rest.clone());
    ensure!(used.is_some_and(|used| used["name"] == "web_fetch" && used["evaluated_permission"] == "allow"));
    let replay = client.request(reqwest::Method::GET, &format!("/v1/sessions/{open}/replay")).send().await?;
    ensure!(replay.json::<Value>().await?["identical"] == true);

    // Addresses that are not public are named by nobody but the operator.
    let said = results(&client, &open, &format!("reach http://{unlisted}/")).await?;
    ensure!(
        said.len() == 1 && said[0].0.starts_with("url_not_allowed: ") && said[0].0.contains("not public"),
        "{said:?}"
    );
    // Where users may name no URL, or other domains than the site's, nothing is fetched.
    let nobody = json!({"name": "web_fetch", "url_sources": {"user_input": "none"}});
    let elsewhere = json!({"name": "web_fetch", "allowed_domains": ["example.com"]});
    for web_fetch in [nobody, elsewhere] {
        let other = session(&client, closed.clone(), web_fetch.clone()).await?;
        let said = results(&client, &other, &format!("look http://{site}/first")).await?;
        ensure!(said.len() == 1 && said[0].0.starts_with("url_not_allowed: ") && said[0].1, "{web_fetch}: {said:?}");
    }
    // As much of a page as the agent takes; and without any sandbox of the service's at all.
    let short = json!({"name": "web_fetch", "max_content_tokens": 10});
    let other = session(&client, json!({"type": "self_hosted"}), short).await?;
    let said = results(&client, &other, &format!("look http://{site}/first")).await?;
    ensure!(said.len() == 1 && said[0].0.ends_with("[page truncated]") && said[0].0.len() < 70, "{said:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn web_fetch_on_the_embedded_engine() -> anyhow::Result<()> {
    pages_are_read_that_somebody_named(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn web_fetch_on_temporal() -> anyhow::Result<()> {
    pages_are_read_that_somebody_named(true).await
}
