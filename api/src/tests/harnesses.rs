//! Harnesses: listed, added, held, removed; swaps; replay and context out of the log.

use domain::Time;
use domain::session::{Origin, signal};
use harness::{Intake, SessionState, Waiting, frame, registry};
use http::Method;
use serde_json::{Value, json};

use store::Digest;

use super::events::user;
use super::{Api, id};
use crate::resources::sessions::row;

const PATIENT: &[u8] = include_bytes!("../../../examples/harness-rust/patient.wasm");

impl Api {
    async fn add(&self, module: &'static [u8]) -> super::Answer {
        self.call(Method::POST, "/v1/harnesses", module).await
    }

    /// Lets the session's harness make the first decision, as its workflow would.
    pub(super) fn decide(&self, session_id: &str) {
        let input = self.engine.input(session_id);
        let Origin::Created { created_at, attributes, harness, events } = input.from else { panic!("a first run") };
        let state = SessionState::created(session_id, created_at, attributes, harness.clone());
        let waiting = events.into_iter().map(|event| Waiting::of(&domain::session::Mail::Event { event }));
        let intake = Intake { now: Time::from_ms(5), mail: waiting.collect(), closed: Vec::new() };
        let mut native = registry::find(&harness).expect("a harness of this build");
        self.engine.commit(session_id, &frame::decide(&state, &intake, &mut native));
    }
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|harness| harness["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_module_is_added_held_and_removed() {
    let api = Api::new().await;
    let native = api.get("/v1/harnesses").await.ok();
    assert_eq!(ids(&native), ["loop@1", "loop@2", "plan-act@1"]);
    assert_eq!(native["data"][0]["is_default"], true);
    assert_eq!(native["data"][1]["shims"].as_array().unwrap().len(), 6);

    let added = api.add(PATIENT).await.ok();
    assert_eq!((&added["id"], &added["form"]), (&json!("patient@1"), &json!("wasm")));
    assert_eq!(added["sha256"], domain::ids::content_hash(PATIENT));
    assert_eq!(api.add(PATIENT).await.ok(), added, "adding it again changes nothing");
    assert_eq!(ids(&api.get("/v1/harnesses").await.ok()).last(), Some(&"patient@1"));

    let session = api.session(json!({"harness": "patient"})).await;
    assert_eq!(serde_json::to_value(api.engine.input(&id(&session))).unwrap()["harness"]["name"], "patient");
    let referred = row::referred(&*api.app.catalog, &id(&session), 100).await.unwrap();
    assert!(referred.contains(&Digest::of(PATIENT)), "the session keeps the module, also if it is removed meanwhile");
    let shown = api.get("/v1/harnesses/patient@1").await.ok();
    assert_eq!((&shown["sessions"], &shown["session_ids"]), (&json!(1), &json!([id(&session)])));
    let held = api.delete("/v1/harnesses/patient@1").await.refused(409, "conflict_error");
    assert_eq!(held, "1 sessions hold patient@1: swap them to another first");
    api.delete(&format!("/v1/sessions/{}", id(&session))).await.ok();
    let hash = added["sha256"].as_str().unwrap();
    api.delete(&format!("/v1/harnesses/{hash}")).await.ok();
    api.get("/v1/harnesses/patient").await.refused(404, "not_found_error");
    let unknown = api.delete("/v1/harnesses/loop@1").await.invalid();
    assert_eq!(unknown, "a harness of this build cannot be removed");
}

#[tokio::test]
async fn what_is_no_harness_is_refused() {
    let api = Api::new().await;
    let why = api.add(b"#!/bin/sh").await.invalid();
    assert!(why.starts_with("the module is no harness: no WebAssembly core module"), "{why}");
    let large = vec![0; domain::limits::HARNESS_MODULE_BYTES_MAX + 1];
    api.call(Method::POST, "/v1/harnesses", large).await.refused(413, "request_too_large");
    let (agent, environment) = api.ground().await;
    let with = |name: &str, value: Value| {
        let mut body = json!({"agent": agent, "environment_id": environment});
        body[name] = value;
        body
    };
    let why = api.post("/v1/sessions", &with("harness", json!("magic@1"))).await.invalid();
    assert_eq!(why, "harness: there is no magic@1");
    let why = api.post("/v1/sessions", &with("strategy", json!({"name": "magic", "version": 1}))).await.invalid();
    assert!(why.starts_with("strategy: names the context strategy magic@1"), "{why}");
}

#[tokio::test]
async fn forks_and_swaps_hold_the_module_that_they_are_given() {
    let api = Api::new().await;
    api.add(PATIENT).await.ok();
    let (parent, swapped) = (id(&api.session(json!({})).await), id(&api.session(json!({})).await));
    let fork = id(&api.post(&format!("/v1/sessions/{parent}/fork"), &json!({"harness": "patient"})).await.ok());
    api.post(&format!("/v1/sessions/{swapped}/harness"), &json!({"harness": "patient"})).await.ok();
    for (session, holds) in [(&fork, true), (&swapped, true), (&parent, false)] {
        let referred = row::referred(&*api.app.catalog, session, 100).await.unwrap();
        assert_eq!(referred.contains(&Digest::of(PATIENT)), holds, "{session}");
    }
}

#[tokio::test]
async fn a_swap_is_a_signal() {
    let api = Api::new().await;
    let session = id(&api.session(json!({})).await);
    let path = format!("/v1/sessions/{session}/harness");
    let swap = api.post(&path, &json!({"harness": "loop@2"})).await.ok();
    assert_eq!((&swap["from"]["version"], &swap["to"]["version"]), (&json!(1), &json!(2)));
    let signals = api.engine.signals(&session, signal::SWAP);
    assert_eq!(signals[0]["harness"], swap["to"]);
    assert_eq!(signals[0]["id"], swap["id"]);
    api.post(&path, &json!({"harness": "loop@9"})).await.refused(404, "not_found_error");
    api.post("/v1/sessions/sesn_none/harness", &json!({"harness": "loop@2"})).await.refused(404, "not_found_error");
}

#[tokio::test]
async fn a_log_is_replayed_and_its_requests_are_made_again() {
    let api = Api::new().await;
    let session = id(&api.session(json!({"initial_events": [user("the task")]})).await);
    api.decide(&session);
    let path = |what: &str| format!("/v1/sessions/{session}/{what}");
    let own = api.get(&path("replay")).await.ok();
    assert_eq!((&own["identical"], &own["decisions"]), (&json!(true), &json!(1)));
    let other = api.get(&path("replay?harness=plan-act@1")).await.ok();
    assert_eq!(other["identical"], false);
    assert_eq!(other["divergence"]["recorded"]["step"]["step"], "call_model");
    assert_eq!(api.get(&path("recording")).await.ok()["genesis"]["harness"]["name"], "loop");

    let context = api.get(&path("context")).await.ok();
    assert_eq!((&context["turn"], &context["round"], &context["is_as_sent"]), (&json!(1), &json!(1), &Value::Null));
    assert_eq!(context["request"]["messages"][0]["content"][0]["text"], "the task");
    assert_eq!(context["dropped"], json!([]));
    let other = api.get(&path("context?turn=1&strategy=window&params={%22rounds%22:3}")).await.ok();
    assert_eq!(other["strategy"], json!({"name": "window", "version": 1, "params": {"rounds": 3}}));
    let why = api.get(&path("context?turn=7")).await.refused(404, "not_found_error");
    assert_eq!(why, "there is no model request in turn 7: turns with one are 1 to 1");
    let why = api.get(&path("context?turn=1&round=9")).await.refused(404, "not_found_error");
    assert_eq!(why, "turn 1 has no request of that round: rounds are 1 to 1");
    api.get(&path("context?strategy=magic")).await.invalid();
    api.get(&path("context?strategy=window&params={%22rouns%22:3}")).await.invalid();
}

#[tokio::test]
async fn shims_that_changed_nothing_are_named() {
    let api = Api::new().await;
    let none = api.get("/v1/harnesses/loop@2/ablation").await.ok();
    assert_eq!((&none["sessions"], &none["shims"][0]["verdict"]), (&json!(0), &json!("unknown")));
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let session = id(&api.session(json!({"initial_events": [user("the task")]})).await);
        api.decide(&session);
        api.app.session(&session).keep().await.unwrap();
        sessions.push(session);
    }
    let report = api.get("/v1/harnesses/loop@2/ablation?model=m&sessions=2").await.ok();
    assert_eq!((&report["sessions"], &report["unreadable"]), (&json!(2), &json!(0)));
    let shims = report["shims"].as_array().unwrap();
    assert_eq!(shims.len(), 6);
    for shim in shims {
        assert_eq!((&shim["verdict"], &shim["moments"]), (&json!("dead_weight"), &json!(2)), "{shim}");
        let high = shim["share"]["high"].as_f64().unwrap();
        assert!((0.6..0.7).contains(&high), "two sessions say little: {high}");
    }
    assert_eq!(api.get("/v1/harnesses/loop@2/ablation?model=other").await.ok()["sessions"], 0);
    let count = |query: String| {
        let api = &api;
        async move { api.get(&format!("/v1/harnesses/loop@2/ablation?{query}")).await.ok()["sessions"].clone() }
    };
    assert_eq!(count(format!("session_ids[]={}&session_ids[]={}", sessions[0], sessions[2])).await, 2);
    assert_eq!(count(format!("session_ids[]={}&model=other", sessions[0])).await, 0);
    assert_eq!(count("age_s=3600".to_owned()).await, 3);
    assert_eq!(count(format!("age_s={}", u64::MAX)).await, 3);
    api.clock.advance(jiff::SignedDuration::from_secs(7200));
    assert_eq!(count("age_s=3600".to_owned()).await, 0);
    api.get("/v1/harnesses/loop@2/ablation?session_ids[]=sesn_none").await.refused(404, "not_found_error");
    assert_eq!(api.get("/v1/harnesses/loop@1/ablation").await.ok()["shims"], json!([]));
    api.get("/v1/harnesses/loop@2/ablation?sessions=0").await.invalid();
    api.get("/v1/harnesses/none/ablation").await.refused(404, "not_found_error");
}

