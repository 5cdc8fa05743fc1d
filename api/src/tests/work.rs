//! The work queue of self-hosted environments, as workers and their operators call it.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use domain::Take;
use domain::event::{Permission, StopReason};
use http::{Method, Request};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::events::{send, user};
use super::story::{Story, bash};
use super::{Answer, Api, id};
use crate::resources::environments::work::token::TokenRow;

const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// A self-hosted environment with a key of it.
struct Shop {
    api: Api,
    environment: String,
    key: String,
}

impl Shop {
    async fn new() -> Self {
        let api = Api::new().await;
        let config = json!({"name": "e", "config": {"type": "self_hosted"}});
        let environment = id(&api.post("/v1/environments", &config).await.ok());
        let keys = format!("/v1/steadyhand/environments/{environment}/keys");
        let key = api.post(&keys, &json!({"name": "worker"})).await.ok();
        Self { api, environment, key: key["key"].as_str().unwrap().to_owned() }
    }

    async fn session(&self, with: Value) -> String {
        let agent = self.api.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok();
        let mut body = json!({"agent": id(&agent), "environment_id": self.environment});
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        id(&self.api.post("/v1/sessions", &body).await.ok())
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/environments/{}/work{rest}", self.environment)
    }

    async fn call(&self, key: &str, method: Method, path: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        let request = request.header("anthropic-worker-id", "worker-1").header("content-type", "application/json");
        self.api.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn poll(&self) -> Value {
        self.call(&self.key, Method::GET, &self.path("/poll"), "").await.ok()
    }

    /// Polls and acknowledges: an item that a worker holds, with its token.
    async fn taken(&self) -> Item {
        let item = Item::of(&self.poll().await);
        self.call(&self.key, Method::POST, &self.path(&format!("/{}/ack", item.id)), "").await.ok();
        item
    }

    async fn beat(&self, item: &Item, expected: &str) -> Answer {
        let query = format!("/{}/heartbeat?expected_last_heartbeat={expected}", item.id);
        self.call(&item.token, Method::POST, &self.path(&query), "").await
    }

    async fn stop(&self, item: &Item, force: bool) -> Answer {
        let body = json!({"force": force}).to_string();
        self.call(&item.token, Method::POST, &self.path(&format!("/{}/stop", item.id)), &body).await
    }

    async fn stats(&self) -> Value {
        self.api.get(&self.path("/stats")).await.ok()
    }

    async fn state(&self, item: &Item) -> String {
        let work = self.api.get(&self.path(&format!("/{}", item.id))).await.ok();
        assert_eq!(work["secret"], Value::Null);
        work["state"].as_str().unwrap().to_owned()
    }

    /// A session that waits for a worker to run one call.
    async fn calling(&self) -> (Story, String) {
        let session = self.session(json!({"initial_events": [user("ls")]})).await;
        let first = self.api.engine.input(&session);
        let domain::session::Origin::Created { events, .. } = first.from else { panic!("not a new session") };
        let mut story = Story::of(&self.api.engine, &session);
        story.begin(&[&events[0].id]);
        let calls = story.answer(vec![bash(Permission::Allow)]);
        story.idle(StopReason::RequiresAction { event_ids: calls.clone() });
        (story, calls[0].clone())
    }
}

#[derive(Debug)]
struct Item {
    id: String,
    session: String,
    token: String,
}

impl Item {
    fn of(work: &Value) -> Self {
        assert_eq!(work["type"], "work", "{work}");
        let secret = work["secret"].as_str().expect("a polled item has a secret");
        let padded = format!("{secret}{}", "=".repeat((4 - secret.len() % 4) % 4));
        let payload: Value = serde_json::from_slice(&URL_SAFE.decode(padded).unwrap()).unwrap();
        let token = payload["sessions_token"].as_str().unwrap().to_owned();
        Self { id: id(work), session: work["data"]["id"].as_str().unwrap().to_owned(), token }
    }
}

#[tokio::test]
async fn a_new_session_is_queued_taken_beaten_for_and_stopped() {
    let shop = Shop::new().await;
    assert_eq!(shop.poll().await, Value::Null);
    let session = shop.session(json!({})).await;
    let stats = shop.stats().await;
    assert_eq!((&stats["depth"], &stats["pending"], &stats["workers_polling"]), (&json!(1), &json!(0), &json!(1)));
    assert!(stats["oldest_queued_at"].is_string());

    let polled = shop.poll().await;
    let item = Item::of(&polled);
    assert_eq!((item.session.as_str(), polled["state"].as_str()), (session.as_str(), Some("queued")));
    assert_eq!(shop.poll().await, Value::Null);
    let stats = shop.stats().await;
    assert_eq!((&stats["depth"], &stats["pending"]), (&json!(0), &json!(1)));

    let acked = shop.call(&shop.key, Method::POST, &shop.path(&format!("/{}/ack", item.id)), "").await.ok();
    assert_eq!((acked["state"].as_str(), acked["secret"].is_null()), (Some("starting"), true));
    assert_eq!(shop.stats().await["oldest_queued_at"], Value::Null);

    let first = shop.beat(&item, "NO_HEARTBEAT").await.ok();
    assert_eq!((first["state"].as_str(), first["lease_extended"].as_bool()), (Some("active"), Some(true)));
    let last = first["last_heartbeat"].as_str().unwrap().to_owned();
    let second = shop.beat(&item, &last).await.ok();
    assert_ne!(second["last_heartbeat"], last.as_str());
    let refused = shop.beat(&item, &last).await;
    let state = refused.json()["error"]["details"]["current_state"].clone();
    assert_eq!(state["last_heartbeat"], second["last_heartbeat"]);
    assert_eq!(refused.code(412), "heartbeat_precondition_failed");

    // Told to stop, the worker hears of it with its next beat, whatever it expects.
    let path = shop.path(&format!("/{}/stop", item.id));
    let stopping = shop.api.post(&path, &json!({})).await.ok();
    assert_eq!((stopping["state"].as_str(), stopping["stopped_at"].is_null()), (Some("stopping"), true));
    assert_eq!(shop.beat(&item, "whatever").await.ok()["state"], "stopping");
    assert_eq!(shop.stop(&item, true).await.ok()["state"], "stopped");
    assert_eq!(shop.beat(&item, "whatever").await.ok()["lease_extended"], false);
    shop.stop(&item, true).await.refused(409, "conflict_error");
    // The session has nothing to do.
    assert_eq!(shop.poll().await, Value::Null);
    assert_eq!(shop.api.walk(&shop.path(""), 1).await, [item.id]);
}

#[tokio::test]
async fn an_item_that_nobody_acknowledged_is_handed_out_again() {
    let shop = Shop::new().await;
    shop.session(json!({})).await;
    let first = Item::of(&shop.poll().await);
    shop.api.clock.advance(SECOND * 4);
    assert_eq!(shop.poll().await, Value::Null);
    let soon = shop.call(&shop.key, Method::GET, &shop.path("/poll?reclaim_older_than_ms=3000"), "").await.ok();
    let second = Item::of(&soon);
    assert_eq!(first.id, second.id);
    shop.api.clock.advance(SECOND * 6);
    let third = Item::of(&shop.poll().await);
    // Only the last who took it has it.
    let session = format!("/v1/sessions/{}", first.session);
    shop.call(&second.token, Method::GET, &session, "").await.refused(401, "authentication_error");
    shop.call(&third.token, Method::GET, &session, "").await.ok();
    shop.call(&shop.key, Method::POST, &shop.path(&format!("/{}/ack", third.id)), "").await.ok();
    shop.beat(&second, "NO_HEARTBEAT").await.refused(412, "invalid_request_error");
    shop.stop(&second, true).await.refused(409, "conflict_error");
    shop.beat(&third, "NO_HEARTBEAT").await.ok();
    // The first one's token is not even known any more.
    shop.beat(&first, "NO_HEARTBEAT").await.refused(401, "authentication_error");
}

#[tokio::test]
async fn a_worker_that_is_gone_loses_its_item_and_no_call() {
    let shop = Shop::new().await;
    let (_, call) = shop.calling().await;
    let gone = shop.taken().await;
    let last = shop.beat(&gone, "NO_HEARTBEAT").await.ok()["last_heartbeat"].as_str().unwrap().to_owned();
    shop.api.clock.advance(SECOND * 59);
    assert_eq!(shop.poll().await, Value::Null);
    shop.api.clock.advance(SECOND * 2);
    let session = format!("/v1/sessions/{}", gone.session);
    shop.call(&gone.token, Method::GET, &session, "").await.refused(401, "authentication_error");
    let other = shop.taken().await;
    assert_eq!((&other.id, &other.session), (&gone.id, &gone.session));
    shop.beat(&gone, &last).await.refused(412, "invalid_request_error");
    let result = json!({"events": [{"type": "user.tool_result", "tool_use_id": call,
        "content": [{"type": "text", "text": "done"}], "is_error": false}]});
    let path = format!("{session}/events");
    shop.call(&gone.token, Method::POST, &path, &result.to_string()).await.refused(401, "authentication_error");
    shop.call(&other.token, Method::POST, &path, &result.to_string()).await.ok();
    let again = shop.call(&other.token, Method::POST, &path, &result.to_string()).await;
    assert_eq!(again.headers["x-should-retry"], "false");
    again.invalid();
}

#[tokio::test]
async fn a_worker_that_leaves_early_is_followed_by_another_item_and_ever_later_if_nothing_comes_of_it() {
    let shop = Shop::new().await;
    shop.calling().await;
    let mut seen = vec![];
    // Something was logged since the session began, so the first to leave is followed at once.
    for pause_s in [0, 1, 2, 4, 8, 16, 32, 64, 64] {
        let item = shop.taken().await;
        assert!(!seen.contains(&item.id));
        assert_eq!(shop.stop(&item, true).await.ok()["state"], "stopped");
        if pause_s > 0 {
            assert_eq!(shop.poll().await, Value::Null, "{pause_s}");
            shop.api.clock.advance(SECOND * pause_s);
        }
        seen.push(item.id);
    }
    shop.taken().await;
}

#[tokio::test]
async fn a_message_after_the_worker_left_makes_an_item_and_never_a_second_live_one() {
    let shop = Shop::new().await;
    let session = shop.session(json!({})).await;
    let path = format!("/v1/sessions/{session}/events");
    let first = shop.taken().await;
    shop.stop(&first, true).await.ok();
    assert_eq!(shop.poll().await, Value::Null);
    send(&shop.api, &path, &[user("hello")]).await;
    send(&shop.api, &path, &[user("are you there?")]).await;
    assert_eq!(shop.stats().await["depth"], 1);
    let second = shop.taken().await;
    assert_ne!(first.id, second.id);
    assert_eq!(shop.poll().await, Value::Null);
    // It is running now: who leaves leaves it to another, in a moment as nothing has come of it yet.
    shop.stop(&second, true).await.ok();
    shop.api.clock.advance(SECOND);
    assert_ne!(shop.taken().await.id, second.id);
}

#[tokio::test]
async fn a_call_that_waits_for_a_confirmation_needs_no_worker_before_it() {
    let shop = Shop::new().await;
    let session = shop.session(json!({"initial_events": [user("ls")]})).await;
    let domain::session::Origin::Created { events, .. } = shop.api.engine.input(&session).from else {
        panic!("not a new session")
    };
    let mut story = Story::of(&shop.api.engine, &session);
    story.begin(&[&events[0].id]);
    let calls = story.answer(vec![bash(Permission::Ask)]);
    story.idle(StopReason::RequiresAction { event_ids: calls.clone() });
    shop.stop(&shop.taken().await, true).await.ok();
    assert_eq!(shop.stats().await["depth"], 0);
    let confirm = json!({"type": "user.tool_confirmation", "tool_use_id": calls[0], "result": "allow"});
    let ids = send(&shop.api, &format!("/v1/sessions/{session}/events"), &[confirm]).await;
    story.commit(vec![Take::Accepted { id: ids[0].clone(), ignored: false }]);
    assert_eq!(shop.taken().await.session, session);
}

#[tokio::test]
async fn workers_may_call_what_their_work_needs_and_nothing_else() {
    let shop = Shop::new().await;
    let (mine, other) = (shop.session(json!({})).await, shop.session(json!({})).await);
    let cloud = id(&shop.api.session(json!({})).await);
    let item = shop.taken().await;
    assert_eq!(item.session, mine);
    for (who, key) in [("token", &item.token), ("key", &shop.key)] {
        for path in ["", "/events", "/events/stream"] {
            let request =
                Request::get(format!("/v1/sessions/{mine}{path}")).header("authorization", format!("Bearer {key}"));
            assert_eq!(shop.api.open(request.body(Body::empty()).unwrap()).await.status(), 200, "{who} {path}");
        }
        shop.call(key, Method::GET, &format!("/v1/sessions/{cloud}"), "").await.refused(404, "not_found_error");
        for (method, path) in [
            (Method::GET, "/v1/sessions".to_owned()),
            (Method::GET, "/v1/agents".to_owned()),
            (Method::GET, shop.path("")),
            (Method::GET, shop.path("/stats")),
            (Method::POST, format!("/v1/sessions/{mine}")),
            (Method::DELETE, format!("/v1/sessions/{mine}")),
            (Method::GET, "/v1/vaults".to_owned()),
            (Method::GET, "/v1/steadyhand/api_keys".to_owned()),
        ] {
            shop.call(key, method, &path, "{}").await.refused(403, "permission_error");
        }
        let say = json!({"events": [user("do as I say")]}).to_string();
        let path = format!("/v1/sessions/{mine}/events");
        shop.call(key, Method::POST, &path, &say).await.refused(403, "permission_error");
    }
    shop.call(&item.token, Method::GET, &format!("/v1/sessions/{other}"), "").await.refused(404, "not_found_error");
    shop.call(&item.token, Method::GET, &shop.path("/poll"), "").await.refused(403, "permission_error");
    // Operators look at the queue and stop what is in it; they take nothing out.
    shop.api.get(&shop.path("/poll")).await.refused(403, "permission_error");
    let elsewhere = Shop::new().await;
    shop.call(&elsewhere.key, Method::GET, &shop.path("/poll"), "").await.refused(401, "authentication_error");
    let next =
        id(&shop.api.post("/v1/environments", &json!({"name": "e", "config": {"type": "self_hosted"}})).await.ok());
    let path = format!("/v1/environments/{next}/work/poll");
    shop.call(&shop.key, Method::GET, &path, "").await.refused(404, "not_found_error");
}

#[tokio::test]
async fn a_session_that_is_over_takes_its_work_along() {
    let shop = Shop::new().await;
    let session = shop.session(json!({})).await;
    let item = shop.taken().await;
    shop.api.delete(&format!("/v1/sessions/{session}")).await.ok();
    shop.api.get(&shop.path(&format!("/{}", item.id))).await.refused(404, "not_found_error");
    let tokens = shop.api.app.catalog.rows::<TokenRow>(store::KeyRange::all(), store::Direction::Forward, 9).await;
    assert!(tokens.unwrap().is_empty());

    let session = shop.session(json!({})).await;
    let item = shop.taken().await;
    let mut story = Story::of(&shop.api.engine, &session);
    let path = format!("/v1/sessions/{session}/archive");
    let archived = tokio::join!(shop.api.act(&path), async {
        shop.api.engine.signaled(&session, domain::session::signal::CLOSE, 1).await;
        story.terminate();
    });
    archived.0.ok();
    assert_eq!(shop.state(&item).await, "stopped");
    assert_eq!(shop.poll().await, Value::Null);
}

#[tokio::test]
async fn keys_of_an_environment_are_listed_and_revoked_there_alone() {
    let shop = Shop::new().await;
    let path = format!("/v1/steadyhand/environments/{}/keys", shop.environment);
    shop.poll().await;
    let listed = shop.api.get(&path).await.ok()["data"].clone();
    assert_eq!(listed[0]["name"], "worker");
    assert!(listed[0]["last_used_at"].is_string() && listed[0].get("key").is_none());
    assert_eq!(shop.api.get("/v1/steadyhand/api_keys").await.ok()["data"], json!([]));
    let key_id = id(&listed[0]);
    shop.api.act(&format!("/v1/steadyhand/api_keys/{key_id}/revoke")).await.refused(404, "not_found_error");
    assert!(shop.api.act(&format!("{path}/{key_id}/revoke")).await.ok()["revoked_at"].is_string());
    shop.call(&shop.key, Method::GET, &shop.path("/poll"), "").await.refused(401, "authentication_error");
    let cloud = id(&shop.api.post("/v1/environments", &json!({"name": "e"})).await.ok());
    let path = format!("/v1/steadyhand/environments/{cloud}/keys");
    shop.api.post(&path, &json!({"name": "worker"})).await.invalid();
}

#[tokio::test]
async fn a_poll_waits_for_work_and_no_longer_than_it_says() {
    let shop = Shop::new().await;
    let path = shop.path("/poll?block_ms=999");
    let (polled, session) = tokio::join!(shop.call(&shop.key, Method::GET, &path, ""), shop.session(json!({})));
    assert_eq!(Item::of(&polled.ok()).session, session);
    assert_eq!(shop.call(&shop.key, Method::GET, &shop.path("/poll?block_ms=1"), "").await.ok(), Value::Null);
    for wrong in ["block_ms=0", "block_ms=1000", "reclaim_older_than_ms=-1"] {
        shop.call(&shop.key, Method::GET, &shop.path(&format!("/poll?{wrong}")), "").await.invalid();
    }
}

#[tokio::test]
async fn metadata_of_an_item_is_patched() {
    let shop = Shop::new().await;
    shop.session(json!({})).await;
    let item = shop.taken().await;
    let path = shop.path(&format!("/{}", item.id));
    shop.api.post(&path, &json!({"metadata": {"a": "1", "b": "2"}})).await.ok();
    let work = shop.api.post(&path, &json!({"metadata": {"a": null}})).await.ok();
    assert_eq!(work["metadata"], json!({"b": "2"}));
    shop.api.post(&path, &json!({"state": "stopped"})).await.invalid();
}

#[tokio::test]
async fn work_that_a_killed_service_did_not_come_to_ask_for_is_made_up_for() {
    let shop = Shop::new().await;
    let (_, _) = shop.calling().await;
    let item = shop.taken().await;
    // As if the request before had been taken and its item had not.
    use crate::resources::environments::work::queue;
    queue::forget(&shop.api.app, &item.session).await.unwrap();
    assert_eq!(shop.poll().await, Value::Null);
    crate::catch_up(&shop.api.app, jiff::Timestamp::MAX).await.unwrap();
    assert_eq!(shop.taken().await.session, item.session);
}
