//! Hands of this machine: shown to those who may see their sessions.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use http::Request;
use serde_json::json;

use super::{Api, id};
use crate::hands::{Hand, Hands};

#[derive(Default)]
struct Two(Mutex<Vec<Hand>>);

#[async_trait]
impl Hands for Two {
    async fn list(&self) -> std::io::Result<Vec<Hand>> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn end(&self, id: &str) -> std::io::Result<()> {
        self.0.lock().unwrap().retain(|hand| hand.id != id);
        Ok(())
    }
}

fn hand(id: &str, session_id: &str) -> Hand {
    Hand {
        id: id.to_owned(),
        session_id: session_id.to_owned(),
        is_running: true,
        mode: "dev".to_owned(),
        epoch: Some(1),
        calls: vec!["toolu_1".to_owned()],
        idle_seconds: 3,
        lease_seconds: Some(60),
        layers_off: vec![("own_uid".to_owned(), "not root".to_owned())],
    }
}

#[tokio::test]
async fn hands_of_ones_own_sessions_are_listed_shown_and_ended_and_no_others() {
    let hands = Arc::new(Two::default());
    let mut api = Api::new().await;
    api.app.hands = Some(hands.clone());
    api.router = crate::router(api.app.clone());
    let session = id(&api.session(json!({})).await);
    *hands.0.lock().unwrap() = vec![hand("hand_1", &session), hand("hand_2", "sesn_of_somebody_else")];
    let listed = api.get("/v1/hands").await.ok();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    let shown = api.get("/v1/hands/hand_1").await.ok();
    assert_eq!(shown, listed["data"][0]);
    assert_eq!((&shown["state"], &shown["mode"]), (&json!("running"), &json!("dev")));
    assert_eq!(shown["layers_off"], json!([{"name": "own_uid", "why": "not root"}]));
    let foreign = api.get("/v1/hands/hand_2").await.refused(404, "not_found_error");
    let unknown = api.get("/v1/hands/hand_3").await.refused(404, "not_found_error");
    assert_eq!(foreign.replace("hand_2", "hand_3"), unknown);
    // Another tenant sees none of them, and ends none.
    let workspace = id(&api.post("/v1/steadyhand/workspaces", &json!({"name": "other"})).await.ok());
    let key = api.post("/v1/steadyhand/api_keys", &json!({"name": "other", "workspace_id": workspace})).await.ok();
    let other = async |method: &str, path: &str| {
        let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
        let request = Request::builder().method(method).uri(path).header("authorization", bearer);
        api.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(other("GET", "/v1/hands").await.ok()["data"], json!([]));
    other("GET", "/v1/hands/hand_1").await.refused(404, "not_found_error");
    other("DELETE", "/v1/hands/hand_1").await.refused(404, "not_found_error");
    assert_eq!(hands.0.lock().unwrap().len(), 2);
    api.delete("/v1/hands/hand_2").await.refused(404, "not_found_error");
    api.delete("/v1/hands/hand_1").await.ok();
    api.get("/v1/hands/hand_1").await.refused(404, "not_found_error");
    assert_eq!(hands.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_service_without_hands_lists_none() {
    let api = Api::new().await;
    assert_eq!(api.get("/v1/hands").await.ok()["data"], json!([]));
}
