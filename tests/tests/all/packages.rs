//! Packages of an environment: real package managers, through egress, from a registry of the operator's, on both engines.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::path::Path;
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::engine,
    on_each_engine,
    registry::Registry,
    service::{Options, Service},
};
use tokio::net::TcpListener;

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = { max = 0 } }
answer = [{ tool = "bash", input = { command = """
greeting-py; greeting-js
python3 -c 'import greeting_py; print("import", greeting_py.word)'
node -e 'console.log("require", require("greeting-js").word)'
touch /opt/packages/mine 2>/dev/null || echo 'read only'
curl -s -m 20 -o /dev/null -w '%{http_code}\\n' http://example.com/
""" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

const INSTALLED: &str =
    "hello from pip\nhello from npm\nimport hello from pip\nrequire hello from npm\nread only\n403\n";

/// A session of a new agent in this environment.
async fn session(client: &Client, environment: &str) -> anyhow::Result<String> {
    let agent = json!({"name": "a", "model": "scripted", "tools": [{"type": "agent_toolset_20260401"}]});
    let agent = client.make("/v1/agents", &agent).await?;
    client.make("/v1/sessions", &json!({"agent": agent, "environment_id": environment})).await
}

/// What its first turn shows: the tool's words, and messages of errors.
async fn shown(client: &Client, session: &str) -> anyhow::Result<(String, Vec<String>)> {
    client.send(session, "look", Mark::IdempotencyKey).await?;
    let idle = |events: &[LoggedEvent]| events.last().is_some_and(LoggedEvent::is_idle) && events.len() > 2;
    let events = client.until(session, idle).await?;
    let result = events.iter().rfind(|event| event.kind == "agent.tool_result").context("a result")?;
    let errors = events.iter().filter(|event| event.kind == "session.error");
    let word = |event: &LoggedEvent| event.rest["error"]["message"].as_str().unwrap_or_default().to_owned();
    Ok((result.text(), errors.map(word).collect()))
}

/// A service on that engine whose sandboxes have their packages from a registry here, and what is done with both.
async fn with_registry(
    is_temporal: bool,
    script: &str,
    scenario: impl AsyncFnOnce(&Service, &Registry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let dir = tempfile::tempdir()?;
    let registry = Registry::start(dir.path()).await?;
    let script = Script::from_toml(script, Path::new("packages.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let options = Options {
        private_addresses: vec![registry.addr],
        registries: registry.registries(),
        temporal: temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned())),
        ..Options::new(model.url())
    };
    let service = Service::start(options).await?;
    let ended = scenario(&service, &registry).await.with_context(|| format!("{:?}", registry.asked()));
    service.with_logs(ended)?;
    service.stop().await.map(drop)
}

async fn packages_are_there_and_were_fetched_once(is_temporal: bool) -> anyhow::Result<()> {
    with_registry(is_temporal, SCRIPT, scenario).await
}

async fn scenario(service: &Service, registry: &Registry) -> anyhow::Result<()> {
    let client = service.client();
    // Nothing of the network is allowed but registries.
    let environment = async |packages: Value| {
        let networking = json!({"type": "limited", "allow_package_managers": true});
        let config = json!({"type": "cloud", "networking": networking, "packages": packages});
        client.make("/v1/environments", &json!({"name": "e", "config": config})).await
    };
    let both = json!({"pip": ["greeting-py==1.0"], "npm": ["greeting-js"]});
    let installed = environment(both.clone()).await?;

    // Two at once: one installs, the other waits for it.
    let sessions = [session(&client, &installed).await?, session(&client, &installed).await?];
    let (first, second) = tokio::try_join!(shown(&client, &sessions[0]), shown(&client, &sessions[1]))?;
    for (said, errors) in [first, second] {
        ensure!(said == INSTALLED && errors.is_empty(), "{said}\n{errors:?}");
    }
    let fetched = |path: &str| registry.asked().iter().filter(|asked| asked.ends_with(path)).count();
    ensure!(fetched(".whl") == 1 && fetched(".tgz") == 1, "{:?}", registry.asked());

    // A later session has them from there, whoever else is gone.
    for session in &sessions {
        client.delete(session).await?;
    }
    let asked = registry.asked().len();
    let (said, errors) = shown(&client, &session(&client, &installed).await?).await?;
    ensure!(said == INSTALLED && errors.is_empty(), "{said}\n{errors:?}");
    ensure!(registry.asked().len() == asked, "{:?}", &registry.asked()[asked..]);

    // Another environment has its own, of the same list too.
    let (said, _) = shown(&client, &session(&client, &environment(both).await?).await?).await?;
    ensure!(said == INSTALLED && fetched(".whl") == 2, "{said}");

    // Without them there is nothing to be found, and what cannot be installed is said; the session works all the same.
    let (said, errors) = shown(&client, &session(&client, &environment(json!({})).await?).await?).await?;
    ensure!(said.contains("greeting-py: command not found") && errors.is_empty(), "{said}\n{errors:?}");
    let (said, errors) =
        shown(&client, &session(&client, &environment(json!({"pip": ["nope"]})).await?).await?).await?;
    ensure!(said.contains("greeting-py: command not found"), "{said}");
    ensure!(errors.len() == 1 && errors[0].contains("pip packages could not be installed: ERROR: "), "{errors:?}");
    Ok(())
}

const SYSTEM_SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = { max = 0 } }
answer = [{ tool = "bash", input = { command = """
greeting-apt; python3 -c 'import greeting_apt; print("import", greeting_apt.word)'
echo "$LD_LIBRARY_PATH" | grep -c /opt/packages/apt/usr/lib/; cat /etc/dpkg/status
""" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

async fn packages_of_the_system_are_unpacked_beside_it(is_temporal: bool) -> anyhow::Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        // There are none for this machine.
        return Ok(());
    }
    with_registry(is_temporal, SYSTEM_SCRIPT, of_the_system).await
}

async fn of_the_system(service: &Service, registry: &Registry) -> anyhow::Result<()> {
    let client = service.client();
    let environment = async |package: &str| {
        let networking = json!({"type": "limited", "allow_package_managers": true});
        let config = json!({"type": "cloud", "networking": networking, "packages": {"apt": [package]}});
        client.make("/v1/environments", &json!({"name": "e", "config": config})).await
    };
    // With what it depends on, but for what the machine has; a version may be named. Of dpkg a session sees nothing.
    let installed = environment("greeting-apt=1.0").await?;
    for _ in 0..2 {
        let (said, errors) = shown(&client, &session(&client, &installed).await?).await?;
        let expected = "hello from apt\nimport hello from apt\n1\ncat: /etc/dpkg/status: No such file or directory\n";
        ensure!(said.starts_with(expected) && errors.is_empty(), "{said}\n{errors:?}");
    }
    let fetched = registry.asked().iter().filter(|asked| asked.ends_with(".deb")).count();
    ensure!(fetched == 2, "once: {:?}", registry.asked());

    let (said, errors) = shown(&client, &session(&client, &environment("nope").await?).await?).await?;
    ensure!(said.contains("greeting-apt: command not found"), "{said}");
    let expected = "apt packages could not be installed: E: Unable to locate package nope";
    ensure!(errors.len() == 1 && errors[0].contains(expected), "{errors:?}");
    Ok(())
}

on_each_engine![packages_of_the_system_are_unpacked_beside_it];

#[tokio::test(flavor = "multi_thread")]
async fn packages_on_the_embedded_engine() -> anyhow::Result<()> {
    packages_are_there_and_were_fetched_once(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_on_temporal() -> anyhow::Result<()> {
    packages_are_there_and_were_fetched_once(true).await
}
