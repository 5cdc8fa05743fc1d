//! Sessions: made, shown, listed, changed, ended.

use std::time::Duration;

use axum::body::Body;
use domain::HandName;
use domain::Take;
use domain::commit::PrivateEntry;
use domain::session::signal;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use temporalio_client::tonic::Status;
use temporalio_common::protos::temporal::api::common::v1::ActivityType;
use temporalio_common::protos::temporal::api::enums::v1::PendingActivityState;
use temporalio_common::protos::temporal::api::workflow::v1::PendingActivityInfo;

use super::events::{begun, ids, send, user};
use super::files::upload;
use super::{Api, id, request};
use crate::resources::sessions::catch_up::catch_up;
use crate::resources::sessions::row::SessionRow;

impl Api {
    /// An agent and an environment for sessions.
    pub(super) async fn ground(&self) -> (String, String) {
        let agent = self.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok();
        let environment = self.post("/v1/environments", &json!({"name": "e"})).await.ok();
        (id(&agent), id(&environment))
    }

    pub(super) async fn session(&self, with: Value) -> Value {
        let (agent, environment) = self.ground().await;
        let mut body = json!({"agent": agent, "environment_id": environment});
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        self.post("/v1/sessions", &body).await.ok()
    }

    async fn row(&self, id: &str) -> Option<SessionRow> {
        self.app.catalog.row::<SessionRow>(id).await.unwrap().map(|read| read.row)
    }

    async fn listed(&self, query: &str) -> Vec<String> {
        ids(&self.get(&format!("/v1/sessions?{query}")).await.ok())
    }
}

#[tokio::test]
async fn a_session_without_events_is_idle() {
    let api = Api::new().await;
    let session = api.session(json!({"title": "t", "metadata": {"k": "v"}})).await;
    let time = session["created_at"].clone();
    assert_eq!(
        session,
        json!({"id": session["id"], "type": "session", "status": "idle", "title": "t", "metadata": {"k": "v"},
            "agent": session["agent"], "environment_id": session["environment_id"], "deployment_id": null,
            "vault_ids": [], "resources": [], "budget": null, "outcome_evaluations": [],
            "stats": {"active_seconds": 0.0, "duration_seconds": 0.0},
            "usage": {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}},
            "created_at": time, "updated_at": time, "archived_at": null})
    );
    assert_eq!(session["agent"]["name"], "a");
    assert_eq!(session["agent"].get("created_at"), None);
    let path = format!("/v1/sessions/{}", id(&session));
    assert_eq!(api.get(&path).await.ok(), session);
    let list = api.get("/v1/sessions").await.ok();
    assert_eq!(list, json!({"data": [session], "next_page": null, "prev_page": null}));
    assert_eq!(api.get(&format!("{path}/events")).await.ok(), json!({"data": [], "next_page": null}));
}

#[tokio::test]
async fn initial_events_start_it_running() {
    let api = Api::new().await;
    let session = api.session(json!({"initial_events": [user("one"), user("two")]})).await;
    assert_eq!(session["status"], "running");
    let events = api.get(&format!("/v1/sessions/{}/events", id(&session))).await.ok();
    assert_eq!(events["data"][1]["content"][0]["text"], "two");
    let input = serde_json::to_value(api.engine.input(&id(&session))).unwrap();
    assert_eq!(input["events"].as_array().unwrap().len(), 2);
    assert_eq!(input["attributes"]["agent"]["window_tokens"], 200_000);
    assert_eq!(input["attributes"]["agent"]["max_tokens"], 32_000);
    assert_eq!(input["harness"]["name"], "loop");
}

