//! Streams over histories told by hand, read frame by frame as a client reads them.

use axum::body::{Body, BodyDataStream};
use domain::delta::{Delta, DeltaKind};
use domain::event::StopReason;
use domain::{Event, EventBody, Take};
use futures::StreamExt;
use http::Method;
use serde_json::{Map, Value, json};

use super::events::{begun, ids, send, user};
use super::story::{Story, message};
use super::{Api, fit, id, request};

/// An open stream. Nothing is read ahead.
struct Reader {
    path: String,
    body: BodyDataStream,
    text: String,
}

#[derive(Clone, PartialEq, Debug)]
struct Frame {
    name: String,
    id: Option<u64>,
    data: Value,
}

impl Reader {
    async fn open(api: &Api, path: &str, query: &str, last_event_id: Option<u64>) -> Self {
        let path = format!("{path}/stream");
        let mut open = request(Method::GET, &format!("{path}{query}"));
        if let Some(id) = last_event_id {
            open = open.header("last-event-id", id.to_string());
        }
        let response = api.open(open.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { path, body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let lines: Map<String, Value> = frame
                    .lines()
                    .filter_map(|line| line.split_once(": "))
                    .map(|(name, line)| (name.into(), line.into()))
                    .collect();
                fit::check_message(&self.path, &lines.into());
                let frame = parse(frame);
                assert_eq!(frame.name, frame.data["type"]);
                self.text = rest.to_owned();
                return Some(frame);
            }
            let bytes = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    async fn take(&mut self, count: usize) -> Vec<Frame> {
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            frames.push(self.next().await.expect("the stream goes on"));
        }
        frames
    }

    async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}

fn parse(text: &str) -> Frame {
    let mut frame = Frame { name: String::new(), id: None, data: Value::Null };
    for line in text.lines() {
        match line.split_once(": ").unwrap() {
            ("event", name) => frame.name = name.to_owned(),
            ("id", id) => frame.id = Some(id.parse().unwrap()),
            ("data", data) => frame.data = serde_json::from_str(data).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    frame
}

fn names(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.name.as_str()).collect()
}

fn start(session_id: &str, event_id: &str, event_type: &str) -> Delta {
    let what = DeltaKind::Start { event_type: event_type.to_owned() };
    Delta { session_id: session_id.to_owned(), event_id: event_id.to_owned(), what }
}

fn text(session_id: &str, event_id: &str, text: &str) -> Delta {
    let what = DeltaKind::Text { text: text.to_owned() };
    Delta { session_id: session_id.to_owned(), event_id: event_id.to_owned(), what }
}

#[tokio::test]
async fn a_plain_turn_is_told_from_the_queue_to_idle() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "", None).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    let queued = reader.next().await.unwrap();
    assert_eq!((queued.name.as_str(), queued.id), ("user.message", None));
    assert_eq!((&queued.data["id"], &queued.data["processed_at"]), (&json!(sent[0]), &Value::Null));
    story.turn(&[&sent[0]], "hello");
    let frames = reader.take(7).await;
    assert_eq!(
        names(&frames),
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
    assert_eq!(frames.iter().map(|frame| frame.id.unwrap()).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    let listed = api.get(&path).await.ok();
    let told: Vec<Value> = frames.into_iter().map(|frame| frame.data).collect();
    assert_eq!(json!(told), listed["data"], "list and stream show the same");
    // What a client saw is what a GET returns.
    assert_eq!(api.get("/v1/sessions?statuses[]=idle").await.ok()["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_from_before_it_opened_is_replayed() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    story.turn(&[&sent[0]], "hello");
    let mut reader = Reader::open(&api, &path, "", None).await;
    let next = send(&api, &path, &[user("more")]).await;
    assert_eq!(reader.next().await.unwrap().data["id"], json!(next[0]));
}

#[tokio::test]
async fn a_stream_goes_on_behind_the_last_event_that_was_seen() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    story.turn(&[&sent[0]], "hello");
    for seen in [0, 3, 6] {
        let mut reader = Reader::open(&api, &path, "", Some(seen)).await;
        let frames = reader.take(6 - seen as usize).await;
        assert_eq!(frames.iter().map(|frame| frame.id.unwrap()).collect::<Vec<_>>(), (seen + 1..7).collect::<Vec<_>>());
        drop(reader);
    }
    let mut reader = Reader::open(&api, &path, "", Some(4)).await;
    let more = send(&api, &path, &[user("more")]).await;
    story.turn(&[&more[0]], "again");
    let positions: Vec<u64> = reader.take(10).await.into_iter().filter_map(|frame| frame.id).collect();
    assert_eq!(positions[..9], (5..14).collect::<Vec<u64>>());
    let wrong = request(Method::GET, &format!("{path}/stream")).header("last-event-id", "x");
    api.send(wrong.body(Body::empty()).unwrap()).await.invalid();
}

#[tokio::test]
async fn a_slow_reader_misses_no_event() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "?event_deltas[]=agent.message", None).await;
    let title = |n: u64| Some(Some(n.to_string()));
    for batch in 0..6 {
        let events = (batch * 1000..(batch + 1) * 1000).map(|n| {
            let body = EventBody::SessionUpdated { agent: None, title: title(n), metadata: None };
            Take::Inline { event: Event { id: format!("sevt_{n}"), body, processed_at: None }, private: None }
        });
        story.commit(events.collect());
    }
    // Everything was published, far more than a stream may be behind, before the first read.
    let followed = api.app.follower.session(&story.session_id);
    assert_eq!(followed.fresh().await.unwrap().end_position(), 6000);
    let frames = reader.take(6000).await;
    for (n, frame) in frames.iter().enumerate() {
        assert_eq!((frame.id, &frame.data["title"]), (Some(n as u64), &json!(n.to_string())));
    }
}

#[tokio::test]
async fn previews_come_first_and_end_with_the_whole_event() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let mut with = Reader::open(&api, &path, "?event_deltas[]=agent.message", None).await;
    let mut without = Reader::open(&api, &path, "", None).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    story.begin(&[&sent[0]]);
    with.take(4).await;
    // The answer's id is known before it is committed, as a preview's is.
    let message_id = story.id("answer-0");
    let id = story.session_id.clone();
    for delta in [
        text(&id, &message_id, "no start yet"),
        start(&id, &message_id, "agent.message"),
        start(&id, &message_id, "agent.message"),
        start(&id, "sevt_thinking", "agent.thinking"),
        text(&id, &message_id, "hel"),
        text(&id, &message_id, "lo"),
    ] {
        api.app.deltas.publish(delta);
    }
    let frames = with.take(3).await;
    assert_eq!(names(&frames), ["event_start", "event_delta", "event_delta"]);
    assert_eq!(frames[0].data, json!({"type": "event_start", "event": {"type": "agent.message", "id": message_id}}));
    assert_eq!(
        frames[1].data,
        json!({"type": "event_delta", "event_id": message_id,
            "delta": {"type": "content_delta", "index": 0, "content": {"type": "text", "text": "hel"}}})
    );
    let committed = story.answer(vec![message("hello")]);
    assert_eq!(committed[0], message_id);
    assert_eq!(names(&with.take(2).await), ["agent.message", "span.model_request_end"]);
    // Too late, both: of an event that is whole, and of a span that is over.
    api.app.deltas.publish(text(&id, &message_id, "!"));
    api.app.deltas.publish(start(&id, &message_id, "agent.message"));
    story.begin(&[]);
    story.answer(vec![message("more")]);
    story.idle(StopReason::EndTurn {});
    assert!(!names(&with.take(6).await).iter().any(|name| name.starts_with("event_")));
    assert!(!names(&without.take(12).await).iter().any(|name| name.starts_with("event_")));
    assert!(!ids(&api.get(&path).await.ok()).is_empty());
}

