//! Sessions: made, shown, listed, ended.

use serde_json::{Value, json};

use super::{Api, id};

impl Api {
    /// An agent and an environment for sessions.
    pub(super) async fn ground(&self) -> (String, String) {
        let agent = self.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok();
        let environment = self.post("/v1/environments", &json!({"name": "e"})).await.ok();
        (id(&agent).to_owned(), id(&environment).to_owned())
    }

    pub(super) async fn session(&self, with: Value) -> Value {
        let (agent, environment) = self.ground().await;
        let mut body = json!({"agent": agent, "environment_id": environment});
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        self.post("/v1/sessions", &body).await.ok()
    }
}

#[tokio::test]
async fn a_session_without_events_is_idle() {
    let api = Api::new().await;
    let session = api.session(json!({"title": "t", "metadata": {"k": "v"}})).await;
    assert_eq!(session["status"], "idle");
    assert_eq!(session["title"], "t");
    assert_eq!(session["agent"]["name"], "a");
    let path = format!("/v1/sessions/{}", id(&session));
    assert_eq!(api.get(&path).await.ok(), session);
    assert_eq!(api.get("/v1/sessions").await.ok()["data"], json!([session]));
    assert_eq!(api.get(&format!("{path}/events")).await.ok(), json!({"data": [], "next_page": null}));
}

#[tokio::test]
async fn what_is_sent_is_listed_and_the_session_runs() {
    let api = Api::new().await;
    let session = api.session(json!({})).await;
    let path = format!("/v1/sessions/{}/events", id(&session));
    let message = json!({"type": "user.message", "content": [{"type": "text", "text": "hi"}]});
    let sent = api.post(&path, &json!({"events": [message]})).await.ok();
    assert_eq!(sent["data"][0]["processed_at"], Value::Null);
    assert_eq!(api.get(&path).await.ok()["data"], sent["data"]);
    let session = api.get(&format!("/v1/sessions/{}", id(&session))).await.ok();
    assert_eq!(session["status"], "running");
}
