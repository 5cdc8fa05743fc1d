//! Vaults and credentials: what goes to egress, what is shown, and that the two never meet.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use domain::egress::{CredentialId, McpServer, Policy, Reply, Request};
use domain::packages::{Manager, Registries};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{Api, id};
use crate::egress::Egress;

/// What the vault holds, as egress would keep it.
#[derive(Default)]
pub(super) struct Safe {
    pub(super) secrets: Mutex<BTreeMap<CredentialId, String>>,
    pub(super) policies: Mutex<Vec<Policy>>,
    /// Of agents that were changed, by session.
    pub(super) servers: Mutex<Vec<(String, Vec<McpServer>)>>,
    is_gone: Mutex<bool>,
}

#[async_trait]
impl Egress for Safe {
    async fn ask(&self, request: Request) -> std::io::Result<Reply> {
        if *self.is_gone.lock() {
            return Err(std::io::Error::other("no egress"));
        }
        let mut secrets = self.secrets.lock();
        Ok(match request {
            Request::PutCredential { id, secret } => {
                secrets.insert(id, secret.0);
                Reply::Done
            }
            Request::DeleteCredential { id } => match secrets.remove(&id) {
                Some(_) => Reply::Done,
                None => Reply::Refused { message: "find the credential".to_owned() },
            },
            Request::SetMcpServers { session_id, mcp_servers, .. } => {
                self.servers.lock().push((session_id, mcp_servers));
                Reply::Done
            }
            Request::CopyCredential { from, to } => match secrets.get(&from).cloned() {
                Some(secret) => {
                    secrets.insert(to, secret);
                    Reply::Done
                }
                None => Reply::Refused { message: "find the credential".to_owned() },
            },
            Request::ValidateCredential { id } => Reply::Valid { valid: secrets.contains_key(&id) },
            Request::SetPolicy { policy, .. } => {
                self.policies.lock().push(policy);
                Reply::Done
            }
            _ => Reply::Done,
        })
    }

    fn may_go_unencrypted(&self, authority: &str) -> bool {
        authority == "127.0.0.1:3000"
    }

    fn registries(&self) -> Registries {
        [(Manager::Pip, "https://mirror.example.com/simple".to_owned())].into()
    }
}

impl Safe {
    pub(super) fn held(&self) -> Vec<String> {
        self.secrets.lock().values().cloned().collect()
    }
}

async fn opened() -> (Api, Arc<Safe>, String) {
    let safe = Arc::new(Safe::default());
    let api = Api::with(|options| options.egress = Some(safe.clone())).await;
    let vault = api.post("/v1/vaults", &json!({"display_name": "mine", "metadata": {"k": "v"}})).await.ok();
    (api, safe, format!("/v1/vaults/{}", id(&vault)))
}

fn bearer(url: &str) -> Value {
    json!({"auth": {"type": "static_bearer", "mcp_server_url": url, "token": "CANARY"}})
}

#[tokio::test]
async fn a_vault_is_made_listed_changed_archived_and_deleted() {
    let (api, _, path) = opened().await;
    let vault = api.get(&path).await.ok();
    assert_eq!(
        (&vault["type"], &vault["display_name"], &vault["archived_at"]),
        (&json!("vault"), &json!("mine"), &Value::Null)
    );
    assert!(id(&vault).starts_with("vlt_01"));
    let changed = api.post(&path, &json!({"display_name": "ours", "metadata": {"k": null, "n": "1"}})).await.ok();
    assert_eq!((&changed["display_name"], &changed["metadata"]), (&json!("ours"), &json!({"n": "1"})));
    assert_ne!(changed["updated_at"], vault["updated_at"]);
    assert_eq!(api.post(&path, &json!({"display_name": "ours"})).await.ok(), changed);
    for wrong in [json!({"display_name": ""}), json!({"display_name": "x".repeat(256)}), json!({"name": "x"})] {
        api.post("/v1/vaults", &wrong).await.invalid();
    }
    let second = id(&api.post("/v1/vaults", &json!({"display_name": "b"})).await.ok());
    assert_eq!(api.walk("/v1/vaults", 1).await, [second.clone(), id(&vault)]);
    let archived = api.act(&format!("{path}/archive")).await.ok();
    assert!(archived["archived_at"].is_string());
    assert_eq!(api.act(&format!("{path}/archive")).await.ok(), archived);
    assert_eq!(api.walk("/v1/vaults", 9).await, [second]);
    assert_eq!(api.walk("/v1/vaults?include_archived=true", 9).await.len(), 2);
    api.post(&path, &json!({"display_name": "x"})).await.invalid();
    api.post(&format!("{path}/credentials"), &bearer("https://a.com")).await.invalid();
    assert_eq!(api.delete(&path).await.ok(), json!({"id": id(&vault), "type": "vault_deleted"}));
    api.get(&path).await.refused(404, "not_found_error");
}