#[tokio::test]
async fn what_cannot_be_made_leaves_nothing() {
    let api = Api::new().await;
    let (agent, environment) = api.ground().await;
    let confirmation = json!({"type": "user.tool_confirmation", "tool_use_id": "x", "result": "allow"});
    for (with, status) in [
        (json!({"agent": "agent_unknown"}), 404),
        (json!({"agent": {"type": "agent", "id": agent, "version": 9}}), 404),
        (json!({"agent": {"type": "agent_with_overrides", "id": agent, "model": null}}), 400),
        (json!({"environment_id": "env_unknown"}), 404),
        (json!({"initial_events": [user("fine"), confirmation]}), 400),
        (json!({"initial_events": vec![user("x"); 51]}), 400),
        (json!({"initial_events": [user(" ")]}), 400),
        (json!({"metadata": {"k": "v".repeat(513)}}), 400),
        (json!({"title": "t".repeat(3000)}), 400),
        (json!({"vault_ids": vec!["vlt_1"; 51]}), 400),
        (json!({"resources": [{"type": "file", "file_id": "file_unknown"}]}), 404),
        (json!({"resources": [{"type": "github_repository", "url": "https://github.com/a/b"}]}), 503),
        (json!({"budget": {"type": "limit", "max_list_cost": {"amount": "1", "currency": "USD"}}}), 501),
        (json!({"surprise": 1}), 400),
    ] {
        let mut body = json!({"agent": agent, "environment_id": environment});
        body.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
        let answer = api.post("/v1/sessions", &body).await;
        assert_eq!(answer.status, status, "{with}: {}", answer.json());
    }
    api.act(&format!("/v1/environments/{environment}/archive")).await.ok();
    api.post("/v1/sessions", &json!({"agent": agent, "environment_id": environment})).await.invalid();
    assert!(api.engine.sessions().is_empty());
    assert!(api.listed("").await.is_empty());
}

#[tokio::test]
async fn agents_come_by_id_by_version_and_with_overrides() {
    let api = Api::new().await;
    let agent = id(&api.post("/v1/agents", &json!({"name": "a", "model": "m", "system": "one"})).await.ok());
    api.post(&format!("/v1/agents/{agent}"), &json!({"system": "two"})).await.ok();
    let overrides = json!({"type": "agent_with_overrides", "id": agent, "system": "three"});
    let mut made = Vec::new();
    for (param, version, system) in [
        (json!(agent), 2, "two"),
        (json!({"type": "agent", "id": agent, "version": 1}), 1, "one"),
        (overrides, 2, "three"),
    ] {
        let session = api.session(json!({"agent": param})).await;
        assert_eq!(session["agent"]["id"], json!(agent));
        assert_eq!((&session["agent"]["system"], &session["agent"]["version"]), (&json!(system), &json!(version)));
        made.push(session);
    }
    // What becomes of the agent later is nothing to them, and they are nothing to the agent.
    let updated = api.post(&format!("/v1/agents/{agent}"), &json!({"system": "four"})).await.ok();
    assert_eq!(updated["version"], 3);
    for session in made {
        assert_eq!(api.get(&format!("/v1/sessions/{}", id(&session))).await.ok(), session);
    }
}

#[tokio::test]
async fn what_is_sent_is_listed_and_the_session_runs() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let sent = api.post(&path, &json!({"events": [user("hi")]})).await.ok();
    assert_eq!(sent["data"][0]["processed_at"], Value::Null);
    assert_eq!(api.get(&path).await.ok()["data"], sent["data"]);
    let session = path.trim_end_matches("/events");
    assert_eq!(api.get(session).await.ok()["status"], "running");
    assert_eq!(api.listed("statuses[]=running").await.len(), 1);
    story.turn(&[&id(&sent["data"][0])], "hello");
    assert_eq!(api.get(session).await.ok()["status"], "idle");
    assert!(api.listed("statuses[]=running").await.is_empty());
    assert_eq!(api.listed("statuses[]=idle&statuses[]=terminated").await.len(), 1);
}

