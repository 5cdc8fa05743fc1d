//! The catalogue of attacks through the real interface: a model that does as it is told drives the tools of sessions, and what it
//! is told must not show that an attack got through. As a plain user on the embedded engine; `scripts/long attacks` adds root and
//! Temporal.
//!
//! Which of them succeed on a lesser hand, and so show something, is shown beside the sandbox (`hand/tests/attacks`).

#![expect(clippy::print_stdout, reason = "figures for scripts/long, which keeps them as evidence")]

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    net::TcpListener as HostListener,
    os::{linux::net::SocketAddrExt as _, unix::net},
    path::Path,
    sync::Arc,
};
use steadyhand_tests::{
    client::{Client, LoggedEvent, Mark},
    engines::Temporal,
    long,
    service::{Options, Service},
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

#[derive(Deserialize, Clone)]
struct Attack {
    id: String,
    command: String,
    must: Vec<String>,
    mustnot: Vec<String>,
}

/// How the model goes about it.
#[derive(Clone, Copy)]
enum How {
    /// The attack's command is one call of bash.
    Bash,
    /// With less output: a tenth is past every bound as well.
    Flood,
    /// With so many milliseconds.
    Within(u64),
    /// Needs bounds that only root can put up; without them it would take the machine's memory.
    AsRoot,
    /// The command and then calls of tools, which must all be refused.
    Refused(fn() -> Vec<(&'static str, Value)>),
    /// Not through tools: where it is tried.
    Elsewhere,
}

use How::{AsRoot, Bash, Elsewhere, Flood, Refused, Within};

/// In the order of the catalogue.
const HOW: [(&str, How); 41] = [
    ("S01", Bash),
    ("S03", Bash),
    ("S05", Bash),
    ("S06", Bash),
    // Egress.
    ("S08", Elsewhere),
    ("S10", Bash),
    ("S11", Bash),
    ("S13", Bash),
    ("S14", Bash),
    ("S16", Bash),
    // Egress, four times.
    ("S18", Elsewhere),
    ("S19", Elsewhere),
    ("S21", Elsewhere),
    ("S23", Elsewhere),
    ("S24", Bash),
    ("S26", Bash),
    ("S28", Bash),
    ("S29", Bash),
    ("S31", Bash),
    ("S32", Bash),
    ("S34", Bash),
    ("S36", Bash),
    ("S38", Refused(links)),
    // Needs many calls at a time on one file: hand/tests/attacks.
    ("S39", Elsewhere),
    ("S41", Bash),
    ("S43", Bash),
    ("S45", AsRoot),
    ("S46", Bash),
    ("S48", Flood),
    ("S50", Within(3000)),
    ("S51", Bash),
    ("S53", Bash),
    ("S55", Refused(inputs)),
    // Nobody outside can choose a call's id: hand/tests/attacks.
    ("S56", Elsewhere),
    // The api, egress, the api, egress.
    ("S58", Elsewhere),
    ("S60", Elsewhere),
    ("S62", Elsewhere),
    ("S63", Elsewhere),
    // parking.rs.
    ("S64", Elsewhere),
    // Two hands at a time: hand/tests/attacks.
    ("S65", Elsewhere),
    ("S66", Elsewhere),
];

fn links() -> Vec<(&'static str, Value)> {
    vec![
        ("read", json!({"file_path": "rootlink/etc/shadow"})),
        ("read", json!({"file_path": "s"})),
        ("write", json!({"file_path": "rootlink/tmp/PWNED", "content": "x"})),
        ("edit", json!({"file_path": "p/environ", "old_string": "a", "new_string": "b"})),
    ]
}

fn inputs() -> Vec<(&'static str, Value)> {
    let environment = json!({"LD_PRELOAD": "/workspace/x.so", "BASH_ENV": "/workspace/x", "PATH": "/workspace"});
    let all = json!({"command": "echo ok; #\n\0--unshare-none", "timeout_ms": "1;id",
        "cwd": "/workspace/$(touch /tmp/PWNED)", "env": environment});
    vec![
        ("bash", all),
        ("bash", json!({"command": "echo ok; #\n\0--unshare-none"})),
        ("../../bash", json!({})),
        ("bash", json!({"__proto__": {}})),
        ("--ro-bind", json!({})),
    ]
}

impl How {
    fn calls(self, attack: &Attack, is_root: bool) -> Vec<(&'static str, Value)> {
        let bash = |command: &str| ("bash", json!({"command": command}));
        match self {
            Bash => vec![bash(&attack.command)],
            AsRoot if is_root => vec![bash(&attack.command)],
            Flood => vec![bash(&attack.command.replace("5000000000", "500000000"))],
            Within(timeout_ms) => vec![("bash", json!({"command": attack.command, "timeout_ms": timeout_ms}))],
            // What the catalogue says in words is only what the calls are.
            Refused(calls) if attack.command.starts_with("execute(") => calls(),
            Refused(calls) => [bash(&attack.command)].into_iter().chain(calls()).collect(),
            AsRoot | Elsewhere => Vec::new(),
        }
    }
}

/// What the attacks look for on the host: it is there, so that not finding it says something.
struct Bait {
    port: HostListener,
    name: String,
    _socket: net::UnixListener,
}

impl Bait {
    fn lay() -> anyhow::Result<Self> {
        let name = format!("steadyhand-bait-{}", std::process::id());
        let address = net::SocketAddr::from_abstract_name(&name)?;
        let _socket = net::UnixListener::bind_addr(&address)?;
        Ok(Bait { port: HostListener::bind("127.0.0.1:0")?, name, _socket })
    }

    fn put_into(&self, attack: &mut Attack, api: &str) -> anyhow::Result<()> {
        let port = self.port.local_addr()?.port();
        let (_, api) = api.rsplit_once(':').context("an address has a port")?;
        attack.command = attack
            .command
            .replace("in 22 80 443", &format!("in {port} {api} 22 80 443"))
            .replace("'dbus'", &format!("'{}'", self.name));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_of_the_catalogue_gets_through() -> anyhow::Result<()> {
    if long::number("STEADYHAND_ATTACKS_ALL", 0)? == 0 {
        return all_of_them("embedded", None, plain_user()).await;
    }
    let temporal = Temporal::start(None)?;
    for user in [plain_user(), None] {
        all_of_them("embedded", None, user).await?;
        all_of_them("temporal", Some(&temporal), user).await?;
    }
    Ok(())
}

/// Somebody without rights, where whoever runs this has any.
fn plain_user() -> Option<u32> {
    rustix::process::geteuid().is_root().then(|| 1_500_000 + std::process::id())
}

async fn all_of_them(engine: &str, temporal: Option<&Temporal>, uid: Option<u32>) -> anyhow::Result<()> {
    let is_root = uid.is_none() && rustix::process::geteuid().is_root();
    let mut attacks: Vec<Attack> = serde_json::from_str(include_str!("../../../hand/tests/attacks/attacks.json"))?;
    ensure!(attacks.iter().map(|attack| attack.id.as_str()).eq(HOW.map(|(id, _)| id)), "every attack has its way");
    // The model has to know the ports of a service that has to know the model's: it is told in the message.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let options = Options {
        temporal: temporal.map(|temporal| (temporal.addr, "default".to_owned())),
        uid,
        environment: vec![("STEADYHAND_TEST_TOKEN", "CANARY-environment".to_owned())],
        ..Options::new(format!("http://{}", listener.local_addr()?))
    };
    let service = Service::start(options).await?;
    let bait = Bait::lay()?;
    let marker = service.data_dir().join("PWNED-host");
    for attack in &mut attacks {
        bait.put_into(attack, &service.authority())?;
        attack.command = attack.command.replace("/tmp/PWNED-host", &marker.display().to_string());
    }
    let _model = serve(listener, script(&attacks, is_root)?)?;
    let tried = scenario(&service, &attacks, is_root).await;
    let tried = tried.with_context(|| service.logs())?;
    ensure!(!marker.exists() && !Path::new("/tmp/PWNED").exists(), "the host did what a workspace asked for");
    service.stop().await?;
    let user = if is_root { "root" } else { "a plain user" };
    println!("figures: {engine} as {user}: {tried} attacks tried through sessions, none got through");
    Ok(())
}

/// The message names the attack; results count from it.
fn script(attacks: &[Attack], is_root: bool) -> anyhow::Result<Script> {
    let mut rules = Vec::new();
    for (attack, (_, how)) in attacks.iter().zip(HOW) {
        for (at, (tool, input)) in how.calls(attack, is_root).into_iter().enumerate() {
            let when = json!({"user_contains": attack.id, "results": at});
            rules.push(json!({"when": when, "answer": [{"tool": tool, "input": input}]}));
        }
    }
    rules.push(json!({"answer": [{"text": "done"}]}));
    let script = toml::to_string(&json!({"version": 1, "rules": rules}))?;
    Ok(Script::from_toml(&script, Path::new("attacks.toml"))?)
}

/// Attacks that run at the same time.
const AT_ONCE: usize = 4;

async fn scenario(service: &Service, attacks: &[Attack], is_root: bool) -> anyhow::Result<usize> {
    let (slots, mut running) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (attack, (_, how)) in attacks.iter().cloned().zip(HOW) {
        let calls = how.calls(&attack, is_root).len();
        if calls == 0 {
            continue;
        }
        let (client, slots) = (service.client(), slots.clone());
        running.spawn(async move {
            let _slot = slots.acquire().await.expect("nobody closes it");
            try_it(&client, &attack, how, calls).await.map_err(|error| format!("{}: {error:?}", attack.id))
        });
    }
    let tried = running.len();
    let failed: Vec<String> = running.join_all().await.into_iter().filter_map(Result::err).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(tried)
}

async fn try_it(client: &Client, attack: &Attack, how: How, calls: usize) -> anyhow::Result<()> {
    let session = client.session().await?;
    client.send(&session, &attack.id, Mark::RetryCount).await?;
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    let results: Vec<&LoggedEvent> = events.iter().filter(|event| event.kind == "agent.tool_result").collect();
    ensure!(results.len() == calls, "{} of {calls} calls have a result: {events:?}", results.len());
    let is_error = |result: &LoggedEvent| result.rest["is_error"] == true;
    for result in &results {
        judge(attack, &result.text())?;
    }
    let last = results.last().context("there is one")?;
    match how {
        Refused(refused) => {
            let refused = &results[results.len() - refused().len()..];
            ensure!(refused.iter().all(|result| is_error(result)), "not all are refused: {refused:?}");
        }
        Within(_) => ensure!(is_error(last) && last.text().contains("timed out"), "{}", last.text()),
        AsRoot => ensure!(is_error(last) && last.text().contains("137"), "{}", last.text()),
        Flood => ensure!(last.text().contains("of all 500000000 bytes") && last.text().len() < 256 * 1024, "not cut"),
        Bash | Elsewhere => {}
    }
    // Whatever it did, the session goes on.
    client.delete(&session).await
}

fn judge(attack: &Attack, said: &str) -> anyhow::Result<()> {
    let finds = |pattern: &String| Ok::<_, regex::Error>(Regex::new(&format!("(?m){pattern}"))?.is_match(said));
    for pattern in &attack.must {
        ensure!(finds(pattern)?, "{pattern} is missing in: {said}");
    }
    for pattern in &attack.mustnot {
        ensure!(!finds(pattern)?, "{pattern} is in: {said}");
    }
    ensure!(!said.contains("CANARY"), "a secret is in: {said}");
    Ok(())
}