#[tokio::test]
async fn a_secret_goes_to_egress_and_is_nowhere_else() {
    let (api, safe, path) = opened().await;
    let path = format!("{path}/credentials");
    let oauth = json!({"display_name": "mcp", "auth": {"type": "mcp_oauth", "mcp_server_url": "https://mcp.example.com",
        "access_token": "CANARY-1", "refresh": {"client_id": "c", "token_endpoint": "https://id.example.com",
        "token_endpoint_auth": {"type": "client_secret_post", "client_secret": "CANARY-2"}, "refresh_token": "CANARY-3"}}});
    let made = api.post(&path, &oauth).await.ok();
    assert_eq!(made["type"], "vault_credential");
    let one = format!("{path}/{}", id(&made));
    let update = json!({"auth": {"type": "mcp_oauth", "access_token": "CANARY-4"}, "metadata": {"a": "b"}});
    let changed = api.post(&one, &update).await.ok();
    assert_eq!(changed["auth"], made["auth"]);
    let validated = api.act(&format!("{one}/mcp_oauth_validate")).await.ok();
    assert_eq!((&validated["status"], &validated["has_refresh_token"]), (&json!("unknown"), &json!(true)));
    let mut held = safe.held();
    held.sort();
    assert_eq!(held, ["CANARY-2", "CANARY-3", "CANARY-4"]);

    let mut said = vec![made, changed, validated, api.get(&one).await.ok(), api.get(&path).await.ok()];
    // A request that is wrong because of where its secret is.
    for wrong in [
        json!({"auth": {"type": "static_bearer", "token": {"x": "CANARY"}, "mcp_server_url": "https://b.com"}}),
        json!({"auth": {"type": "static_bearer", "CANARY": "x"}}),
        json!({"auth": {"type": "CANARY"}}),
        json!({"auth": "CANARY"}),
        json!({"CANARY": 1}),
        json!({"auth": {"type": "environment_variable", "secret_name": "A", "secret_value": "CANARY",
            "networking": {"type": "limited", "CANARY": []}}}),
    ] {
        let answer = api.post(&path, &wrong).await;
        assert_eq!(answer.status, 400);
        said.push(answer.json());
    }
    said.push(api.get("/v1/steadyhand/audit").await.ok());
    assert!(!json!(said).to_string().contains("CANARY"));
    for (table, _) in api.app.catalog.verify().await.unwrap().tables {
        let table: &'static str = Box::leak(table.into_boxed_str());
        let rows =
            api.app.catalog.scan(store::Table::new(table), store::KeyRange::all(), store::Direction::Forward, 999);
        for row in rows.await.unwrap() {
            assert!(!String::from_utf8_lossy(&row.value).contains("CANARY"), "{table}");
        }
    }
}

#[tokio::test]
async fn one_active_credential_has_a_url_and_archiving_frees_it() {
    let (api, safe, vault) = opened().await;
    let path = format!("{vault}/credentials");
    let first = id(&api.post(&path, &bearer("https://mcp.example.com/a")).await.ok());
    let twin = api.post(&path, &bearer("HTTPS://MCP.example.com:443/a/")).await;
    assert_eq!(twin.headers["x-should-retry"], "false");
    twin.refused(409, "conflict_error");
    assert_eq!(safe.held().len(), 1);
    let archived = api.act(&format!("{path}/{first}/archive")).await.ok();
    assert!(archived["archived_at"].is_string() && safe.held().is_empty());
    let validated = api.act(&format!("{path}/{first}/mcp_oauth_validate")).await.ok();
    assert_eq!(validated["status"], "invalid");
    let second = id(&api.post(&path, &bearer("https://mcp.example.com/a")).await.ok());
    assert_eq!(api.walk(&path, 9).await, std::slice::from_ref(&second));
    assert_eq!(api.walk(&format!("{path}?include_archived=true"), 1).await, [second.clone(), first.clone()]);
    // The archived one goes without taking the key along.
    api.delete(&format!("{path}/{first}")).await.ok();
    api.post(&path, &bearer("https://mcp.example.com/a")).await.refused(409, "conflict_error");
    api.get(&format!("/v1/vaults/vlt_no/credentials/{second}")).await.refused(404, "not_found_error");
    api.act(&format!("{vault}/archive")).await.ok();
    assert!(safe.held().is_empty());
    assert!(api.get(&format!("{path}/{second}")).await.ok()["archived_at"].is_string());
    api.delete(&vault).await.ok();
    api.get(&format!("{path}/{second}")).await.refused(404, "not_found_error");
}

