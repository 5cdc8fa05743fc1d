//! Keys that the admin makes for others.

use axum::body::Body;
use http::Request;
use serde_json::json;

use super::{Api, id};

const PATH: &str = "/v1/steadyhand/api_keys";

#[tokio::test]
async fn a_made_key_opens_everything_but_the_making_of_keys() {
    let api = Api::new().await;
    let made = api.post(PATH, &json!({"name": "laptop"})).await.ok();
    assert!(id(&made).starts_with("apikey_"));
    assert_eq!(made["name"], "laptop");
    let key = made["key"].as_str().unwrap();
    let with_key = |request: http::request::Builder| request.header("authorization", format!("Bearer {key}"));

    let listed = api.send(with_key(Request::get("/v1/agents")).body(Body::empty()).unwrap()).await;
    assert_eq!(listed.status, 200);
    let another = with_key(Request::post(PATH)).header("content-type", "application/json");
    api.send(another.body(r#"{"name": "b"}"#.into()).unwrap()).await.refused(403, "permission_error");
}

#[tokio::test]
async fn a_key_needs_a_name() {
    let api = Api::new().await;
    for body in [json!({}), json!({"name": ""}), json!({"name": "x".repeat(257)}), json!({"name": "a", "key": "b"})] {
        api.post(PATH, &body).await.invalid();
    }
}
