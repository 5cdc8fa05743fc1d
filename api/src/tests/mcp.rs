//! MCP servers of sessions: what egress is told of them, and what the session keeps.

use std::sync::Arc;

use domain::commit::PrivateEntry;
use domain::egress::{ClientAuth, CredentialId, McpServer, Networking, Policy};
use domain::event::StopReason;
use domain::session::signal;
use domain::{EventBody, Take};
use jiff::Timestamp;
use serde_json::{Value, json};
use temporalio_client::tonic::Status;

use super::story::Story;
use super::vaults::Safe;
use super::{Api, id};
use crate::resources::sessions::catch_up::catch_up;

async fn opened() -> (Api, Arc<Safe>) {
    let safe = Arc::new(Safe::default());
    let api = Api::with(|options| options.egress = Some(safe.clone())).await;
    (api, safe)
}

/// A vault with one credential. Gives both ids.
async fn vault(api: &Api, auth: Value) -> (String, String) {
    let vault = id(&api.post("/v1/vaults", &json!({"display_name": "v"})).await.ok());
    let credential = api.post(&format!("/v1/vaults/{vault}/credentials"), &json!({"auth": auth})).await.ok();
    (vault, id(&credential))
}

fn bearer(url: &str) -> Value {
    json!({"type": "static_bearer", "mcp_server_url": url, "token": "CANARY"})
}

fn server(name: &str, url: &str) -> Value {
    json!({"type": "url", "name": name, "url": url})
}

fn toolset(name: &str) -> Value {
    json!({"type": "mcp_toolset", "mcp_server_name": name})
}

async fn session(api: &Api, vaults: &[&str]) -> Value {
    let agent = json!({"name": "a", "model": "m", "tools": [toolset("docs"), toolset("open")],
        "mcp_servers": [server("docs", "https://MCP.example.com:443/v1/"), server("open", "https://open.example.com")]});
    let agent = id(&api.post("/v1/agents", &agent).await.ok());
    let environment = id(&api.post("/v1/environments", &json!({"name": "e"})).await.ok());
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": vaults});
    api.post("/v1/sessions", &body).await.ok()
}

#[tokio::test]
async fn a_server_gets_the_first_credential_for_its_url_and_no_other() {
    let (api, safe) = opened().await;
    let (other, _) = vault(&api, bearer("https://mcp.example.com/v2")).await;
    let (first, credential) = vault(&api, bearer("https://mcp.example.com/v1")).await;
    let (second, _) = vault(&api, bearer("https://mcp.example.com/v1")).await;
    let session = session(&api, &[&other, &first, &second]).await;
    let policy = safe.policies.lock()[0].clone();
    let credential = CredentialId { vault: first, credential };
    let docs = McpServer {
        name: "docs".into(),
        url: "https://MCP.example.com:443/v1/".into(),
        credential: Some(credential),
        refresh: None,
    };
    let open =
        McpServer { name: "open".into(), url: "https://open.example.com".into(), credential: None, refresh: None };
    assert_eq!(policy.mcp_servers, [docs, open]);
    assert_eq!(policy.mcp_hosts, ["MCP.example.com:443", "open.example.com:443"]);
    let input = serde_json::to_value(api.engine.input(&id(&session))).unwrap();
    let listed = |name: &str| json!({"server": name, "listed": false});
    assert_eq!(input["attributes"]["agent"]["mcp"], json!([listed("docs"), listed("open")]));
    assert!(!input.to_string().contains("CANARY"));
}

/// Has a session's agent know the servers `docs`, at this host, and maybe others.
async fn change(api: &Api, session: &str, docs: &str, others: &[&str]) -> super::Answer {
    let mut servers = vec![server("docs", &format!("https://{docs}"))];
    servers.extend(others.iter().map(|name| server(name, &format!("https://{name}.example.com"))));
    let tools: Vec<_> = servers.iter().map(|server| toolset(server["name"].as_str().unwrap())).collect();
    let change = json!({"agent": {"mcp_servers": servers, "tools": tools}});
    api.post(&format!("/v1/sessions/{session}"), &change).await
}

fn servers(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|&(name, host)| (name.to_owned(), host.to_owned())).collect()
}

/// Takes what was sent last to change the session, or drops it.
fn decide(api: &Api, story: &mut Story, dropped: bool, mut with: Vec<Take>) {
    let sent = api.engine.signals(&story.session_id, signal::CHANGE).pop().unwrap();
    with.insert(0, Take::Private { entry: PrivateEntry::Changed { id: id(&sent), dropped } });
    story.commit(with);
}

