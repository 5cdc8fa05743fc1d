//! Egress dies at each moment of what goes through it: while a connection is made, in the middle of an answer, of an upload, of a
//! clone, of the refresh of a token, of a call. The call ends as something that the model can act on, nothing is done twice that
//! must not be, nothing is let through meanwhile, and its supervisor has it back for the next turn.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::{Value, json};
use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use steadyhand_tests::{
    client::{Client, LoggedEvent},
    engines::engine,
    git::Forge,
    on_each_engine,
    origin::{BEARER, Origin, REFRESH, WHOLE_BYTES},
    service::{Options, Role, Service},
    shims,
    transcript::check_log,
};
use tokio::net::TcpListener;

const REPOSITORY: &str = "CANARY-egress-repository";

/// Each moment has its word in a message, and is gone through again by the next message with that word.
fn script(origin: &Origin, private: &str) -> anyhow::Result<Script> {
    // Loopback is spelled out to the proxy, as there is no name server to make names for it.
    let curl = |rest: &str| format!("curl -sS -m 60 --noproxy '' -w ' %{{http_code}}' {rest}");
    let upload = format!(
        "head -c {WHOLE_BYTES} /dev/zero >/tmp/up && {}",
        curl(&format!("-T /tmp/up {}", origin.url("upload")))
    );
    let bash = |word: &str, results: usize, command: String| json!({"when": {"user_contains": word, "results": results}, "answer": [{"tool": "bash", "input": {"command": command}}]});
    let call = |word: &str, tool: &str| json!({"when": {"user_contains": word, "results": 0, "tool_offered": tool}, "answer": [{"tool": tool, "input": {}}]});
    // As long as it takes, whatever egress is doing.
    let knocking = format!(
        "(while :; do curl -s -m 5 -o /dev/null --noproxy '' http://{private}/; sleep 0.02; done) >/dev/null 2>&1 &"
    );
    let clone = || "cat /workspace/app/a.txt".to_owned();
    let rules = json!([
        bash("knock", 0, knocking),
        bash("connecting", 0, curl(&format!("http://{}/", origin.connect_addr))),
        bash("answering", 0, curl(&format!("-o /tmp/body {} && wc -c </tmp/body", origin.url("body")))),
        bash("uploading", 0, upload),
        bash("cloning", 0, clone()),
        bash("cloning", 1, clone()),
        call("refreshing", "mcp__oauth__ping"),
        call("calling", "mcp__docs__ping"),
        {"answer": [{"text": "Done."}]},
    ]);
    let script = json!({"version": 1, "rules": rules}).to_string();
    Ok(Script::from_json(&script, Path::new("egress_kills.json"))?)
}

/// Nobody is let through to it: how many came.
async fn private() -> anyhow::Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?.to_string();
    let came = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&came);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    Ok((addr, came))
}

async fn egress_dies_at_each_moment(is_temporal: bool) -> anyhow::Result<()> {
    let temporal = engine(is_temporal)?;
    let (origin, forge) = (Origin::start().await?, Forge::start_held(REPOSITORY).await?);
    forge.repository("acme/app")?;
    let (private, came) = private().await?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script(&origin, &private)?)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let private_addresses = vec![origin.addr, origin.connect_addr, forge.addr];
    let options = Options { private_addresses, temporal: temporal_at, ..Options::new(model.url()) };
    let service = Service::start(options).await?;
    let ended = scenario(&service, &origin, &forge).await;
    service.with_logs(ended)?;
    ensure!(came.load(Ordering::SeqCst) == 0, "a sandbox came through to what it may not reach");
    service.stop().await.map(drop)
}

