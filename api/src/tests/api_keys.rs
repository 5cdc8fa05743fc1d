//! Keys that the admin makes for others, what they open, how often, and what is remembered of it.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use super::{Answer, Api, id};
use crate::auth::limits::Rates;

const PATH: &str = "/v1/steadyhand/api_keys";

async fn with_key(api: &Api, key: &Value, method: Method, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    let request = Request::builder().method(method).uri(path).header("authorization", bearer);
    api.send(request.header("content-type", "application/json").body(Body::from(body.to_string())).unwrap()).await
}

#[tokio::test]
async fn a_made_key_opens_everything_but_the_making_of_keys() {
    let api = Api::new().await;
    let made = api.post(PATH, &json!({"name": "laptop"})).await.ok();
    assert!(id(&made).starts_with("apikey_"));
    assert_eq!((&made["name"], &made["scope"]), (&json!("laptop"), &json!({"type": "all"})));
    with_key(&api, &made, Method::GET, "/v1/agents", &json!({})).await.ok();
    with_key(&api, &made, Method::POST, "/v1/agents", &json!({"name": "a", "model": "m"})).await.ok();
    for (method, path) in [
        (Method::POST, PATH.to_owned()),
        (Method::GET, PATH.to_owned()),
        (Method::POST, format!("{PATH}/{}/revoke", id(&made))),
    ] {
        with_key(&api, &made, method, &path, &json!({"name": "b"})).await.refused(403, "permission_error");
    }
}

#[tokio::test]
async fn a_key_needs_a_name() {
    let api = Api::new().await;
    for body in [json!({}), json!({"name": ""}), json!({"name": "x".repeat(257)}), json!({"name": "a", "key": "b"})] {
        api.post(PATH, &body).await.invalid();
    }
    api.post(PATH, &json!({"name": "a", "scope": "write"})).await.invalid();
}

#[tokio::test]
async fn a_key_that_may_read_changes_nothing() {
    let api = Api::new().await;
    let reader = api.post(PATH, &json!({"name": "dashboard", "scope": "read"})).await.ok();
    let session = id(&api.session(json!({})).await);
    for path in ["/v1/agents".to_owned(), format!("/v1/sessions/{session}"), format!("/v1/sessions/{session}/events")] {
        with_key(&api, &reader, Method::GET, &path, &json!({})).await.ok();
    }
    for (method, path) in [
        (Method::POST, "/v1/agents".to_owned()),
        (Method::POST, format!("/v1/sessions/{session}/events")),
        (Method::DELETE, format!("/v1/sessions/{session}")),
    ] {
        with_key(&api, &reader, method, &path, &json!({})).await.refused(403, "permission_error");
    }
}

#[tokio::test]
async fn a_key_is_listed_with_its_last_use_and_revoked_for_good() {
    let api = Api::new().await;
    let made = api.post(PATH, &json!({"name": "laptop"})).await.ok();
    let listed = || async { api.get(PATH).await.ok()["data"][0].clone() };
    assert_eq!(
        (listed().await["id"].clone(), listed().await["last_used_at"].clone()),
        (made["id"].clone(), Value::Null)
    );
    with_key(&api, &made, Method::GET, "/v1/agents", &json!({})).await.ok();
    let shown = listed().await;
    assert!(shown["last_used_at"].is_string() && shown["revoked_at"].is_null());
    assert!(shown.get("key").is_none());
    let path = format!("{PATH}/{}/revoke", id(&made));
    let revoked = api.act(&path).await.ok();
    assert_eq!(api.act(&path).await.ok(), revoked);
    assert_eq!(listed().await["revoked_at"], revoked["revoked_at"]);
    let refused = with_key(&api, &made, Method::GET, "/v1/agents", &json!({})).await;
    assert_eq!(refused.refused(401, "authentication_error"), "invalid API key");
    api.act(&format!("{PATH}/apikey_no/revoke")).await.refused(404, "not_found_error");
}

#[tokio::test]
async fn limits_hold_for_an_organization_and_are_told_in_headers() {
    let api = Api::with(|options| options.rates = Rates { creates: Some(2), reads: None }).await;
    let create = async || api.post("/v1/agents", &json!({"name": "a", "model": "m"})).await;
    assert_eq!(create().await.headers["anthropic-ratelimit-requests-remaining"], "1");
    assert_eq!(create().await.headers["anthropic-ratelimit-requests-limit"], "2");
    let refused = create().await;
    assert_eq!(refused.headers["anthropic-ratelimit-requests-remaining"], "0");
    assert_eq!(refused.headers["retry-after"], "30");
    refused.refused(429, "rate_limit_error");
    assert!(api.get("/v1/agents").await.headers.get("anthropic-ratelimit-requests-limit").is_none());
    api.clock.advance(jiff::SignedDuration::from_secs(30));
    create().await.ok();
}

#[tokio::test]
async fn what_was_changed_is_remembered_with_who_did_it_and_never_with_what_was_said() {
    let api = Api::new().await;
    let key = api.post(PATH, &json!({"name": "laptop"})).await.ok();
    let body = json!({"name": "CANARY", "model": "m"});
    let agent = id(&with_key(&api, &key, Method::POST, "/v1/agents", &body).await.ok());
    with_key(&api, &key, Method::POST, "/v1/agents/agent_no/archive", &json!({})).await.refused(404, "not_found_error");
    let session = id(&api.session(json!({})).await);
    let events = json!({"events": [super::events::user("CANARY")]});
    api.post(&format!("/v1/sessions/{session}/events"), &events).await.ok();
    let entries = api.get("/v1/steadyhand/audit?limit=1000").await.ok();
    assert!(!entries.to_string().contains("CANARY"));
    let told: Vec<_> = entries["data"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
            assert!(text("id").starts_with("req_") && text("at").ends_with('Z'));
            (
                text("key_id"),
                format!("{} {}", text("method"), text("path")),
                entry["status"].as_u64().unwrap(),
                text("object_id"),
            )
        })
        .collect();
    let admin = || "apikey_admin".to_owned();
    assert_eq!(
        told[..3],
        [
            (admin(), format!("POST {PATH}"), 200, id(&key)),
            (id(&key), "POST /v1/agents".to_owned(), 200, agent),
            (id(&key), "POST /v1/agents/agent_no/archive".to_owned(), 404, "-".to_owned()),
        ]
    );
    assert_eq!(told.last().unwrap(), &(admin(), "POST /v1/sessions".to_owned(), 200, session));
    let page = api.get("/v1/steadyhand/audit?limit=1").await.ok();
    assert!(page["next_page"].is_string());
}