const BEFORE: [(&str, &str); 2] = [("docs", "MCP.example.com:443/v1/"), ("open", "open.example.com")];

#[tokio::test]
async fn egress_knows_both_agents_until_a_change_is_taken() {
    let (api, safe) = opened().await;
    let (vault, _) = vault(&api, bearer("https://mcp.example.com/v1")).await;
    let session = id(&session(&api, &[&vault]).await);
    let mut story = Story::of(&api.engine, &session);
    change(&api, &session, "elsewhere.example.com", &["more"]).await.ok();
    let both = servers(&[("docs", "elsewhere.example.com"), ("more", "more.example.com"), BEFORE[1]]);
    assert_eq!(safe.told(1).await, both);
    let (told, docs) =
        safe.servers.lock().first().map(|(session, servers)| (session.clone(), servers[0].clone())).unwrap();
    assert_eq!((told, docs.credential), (session, None), "what is for another URL is not for this one");

    let updated = story.inline("updated", EventBody::SessionUpdated { agent: None, title: None, metadata: None });
    decide(&api, &mut story, false, vec![updated]);
    assert_eq!(safe.told(2).await, both[..2]);
    assert_eq!(safe.servers.lock().len(), 2);
}

#[tokio::test]
async fn a_change_that_is_dropped_takes_no_server_from_the_session() {
    let (api, safe) = opened().await;
    let session = id(&session(&api, &[]).await);
    let mut story = Story::of(&api.engine, &session);
    // Only more of them: what the session has can be called all the while, so nothing is cut while it works.
    change(&api, &session, BEFORE[0].1, &["open", "more"]).await.ok();
    let all = servers(&[BEFORE[0], BEFORE[1], ("more", "more.example.com")]);
    assert_eq!(safe.told(1).await, all);
    let running = story.inline("running", EventBody::SessionStatusRunning {});
    decide(&api, &mut story, true, vec![running]);
    assert_eq!(api.get(&format!("/v1/sessions/{session}")).await.ok()["status"], "running");
    story.idle(StopReason::EndTurn {});
    assert_eq!(safe.told(2).await, servers(&BEFORE));

    // Another one under a name that the session uses: put right at once.
    change(&api, &session, "elsewhere.example.com", &[]).await.ok();
    assert_eq!(safe.told(3).await, servers(&[("docs", "elsewhere.example.com"), BEFORE[1]]));
    let running = story.inline("running", EventBody::SessionStatusRunning {});
    decide(&api, &mut story, true, vec![running]);
    assert_eq!(safe.told(4).await, servers(&BEFORE));
}

#[tokio::test]
async fn a_change_that_may_not_have_been_sent_leaves_what_the_session_has() {
    let (api, safe) = opened().await;
    let session = id(&session(&api, &[]).await);
    api.engine.fail("SignalWorkflowExecution", Status::unavailable("down"));
    change(&api, &session, "elsewhere.example.com", &["more"]).await.refused(503, "api_error");
    api.engine.recover();
    safe.told(1).await;
    assert_eq!(safe.told(2).await, servers(&[BEFORE[0], BEFORE[1], ("more", "more.example.com")]));

    change(&api, &session, "elsewhere.example.com", &["more"]).await.ok();
    assert_eq!(safe.told(3).await[0], servers(&[("docs", "elsewhere.example.com")])[0]);

    // The next service knows nothing of what was told.
    let anew = Arc::new(Safe::default());
    let app = api.restarted_with(|options| options.egress = Some(anew.clone())).await;
    catch_up(&app, Timestamp::MAX).await.unwrap();
    let mut story = Story::of(&api.engine, &session);
    let updated = story.inline("updated", EventBody::SessionUpdated { agent: None, title: None, metadata: None });
    decide(&api, &mut story, false, vec![updated]);
    let taken = servers(&[("docs", "elsewhere.example.com"), ("more", "more.example.com")]);
    assert_eq!(anew.told(1).await, taken);
}

