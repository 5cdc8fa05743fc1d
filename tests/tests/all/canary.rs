//! One of every class of secret is planted and used, and then looked for wherever none may be: in the sandbox (environment,
//! command lines, memory, files), the session's log, the model's requests, traces, logs, the memory of the hand worker and
//! what makes sandboxes for it, and on disk. Each search is shown to find what is there.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use egress::canary::{self, Needles};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    collector::Collector,
    engines::{Temporal, engine, free_addr},
    git::Forge,
    mcp::McpServer,
    on_each_engine,
    service::{HANDS_MODE, Options, Service, program},
};
use tokio::net::TcpListener;

const BEARER: &str = "CANARY-bearer-51f0";
const ACCESS: &str = "CANARY-access-51f0";
const REPOSITORY: &str = "CANARY-repository-51f0";
const VARIABLE: &str = "CANARY-variable-51f0";
/// As `oauth.py` has them.
const OAUTH: [&str; 2] = ["CANARY-client-secret", "CANARY-refresh"];
/// What may be everywhere, and is found there.
const CONTROL: &str = "CONTROL-51f0";

fn script() -> String {
    let search =
        format!("cat >/tmp/search.py <<'END'\n{}\nEND\npython3 /tmp/search.py CANA RY- CONT ROL-51f0", canary::INSIDE);
    let planted = format!(
        "echo CONT''ROL-51f0 >/workspace/planted; (export PLANTED=CONT''ROL-51f0; exec sleep 600) >/dev/null 2>&1 &\n\
         cd /workspace/app && git pull -q origin main && git ls-remote -q origin >/dev/null; cd /tmp\n{search}"
    );
    format!(
        "version = 1\n[[rules]]\nwhen = {{ results = 0 }}\nanswer = [{{ tool = \"mcp__docs__add\", input = {{ a = 1, b = 2 }} }}, \
         {{ tool = \"mcp__vault__add\", input = {{ a = 2, b = 2 }} }}, {{ tool = \"bash\", input = {{ command = {planted:?} }} }}]\n\
         [[rules]]\nanswer = [{{ text = \"Done.\" }}]\n"
    )
}

/// What was planted, and what the service made for itself, with the files of the latter.
struct Secrets {
    needles: Needles,
    homes: BTreeSet<(String, PathBuf)>,
}

impl Secrets {
    fn of(data: &Path) -> anyhow::Result<Self> {
        let mut named = BTreeMap::from([
            ("bearer", BEARER.to_owned()),
            ("access", ACCESS.to_owned()),
            ("repository", REPOSITORY.to_owned()),
            ("variable", VARIABLE.to_owned()),
            ("client", OAUTH[0].to_owned()),
            ("refresh", OAUTH[1].to_owned()),
        ]);
        let mut homes = BTreeSet::new();
        for name in ["admin.key", "roles/hand.token", "roles/brain.token"] {
            let home = data.join(name);
            named.insert(name, std::fs::read_to_string(&home)?.trim().to_owned());
            homes.insert((name.to_owned(), home));
        }
        Ok(Secrets { needles: Needles::new(named.iter().map(|(name, secret)| (*name, secret.as_str()))), homes })
    }

    fn with_control(&self, control: &str) -> Needles {
        self.needles.and("control", control)
    }

    fn none_in(&self, place: &str, bytes: &[u8], control: &str) -> anyhow::Result<()> {
        none_but_control(place, self.with_control(control).found(bytes))
    }

    fn none_in_memory(&self, words: &[&str], control: &str) -> anyhow::Result<()> {
        let pid = canary::processes(words)?.first().copied().with_context(|| format!("{words:?}: no such process"))?;
        none_but_control(words[0], self.with_control(control).found_in_memory(pid)?.1)
    }

    fn none_below(&self, folder: &Path, control: &str) -> anyhow::Result<()> {
        let (_, found) = self.with_control(control).found_below(folder)?;
        ensure!(found.iter().any(|(name, _)| name == "control"), "{} was not looked at", folder.display());
        let stray: Vec<_> = found.iter().filter(|found| found.0 != "control" && !self.homes.contains(*found)).collect();
        ensure!(stray.is_empty(), "{stray:?}");
        Ok(())
    }
}

fn none_but_control(place: &str, mut found: BTreeSet<String>) -> anyhow::Result<()> {
    ensure!(found.remove("control"), "what is in {place} was not looked at");
    ensure!(found.is_empty(), "in {place}: {found:?}");
    Ok(())
}