#[tokio::test]
async fn previews_that_overtake_their_span_wait_for_it() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "?event_deltas[]=agent.message", None).await;
    let id = story.session_id.clone();
    api.app.deltas.publish(start(&id, "sevt_early", "agent.message"));
    api.app.deltas.publish(text(&id, "sevt_early", "hel"));
    story.begin(&[]);
    let frames = reader.take(4).await;
    assert_eq!(names(&frames)[1..], ["span.model_request_start", "event_start", "event_delta"]);
}

#[tokio::test]
async fn only_known_previews_can_be_wanted() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    api.get(&format!("{path}/stream?event_deltas[]=agent.tool_use")).await.invalid();
    let many = "event_deltas[]=agent.message&".repeat(101);
    api.get(&format!("{path}/stream?{many}")).await.invalid();
    api.get("/v1/sessions/sesn_unknown/events/stream").await.refused(404, "not_found_error");
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "", None).await;
    story.terminate();
    assert_eq!(names(&reader.rest().await), ["session.status_terminated"]);

    let (_, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "", None).await;
    let id = path.split('/').nth(3).unwrap();
    api.app.gateway.terminate(id, "by hand").await.unwrap();
    let frames = reader.rest().await;
    assert_eq!(names(&frames), ["session.status_terminated"]);
    assert_eq!(frames[0].data, api.get(&path).await.ok()["data"][0]);
}

