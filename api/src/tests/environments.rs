//! The conformance checks of environments, 27 to 32.

use std::sync::Arc;

use domain::packages::Manager;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::vaults::Safe;
use super::{Api, id};

async fn create(api: &Api, config: Value) -> Value {
    api.post("/v1/environments", &json!({"name": "e", "config": config})).await.ok()
}

fn path(environment: &Value) -> String {
    format!("/v1/environments/{}", id(environment))
}

#[tokio::test]
async fn a_cloud_environment_is_fully_populated() {
    let api = Api::new().await;
    let environment = create(&api, json!({"type": "cloud", "packages": {"pip": ["pytest"]}})).await;
    assert!(id(&environment).starts_with("env_01"));
    environment["created_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let packages =
        json!({"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": ["pytest"]});
    let config = json!({"type": "cloud", "networking": {"type": "unrestricted"}, "packages": packages});
    for (field, value) in [
        ("type", json!("environment")),
        ("name", json!("e")),
        ("description", Value::Null),
        ("config", config),
        ("metadata", json!({})),
        ("scope", json!("organization")),
        ("archived_at", Value::Null),
    ] {
        assert_eq!(environment[field], value, "{field}");
    }
    assert_eq!(api.get(&path(&environment)).await.ok(), environment);
    let plain = api.post("/v1/environments", &json!({"name": "plain"})).await.ok();
    assert_eq!(plain["config"]["networking"], json!({"type": "unrestricted"}));
}

#[tokio::test]
async fn packages_are_installed_for_the_sessions_of_their_environment() {
    let safe = Arc::new(Safe::default());
    let api = Api::with(|options| options.egress = Some(safe.clone())).await;
    let (agent, plain) = api.ground().await;
    let networking = json!({"type": "limited", "allow_package_managers": true});
    let made = async |packages: Value| {
        id(&create(&api, json!({"type": "cloud", "networking": networking, "packages": packages})).await)
    };
    let environment = made(json!({"pip": ["pytest"], "npm": ["b", "a"], "gem": []})).await;
    let session = |environment: &str| json!({"agent": agent, "environment_id": environment});
    api.post("/v1/sessions", &session(&environment)).await.ok();
    let policy = safe.policies.lock().pop().unwrap();
    let (npm, pip) = (["b", "a"].map(str::to_owned).into(), vec!["pytest".to_owned()]);
    assert_eq!(policy.packages, [(Manager::Npm, npm), (Manager::Pip, pip)].into());
    assert_eq!(policy.registries.keys().collect::<Vec<_>>(), [&Manager::Pip]);
    api.post("/v1/sessions", &session(&plain)).await.ok();
    assert!(safe.policies.lock().pop().unwrap().packages.is_empty());

    // Those of the system as well.
    let of_system = made(json!({"apt": ["jq"]})).await;
    api.post("/v1/sessions", &session(&of_system)).await.ok();
    assert_eq!(safe.policies.lock().pop().unwrap().packages, [(Manager::Apt, vec!["jq".to_owned()])].into());
    // What cannot be installed is said, and not found out by the agent.
    let without_hands = Api::new().await;
    let (agent, _) = without_hands.ground().await;
    let body = json!({"name": "e", "config": {"type": "cloud", "packages": {"pip": ["pytest"]}}});
    let environment = id(&without_hands.post("/v1/environments", &body).await.ok());
    let session = json!({"agent": agent, "environment_id": environment});
    without_hands.post("/v1/sessions", &session).await.refused(501, "api_error");
}

#[tokio::test]
async fn limited_networking_keeps_hosts_and_flags() {
    let api = Api::new().await;
    let networking = json!({"type": "limited", "allowed_hosts": ["a.com", "*.b.org"], "allow_mcp_servers": true,
        "allow_package_managers": false});
    let environment = create(&api, json!({"type": "cloud", "networking": networking})).await;
    assert_eq!(environment["config"]["networking"], networking);
    let update =
        json!({"config": {"type": "cloud", "networking": {"type": "limited", "allow_package_managers": true}}});
    let updated = api.post(&path(&environment), &update).await.ok();
    let mut expected = networking;
    expected["allow_package_managers"] = json!(true);
    assert_eq!(updated["config"]["networking"], expected);
}

#[tokio::test]
async fn errors_carry_the_codes_that_choose_a_class() {
    let api = Api::new().await;
    let environment = create(&api, json!({"type": "cloud"})).await;
    let self_hosted = create(&api, json!({"type": "self_hosted"})).await;
    let change = json!({"config": {"type": "self_hosted"}});
    assert_eq!(api.post(&path(&environment), &change).await.code(400), "invalid_config_type_change");
    let change = json!({"config": {"type": "cloud"}});
    assert_eq!(api.post(&path(&self_hosted), &change).await.code(400), "invalid_config_type_change");

    let many: Value = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
    let body = json!({"name": "e", "metadata": many});
    assert_eq!(api.post("/v1/environments", &body).await.code(400), "invalid_metadata");
    assert_eq!(api.post(&path(&environment), &json!({"metadata": many})).await.code(400), "invalid_metadata");

    let archived = api.act(&format!("{}/archive", path(&environment))).await.ok();
    assert!(archived["archived_at"].is_string());
    assert_eq!(api.act(&format!("{}/archive", path(&environment))).await.ok(), archived);
    assert_eq!(api.post(&path(&environment), &json!({"name": "f"})).await.code(400), "environment_archived");
    let refused = crate::resources::environments::resolve(&api.app, &id(&environment)).await;
    assert!(refused.is_err());
    assert!(crate::resources::environments::resolve(&api.app, &id(&self_hosted)).await.is_ok());
}

#[tokio::test]
async fn what_is_deleted_is_gone_from_everywhere() {
    let api = Api::new().await;
    let kept = create(&api, json!({"type": "cloud"})).await;
    let deleted = create(&api, json!({"type": "cloud"})).await;
    let answer = api.delete(&path(&deleted)).await.ok();
    assert_eq!(answer, json!({"id": id(&deleted), "type": "environment_deleted"}));
    api.get(&path(&deleted)).await.refused(404, "not_found_error");
    api.delete(&path(&deleted)).await.refused(404, "not_found_error");
    assert_eq!(api.walk("/v1/environments", 10).await, [id(&kept)]);
}

#[tokio::test]
async fn lists_are_newest_first_and_leave_out_the_archived() {
    let api = Api::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(id(&create(&api, json!({"type": "cloud"})).await));
    }
    ids.reverse();
    assert_eq!(api.walk("/v1/environments", 2).await, ids);
    api.act(&format!("/v1/environments/{}/archive", ids[1])).await.ok();
    assert_eq!(api.walk("/v1/environments?include_archived=true", 2).await, ids);
    ids.remove(1);
    assert_eq!(api.walk("/v1/environments", 2).await, ids);
}