async fn secrets_are_where_they_belong_and_nowhere_else(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = is_temporal.then(|| Temporal::start_at(free_addr()?, None, &[])).transpose()?;
    let dir = tempfile::tempdir()?;
    let (docs, vault) =
        tokio::try_join!(McpServer::start(dir.path(), None, Some(BEARER)), McpServer::start_oauth(dir.path()))?;
    let forge = Forge::start(REPOSITORY).await?;
    forge.repository("acme/app")?;
    let collector = Collector::start()?;
    let model =
        serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(&script(), Path::new("canary.toml"))?)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let private_addresses = vec![docs.addr, vault.addr, forge.addr];
    let options = Options { private_addresses, temporal: temporal_at, ..Options::new(model.url()) };
    let service = Service::start_traced(options, Some(collector.url.clone())).await?;
    if let Err(error) = scenario(&service, (&docs, &vault, &forge), &model, &collector).await {
        return Err(error.context(service.logs()));
    }
    service.stop().await?;
    Ok(())
}

async fn scenario(
    service: &Service,
    (docs, oauth, forge): (&McpServer, &McpServer, &Forge),
    model: &Server,
    collector: &Collector,
) -> anyhow::Result<()> {
    let client = service.client();
    let vault = client.make("/v1/vaults", &json!({"display_name": "mine"})).await?;
    for auth in [
        json!({"type": "static_bearer", "mcp_server_url": docs.url(), "token": BEARER}),
        json!({"type": "mcp_oauth", "mcp_server_url": oauth.url(), "access_token": ACCESS, "refresh": {
            "client_id": "steadyhand", "token_endpoint": format!("http://{}/token", oauth.addr),
            "token_endpoint_auth": {"type": "client_secret_post", "client_secret": OAUTH[0]}, "refresh_token": OAUTH[1]}}),
        json!({"type": "environment_variable", "secret_name": "TOKEN", "secret_value": VARIABLE,
            "networking": {"type": "limited", "allowed_hosts": ["example.com"]}}),
    ] {
        client.make(&format!("/v1/vaults/{vault}/credentials"), &json!({"auth": auth})).await?;
    }
    let toolset = |name: &str| {
        json!({"type": "mcp_toolset", "mcp_server_name": name,
            "default_config": {"permission_policy": {"type": "always_allow"}}})
    };
    let server = |name: &str, url: String| json!({"type": "url", "name": name, "url": url});
    let agent = json!({"name": "a", "model": "scripted",
        "mcp_servers": [server("docs", docs.url()), server("vault", oauth.url())],
        "tools": [{"type": "agent_toolset_20260401"}, toolset("docs"), toolset("vault")]});
    let agent = client.make("/v1/agents", &agent).await?;
    let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": [vault], "resources": [
        {"type": "github_repository", "url": forge.url("acme/app"), "authorization_token": REPOSITORY}]});
    let session = client.make("/v1/sessions", &body).await?;
    client.send(&session, CONTROL, Mark::IdempotencyKey).await?;
    let idle = |events: &[LoggedEvent]| events.len() > 2 && events.last().is_some_and(LoggedEvent::is_idle);
    let events = client.until(&session, idle).await?;

    // Every one of them was used but the variable, whose host is not here.
    let texts = |kind: &str| -> Vec<String> {
        events.iter().filter(|event| event.kind == kind).map(LoggedEvent::text).collect()
    };
    let mut called = texts("agent.mcp_tool_result");
    called.sort();
    ensure!(called == ["3", "4"] && oauth.refreshes() == [OAUTH[1]], "{called:?}");
    ensure!(
        texts("session.error").is_empty() && events.iter().all(|event| event.kind != "session.error"),
        "{events:?}"
    );

    let secrets = Secrets::of(&service.data_dir())?;

    // In the sandbox, which also looked for what it had put there itself.
    let found = texts("agent.tool_result").pop().context("a result")?;
    let planted = ["control environ", "control files"].map(|place| format!("'{place}'"));
    ensure!(planted.iter().all(|place| found.contains(place)), "{found}");
    ensure!(found.contains("hits [") && !found.contains("secret "), "{found}");
    let looked: usize = found.split(' ').nth(1).context("a number")?.parse()?;
    ensure!(looked > 50, "{found}");

    secrets.none_in("the session's log", serde_json::to_string(&events)?.as_bytes(), CONTROL)?;
    let requests: Vec<String> = model.received().iter().map(|request| request.body.to_string()).collect();
    secrets.none_in("the model's requests", requests.concat().as_bytes(), CONTROL)?;
    let sent = collector.until(|spans| spans.iter().any(|span| span.name.starts_with("execute_tool"))).await?;
    secrets.none_in("traces", format!("{sent:?}{}", collector.text()).as_bytes(), &session)?;
    secrets.none_in("logs", service.logs().as_bytes(), "Serve")?;
    if rustix::process::geteuid().is_root() {
        // As a plain user nobody can look there but the worker itself.
        let hands = service.hands_dir().display().to_string();
        secrets.none_in_memory(&["worker hand", &hands], &session)?;
        secrets.none_in_memory(&["launcher", &hands], "hands")?;
        secrets.none_in_memory(&["shim", &hands], &session)?;
    }
    for folder in [service.data_dir(), service.hands_dir()] {
        secrets.none_below(&folder, &session)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_on_the_embedded_engine() -> anyhow::Result<()> {
    secrets_are_where_they_belong_and_nowhere_else(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_on_temporal() -> anyhow::Result<()> {
    secrets_are_where_they_belong_and_nowhere_else(true).await
}

on_each_engine!(
    the_operators_command_looks_everywhere_and_finds_nothing,
    a_secret_that_a_naive_build_gives_to_a_sandbox_is_found
);

/// What the operator's command did: its exit code, what it says of each place, and all that it said.
struct Searched {
    code: Option<i32>,
    places: BTreeMap<String, Value>,
    said: String,
}

async fn search(is_temporal: bool, options: &[&str]) -> anyhow::Result<Searched> {
    let temporal = engine(is_temporal)?;
    let mut command = tokio::process::Command::new(program("steadyhand"));
    command.args(["canary", "--json"]).args(options).args(["--", "--hands-mode", HANDS_MODE]);
    if let Some(temporal) = &temporal {
        command.args(["--temporal", &temporal.addr.to_string()]);
    }
    let output = command.kill_on_drop(true).output().await?;
    let said = String::from_utf8(output.stdout)?;
    let looked = said.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let place = |looked: Value| Some((looked["place"].as_str()?.to_owned(), looked));
    let places = looked.into_iter().filter_map(place).collect();
    let said = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(Searched { code: output.status.code(), places, said })
}

async fn the_operators_command_looks_everywhere_and_finds_nothing(is_temporal: bool) -> anyhow::Result<()> {
    let Searched { code, places, said } = search(is_temporal, &[]).await?;
    ensure!(code == Some(0), "{said}");
    let states: BTreeMap<&str, &str> =
        places.iter().filter_map(|(place, looked)| Some((place.as_str(), looked["state"].as_str()?))).collect();
    let memory = if rustix::process::geteuid().is_root() { "clean" } else { "skipped" };
    let expected = [
        ("sandbox", "clean"),
        ("session log", "clean"),
        ("model requests", "clean"),
        ("traces", "clean"),
        ("service log", "clean"),
        ("memory of the hand worker", memory),
        ("memory of the launcher", memory),
        ("memory of the shim", memory),
        ("files of the running service", "clean"),
        ("a backup", "clean"),
        ("files of the stopped service", "clean"),
    ];
    ensure!(states == BTreeMap::from(expected), "{said}");
    Ok(())
}

async fn a_secret_that_a_naive_build_gives_to_a_sandbox_is_found(is_temporal: bool) -> anyhow::Result<()> {
    let Searched { code, places, said } = search(is_temporal, &["--naive"]).await?;
    ensure!(code == Some(1) && said.contains("secrets are where none may be"), "{said}");
    let found = |place: &str| places[place]["found"].to_string();
    ensure!(found("sandbox").contains("something in environ"), "{said}");
    // What stood in the sandbox went through everything that a session keeps, on Temporal in its history there.
    let kept = ["session log", "model requests", "files of the running service", "a backup"];
    for place in kept.into_iter().take(if is_temporal { 2 } else { 4 }) {
        ensure!(found(place).contains("mcp_bearer") && !found(place).contains("refresh"), "{place}: {said}");
    }
    for place in ["traces", "service log", "memory of the launcher"] {
        ensure!(places[place]["state"] != "found", "{place}: {said}");
    }
    Ok(())
}

/// With a service that cannot start nothing was looked at, and that is no good news.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_could_not_look_fails() -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(program("steadyhand"));
    let output = command.args(["canary", "--", "--hands-mode", "none"]).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(7) && said.contains("the service did not start"), "{said}");
    Ok(())
}