#[tokio::test]
async fn deleting_a_session_ends_its_streams() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "", None).await;
    let session = path.trim_end_matches("/events");
    assert_eq!(api.delete(session).await.ok()["type"], "session_deleted");
    let frames = reader.rest().await;
    assert_eq!(names(&frames), ["session.deleted"]);
    assert!(frames[0].data["processed_at"].is_string());
}

#[tokio::test]
async fn a_closing_service_ends_its_streams() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "", None).await;
    api.app.close();
    assert_eq!(reader.rest().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_kept_alive() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    let opened = tokio::time::Instant::now();
    let mut reader = Reader::open(&api, &path, "", None).await;
    let frames = reader.take(2).await;
    assert_eq!(names(&frames), ["ping", "ping"]);
    assert_eq!(opened.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn the_primary_thread_has_the_sessions_stream() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let session = path.trim_end_matches("/events");
    let threads = api.get(&format!("{session}/threads")).await.ok();
    let thread = threads["data"][0].clone();
    assert_eq!((&thread["status"], &thread["stats"], &thread["usage"]), (&json!("idle"), &Value::Null, &Value::Null));
    let thread_path = format!("{session}/threads/{}", thread["id"].as_str().unwrap());
    let mut reader = Reader::open(&api, &thread_path, "", None).await;
    let sent = send(&api, &path, &[user("hi")]).await;
    story.turn(&[&sent[0]], "hello");
    assert_eq!(reader.take(8).await.len(), 8);
    assert_eq!(api.get(&format!("{thread_path}/events")).await.ok(), api.get(&path).await.ok());
    assert_eq!(api.get(&thread_path).await.ok()["usage"]["input_tokens"], 10);
    api.get(&format!("{session}/threads/sthr_unknown")).await.refused(404, "not_found_error");
    api.act(&format!("{thread_path}/archive")).await.invalid();
}

#[tokio::test]
async fn an_interrupted_answer_leaves_no_previews_behind() {
    let api = Api::new().await;
    let (mut story, path) = begun(&api, json!({})).await;
    let mut reader = Reader::open(&api, &path, "?event_deltas[]=agent.message", None).await;
    story.begin(&[]);
    reader.take(2).await;
    let id = story.session_id.clone();
    api.app.deltas.publish(start(&id, "sevt_cut", "agent.message"));
    assert_eq!(reader.next().await.unwrap().name, "event_start");
    end_span(&mut story);
    assert_eq!(reader.next().await.unwrap().name, "span.model_request_end");
    api.app.deltas.publish(text(&id, "sevt_cut", "still writing"));
    story.begin(&[]);
    assert_eq!(names(&reader.take(2).await), ["session.status_running", "span.model_request_start"]);
}

fn end_span(story: &mut Story) {
    let end = EventBody::SpanModelRequestEnd {
        model_request_start_id: "sevt_span".to_owned(),
        is_error: Some(true),
        model_usage: Default::default(),
    };
    story.commit(vec![story.inline("end", end)]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_soon_after_its_key_was_revoked() {
    let api = Api::new().await;
    let (_, path) = begun(&api, json!({})).await;
    let key = api.post("/v1/steadyhand/api_keys", &json!({"name": "laptop"})).await.ok();
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    let open = http::Request::get(format!("{path}/stream")).header("authorization", bearer);
    let response = api.open(open.body(Body::empty()).unwrap()).await;
    let body = response.into_body().into_data_stream();
    let mut reader = Reader { path: format!("{path}/stream"), body, text: String::new() };
    assert_eq!(reader.next().await.unwrap().name, "ping");
    api.act(&format!("/v1/steadyhand/api_keys/{}/revoke", id(&key))).await.ok();
    assert_eq!(reader.next().await, None);
}