#[tokio::test]
async fn lists_filter_and_turn_both_ways() {
    let api = Api::new().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(id(&api.session(json!({"title": n.to_string()})).await));
        api.clock.advance(SignedDuration::from_secs(10));
    }
    made.reverse();
    assert_eq!(api.listed("").await, made);
    let mut oldest_first = made.clone();
    oldest_first.reverse();
    assert_eq!(api.listed("order=asc").await, oldest_first);
    let third = api.get(&format!("/v1/sessions/{}", made[2])).await.ok();
    let agent = third["agent"]["id"].as_str().unwrap();
    for (query, expected) in [
        (format!("agent_id={agent}"), &made[2..3]),
        (format!("agent_id={agent}&agent_version=1"), &made[2..3]),
        (format!("agent_id={agent}&agent_version=2"), &made[..0]),
        (format!("created_at[gt]={}", third["created_at"].as_str().unwrap()), &made[..2]),
        (format!("created_at[lte]={}", third["created_at"].as_str().unwrap()), &made[2..]),
        ("statuses[]=terminated".to_owned(), &made[..0]),
        ("deployment_id=depl_1".to_owned(), &made[..0]),
    ] {
        assert_eq!(api.listed(&query).await, expected, "{query}");
    }
    for wrong in ["statuses[]=asleep", "agent_version=1", "limit=101", "order=new"] {
        api.get(&format!("/v1/sessions?{wrong}")).await.invalid();
    }
    let (mut there, mut page) = (Vec::new(), api.get("/v1/sessions?limit=1").await.ok());
    assert_eq!(page["prev_page"], Value::Null);
    loop {
        there.extend(ids(&page));
        let Some(next) = page["next_page"].as_str() else { break };
        page = api.get(&format!("/v1/sessions?limit=1&page={next}")).await.ok();
    }
    assert_eq!(there, made);
    let mut back = ids(&page);
    while let Some(prev) = page["prev_page"].as_str() {
        page = api.get(&format!("/v1/sessions?limit=1&page={prev}")).await.ok();
        back.extend(ids(&page));
    }
    back.reverse();
    assert_eq!(back, made);
}

#[tokio::test]
async fn an_update_is_shown_as_accepted_and_sent_as_changed() {
    let api = Api::new().await;
    let (mut story, events) = begun(&api, json!({"title": "old", "metadata": {"a": "1", "b": "2"}})).await;
    let path = events.trim_end_matches("/events");
    let update = json!({"title": "new", "metadata": {"a": null, "c": "3"}});
    let updated = api.post(path, &update).await.ok();
    assert_eq!((&updated["title"], &updated["metadata"]), (&json!("new"), &json!({"b": "2", "c": "3"})));
    assert_eq!(api.get(path).await.ok(), updated, "though nobody took it up yet");
    api.post(path, &update).await.ok();
    api.post(path, &json!({})).await.ok();
    let changes = api.engine.signals(&story.session_id, signal::CHANGE);
    assert_eq!(changes.len(), 1, "what changes nothing is not sent");
    let change = &changes[0];
    assert_eq!(change, &json!({"id": change["id"], "title": "new", "metadata": {"b": "2", "c": "3"}}));
    let tools = json!({"agent": {"tools": [{"type": "agent_toolset_20260401"}]}});
    let updated = api.post(path, &tools).await.ok();
    assert_eq!(updated["agent"]["tools"][0]["type"], "agent_toolset_20260401");
    for wrong in [
        json!({"vault_ids": []}),
        json!({"budget": null}),
        json!({"metadata": null}),
        json!({"agent": null}),
        json!({"agent": {"system": "x"}}),
        json!({"environment_id": "env_1"}),
    ] {
        api.post(path, &wrong).await.invalid();
    }
    let sent = send(&api, &events, &[user("hi")]).await;
    let message = api.post(path, &json!({"agent": {"tools": []}})).await.invalid();
    assert!(message.contains("running"), "{message}");
    assert_eq!(api.post(path, &json!({"title": null})).await.ok()["title"], Value::Null);
    let changes = api.engine.signals(&story.session_id, signal::CHANGE);
    story.commit(
        changes
            .iter()
            .map(|change| Take::Private { entry: PrivateEntry::Changed { id: id(change), dropped: false } })
            .collect(),
    );
    story.turn(&[&sent[0]], "hello");
    assert_eq!(api.get(path).await.ok()["agent"]["tools"], updated["agent"]["tools"]);
}

