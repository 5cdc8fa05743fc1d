//! One of every class of secret is planted and used, and then looked for wherever none may be: in the sandbox (environment,
//! command lines, memory, files), the session's log, the model's requests, traces, logs, the memory of the hand worker and
//! what makes sandboxes for it, and on disk. Each search is shown to find what is there.

use activities::model::scripted::{Script, Server, serve};
use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::json;
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::Path,
    process::Command,
};
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    collector::Collector,
    engines::{Temporal, free_addr},
    git::Forge,
    mcp::McpServer,
    service::{Options, Role, Service},
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

/// Where a process inside can look. What it looks for is put together only there.
const SEARCH: &str = r#"
import os, re
needles, own, looked, hits = [b"CANA" + b"RY-", b"CONT" + b"ROL-51f0"], os.getpid(), 0, set()
def look(name, data):
    global looked
    looked += 1
    for needle in needles:
        if needle in data: hits.add(f"{needle.decode()[:4]} {name}")
def read(path):
    try: return open(path, "rb").read()
    except OSError: return b""
for pid in filter(str.isdigit, os.listdir("/proc")):
    look("environ", read(f"/proc/{pid}/environ"))
    look("cmdline", read(f"/proc/{pid}/cmdline"))
    if int(pid) == own: continue
    try:
        mem = open(f"/proc/{pid}/mem", "rb", 0)
        for line in open(f"/proc/{pid}/maps"):
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if not m or "vvar" in line or "vsyscall" in line: continue
            a, b = (int(x, 16) for x in m.groups())
            try:
                mem.seek(a)
                look("memory", mem.read(min(b - a, 64 << 20)))
            except OSError: pass
    except OSError: pass
for root in ("/workspace", "/tmp", "/run", "/etc", "/home", "/mnt", "/dev/shm"):
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path): look("files", read(path))
print(f"looked {looked} hits {sorted(hits)}")
"#;

fn script() -> String {
    let search = format!("cat >/tmp/search.py <<'END'\n{SEARCH}\nEND\npython3 /tmp/search.py");
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

/// Each secret as it is, and as it stands in a header of git's.
fn needles(more: &[String]) -> Vec<String> {
    let planted = [BEARER, ACCESS, REPOSITORY, VARIABLE].into_iter().chain(OAUTH).map(str::to_owned);
    let plain: Vec<String> = planted.chain(more.iter().cloned()).collect();
    let basic = plain.iter().map(|secret| BASE64.encode(format!("x-access-token:{secret}")));
    let encoded = plain.iter().map(|secret| BASE64.encode(secret));
    plain.iter().cloned().chain(basic).chain(encoded).collect()
}

/// Everything that a process can read of its own.
fn memory(pid: &str) -> anyhow::Result<Vec<u8>> {
    let (mut memory, mut all) = (File::open(format!("/proc/{pid}/mem"))?, Vec::new());
    for line in std::fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let (range, rest) = line.split_once(' ').context("a range")?;
        // What can be written: programs and their data hold no secret.
        if !rest.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').context("two ends")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        memory.seek(SeekFrom::Start(from))?;
        // A mapping may go away while it is read.
        let _ = memory.by_ref().take(to - from).read_to_end(&mut all);
    }
    Ok(all)
}

/// Children of a process, by the words of their command lines.
fn children(pid: i32) -> anyhow::Result<Vec<(String, String)>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        for child in std::fs::read_to_string(task.path().join("children"))?.split_whitespace() {
            let words = std::fs::read_to_string(format!("/proc/{child}/cmdline"))?.replace('\0', " ");
            children.push((words, child.to_owned()));
        }
    }
    Ok(children)
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

    // The service's own, beside those of its users.
    let read = |path: &Path| std::fs::read_to_string(path).map(|text| text.trim().to_owned());
    let data = service.data_dir();
    let own: Vec<String> = ["admin.key", "roles/hand.token", "roles/brain.token"]
        .iter()
        .map(|name| read(&data.join(name)))
        .collect::<Result<_, _>>()?;
    let needles = needles(&own);
    let clean = |place: &str, text: &[u8], control: &str| {
        // Secrets are plain letters, which bytes of other kinds beside them do not change.
        let text = String::from_utf8_lossy(text);
        ensure!(text.contains(control), "what is in {place} was not looked at");
        let found: Vec<&String> = needles.iter().filter(|needle| text.contains(needle.as_str())).collect();
        ensure!(found.is_empty(), "in {place}: {found:?}");
        anyhow::Ok(())
    };

    // In the sandbox, which also looked for what it had put there itself.
    let found = texts("agent.tool_result").pop().context("a result")?;
    let planted = ["CONT environ", "CONT files"].map(|place| format!("'{place}'"));
    ensure!(planted.iter().all(|place| found.contains(place)), "{found}");
    ensure!(found.contains("hits [") && !found.contains("CANA "), "{found}");
    let looked: usize = found.split(' ').nth(1).context("a number")?.parse()?;
    ensure!(looked > 50, "{found}");

    clean("the session's log", serde_json::to_string(&events)?.as_bytes(), CONTROL)?;
    let requests: Vec<String> = model.received().iter().map(|request| request.body.to_string()).collect();
    clean("the model's requests", requests.concat().as_bytes(), CONTROL)?;
    let sent = collector.until(|spans| spans.iter().any(|span| span.name.starts_with("execute_tool"))).await?;
    clean("traces", format!("{sent:?}{}", collector.text()).as_bytes(), &session)?;
    clean("logs", service.logs().as_bytes(), "Serve")?;
    if rustix::process::geteuid().is_root() {
        // As a plain user nobody can look there but the worker itself.
        let all = children(service.process(Role::Serve)?.pid())?;
        let pid = |name: &str| all.iter().find(|(words, _)| words.contains(name)).map(|(_, pid)| pid.as_str());
        let worker = memory(pid("worker hand").context("a hand worker")?)?;
        clean("the hand worker's memory", &worker, &session)?;
        let launcher = memory(pid("launcher").context("a launcher")?)?;
        clean("the launcher's memory", &launcher, "hands")?;
    }
    for dir in [data, service.hands_dir()] {
        for needle in needles.iter().filter(|needle| !own.contains(needle)) {
            let found = Command::new("grep").args(["-rla", "--", needle]).arg(&dir).output()?;
            ensure!(found.stdout.is_empty(), "{needle} in {}", String::from_utf8_lossy(&found.stdout));
        }
        let found = Command::new("grep").args(["-rla", "--", &session]).arg(&dir).output()?;
        ensure!(!found.stdout.is_empty(), "{} was not looked at", dir.display());
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
