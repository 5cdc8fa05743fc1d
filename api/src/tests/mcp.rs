//! MCP servers of sessions: what egress is told of them, and what the session keeps.

use std::sync::Arc;

use domain::egress::{ClientAuth, CredentialId, McpServer};
use serde_json::{Value, json};

use super::vaults::Safe;
use super::{Api, id};

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

    let servers = json!([server("docs", "https://elsewhere.example.com")]);
    let change = json!({"agent": {"mcp_servers": servers, "tools": [toolset("docs")]}});
    api.post(&format!("/v1/sessions/{}", id(&session)), &change).await.ok();
    let changed = safe.servers.lock().clone();
    assert_eq!(changed.len(), 1);
    let (changed_id, servers) = &changed[0];
    assert_eq!((changed_id, &*servers[0].url), (&id(&session), "https://elsewhere.example.com"));
    assert_eq!(servers[0].credential, None, "what is for another URL is not for this one");
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