#[tokio::test]
async fn an_archived_session_is_over_and_kept() {
    let api = Api::new().await;
    let (mut story, events) = begun(&api, json!({})).await;
    let path = events.trim_end_matches("/events").to_owned();
    let sent = send(&api, &events, &[user("hi")]).await;
    story.begin(&[&sent[0]]);
    api.act(&format!("{path}/archive")).await.invalid();
    assert!(api.engine.signals(&story.session_id, signal::CLOSE).is_empty());
    story.answer(vec![]);
    story.idle(domain::event::StopReason::EndTurn {});
    let engine = api.engine.clone();
    let ended = tokio::spawn(async move {
        engine.signaled(&story.session_id, signal::CLOSE, 1).await;
        story.terminate();
    });
    let archived = api.act(&format!("{path}/archive")).await.ok();
    ended.await.unwrap();
    assert_eq!(archived["status"], "terminated");
    assert!(archived["archived_at"].is_string());
    assert_eq!(api.act(&format!("{path}/archive")).await.ok(), archived);
    assert_eq!(api.get(&path).await.ok(), archived);
    assert_eq!(api.get(&events).await.ok()["data"].as_array().unwrap().len(), 7);
    api.post(&events, &json!({"events": [user("more")]})).await.invalid();
    api.post(&path, &json!({"title": "x"})).await.invalid();
    assert!(api.listed("").await.is_empty());
    assert_eq!(api.listed("include_archived=true&statuses[]=terminated").await.len(), 1);
}

#[tokio::test]
async fn a_deleted_session_leaves_nothing() {
    let api = Api::new().await;
    let (mut story, events) = begun(&api, json!({})).await;
    let path = events.trim_end_matches("/events");
    let sent = send(&api, &events, &[user(&"long ".repeat(20_000))]).await;
    story.begin(&[&sent[0]]);
    api.delete(path).await.invalid();
    story.answer(vec![]);
    story.idle(domain::event::StopReason::EndTurn {});
    assert_eq!(api.delete(path).await.ok(), json!({"id": story.session_id, "type": "session_deleted"}));
    for gone in [path, &events, &format!("{path}/threads"), &format!("{path}/why")] {
        api.get(gone).await.refused(404, "not_found_error");
    }
    api.delete(path).await.refused(404, "not_found_error");
    assert!(api.engine.sessions().is_empty());
    assert!(api.row(&story.session_id).await.is_none());
    let now = api.app.clock.now();
    let problems = crate::verify::verify(&api.app.catalog, &*api.app.blobs, now).await.unwrap().problems;
    assert_eq!(problems, Vec::<String>::new());
    let later = now + SignedDuration::from_hours(24 * 365);
    let swept = crate::sweep::sweep(&*api.app.catalog, &*api.app.blobs, later, Default::default()).await.unwrap();
    assert_eq!(swept.blobs, 2, "the agent's snapshot and the long message");
}

#[tokio::test]
async fn an_engine_that_cannot_be_reached_is_said_and_costs_nothing() {
    let api = Api::new().await;
    let (_, events) = begun(&api, json!({})).await;
    let path = events.trim_end_matches("/events");
    api.engine.fail("SignalWorkflowExecution", Status::unavailable("down"));
    api.post(&events, &json!({"events": [user("hi")]})).await.refused(503, "api_error");
    api.engine.recover();
    assert!(ids(&api.get(&events).await.ok()).is_empty());
    api.engine.fail("SignalWorkflowExecution", Status::resource_exhausted("too many"));
    api.post(&events, &json!({"events": [user("hi")]})).await.refused(429, "rate_limit_error");
    api.engine.fail("GetWorkflowExecutionHistoryReverse", Status::unavailable("down"));
    api.get(path).await.refused(503, "api_error");
    api.engine.recover();
    api.engine.fail("StartWorkflowExecution", Status::internal("broken"));
    let (agent, environment) = api.ground().await;
    let body = json!({"agent": agent, "environment_id": environment});
    api.post("/v1/sessions", &body).await.refused(500, "api_error");
    assert_eq!(api.listed("").await.len(), 1);
}