async fn scenario(service: &Service, origin: &Origin, forge: &Forge) -> anyhow::Result<()> {
    let client = service.client();
    let moments = Moments { service, client: &client };
    let work = session(&client, origin, &["docs"], json!([])).await?;
    moments.client.turn(&work, "knock").await?;

    let holds = origin.holds();
    let (broken, again) = moments.through(&work, "connecting", holds.connect.reached()).await?;
    ensure!(only(&broken, "curl: (").1, "{broken:?}");
    ensure!(only(&again, " 200") == (" 200".to_owned(), false), "{again:?}");
    let (broken, again) = moments.through(&work, "answering", holds.answer.reached()).await?;
    ensure!(only(&broken, "curl: (").1, "half an answer is none: {broken:?}");
    ensure!(only(&again, &WHOLE_BYTES.to_string()) == (format!(" 200{WHOLE_BYTES}\n"), false), "{again:?}");
    let (broken, again) = moments.through(&work, "uploading", holds.upload.reached()).await?;
    ensure!(only(&broken, "curl: (").1, "{broken:?}");
    ensure!(only(&again, " 200") == (" 200".to_owned(), false), "{again:?}");

    // What may have been done is not done again, and said.
    let (broken, again) = moments.through(&work, "calling", holds.call.reached()).await?;
    let (told, is_error) = only(&broken, "lost:");
    ensure!(is_error && told.contains("may or may not have taken effect"), "{broken:?}");
    ensure!(only(&again, "pong") == ("pong".to_owned(), false), "{again:?}");
    let [uploads, _, calls] = origin.counts();
    ensure!((uploads, calls) == (1, 2), "{uploads} uploads, {calls} calls");

    // A token that nobody was given is asked for again; the session goes on without the server until then.
    let oauth = session(&client, origin, &["oauth"], json!([])).await?;
    let (broken, again) = moments.through(&oauth, "refreshing", holds.refresh.reached()).await?;
    let said = || format!("it is said: {broken:?}");
    let error = broken.iter().find(|event| event.kind == "session.error").with_context(said)?;
    ensure!(error.rest["error"]["type"] == "mcp_connection_failed_error", "{error:?}");
    ensure!(broken.iter().any(|event| event.kind == "agent.message"), "the turn goes on: {broken:?}");
    ensure!(only(&again, "pong") == ("pong".to_owned(), false), "{again:?}");
    ensure!(origin.counts()[1] == 2, "{:?}", origin.counts());

    let repository =
        json!({"type": "github_repository", "url": forge.url("acme/app"), "authorization_token": REPOSITORY});
    let cloning = session(&client, origin, &[], json!([repository])).await?;
    let broken = moments.killed(&cloning, "cloning", forge.reached()).await?;
    let said = || format!("it is said: {broken:?}");
    let error = broken.iter().find(|event| event.kind == "session.error").with_context(said)?;
    ensure!(error.rest["error"]["type"] == "repository_clone_error", "{error:?}");
    ensure!(results(&broken).iter().all(|(text, is_error)| *is_error && text.contains("No such file")), "{broken:?}");
    // The next hand has it.
    let listed = client.ok(Method::GET, "/v1/hands", None).await?;
    let hands = listed["data"].as_array().context("a list")?;
    let hand = hands.iter().find(|hand| hand["session_id"] == cloning).context("the session has a hand")?;
    let path = format!("/v1/hands/{}", hand["id"].as_str().context("an id")?);
    client.request(Method::DELETE, &path).send().await?.error_for_status()?;
    let again = moments.client.turn(&cloning, "cloning again").await?;
    ensure!(results(&again).last() == Some(&("one\n".to_owned(), false)), "{again:?}");

    for session in [&work, &oauth, &cloning] {
        let events = client.events(session).await?;
        ensure!(!format!("{events:?}").contains("CANARY"), "{session}: {events:?}");
        check_log(&client, session, &events).await?;
    }
    for dir in [service.data_dir(), service.hands_dir()] {
        let found = Command::new("grep").args(["-rla", "CANARY"]).arg(&dir).output()?;
        ensure!(found.stdout.is_empty(), "in the clear: {}", String::from_utf8_lossy(&found.stdout));
    }
    ensure!(!service.logs().contains("CANARY"));
    Ok(())
}

/// With these of the origin's MCP servers, and these resources.
async fn session(client: &Client, origin: &Origin, servers: &[&str], resources: Value) -> anyhow::Result<String> {
    let vault = client.make("/v1/vaults", &json!({"display_name": "mine"})).await?;
    let bearer = json!({"type": "static_bearer", "mcp_server_url": origin.url("docs/mcp"), "token": BEARER});
    let oauth = json!({"type": "mcp_oauth", "mcp_server_url": origin.url("oauth/mcp"), "access_token": "CANARY-expired",
        "refresh": {"client_id": "steadyhand", "token_endpoint": origin.url("oauth/token"),
            "token_endpoint_auth": {"type": "none"}, "refresh_token": REFRESH}});
    for auth in [bearer, oauth] {
        client.make(&format!("/v1/vaults/{vault}/credentials"), &json!({"auth": auth})).await?;
    }
    let allow = json!({"permission_policy": {"type": "always_allow"}});
    let toolset = |name: &str| json!({"type": "mcp_toolset", "mcp_server_name": name, "default_config": allow});
    let server = |name: &&str| json!({"type": "url", "name": name, "url": origin.url(&format!("{name}/mcp"))});
    let toolsets = servers.iter().map(|name| toolset(name));
    let tools: Vec<Value> = std::iter::once(json!({"type": "agent_toolset_20260401"})).chain(toolsets).collect();
    let agent = json!({"name": "a", "model": "scripted", "tools": tools,
        "mcp_servers": servers.iter().map(server).collect::<Vec<_>>()});
    let agent = client.make("/v1/agents", &agent).await?;
    let environment = client.make("/v1/environments", &json!({"name": "net"})).await?;
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": [vault], "resources": resources});
    client.make("/v1/sessions", &body).await
}

struct Moments<'a> {
    service: &'a Service,
    client: &'a Client,
}

impl Moments<'_> {
    /// A turn in which egress dies when `reached`, and the same turn with the egress that comes after it.
    async fn through(
        &self,
        session: &str,
        word: &str,
        reached: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<(Vec<LoggedEvent>, Vec<LoggedEvent>)> {
        let broken = self.killed(session, word, reached).await.with_context(|| word.to_owned())?;
        let again =
            self.client.turn(session, &format!("{word} again")).await.with_context(|| format!("{word} again"))?;
        Ok((broken, again))
    }

    async fn killed(
        &self,
        session: &str,
        word: &str,
        reached: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Vec<LoggedEvent>> {
        let kill = async {
            reached.await?;
            shims::child(self.service.process(Role::Serve)?.pid(), "egress")?.kill()
        };
        let (events, ()) = tokio::try_join!(self.client.turn(session, word), kill)?;
        Ok(events)
    }
}

/// Text of each result, and whether it is an error.
fn results(events: &[LoggedEvent]) -> Vec<(String, bool)> {
    let results = events.iter().filter(|event| event.kind.ends_with("tool_result"));
    results.map(|event| (event.text(), event.rest["is_error"] == true)).collect()
}

/// The one result of a turn, if that is in it.
fn only(events: &[LoggedEvent], says: &str) -> (String, bool) {
    match &results(events)[..] {
        [(text, is_error)] if text.contains(says) => (text.clone(), *is_error),
        _ => (String::new(), false),
    }
}

on_each_engine![egress_dies_at_each_moment];
