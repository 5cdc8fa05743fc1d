//! Watching a session over a stream that breaks.

use crate::{
    fake::{Answer, Asked, Fake},
    program::Place,
};
use serde_json::{Value, json};

fn event(position: u64, kind: &str) -> Value {
    json!({"id": format!("sevt_{position}"), "type": kind, "processed_at": "2026-11-22T15:04:05.000Z", "stop_reason": {"type": "end_turn"}})
}

fn message(position: u64, kind: &str) -> String {
    format!("event: {kind}\nid: {position}\ndata: {}\n\n", event(position, kind))
}

fn last_event_id(asked: &Asked) -> Option<String> {
    asked.headers().get("last-event-id").map(|id| id.to_str().unwrap().to_owned())
}

fn positions(stdout: &str) -> Vec<u64> {
    stdout.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

/// Events 0 and 1 are history when the stream opens; it then says 1 (again), 2 and a queued event, breaks inside 3, and
/// is refused once before it goes on.
#[test]
fn every_event_comes_once_and_in_order() {
    let fake = Fake::start(|asked| {
        if !asked.uri().path().ends_with("/stream") {
            let data = [
                event(0, "user.message"),
                event(1, "session.status_running"),
                json!({"id": "sevt_q", "type": "user.message", "processed_at": null}),
            ];
            return Answer::json(200, &json!({"data": data, "next_page": null}).to_string());
        }
        match last_event_id(asked).as_deref() {
            None => {
                let waiting = "event: user.message\ndata: {\"id\":\"sevt_q\",\"type\":\"user.message\",\"processed_at\":null}\n\n";
                let cut = &message(3, "agent.message")[..30];
                let body = [
                    "event: ping\ndata: {}\n\n",
                    &message(1, "session.status_running"),
                    waiting,
                    &message(2, "user.message"),
                    cut,
                ];
                Answer::json(200, &body.concat())
            }
            Some("2") => Answer::json(200, &[message(3, "agent.message"), message(4, "session.status_idle")].concat()),
            Some("4") => Answer { status: 200, body: message(5, "session.status_terminated"), stays_open: true },
            other => panic!("resumed behind {other:?}"),
        }
    });
    let place = Place::new().with("STEADYHAND_API_KEY", "k");
    let shot = place.run(&["session", "watch", "sesn_1", "--url", &fake.url]);
    assert_eq!(shot.code, 0, "{shot}");
    assert_eq!(positions(&shot.stdout), [0, 1, 2, 3, 4, 5]);
    assert_eq!(shot.stderr.matches("broke off").count(), 2, "{shot}");
    assert_eq!(shot.stderr.matches("it is back").count(), 2, "{shot}");
}

#[test]
fn a_service_that_is_gone_for_a_moment_is_waited_for() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let opened = AtomicU32::new(0);
    let fake = Fake::start(move |_| match opened.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::json(200, &message(7, "user.message")),
        1..4 => Answer::error(503, "api_error", "starting"),
        _ => Answer { status: 200, body: message(8, "session.status_idle"), stays_open: true },
    });
    let place = Place::new().with("STEADYHAND_API_KEY", "k");
    let args = ["session", "watch", "sesn_1", "--from", "7", "--until-idle", "--url", &fake.url];
    let shot = place.run(&args);
    assert_eq!((shot.code, positions(&shot.stdout)), (0, vec![7, 8]), "{shot}");
    let behind: Vec<_> = fake.asked().iter().map(|asked| last_event_id(asked).unwrap()).collect();
    assert_eq!(behind, ["6", "7", "7", "7", "7"]);
}

#[test]
fn a_session_that_is_deleted_ends_the_stream() {
    let gone = "event: session.deleted\ndata: {\"type\":\"session.deleted\"}\n\n";
    let fake = Fake::start(move |_| Answer {
        status: 200,
        body: [&message(1, "user.message"), gone].concat(),
        stays_open: true,
    });
    let place = Place::new().with("STEADYHAND_API_KEY", "k");
    let shot = place.run(&["session", "watch", "sesn_1", "--from", "1", "--url", &fake.url, "--json"]);
    assert!(shot.code == 0 && shot.stdout.lines().last().unwrap().contains("session.deleted"), "{shot}");
}

#[test]
fn what_is_refused_is_not_tried_again() {
    let fake = Fake::start(|_| Answer::error(404, "not_found_error", "session sesn_1 not found"));
    let place = Place::new().with("STEADYHAND_API_KEY", "k");
    place.run(&["session", "watch", "sesn_1", "--url", &fake.url]).failed(4, "error: session sesn_1 not found");
    assert_eq!(fake.asked().len(), 1);
}