#[tokio::test]
async fn a_new_service_finishes_what_the_last_one_began() {
    let api = Api::new().await;
    // Started, and nobody wrote that it was.
    let (mut story, events) = begun(&api, json!({})).await;
    // Reserved, and never started.
    api.engine.fail("StartWorkflowExecution", Status::unavailable("down"));
    let (agent, environment) = api.ground().await;
    let body = json!({"agent": agent, "environment_id": environment});
    api.post("/v1/sessions", &body).await.refused(503, "api_error");
    api.engine.recover();
    let change = async |id: &str, change: &dyn Fn(&mut SessionRow)| {
        let read = api.app.catalog.row::<SessionRow>(id).await.unwrap().unwrap();
        let mut row = read.row.clone();
        change(&mut row);
        let batch = store::Batch::new().replace(&read, &row);
        api.app.catalog.write(batch, store::Durability::Synced).await.unwrap();
    };
    change(&story.session_id, &|row| {
        row.started = false;
        row.projection = None;
    })
    .await;
    // Deleted, and never erased.
    let deleted = id(&api.session(json!({})).await);
    change(&deleted, &|row| row.deleted = true).await;
    assert!(api.listed("").await.is_empty());

    catch_up(&api.app, Timestamp::MAX).await.unwrap();
    assert_eq!(api.listed("").await, [story.session_id.clone()]);
    assert_eq!(api.engine.sessions(), [story.session_id.clone()]);
    assert!(api.row(&deleted).await.is_none());

    // Something was accepted, and the service died before it was taken up.
    let sent = send(&api, &events, &[user("hi")]).await;
    assert!(api.row(&story.session_id).await.unwrap().projection.unwrap().open);
    story.turn(&[&sent[0]], "hello");
    catch_up(&api.app, Timestamp::MAX).await.unwrap();
    assert_eq!(api.listed("statuses[]=idle").await.len(), 1);
    assert!(!api.row(&story.session_id).await.unwrap().projection.unwrap().open);
}

#[tokio::test]
async fn a_retried_creation_makes_one_session() {
    let api = Api::new().await;
    let (agent, environment) = api.ground().await;
    let body = json!({"agent": agent, "environment_id": environment, "initial_events": [user("once")]}).to_string();
    let create = |headers: &[(&str, &str)]| {
        let mut create = request(Method::POST, "/v1/sessions");
        for (name, value) in headers {
            create = create.header(*name, *value);
        }
        create.body(Body::from(body.clone())).unwrap()
    };
    let retry = [("x-stainless-retry-count", "1")];
    drop(api.open(create(&[])).await);
    let made = api.listed("").await;
    assert_eq!(id(&api.send(create(&retry)).await.ok()), made[0]);
    assert_eq!(api.engine.sessions(), made);
    assert_ne!(id(&api.send(create(&retry)).await.ok()), made[0], "that answer was read");

    // The engine took it, and the api never heard.
    api.engine.lose_answers("StartWorkflowExecution");
    let key = [("idempotency-key", "k")];
    api.send(create(&key)).await.refused(503, "api_error");
    api.engine.recover();
    let (before, started) = (api.listed("").await, api.engine.sessions());
    assert_eq!((before.len(), started.len()), (2, 3));
    let third = id(&api.send(create(&key)).await.ok());
    assert!(started.contains(&third) && !before.contains(&third));
    assert_eq!(api.engine.sessions(), started);
}

