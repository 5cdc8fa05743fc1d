//! Tenants: what one has the others cannot tell from what was never made.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{Answer, Api, id};
use crate::router::RESOURCES;

const KEYS: &str = "/v1/steadyhand/api_keys";
const WORKSPACES: &str = "/v1/steadyhand/workspaces";

struct Tenant<'a> {
    api: &'a Api,
    key: String,
    workspace: Value,
}

impl<'a> Tenant<'a> {
    async fn new(api: &'a Api, name: &str) -> Self {
        let workspace = api.post(WORKSPACES, &json!({"name": name})).await.ok();
        let key = api.post(KEYS, &json!({"name": name, "workspace_id": id(&workspace)})).await.ok();
        Self { api, key: key["key"].as_str().unwrap().to_owned(), workspace }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        let request =
            Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", self.key));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.api.send(request.header("content-type", "application/json").body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, &Value::Null).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body).await
    }
}

#[tokio::test]
async fn a_tenant_has_a_service_of_its_own() {
    let api = Api::new().await;
    let (one, two) = (Tenant::new(&api, "one").await, Tenant::new(&api, "two").await);
    assert_ne!(one.workspace["organization_id"], two.workspace["organization_id"]);
    for tenant in [&one, &two] {
        let made = tenant.post("/v1/agents", &json!({"name": "a", "model": "m"})).await;
        assert_eq!(made.headers["anthropic-workspace-id"], id(&tenant.workspace).as_str());
        assert_eq!(made.headers["anthropic-organization-id"], tenant.workspace["organization_id"].as_str().unwrap());
        let agent = id(&made.ok());
        let environment = id(&tenant.post("/v1/environments", &json!({"name": "e"})).await.ok());
        let body = json!({"agent": agent, "environment_id": environment, "title": "t"});
        let session = id(&tenant.post("/v1/sessions", &body).await.ok());
        let events = json!({"events": [super::events::user("hello")]});
        tenant.post(&format!("/v1/sessions/{session}/events"), &events).await.ok();
        assert_eq!(tenant.get(&format!("/v1/sessions/{session}/events")).await.ok()["data"][0]["type"], "user.message");
        for list in ["/v1/agents", "/v1/environments", "/v1/sessions"] {
            assert_eq!(tenant.get(list).await.ok()["data"].as_array().unwrap().len(), 1, "{list}");
            assert_eq!(api.get(list).await.ok()["data"], json!([]), "{list}");
        }
    }
    crate::verify::verify(&api.app.catalog, &*api.app.blobs, api.app.clock.now()).await.unwrap();
}