/// The session's, or the agent's version's, or what every session has.
#[tokio::test]
async fn an_agent_names_the_context_strategy_of_its_sessions() {
    let api = Api::new().await;
    let strategy = |rounds: u32| json!({"name": "window", "version": 1, "params": {"rounds": rounds}});
    let agent = api.post("/v1/agents", &json!({"name": "a", "model": "m", "strategy": strategy(5)})).await.ok();
    assert_eq!(agent["strategy"], strategy(5));
    let held = async |body: Value| {
        let mut body = body;
        body["agent"] = body.get("agent").cloned().unwrap_or(agent["id"].clone());
        let session = api.session(body).await;
        let input = serde_json::to_value(api.engine.input(&id(&session))).unwrap();
        input["attributes"]["agent"]["strategy"].clone()
    };
    assert_eq!(held(json!({})).await, strategy(5));
    assert_eq!(held(json!({"strategy": strategy(2)})).await, strategy(2));
    let path = format!("/v1/agents/{}", id(&agent));
    let updated = api.post(&path, &json!({"strategy": strategy(9)})).await.ok();
    assert_eq!((&updated["version"], held(json!({})).await), (&json!(2), strategy(9)));
    assert_eq!(held(json!({"agent": {"type": "agent", "id": agent["id"], "version": 1}})).await, strategy(5));
    let cleared = api.post(&path, &json!({"strategy": null})).await.ok();
    assert!(cleared.get("strategy").is_none(), "{cleared}");
    assert_eq!(held(json!({})).await, json!(harness::context::default_strategy()));
    let unknown = json!({"strategy": {"name": "window", "version": 7, "params": null}});
    assert!(api.post(&path, &unknown).await.invalid().starts_with("strategy: names "));
}