#[tokio::test]
async fn a_log_that_was_used_lately_is_not_read_again() {
    let api = Api::new().await;
    let (mut story, events) = begun(&api, json!({})).await;
    for n in 0..3 {
        let sent = send(&api, &events, &[user(&n.to_string())]).await;
        story.turn(&[&sent[0]], "hello");
        api.get(&events).await.ok();
    }
    assert_eq!(api.engine.calls("DescribeWorkflowExecution"), 1);
}

#[tokio::test]
async fn files_of_a_session_come_and_go() {
    let api = Api::new().await;
    let file = id(&upload(&api, &[("name=\"file\"; filename=\"data.csv\"", b"a,b")]).await.ok());
    let resource = json!({"type": "file", "file_id": file, "mount_path": "/data.csv"});
    let bundle = json!({"type": "git_bundle", "file_id": file});
    let (story, events) = begun(&api, json!({"resources": [resource, bundle]})).await;
    let path = format!("{}/resources", events.trim_end_matches("/events"));
    let list = api.get(&path).await.ok();
    let first = list["data"][0].clone();
    assert_eq!(first["mount_path"], "/mnt/session/uploads/data.csv");
    assert_ne!(first["file_id"], json!(file), "the session has a copy of its own");
    assert_eq!(list["data"][1]["mount_path"], "/workspace");
    let scoped = async || ids(&api.get(&format!("/v1/files?scope_id={}", story.session_id)).await.ok());
    assert_eq!(scoped().await, [first["file_id"].as_str().unwrap()]);
    assert_eq!(api.get(&format!("{path}/{}", id(&first))).await.ok(), first);
    let added = api.post(&path, &json!({"type": "file", "file_id": file})).await.ok();
    assert_eq!(added["mount_path"], format!("/mnt/session/uploads/{file}"));
    assert_eq!(api.get(&path).await.ok()["data"].as_array().unwrap().len(), 3);
    api.post(&path, &json!({"type": "file", "file_id": file})).await.invalid();
    api.post(&path, &bundle).await.invalid();
    api.post(&format!("{path}/{}", id(&first)), &json!({"authorization_token": "t"})).await.invalid();
    let removed = api.delete(&format!("{path}/{}", id(&first))).await.ok();
    assert_eq!(removed, json!({"id": id(&first), "type": "session_resource_deleted"}));
    assert_eq!(scoped().await, [added["file_id"].as_str().unwrap()]);
    api.delete(&format!("{path}/{}", id(&first))).await.refused(404, "not_found_error");
    api.delete(&format!("/v1/sessions/{}", story.session_id)).await.ok();
    assert!(scoped().await.is_empty());
}

/// A server shows a signal that comes while a workflow task is worked on only when that has ended.
#[tokio::test]
async fn a_change_is_answered_once_the_log_shows_it_and_the_next_one_builds_on_it() {
    let api = Api::new().await;
    let (_story, events) = begun(&api, json!({})).await;
    let path = events.trim_end_matches("/events");
    api.engine.hold_signals();
    let (one, two) = (json!({"metadata": {"one": "1"}}), json!({"metadata": {"two": "2"}}));
    let (mut first, second) = (Box::pin(api.post(path, &one)), api.post(path, &two));
    tokio::select! {
        answer = &mut first => panic!("answered and shown nowhere: {}", answer.json()),
        () = api.engine.held(1) => {}
    }
    let early = tokio::time::timeout(Duration::from_millis(100), &mut first).await;
    assert!(early.is_err(), "answered and shown nowhere");
    api.engine.show_signals();
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.ok()["metadata"], json!({"one": "1"}));
    assert_eq!(second.ok()["metadata"], json!({"one": "1", "two": "2"}));
    assert_eq!(api.get(path).await.ok()["metadata"], json!({"one": "1", "two": "2"}));
}