#[tokio::test]
async fn a_vault_holds_twenty() {
    let (api, _, vault) = opened().await;
    let path = format!("{vault}/credentials");
    let mut last = String::new();
    for n in 0..20 {
        last = id(&api.post(&path, &bearer(&format!("https://{n}.example.com"))).await.ok());
    }
    api.post(&path, &bearer("https://more.example.com")).await.invalid();
    api.delete(&format!("{path}/{last}")).await.ok();
    api.post(&path, &bearer("https://more.example.com")).await.ok();
}

#[tokio::test]
async fn nothing_is_said_to_be_purged_that_is_not() {
    let (api, safe, vault) = opened().await;
    let path = format!("{vault}/credentials");
    let one = format!("{path}/{}", id(&api.post(&path, &bearer("https://a.com")).await.ok()));
    *safe.is_gone.lock() = true;
    for answer in [
        api.post(&path, &bearer("https://b.com")).await,
        api.delete(&one).await,
        api.act(&format!("{one}/archive")).await,
        api.act(&format!("{vault}/archive")).await,
    ] {
        answer.refused(503, "api_error");
    }
    assert_eq!(api.get(&one).await.ok()["archived_at"], Value::Null);
    *safe.is_gone.lock() = false;
    // The vault was closed; archiving it again finishes what was begun.
    api.act(&format!("{vault}/archive")).await.ok();
    assert!(safe.held().is_empty() && api.get(&one).await.ok()["archived_at"].is_string());
}

#[tokio::test]
async fn sessions_name_vaults_that_are_there() {
    let (api, _, vault) = opened().await;
    let (agent, environment) = api.ground().await;
    let vault_id = vault.rsplit('/').next().unwrap().to_owned();
    let body = |vault: &str| json!({"agent": agent, "environment_id": environment, "vault_ids": [vault]});
    let made = api.post("/v1/sessions", &body(&vault_id)).await.ok();
    assert_eq!(made["vault_ids"], json!([vault_id]));
    api.post("/v1/sessions", &body("vlt_no")).await.refused(404, "not_found_error");
    api.act(&format!("{vault}/archive")).await.ok();
    api.post("/v1/sessions", &body(&vault_id)).await.invalid();
}

#[tokio::test]
async fn a_sandbox_is_given_placeholders_of_the_variables_of_its_vaults() {
    let (api, safe, first) = opened().await;
    let second = format!("/v1/vaults/{}", id(&api.post("/v1/vaults", &json!({"display_name": "b"})).await.ok()));
    let variable = |name: &str, hosts: Value| {
        json!({"auth": {"type": "environment_variable", "secret_name": name, "secret_value": "CANARY",
            "networking": {"type": "limited", "allowed_hosts": hosts}}})
    };
    let made = async |vault: &str, body: Value| id(&api.post(&format!("{vault}/credentials"), &body).await.ok());
    let token = made(&first, variable("TOKEN", json!(["a.example.com"]))).await;
    made(&first, bearer("https://mcp.example.com")).await;
    made(&second, variable("TOKEN", json!(["b.example.com"]))).await;
    let other = made(&second, variable("OTHER", json!(["b.example.com"]))).await;
    let (agent, environment) = api.ground().await;
    let ids = [&first, &second].map(|path| path.rsplit('/').next().unwrap().to_owned());
    let body = json!({"agent": agent, "environment_id": environment, "vault_ids": ids});
    api.post("/v1/sessions", &body).await.ok();
    let policy = safe.policies.lock().pop().unwrap();
    let known: Vec<_> =
        policy.variables.iter().map(|it| (&*it.name, &*it.host, it.credential.credential.clone())).collect();
    assert_eq!(known, [("TOKEN", "a.example.com", token), ("OTHER", "b.example.com", other)]);
    assert!(policy.variables[0].placeholder != policy.variables[1].placeholder);
    // What egress cannot do yet is not passed over in silence.
    made(&second, variable("WIDE", json!(["a.example.com", "b.example.com"]))).await;
    api.post("/v1/sessions", &body).await.refused(501, "api_error");
}

#[tokio::test]
async fn a_service_without_egress_keeps_no_vaults() {
    let api = Api::new().await;
    let answer = api.post("/v1/vaults", &json!({"display_name": "mine"})).await;
    assert_eq!(answer.headers["x-should-retry"], "false");
    answer.refused(503, "api_error");
}