/// Every route that names something, asked for what another tenant has and for what nobody has.
#[tokio::test]
async fn what_another_tenant_has_is_as_unknown_as_what_nobody_has() {
    let api = Api::new().await;
    let (one, two) = (Tenant::new(&api, "one").await, Tenant::new(&api, "two").await);
    let agent = id(&one.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok());
    let config = json!({"name": "e", "config": {"type": "self_hosted"}});
    let environment = id(&one.post("/v1/environments", &config).await.ok());
    let session = id(&one.post("/v1/sessions", &json!({"agent": agent, "environment_id": environment})).await.ok());
    let work = id(&one.get(&format!("/v1/environments/{environment}/work")).await.ok()["data"][0]);
    let thread = id(&one.get(&format!("/v1/sessions/{session}/threads")).await.ok()["data"][0]);
    let known = [
        ("{agent_id}", &agent),
        ("{environment_id}", &environment),
        ("{session_id}", &session),
        ("{work_id}", &work),
        ("{thread_id}", &thread),
    ];
    let mut asked = 0;
    for route in RESOURCES.iter().flat_map(|resource| resource.routes) {
        let foreign = known.iter().fold(route.path.to_owned(), |path, (param, id)| path.replace(param, id));
        if foreign == route.path || foreign.contains('{') {
            continue;
        }
        let nobodys = known.iter().fold(route.path.to_owned(), |path, (param, _)| path.replace(param, "nobodys"));
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let body = if method == Method::GET { Value::Null } else { json!({}) };
            let answers = [&foreign, &nobodys].map(|path| two.call(method.clone(), path, &body));
            let [foreign, nobodys] = futures::future::join_all(answers).await.try_into().ok().unwrap();
            let said = |answer: Answer| {
                let mut body = answer.json();
                body["request_id"].take();
                let message = body["error"]["message"].take();
                let message = message.as_str().unwrap_or_default().to_owned();
                let message = known.iter().fold(message, |message, (_, id)| message.replace(id.as_str(), "nobodys"));
                (answer.status, message, body)
            };
            let (foreign, nobodys) = (said(foreign), said(nobodys));
            assert_eq!(foreign, nobodys, "{method} {}", route.path);
            asked += usize::from(foreign.0 == 404);
        }
        assert!(one.get("/v1/agents").await.status.is_success());
    }
    assert!(asked > 20, "{asked}");
    // It is all there still.
    for path in
        [format!("/v1/agents/{agent}"), format!("/v1/environments/{environment}"), format!("/v1/sessions/{session}")]
    {
        assert_eq!(one.get(&path).await.ok()["archived_at"], Value::Null);
    }
    // And one tenant's session is not made of another's agent.
    let mine = id(&two.post("/v1/environments", &json!({"name": "e"})).await.ok());
    two.post("/v1/sessions", &json!({"agent": agent, "environment_id": mine})).await.refused(404, "not_found_error");
}

#[tokio::test]
async fn workspaces_can_share_an_organization_and_are_for_the_admin() {
    let api = Api::new().await;
    let first = api.get(WORKSPACES).await.ok()["data"][0].clone();
    let body = json!({"name": "b", "organization_id": first["organization_id"]});
    let second = api.post(WORKSPACES, &body).await.ok();
    assert_eq!(second["organization_id"], first["organization_id"]);
    assert_eq!(api.get(WORKSPACES).await.ok()["data"], json!([first, second]));
    api.post(WORKSPACES, &json!({"name": "c", "organization_id": "org_no"})).await.invalid();
    api.post(KEYS, &json!({"name": "k", "workspace_id": "wrkspc_no"})).await.invalid();
    let tenant = Tenant::new(&api, "d").await;
    for path in [WORKSPACES, KEYS, "/v1/steadyhand/audit"] {
        tenant.get(path).await.refused(403, "permission_error");
    }
    let elsewhere = Request::get("/v1/agents").header("anthropic-workspace-id", "wrkspc_other");
    let elsewhere = elsewhere.header("x-api-key", &tenant.key).body(Body::empty()).unwrap();
    api.send(elsewhere).await.refused(403, "permission_error");
}

#[tokio::test]
async fn the_upkeep_of_a_service_is_that_of_all_its_tenants() {
    let api = Api::new().await;
    let tenant = Tenant::new(&api, "one").await;
    let agent = id(&tenant.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok());
    let environment = id(&tenant.post("/v1/environments", &json!({"name": "e"})).await.ok());
    let body = json!({"agent": agent, "environment_id": environment});
    let session = id(&tenant.post("/v1/sessions", &body).await.ok());
    // Its agent's snapshot is a blob of that tenant alone; the sweep must know of it.
    let tenants = crate::tenants::Tenants::new(api.app.clone());
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let swept = crate::upkeep::round(&tenants, jiff::Timestamp::MAX, later).await.unwrap().unwrap();
    assert_eq!(swept.blobs, 0);
    assert_eq!(tenant.get(&format!("/v1/sessions/{session}")).await.ok()["agent"]["name"], "a");
    let problems = crate::verify::verify(&api.app.catalog, &*api.app.blobs, later).await.unwrap().problems;
    assert_eq!(problems, [""; 0]);
}