#[tokio::test]
async fn what_a_session_leaves_becomes_files_and_a_diff() {
    let api = Api::new().await;
    let (mut story, events) = begun(&api, json!({})).await;
    let path = events.trim_end_matches("/events").to_owned();
    api.get(&format!("{path}/diff")).await.refused(404, "not_found_error");
    let put = async |text: &str| log::blobs::put(&*api.app.blobs, text.as_bytes().to_vec().into()).await.unwrap();
    let listing = async |files: &[(&str, &str)]| {
        let mut outputs = Vec::new();
        for (path, text) in files {
            outputs.push(json!({"path": path, "blob": put(text).await}));
        }
        log::blobs::put_json(&*api.app.blobs, &outputs).await.unwrap()
    };
    let first = listing(&[("report.md", "# one"), ("charts/a.png", "png"), ("diff", "--- a")]).await;
    story.commit(vec![Take::Private { entry: PrivateEntry::Outputs { listing: first, name: HandName::default() } }]);
    api.get(&path).await.ok();
    let files = async || api.get(&format!("/v1/files?scope_id={}", story_id(&path))).await.ok()["data"].clone();
    let names = |files: &Value| {
        let mut names: Vec<_> = files
            .as_array()
            .unwrap()
            .iter()
            .map(|file| format!("{} {}", file["filename"].as_str().unwrap(), file["mime_type"].as_str().unwrap()))
            .collect();
        names.sort();
        names
    };
    let found = files().await;
    assert_eq!(names(&found), ["a.png image/png", "report.md text/markdown"]);
    let answer = api.get(&format!("{path}/diff")).await;
    assert_eq!(answer.body, b"--- a");
    // Another hand has another one.
    api.get(&format!("{path}/diff?hand=build")).await.refused(404, "not_found_error");
    let theirs = listing(&[("diff", "--- b")]).await;
    let build = HandName::other("build").unwrap();
    story.commit(vec![Take::Private { entry: PrivateEntry::Outputs { listing: theirs, name: build } }]);
    for (hand, diff) in [("build", "--- b"), ("main", "--- a")] {
        assert_eq!(api.get(&format!("{path}/diff?hand={hand}")).await.body, diff.as_bytes());
    }
    assert!(api.get(&format!("{path}/diff?hand=../x")).await.invalid().contains("is not the name of a hand"));
    let second = listing(&[("report.md", "# two"), ("charts/a.png", "png")]).await;
    story.commit(vec![Take::Private { entry: PrivateEntry::Outputs { listing: second, name: HandName::default() } }]);
    api.get(&path).await.ok();
    let found = files().await;
    assert_eq!(names(&found), ["a.png image/png", "report.md text/markdown"]);
    let report = found.as_array().unwrap().iter().find(|file| file["filename"] == "report.md").unwrap();
    assert_eq!(api.get(&format!("/v1/files/{}/content", id(report))).await.body, b"# two");
}

#[tokio::test]
async fn a_self_hosted_environment_takes_no_agent_with_several_hands() {
    let api = Api::new().await;
    let config = json!({"name": "e", "config": {"type": "self_hosted"}});
    let (theirs, here) = (
        id(&api.post("/v1/environments", &config).await.ok()),
        id(&api.post("/v1/environments", &json!({"name": "here"})).await.ok()),
    );
    let tools = json!([{"type": "agent_toolset_20260401"}, {"type": "hand", "name": "build"}]);
    let agent = async |tools: Value| {
        id(&api.post("/v1/agents", &json!({"name": "a", "model": "m", "tools": tools})).await.ok())
    };
    let (one, several) = (agent(json!([tools[0]])).await, agent(tools.clone()).await);
    let session = |agent: &str, environment: &str| json!({"agent": agent, "environment_id": environment});
    let said = api.post("/v1/sessions", &session(&several, &theirs)).await.invalid();
    assert!(said.contains("hand build") && said.contains("where its workers are"), "{said}");
    // Nor a session that is there already, nor a fork that goes there.
    let made = id(&api.post("/v1/sessions", &session(&one, &theirs)).await.ok());
    let said = api.post(&format!("/v1/sessions/{made}"), &json!({"agent": {"tools": tools}})).await.invalid();
    assert!(said.contains("where its workers are"), "{said}");
    let parent = id(&api.post("/v1/sessions", &session(&several, &here)).await.ok());
    let fork = format!("/v1/sessions/{parent}/fork");
    let said = api.post(&fork, &json!({"environment_id": theirs})).await.invalid();
    assert!(said.contains("where its workers are"), "{said}");
    api.post(&fork, &json!({})).await.ok();
}