#[tokio::test]
async fn servers_are_called_from_here_wherever_the_tools_run() {
    let (api, safe) = opened().await;
    let environment = json!({"name": "e", "config": {"type": "self_hosted"}});
    let environment = id(&api.post("/v1/environments", &environment).await.ok());
    let agent = json!({"name": "a", "model": "m", "tools": [toolset("docs")],
        "mcp_servers": [server("docs", "https://mcp.example.com/v1")]});
    let agent = id(&api.post("/v1/agents", &agent).await.ok());
    let (vault, credential) = vault(&api, bearer("https://mcp.example.com/v1")).await;
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": [vault]});
    api.post("/v1/sessions", &body).await.ok();
    let policy = safe.policies.lock().pop().unwrap();
    assert_eq!(policy.mcp_servers[0].credential, Some(CredentialId { vault, credential }));
    assert_eq!(policy.mcp_hosts, ["mcp.example.com:443"]);
    // And nothing else is reached.
    let networking =
        Networking::Limited { allowed_hosts: vec![], allow_mcp_servers: true, allow_package_managers: false };
    assert_eq!(
        policy,
        Policy {
            networking,
            mcp_servers: policy.mcp_servers.clone(),
            mcp_hosts: policy.mcp_hosts.clone(),
            ..Policy::default()
        }
    );
}

#[tokio::test]
async fn oauth_comes_with_the_way_to_another_token() {
    let (api, safe) = opened().await;
    let auth = json!({"type": "mcp_oauth", "mcp_server_url": "https://mcp.example.com/v1", "access_token": "CANARY",
        "refresh": {"client_id": "us", "token_endpoint": "https://auth.example.com/token", "scope": "a b",
            "token_endpoint_auth": {"type": "client_secret_basic", "client_secret": "CANARY"},
            "refresh_token": "CANARY"}});
    let (vault, credential) = vault(&api, auth).await;
    session(&api, &[&vault]).await;
    let server = safe.policies.lock()[0].mcp_servers[0].clone();
    let refresh = server.refresh.unwrap();
    assert_eq!((&*refresh.token_endpoint, &*refresh.client_id), ("https://auth.example.com/token", "us"));
    assert_eq!(refresh.scope.as_deref(), Some("a b"));
    let ClientAuth::Basic { secret } = refresh.client else { panic!("as it was given") };
    let held = safe.secrets.lock();
    for named in [server.credential.as_ref().unwrap(), &refresh.refresh_token, &secret] {
        assert!(named.credential.starts_with(&credential) && held.contains_key(named), "{named:?}");
    }
}

#[tokio::test]
async fn a_server_in_a_hand_is_none_of_egress_and_needs_a_hand_of_the_service() {
    let (api, safe) = opened().await;
    let stdio =
        |hand: &str| json!({"type": "stdio", "name": "local", "command": "server", "args": ["-v"], "hand": hand});
    let with =
        |servers: Value, tools: Value| json!({"name": "a", "model": "m", "mcp_servers": servers, "tools": tools});
    let (builtin, build) = (json!({"type": "agent_toolset_20260401"}), json!({"type": "hand", "name": "build"}));

    // In a hand that there is, and kept as it was sent.
    let refused = api.post("/v1/agents", &with(json!([stdio("build")]), json!([toolset("local")]))).await.invalid();
    assert!(refused.contains("mcp_servers[0].hand: the agent has no hand called build"), "{refused}");
    let agent = with(json!([stdio("build")]), json!([toolset("local"), builtin, build]));
    let agent = api.post("/v1/agents", &agent).await.ok();
    assert_eq!(agent["mcp_servers"], json!([stdio("build")]));
    let both = json!([stdio("main"), server("docs", "https://docs.example.com")]);
    let both = id(&api.post("/v1/agents", &with(both, json!([toolset("local"), toolset("docs")]))).await.ok());

    let cloud = id(&api.post("/v1/environments", &json!({"name": "e"})).await.ok());
    let session = api.post("/v1/sessions", &json!({"agent": both, "environment_id": cloud})).await.ok();
    let policy = safe.policies.lock().pop().unwrap();
    assert_eq!(policy.mcp_servers.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["docs"]);
    assert_eq!(policy.mcp_hosts, ["docs.example.com:443"]);
    let input = serde_json::to_value(api.engine.input(&id(&session))).unwrap();
    let facts = json!([{"server": "local", "listed": false, "inside": "main"}, {"server": "docs", "listed": false}]);
    assert_eq!(input["attributes"]["agent"]["mcp"], facts);

    let elsewhere = json!({"name": "s", "config": {"type": "self_hosted"}});
    let elsewhere = id(&api.post("/v1/environments", &elsewhere).await.ok());
    let refused = api.post("/v1/sessions", &json!({"agent": both, "environment_id": elsewhere})).await.invalid();
    assert!(refused.contains("the agent's MCP server local of type stdio"), "{refused}");
}
