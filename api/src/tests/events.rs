//! Sending and listing events over histories told by hand.

use axum::body::Body;
use domain::event::{Permission, StopReason};
use domain::limits::SIGNAL_BYTES_MAX;
use domain::session::signal;
use domain::{EventBody, ids as derived};
use http::Method;
use prost::Message;
use serde_json::{Value, json};
use temporalio_common::protos::temporal::api::common::v1::Payload;

use super::story::{Story, bash, custom, message};
use super::{Api, files, id, request};

pub(super) fn user(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

pub(super) fn ids(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

fn types(list: &Value) -> Vec<String> {
    list["data"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

/// A session and the path of its events.
pub(super) async fn begun(api: &Api, with: Value) -> (Story, String) {
    let session = api.session(with).await;
    let path = format!("/v1/sessions/{}/events", id(&session));
    (Story::of(&api.engine, &id(&session)), path)
}

pub(super) async fn send(api: &Api, path: &str, events: &[Value]) -> Vec<String> {
    ids(&api.post(path, &json!({"events": events})).await.ok())
}

#[tokio::test]
async fn a_turn_is_listed_as_it_was_committed() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    story.turn(&[&sent[0]], "hello");
    let list = api.get(&path).await.ok();
    assert_eq!(
        types(&list),
        [
            "user.message",
            "session.status_running",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.usage",
            "session.status_idle"
        ]
    );
    let events = list["data"].as_array().unwrap();
    assert_eq!(events[0]["id"], sent[0]);
    assert_eq!(events[0]["processed_at"], "2026-11-22T13:00:01.000Z");
    assert_eq!(events[3]["content"], json!([{"type": "text", "text": "hello"}]));
    assert_eq!(
        events[4]["model_usage"],
        json!({"input_tokens": 10, "output_tokens": 2, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 0})
    );
    assert_eq!(
        events[5],
        json!({"id": events[5]["id"], "type": "session.usage", "processed_at": "2026-11-22T13:00:03.000Z",
            "budget": null, "usage": {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 0,
                "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 0}}})
    );
    assert_eq!(events[6]["stop_reason"], json!({"type": "end_turn"}));
    assert!(!list.to_string().contains("secret"), "private parts stay private");

    let session = api.get(path.trim_end_matches("/events")).await.ok();
    assert_eq!(session["status"], "idle");
    assert_eq!(session["usage"], events[5]["usage"]);
    assert_eq!(
        session["stats"],
        json!({"active_seconds": 2.0, "duration_seconds": session["stats"]["duration_seconds"]})
    );
}

#[tokio::test]
async fn lists_have_two_orders_and_filters() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    story.turn(&[&sent[0]], "hello");
    let waiting = send(&api, &path, &[user("two"), user("three")]).await;
    let asc = ids(&api.get(&path).await.ok());
    assert_eq!(asc[7..], waiting);
    let mut desc = ids(&api.get(&format!("{path}?order=desc")).await.ok());
    desc.reverse();
    assert_eq!(desc, asc);
    for (query, expected) in [
        ("types[]=agent.message&types[]=session.usage", &asc[3..4]),
        ("types[]=user.message", &asc[..1]),
        ("from_position=2&to_position=4", &asc[2..4]),
        ("from_position=6", &asc[6..]),
        ("to_position=0", &asc[..0]),
        ("created_at[gte]=2026-11-22T13:00:02Z&created_at[lt]=2026-11-22T13:00:03Z", &asc[3..5]),
        ("created_at[gt]=2026-11-22T13:00:02Z", &asc[5..7]),
        ("order=desc&limit=1&to_position=3", &asc[2..3]),
    ] {
        let found = ids(&api.get(&format!("{path}?{query}")).await.ok());
        assert_eq!(found[..expected.len()], *expected, "{query}");
    }
    assert_eq!(ids(&api.get(&format!("{path}?types[]=user.message")).await.ok()).len(), 3);
    for wrong in ["types[]=x", "order=up", "limit=0", "limit=1001", "page=page_x", "from_position=-1"] {
        api.get(&format!("{path}?{wrong}")).await.invalid();
    }
}

#[tokio::test]
async fn pages_lose_and_repeat_nothing_while_the_log_grows() {
    for order in ["asc", "desc"] {
        let api = Api::new().await;
        let (mut story, path) = begun(&api, json!({})).await;
        let first = send(&api, &path, &[user("0")]).await;
        story.turn(&[&first[0]], "hello");
        let waiting = send(&api, &path, &[user("1"), user("2"), user("3")]).await;
        let expected = ids(&api.get(&format!("{path}?order={order}")).await.ok());
        let (mut seen, mut page, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let list = api.get(&format!("{path}?order={order}&limit=2{page}")).await.ok();
            seen.extend(ids(&list));
            pages += 1;
            // The waiting ones are committed while somebody turns the pages, the last one first.
            if pages == if order == "asc" { 4 } else { 1 } {
                story.turn(&[&waiting[2], &waiting[0], &waiting[1]], "again");
            }
            match list["next_page"].as_str() {
                Some(next) => page = format!("&page={next}"),
                None => break,
            }
        }
        for id in &expected {
            assert!(seen.contains(id), "{order}: {id} was lost");
        }
        let mut once = seen.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), seen.len(), "{order}: something came twice");
        let cursor = page.trim_start_matches("&page=");
        let other = if order == "asc" { "desc" } else { "asc" };
        api.get(&format!("{path}?order={other}&page={cursor}")).await.invalid();
    }
}

#[tokio::test]
async fn a_log_of_several_runs_reads_as_one() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let first = send(&api, &path, &[user("0")]).await;
    story.turn(&[&first[0]], "hello");
    let before = ids(&api.get(&path).await.ok());
    let summary = {
        let followed = api.app.follower.session(&story.session_id);
        let log = followed.fresh().await.unwrap();
        serde_json::to_value(log.summary().unwrap()).unwrap()
    };
    story.continue_as_new(&summary, "run-0", &json!([]));
    let second = send(&api, &path, &[user("1")]).await;
    story.turn(&[&second[0]], "again");
    let after = ids(&api.get(&path).await.ok());
    assert_eq!((after.len(), &after[..7]), (14, &before[..]));
    assert_eq!(ids(&api.get(&format!("{path}?from_position=7&limit=1")).await.ok()), second);
}

#[tokio::test]
async fn a_cut_log_ends_with_the_event_that_says_so() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    story.begin(&[&sent[0]]);
    api.app.gateway.terminate(&story.session_id, "by hand").await.unwrap();
    let list = api.get(&path).await.ok();
    assert_eq!(types(&list).last().unwrap(), "session.status_terminated");
    assert_eq!(list, api.get(&path).await.ok(), "its id is always the same");
    assert_eq!(api.get(path.trim_end_matches("/events")).await.ok()["status"], "terminated");
    api.post(&path, &json!({"events": [user("more")]})).await.invalid();
}

#[tokio::test]
async fn what_is_wrong_by_itself_is_refused() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    let text = |text: &str| json!([{"type": "text", "text": text}]);
    let in_message = |block: Value| json!({"type": "user.message", "content": [block]});
    let source = |source: Value| in_message(json!({"type": "image", "source": source}));
    let confirm = |more: Value| {
        let mut event = json!({"type": "user.tool_confirmation", "tool_use_id": "sevt_1"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    for (events, expected) in [
        (json!([]), "events: must have at least one event"),
        (json!([{"type": "agent.message", "content": []}]), "events[0]"),
        (json!([{"type": "user.message"}]), "events[0]"),
        (json!([{"type": "user.message", "content": []}]), "events[0].content: must have at least one block"),
        (json!([{"type": "user.message", "content": text(" \n")}]), "events[0].content[0].text: must not be empty"),
        (json!([user("fine"), in_message(json!({"type": "redacted"}))]), "events[1].content[0].type: redacted blocks"),
        (json!([in_message(json!({"blob": "0", "bytes": 1}))]), "events[0]"),
        (json!([{"type": "user.message", "content": {"blob": "0", "bytes": 1}}]), "events[0]"),
        (
            json!([in_message(json!({"type": "search_result", "source": "s", "title": "t", "content": []}))]),
            "events[0].content[0].type: search results belong into tool results",
        ),
        (
            json!([source(json!({"type": "base64", "media_type": "image/bmp", "data": "eA=="}))]),
            "events[0].content[0].source.media_type: must be image/jpeg",
        ),
        (
            json!([source(json!({"type": "base64", "media_type": "image/png", "data": "?"}))]),
            "events[0].content[0].source.data: must be base64",
        ),
        (
            json!([source(json!({"type": "text", "media_type": "text/plain", "data": "x"}))]),
            "events[0].content[0].source.type",
        ),
        (json!([source(json!({"type": "url", "url": "file:///etc/passwd"}))]), "events[0].content[0].source.url"),
        (json!([confirm(json!({"result": "maybe"}))]), "events[0]"),
        (
            json!([confirm(json!({"result": "allow", "deny_message": "no"}))]),
            "events[0].deny_message: goes with a result of deny only",
        ),
        (
            json!([{"type": "user.interrupt", "session_thread_id": "sthr_1"}]),
            "events[0].session_thread_id: the session has no thread sthr_1",
        ),
        (json!([{"type": "system.message", "content": text("x")}]), "events[0]: a system.message must be the last"),
        (
            json!([user("a"), {"type": "system.message", "content": text("x")}, user("b")]),
            "events[1]: a system.message must be the last",
        ),
        (
            json!([user("a"), {"type": "system.message", "content": [{"type": "image", "source": {"type": "url",
            "url": "https://example.com/a.png"}}]}]),
            "events[1].content[0].type: must be text",
        ),
        (json!(vec![user("x"); 51]), "events: 51 events, at most 50"),
    ] {
        let message = api.post(&path, &json!({"events": events})).await.invalid();
        assert!(message.starts_with(expected), "{events}\n{message}");
    }
    let outcome =
        json!({"type": "user.define_outcome", "description": "d", "rubric": {"type": "text", "content": "r"}});
    api.post(&path, &json!({"events": [outcome]})).await.refused(501, "api_error");
    assert!(ids(&api.get(&path).await.ok()).is_empty(), "nothing was taken");
    let interrupt = json!({"type": "user.interrupt", "session_thread_id": derived::primary_thread(path_id(&path))});
    assert_eq!(send(&api, &path, &[interrupt, user("then this")]).await.len(), 2);
}

fn path_id(path: &str) -> &str {
    path.split('/').nth(3).unwrap()
}

fn confirmation(tool_use_id: &str, result: &str) -> Value {
    json!({"type": "user.tool_confirmation", "tool_use_id": tool_use_id, "result": result})
}

fn custom_result(tool_use_id: &str) -> Value {
    json!({"type": "user.custom_tool_result", "custom_tool_use_id": tool_use_id,
        "content": [{"type": "text", "text": "42"}]})
}

fn tool_result(tool_use_id: &str) -> Value {
    json!({"type": "user.tool_result", "tool_use_id": tool_use_id, "content": [{"type": "text", "text": "ok"}]})
}

/// A session that waits: for a confirmation, for a custom tool, with one call that was allowed.
async fn asking(api: &Api, with: Value) -> (Story, String, [String; 3]) {
    let (mut story, path) = begun(api, with).await;
    let sent = send(api, &path, &[user("hi")]).await;
    story.begin(&[&sent[0]]);
    let calls = story.answer(vec![message("let me see"), bash(Permission::Ask), custom(), bash(Permission::Allow)]);
    let event_ids = vec![calls[1].clone(), calls[2].clone()];
    story.idle(StopReason::RequiresAction { event_ids });
    let [_, ask, custom, allowed] = calls.try_into().unwrap();
    (story, path, [ask, custom, allowed])
}

#[tokio::test]
async fn answers_fit_open_calls_or_are_refused() {
    let api = Api::new().await;
    let (mut story, path, [ask, custom, allowed]) = asking(&api, json!({})).await;
    for (events, expected) in [
        (vec![confirmation("sevt_unknown", "allow")], "no tool call sevt_unknown waits for an answer"),
        (vec![confirmation(&allowed, "allow")], "was not held for a confirmation"),
        (vec![confirmation(&custom, "allow")], "was not held for a confirmation"),
        (vec![confirmation(&ask, "allow"), confirmation(&ask, "deny")], "waits for an answer"),
        (vec![custom_result("sevt_unknown")], "waits for an answer"),
        (vec![custom_result(&ask)], "is not the call of a custom tool"),
        (vec![custom_result(&custom), custom_result(&custom)], "waits for an answer"),
        (vec![tool_result(&ask)], "user.tool_result is for sessions in self-hosted environments"),
        (vec![user("and?")], "waits for tool results or confirmations"),
        (vec![custom_result(&custom), user("and?")], "waits for tool results or confirmations"),
    ] {
        let answer = api.post(&path, &json!({"events": events})).await;
        assert_eq!(answer.headers["x-should-retry"], "false", "{events:?}");
        let message = answer.invalid();
        assert!(message.contains(expected), "{events:?}\n{message}");
    }
    assert_eq!(api.engine.signals(&story.session_id, signal::EVENTS).len(), 1, "nothing was taken");

    let sent = send(&api, &path, &[custom_result(&custom)]).await;
    let list = api.get(&format!("{path}?types[]=user.custom_tool_result")).await.ok();
    assert_eq!(ids(&list), sent);
    assert!(list["data"][0]["processed_at"].is_string(), "stamped on receipt");
    api.post(&path, &json!({"events": [custom_result(&custom)]})).await.invalid();
    story.commit(vec![story.accepted(&sent[0])]);
    api.post(&path, &json!({"events": [custom_result(&custom)]})).await.invalid();
    send(&api, &path, &[confirmation(&ask, "allow"), user("and?")]).await;
}

#[tokio::test]
async fn an_interrupt_frees_the_way_for_a_message() {
    let api = Api::new().await;
    let (_, path, [ask, ..]) = asking(&api, json!({})).await;
    let interrupt = json!({"type": "user.interrupt"});
    send(&api, &path, &[interrupt, user("something else")]).await;
    api.post(&path, &json!({"events": [confirmation(&ask, "allow")]})).await.invalid();
}

#[tokio::test]
async fn workers_of_self_hosted_environments_answer_built_in_tools() {
    let api = Api::new().await;
    let environment = json!({"name": "e", "config": {"type": "self_hosted"}});
    let environment = api.post("/v1/environments", &environment).await.ok();
    let (_, path, [ask, custom, allowed]) = asking(&api, json!({"environment_id": id(&environment)})).await;
    for wrong in [vec![tool_result(&ask)], vec![tool_result(&custom)], vec![tool_result("sevt_unknown")]] {
        api.post(&path, &json!({"events": wrong})).await.invalid();
    }
    send(&api, &path, &[tool_result(&allowed)]).await;
    api.post(&path, &json!({"events": [tool_result(&allowed)]})).await.invalid();
    send(&api, &path, &[confirmation(&ask, "allow"), tool_result(&ask)]).await;
}

#[tokio::test]
async fn calls_are_found_however_far_back_they_are() {
    let api = Api::new().await;
    let (mut story, path, [_, custom, _]) = asking(&api, json!({})).await;
    for n in 0..600 {
        let title = Some(Some(n.to_string()));
        let updated = EventBody::SessionUpdated { agent: None, title, metadata: None };
        story.commit(vec![story.inline("updated", updated)]);
    }
    send(&api, &path, &[custom_result(&custom)]).await;
}

#[tokio::test]
async fn too_many_that_wait_are_refused_for_the_moment() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.extend(send(&api, &path, &vec![user("x"); 50]).await);
    }
    let answer = api.post(&path, &json!({"events": [user("one more")]})).await;
    assert_eq!(answer.headers["retry-after"], "1");
    answer.refused(429, "rate_limit_error");
    story.begin(&[&waiting[0]]);
    send(&api, &path, &[user("one more")]).await;
}

#[tokio::test]
async fn large_content_travels_in_blobs() {
    let api = Api::new().await;
    let (story, path) = begun(&api, json!({})).await;
    // Each below the limit of what stays inline, together above that of a signal; two of them alike.
    let mut events: Vec<Value> = (0..40).map(|n| user(&format!("{n} {}", "x".repeat(31_000)))).collect();
    events[39] = events[38].clone();
    events.push(user(&"y".repeat(100_000)));
    events.push(user(&"y".repeat(100_000)));
    let sent = api.post(&path, &json!({"events": events})).await.ok();
    // What is left is a large payload still, so history has a claim to it.
    let claim = serde_json::from_value(api.engine.signals(&story.session_id, signal::EVENTS)[0].clone()).unwrap();
    let payload = Payload::decode(log::blobs::get(&*api.app.blobs, &claim).await.unwrap()).unwrap();
    assert!(payload.data.len() < SIGNAL_BYTES_MAX);
    let signal: Value = serde_json::from_slice(&payload.data).unwrap();
    assert!(signal["events"][40]["content"]["blob"].is_string());
    let list = api.get(&path).await.ok();
    assert_eq!(list["data"], sent["data"]);
    assert_eq!(list["data"][40]["content"][0]["text"].as_str().unwrap().len(), 100_000);
}

#[tokio::test]
async fn what_a_file_has_is_kept_with_the_message_that_names_it() {
    let api = Api::new().await;
    let (story, path) = begun(&api, json!({})).await;
    let file = async |name: &str, kind: &str, bytes: &[u8]| {
        let headers = format!("name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}");
        id(&files::upload(&api, &[(&headers, bytes)]).await.ok())
    };
    let text = file("a.csv", "text/csv; charset=utf-8", b"a,b").await;
    let image = file("a.png", "image/png", b"png").await;
    let source = |file_id: &str| json!({"type": "file", "file_id": file_id});
    let content = json!([
        {"type": "document", "source": source(&text), "title": "t"},
        {"type": "image", "source": source(&image)},
    ]);
    let sent = api.post(&path, &json!({"events": [{"type": "user.message", "content": content}]})).await.ok();
    assert_eq!(sent["data"][0]["content"], content, "clients see what they sent");
    let kept = &api.engine.signals(&story.session_id, signal::EVENTS)[0]["events"][0]["content"];
    assert_eq!(kept[0]["source"]["content"], json!({"type": "text", "media_type": "text/plain", "data": "a,b"}));
    let encoded = json!({"type": "base64", "media_type": "image/png", "data": "cG5n"});
    assert_eq!(kept[1]["source"]["content"], encoded);
    for id in [&text, &image] {
        api.delete(&format!("/v1/files/{id}")).await.ok();
    }
    assert_eq!(api.get(&path).await.ok()["data"], sent["data"], "it does not need the files any more");

    let latin = file("a.txt", "text/plain", b"\xff").await;
    let block = |kind: &str, file_id: &str| json!([{"type": "user.message", "content": [{"type": kind, "source": source(file_id)}]}]);
    api.post(&path, &json!({"events": block("document", &text)})).await.refused(404, "not_found_error");
    let picture = file("b.png", "image/png", b"png").await;
    for (events, expected) in [
        (block("document", &latin), format!("file {latin} is text/plain and not a PDF or a text")),
        (block("document", &picture), format!("file {picture} is image/png and not a PDF")),
        (block("image", &latin), format!("file {latin} is text/plain and not an image")),
    ] {
        let message = api.post(&path, &json!({"events": events})).await.invalid();
        assert!(message.starts_with(&expected), "{message}");
    }
    let text = file("c.txt", "text/plain", b"c").await;
    let documents = vec![json!({"type": "document", "source": source(&text)}); 101];
    let message = api.post(&path, &json!({"events": [{"type": "user.message", "content": documents}]})).await.invalid();
    assert!(message.starts_with("at most 100 documents"), "{message}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    let events = json!({"events": [user(&"x".repeat(33_000_000))]});
    api.post(&path, &events).await.refused(413, "request_too_large");
}

/// Sends as a client would that marks what it repeats; reads the answer, or goes away before.
async fn attempt(api: &Api, path: &str, body: &Value, headers: &[(&str, &str)], reads: bool) -> Option<Vec<String>> {
    let mut attempt = request(Method::POST, path);
    for (name, value) in headers {
        attempt = attempt.header(*name, *value);
    }
    let request = attempt.body(Body::from(body.to_string())).unwrap();
    if reads {
        return Some(ids(&api.send(request).await.ok()));
    }
    api.open(request).await;
    None
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_unless_it_was_read() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let body = json!({"events": [user("once"), user("only")]});
    let retry = [("x-stainless-retry-count", "1")];
    attempt(&api, &path, &body, &[("x-stainless-retry-count", "0")], false).await;
    let first = ids(&api.get(&path).await.ok());
    assert_eq!(attempt(&api, &path, &body, &retry, true).await.unwrap(), first);
    assert_eq!(api.engine.signals(&story.session_id, signal::EVENTS).len(), 1);

    // The client has read an answer now: the same words again are meant.
    let second = attempt(&api, &path, &body, &retry, true).await.unwrap();
    assert_ne!(second, first);

    // Committed or not, known for ten minutes.
    attempt(&api, &path, &body, &[], false).await;
    let third = ids(&api.get(&path).await.ok())[4..].to_vec();
    let all: Vec<&str> = first.iter().chain(&second).chain(&third).map(String::as_str).collect();
    story.turn(&all, "all of them");
    assert_eq!(attempt(&api, &path, &body, &retry, false).await, None);
    assert_eq!(api.engine.signals(&story.session_id, signal::EVENTS).len(), 3);
    api.clock.advance(jiff::SignedDuration::from_mins(11));
    assert!(!third.contains(&attempt(&api, &path, &body, &retry, true).await.unwrap()[0]));
}

#[tokio::test]
async fn an_idempotency_key_always_gets_the_first_answer() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    let body = json!({"events": [user("once")]});
    let key = [("idempotency-key", "k1")];
    let first = attempt(&api, &path, &body, &key, true).await.unwrap();
    assert_eq!(attempt(&api, &path, &body, &key, true).await.unwrap(), first);
    let other = attempt(&api, &path, &body, &[("idempotency-key", "k2")], true).await.unwrap();
    assert_ne!(other, first);
    let changed = json!({"events": [user("another")]});
    assert_ne!(attempt(&api, &path, &changed, &key, true).await.unwrap(), first);
}

#[tokio::test]
async fn system_messages_are_for_models_that_take_them() {
    let api = Api::new().await;
    let system = json!({"type": "system.message", "content": [{"type": "text", "text": "be brief"}]});
    for (model, taken) in [
        ("claude-opus-5", true),
        ("claude-opus-5-20260801", true),
        ("claude-haiku-4-5", false),
        ("claude-opus-5-2", false),
        ("some-other-model", true),
    ] {
        let agent = api.post("/v1/agents", &json!({"name": "a", "model": model})).await.ok();
        let (_, path) = begun(&api, json!({"agent": id(&agent)})).await;
        let answer = api.post(&path, &json!({"events": [user("hi"), system]})).await;
        if taken {
            answer.ok();
        } else {
            let code = answer.json()["error"]["details"]["error_code"].clone();
            answer.invalid();
            assert_eq!(code, "model_does_not_support_mid_conversation_system", "{model}");
        }
    }
}