fn story_id(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

#[tokio::test]
async fn the_log_shows_private_entries_page_by_page() {
    let api = Api::new().await;
    let (mut story, events) = begun(&api, json!({})).await;
    let path = format!("{}/log", events.trim_end_matches("/events"));
    let sent = send(&api, &events, &[user("hi")]).await;
    story.turn(&[&sent[0]], "hello");
    for _ in 0..3 {
        story.commit(vec![Take::Private { entry: PrivateEntry::Resumed {} }]);
    }
    let second = send(&api, &events, &[user("more")]).await;
    story.turn(&[&second[0]], "again");
    for limit in [1, 2, 100] {
        let (mut seen, mut page) = (Vec::new(), String::new());
        loop {
            let list = api.get(&format!("{path}?limit={limit}{page}")).await.ok();
            seen.extend(list["data"].as_array().unwrap().iter().map(|one| one["commit"]["n"].as_u64().unwrap()));
            match list["next_page"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => break,
            }
        }
        assert_eq!(seen, (0..9).collect::<Vec<_>>(), "{limit} a page");
    }
}

#[tokio::test]
async fn a_session_says_what_it_waits_for() {
    let api = Api::new().await;
    let (mut story, events) = begun(&api, json!({})).await;
    let path = format!("{}/why", events.trim_end_matches("/events"));
    let why = async || {
        let why = api.get(&path).await.ok();
        (why["waiting_for"].as_str().unwrap().to_owned(), why["evidence"].to_string(), why["next"].clone())
    };
    assert_eq!(why().await.0, "nothing");
    let sent = send(&api, &events, &[user("hi")]).await;
    let (part, evidence, next) = why().await;
    assert_eq!((part.as_str(), next), ("brain_worker", json!("start a brain worker")));
    assert!(evidence.contains("0 workers poll queue brain"), "{evidence}");
    story.begin(&[&sent[0]]);
    let pending = |name: &str, state: PendingActivityState| PendingActivityInfo {
        activity_id: format!("{name}-1"),
        activity_type: Some(ActivityType { name: name.to_owned() }),
        state: state as i32,
        attempt: 3,
        ..Default::default()
    };
    for (activity, expected) in [
        (pending("call_model", PendingActivityState::Started), "model"),
        (pending("call_model", PendingActivityState::Scheduled), "brain_worker"),
        (pending("execute", PendingActivityState::Started), "hand"),
        (pending("provision", PendingActivityState::Scheduled), "hand"),
        (pending("list_tools", PendingActivityState::Started), "hand"),
        (pending("call_mcp", PendingActivityState::Scheduled), "hand"),
        (pending("seal", PendingActivityState::Started), "brain_worker"),
    ] {
        let name = activity.activity_id.clone();
        api.engine.set_pending(vec![activity]);
        let (part, evidence, _) = why().await;
        assert_eq!(part, expected, "{name}");
        assert!(evidence.contains(&name) && evidence.contains("attempt 3"), "{evidence}");
    }
    api.engine.set_pending(Vec::new());
    api.engine.set_pollers("brain", 2);
    let calls = story.answer(vec![super::story::custom()]);
    story.idle(domain::event::StopReason::RequiresAction { event_ids: calls.clone() });
    let (part, evidence, _) = why().await;
    assert_eq!(part, "you");
    assert!(evidence.contains(&calls[0]), "{evidence}");
}
