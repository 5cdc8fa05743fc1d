//! Hands of this machine: shown to those who may see their sessions.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::body::Body;
use domain::content::BlobRef;
use domain::session::{HandRef, Handed, Workspace, signal};
use domain::{HandName, PrivateEntry, Take};
use http::Request;
use serde_json::json;

use super::story::Story;
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
        name: "main".to_owned(),
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

#[tokio::test]
async fn what_is_in_a_hand_is_handed_on_by_a_signal_to_the_session_that_has_it() {
    let api = Api::new().await;
    let (from, to) = (id(&api.session(json!({})).await), id(&api.session(json!({})).await));
    let transfer = async |from: &str, to: &str| {
        let body = json!({"from_session_id": from, "to_session_id": to});
        api.post("/v1/hands/transfer", &body).await
    };
    for (from, to) in [(&*from, "sesn_none"), ("sesn_none", &*to)] {
        transfer(from, to).await.refused(404, "not_found_error");
    }
    transfer(&from, &from).await.refused(400, "invalid_request_error");
    assert!(transfer(&from, &to).await.refused(400, "invalid_request_error").contains("has no hand"));

    let mut story = Story::of(&api.engine, &from);
    let hand = HandRef { hand: "hand_1".to_owned(), host: "here".to_owned(), epoch: 1 };
    story.commit(vec![Take::Private { entry: PrivateEntry::HandProvisioned { hand, name: HandName::default() } }]);
    let transferred = transfer(&from, &to).await.ok();
    let signals = api.engine.signals(&from, signal::GIVE);
    assert_eq!((&signals[0]["id"], &signals[0]["to"]), (&transferred["id"], &json!(to)));
    assert!(api.engine.signals(&to, signal::GIVE).is_empty(), "the one that has it decides");
}

#[tokio::test]
async fn a_parked_hand_is_listed_with_its_session_and_takes_no_other() {
    let api = Api::new().await;
    let (from, to) = (id(&api.session(json!({})).await), id(&api.session(json!({})).await));
    let mut story = Story::of(&api.engine, &from);
    let workspace = Workspace { listing: BlobRef { blob: "0".repeat(64), bytes: 0 }, start: None };
    let hand = HandRef { hand: "hand_1".to_owned(), host: "here".to_owned(), epoch: 1 };
    let parked = || {
        let (hand, workspace) = (hand.clone(), workspace.clone());
        vec![Take::Private {
            entry: PrivateEntry::HandParked {
                hand,
                name: HandName::default(),
                workspace,
                release: "discard-0".to_owned(),
            },
        }]
    };
    story.commit(parked());
    Story::of(&api.engine, &to).commit(parked());
    let listed = api.get(&format!("/v1/hands?session_id={from}")).await.ok();
    let shown = &listed["data"][0];
    assert_eq!((&shown["id"], &shown["state"], &shown["mode"]), (&json!("hand_1"), &json!("parked"), &json!(null)));
    api.get("/v1/hands?session_id=sesn_none").await.refused(404, "not_found_error");
    let body = json!({"from_session_id": from, "to_session_id": to});
    let refused = api.post("/v1/hands/transfer", &body).await.refused(400, "invalid_request_error");
    assert!(refused.contains("has a hand of its own"), "{refused}");

    // What is on its way to another session is no longer this one's.
    let handed = Handed {
        id: "handed_1".to_owned(),
        from: from.clone(),
        hand: "hand_1".to_owned(),
        name: HandName::default(),
        from_name: HandName::default(),
        workspace,
        returned: false,
    };
    let given = PrivateEntry::HandGiven { to, handed, activity: "hand-1".to_owned() };
    story.commit(vec![Take::Private { entry: given }]);
    assert_eq!(api.get(&format!("/v1/hands?session_id={from}")).await.ok()["data"], json!([]));
}
