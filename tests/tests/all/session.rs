//! Sessions on the bare bed: the workflow, the frame, the log. Each scenario runs on both engines.

use domain::{Content, EventBody, Status, content::Json, event::StopReason, session::LogEntry};
use log::SessionLog;
use std::sync::atomic::Ordering;
use steadyhand_tests::{
    bed::{Bed, On, confirmation, custom_result, interrupt, message},
    on_both,
};
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;

on_both![
    a_plain_turn,
    messages_while_running_are_handled_in_order,
    a_tool_call_runs_once_in_a_hand,
    without_a_hand_the_model_is_told,
    a_lost_hand_is_replaced,
    a_hand_at_rest_is_parked_and_the_next_call_has_what_was_in_it,
    a_host_that_never_comes_back_loses_its_call,
    a_host_that_comes_back_in_time_runs_its_call,
    a_confirmation_decides,
    a_custom_tool_is_answered_by_the_client,
    of_two_answers_the_first_wins,
    an_unknown_tool_is_refused,
    a_provider_that_recovers,
    a_provider_that_refuses_for_good,
    an_interrupt_stops_a_model_call,
    an_interrupt_stops_a_tool,
    an_interrupt_answers_open_questions,
    an_interrupt_while_idle_changes_nothing,
    runs_continue_and_the_log_reads_as_one,
    a_session_outlives_its_brain,
    a_closed_session_ends,
    what_no_server_takes_in_one_piece_passes,
];

const TURN_END: [&str; 3] = ["session.thread_status_idle", "session.usage", "session.status_idle"];

fn count(types: &[&str], wanted: &str) -> usize {
    types.iter().filter(|name| **name == wanted).count()
}

fn find<'a, T>(entries: &'a [LogEntry], pick: impl Fn(&'a EventBody) -> Option<T>) -> Option<(usize, T)> {
    entries.iter().enumerate().find_map(|(at, entry)| pick(&entry.event.body).map(|found| (at, found)))
}

fn tool_results(entries: &[LogEntry]) -> Vec<(String, bool)> {
    entries
        .iter()
        .filter_map(|entry| match &entry.event.body {
            EventBody::AgentToolResult { content: Content::Inline(blocks), is_error, .. } => {
                Some((harness::intake::text_head(blocks, 1000), is_error.unwrap_or(false)))
            }
            _ => None,
        })
        .collect()
}

fn last_stop(entries: &[LogEntry]) -> Option<StopReason> {
    entries.iter().rev().find_map(|entry| match &entry.event.body {
        EventBody::SessionStatusIdle { stop_reason, .. } => Some(stop_reason.clone()),
        _ => None,
    })
}

const HELLO: &str = r#"
version = 1
[[rules]]
answer = [{ text = "You said: {{user}}" }]
"#;

async fn a_plain_turn(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, HELLO).await?;
    bed.start("s1", vec![]).await?;
    bed.post("s1", vec![message("m1", "hello")]).await?;
    let mut log = bed.idle("s1").await?;
    assert_eq!(
        bed.types(&mut log).await?,
        [
            "user.message",
            "session.status_running",
            "session.thread_status_running",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
        ]
    );
    let entries = bed.entries(&mut log).await?;
    let EventBody::AgentMessage { content } = &entries[4].event.body else { panic!("a message") };
    assert_eq!(*content, Content::text("You said: hello"));
    assert!(entries[5].private.is_some(), "the raw answer hangs on the end of its span");
    assert!(entries.iter().all(|entry| entry.event.processed_at.is_some()));
    bed.end().await
}

async fn messages_while_running_are_handled_in_order(on: On) -> anyhow::Result<()> {
    let bed =
        Bed::new(on, "version = 1\n[[rules]]\ndelay_ms = 300\nanswer = [{ text = \"You said: {{user}}\" }]").await?;
    bed.start("s1", vec![message("m1", "one")]).await?;
    bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.status == Status::Running)).await?;
    bed.post("s1", vec![message("m2", "two")]).await?;
    bed.post("s1", vec![message("m3", "three")]).await?;
    // A signal that is delivered again changes nothing.
    bed.post("s1", vec![message("m2", "two")]).await?;
    let mut log = bed.idle("s1").await?;
    let entries = bed.entries(&mut log).await?;
    let said: Vec<_> = entries.iter().filter(|entry| entry.event.body.type_name() == "user.message").collect();
    assert_eq!(said.iter().map(|entry| entry.event.id.as_str()).collect::<Vec<_>>(), ["m1", "m2", "m3"]);
    let types = bed.types(&mut log).await?;
    assert_eq!(count(&types, "session.status_idle"), 1, "one rest, when everything is answered");
    assert_eq!(log.summary().map(|summary| summary.turn), Some(2), "what queued up is one more turn");
    bed.end().await
}

const ONE_CALL: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ text = "Let me look." }, { tool = "bash", input = { command = "ls" } }]
[[rules]]
answer = [{ text = "Done: {{result}}" }]
"#;

async fn a_tool_call_runs_once_in_a_hand(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, ONE_CALL).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    assert_eq!(
        bed.types(&mut log).await?,
        [
            "user.message",
            "session.status_running",
            "session.thread_status_running",
            "span.model_request_start",
            "agent.message",
            "agent.tool_use",
            "span.model_request_end",
            "agent.tool_result",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
        ]
    );
    let entries = bed.entries(&mut log).await?;
    assert_eq!(tool_results(&entries), [("ran ls".to_owned(), false)]);
    let EventBody::AgentMessage { content } = &entries[9].event.body else { panic!("a message") };
    assert_eq!(*content, Content::text("Done: ran ls"), "the model saw the result");
    assert_eq!(bed.hands.effects(), 1);
    assert_eq!(bed.hands.provisioned.load(std::sync::atomic::Ordering::SeqCst), 1);
    bed.end().await
}

async fn without_a_hand_the_model_is_told(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, ONE_CALL).await?;
    bed.hands.broken.store(true, std::sync::atomic::Ordering::SeqCst);
    bed.start("s1", vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let entries = bed.entries(&mut log).await?;
    let results = tool_results(&entries);
    assert!(results[0].1 && results[0].0.contains("install bubblewrap"), "{results:?}");
    assert_eq!(last_stop(&entries), Some(StopReason::EndTurn {}));
    bed.end().await
}

async fn a_hand_at_rest_is_parked_and_the_next_call_has_what_was_in_it(on: On) -> anyhow::Result<()> {
    let mut bed = Bed::new(on, ONE_CALL).await?;
    bed.tuning.park_after_ms = 1;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let parked_after = |turns: u64| {
        move |log: &SessionLog| {
            let parked = |summary: &domain::Summary| {
                summary.turn == turns && summary.status == Status::Idle && summary.parked.is_some()
            };
            log.summary().is_some_and(parked)
        }
    };
    bed.wait("s1", parked_after(1)).await?;
    bed.post("s1", vec![message("m2", "go on")]).await?;
    let mut log = bed.wait("s1", parked_after(2)).await?;
    let counts = [&bed.hands.provisioned, &bed.hands.restored, &bed.hands.parked];
    assert_eq!(counts.map(|count| count.load(Ordering::SeqCst)), [2, 1, 2]);
    let results = tool_results(&bed.entries(&mut log).await?);
    assert_eq!(results[0], ("ran ls".to_owned(), false));
    assert!(results[1].0.starts_with("ran ls[This sandbox begins"), "{results:?}");
    bed.end().await
}

async fn a_lost_hand_is_replaced(on: On) -> anyhow::Result<()> {
    let script = r#"
        version = 1
        [[rules]]
        when = { results = 0 }
        answer = [{ tool = "bash", input = { lose_hand = true } }]
        [[rules]]
        when = { results = 1 }
        answer = [{ tool = "bash", input = { command = "again" } }]
        [[rules]]
        answer = [{ text = "ok" }]
    "#;
    let bed = Bed::new(on, script).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let results = tool_results(&bed.entries(&mut log).await?);
    assert!(results[0].1 && results[0].0.contains("lost"), "{results:?}");
    assert_eq!(results[1], ("ran again".to_owned(), false));
    assert_eq!(bed.hands.provisioned.load(std::sync::atomic::Ordering::SeqCst), 2, "a new hand for the next use");
    bed.end().await
}

const CALL_OF_THE_USER: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ tool = "bash", input = { command = "{{user}}" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

/// The turn is over, and what it left in its hand is collected.
fn rests(turn: u64) -> impl Fn(&SessionLog) -> bool {
    move |log| log.summary().is_some_and(|it| it.turn == turn && it.status.is_idle() && it.collecting.is_none())
}

fn is_untaken(attributes: &Attributes) -> bool {
    matches!(attributes, Attributes::ActivityTaskTimedOutEventAttributes(_))
}

async fn a_host_that_never_comes_back_loses_its_call(on: On) -> anyhow::Result<()> {
    let mut bed = Bed::new(on, CALL_OF_THE_USER).await?;
    bed.tuning.host_wait_ms = 500;
    bed.start("s1", vec![message("m1", "one")]).await?;
    bed.wait("s1", rests(1)).await?;
    bed.stop_hands().await?;
    bed.post("s1", vec![message("m2", "two")]).await?;
    bed.wait("s1", rests(2)).await?;
    // The next call gets another hand.
    bed.start_hands().await?;
    bed.post("s1", vec![message("m3", "three")]).await?;
    let mut log = bed.wait("s1", rests(3)).await?;
    let results = tool_results(&bed.entries(&mut log).await?);
    assert_eq!(results[0], ("ran one".to_owned(), false));
    assert!(results[1].1 && results[1].0.starts_with("lost: the machine that has the sandbox"), "{results:?}");
    assert_eq!(results[2], ("ran three".to_owned(), false));
    assert_eq!(bed.hands.provisioned.load(Ordering::SeqCst), 2);
    assert_eq!(bed.hands.effects(), 2);
    bed.end().await
}

async fn a_host_that_comes_back_in_time_runs_its_call(on: On) -> anyhow::Result<()> {
    let mut bed = Bed::new(on, CALL_OF_THE_USER).await?;
    bed.tuning.host_wait_ms = 3_000;
    bed.start("s1", vec![message("m1", "one")]).await?;
    bed.wait("s1", rests(1)).await?;
    bed.stop_hands().await?;
    bed.post("s1", vec![message("m2", "two")]).await?;
    bed.recorded("s1", is_untaken).await?;
    bed.start_hands().await?;
    let mut log = bed.wait("s1", rests(2)).await?;
    let results = tool_results(&bed.entries(&mut log).await?);
    assert_eq!(results, [("ran one".to_owned(), false), ("ran two".to_owned(), false)]);
    assert_eq!((bed.hands.provisioned.load(Ordering::SeqCst), bed.hands.effects()), (1, 2));
    bed.end().await
}

async fn a_confirmation_decides(on: On) -> anyhow::Result<()> {
    let script = r#"
        version = 1
        [[rules]]
        when = { results = 0 }
        answer = [{ tool = "write", input = { command = "a" } }, { tool = "write", input = { command = "b" } }]
        [[rules]]
        answer = [{ text = "ok" }]
    "#;
    let bed = Bed::new(on, script).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let entries = bed.entries(&mut log).await?;
    let Some(StopReason::RequiresAction { event_ids }) = last_stop(&entries) else { panic!("it asks") };
    assert_eq!(event_ids.len(), 2);
    assert_eq!(bed.hands.effects(), 0, "nothing runs unasked");

    bed.post("s1", vec![confirmation("c1", &event_ids[0], None)]).await?;
    let mut log =
        bed.wait("s1", |log| log.uncommitted().next().is_none() && log.end_position() > entries.len() as u64).await?;
    let asked_again = last_stop(&bed.entries(&mut log).await?);
    assert_eq!(asked_again, Some(StopReason::RequiresAction { event_ids: vec![event_ids[1].clone()] }));

    bed.post("s1", vec![confirmation("c2", &event_ids[1], Some("too risky"))]).await?;
    let mut log = bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.status == Status::Idle)).await?;
    let entries = bed.entries(&mut log).await?;
    let results = tool_results(&entries);
    assert!(results.contains(&("ran a".to_owned(), false)), "{results:?}");
    assert!(results.iter().any(|(text, is_error)| *is_error && text.contains("too risky")), "{results:?}");
    assert_eq!(bed.hands.effects(), 1);
    assert_eq!(last_stop(&entries), Some(StopReason::EndTurn {}));
    bed.end().await
}

const LOOKUP: &str = r#"
version = 1
[[rules]]
when = { turn = 0, results = 0 }
answer = [{ tool = "lookup", input = { key = "k" } }]
[[rules]]
answer = [{ text = "Found {{result}}" }]
"#;

async fn asked(bed: &Bed) -> anyhow::Result<String> {
    let mut log = bed.idle("s1").await?;
    match last_stop(&bed.entries(&mut log).await?) {
        Some(StopReason::RequiresAction { event_ids }) => Ok(event_ids[0].clone()),
        other => anyhow::bail!("not asked for anything: {other:?}"),
    }
}

async fn a_custom_tool_is_answered_by_the_client(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, LOOKUP).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let id = asked(&bed).await?;
    bed.post("s1", vec![custom_result("r1", &id, "42")]).await?;
    let mut log = bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.status == Status::Idle)).await?;
    let entries = bed.entries(&mut log).await?;
    let (_, said) = find(&entries, |body| match body {
        EventBody::AgentMessage { content } => Some(content.clone()),
        _ => None,
    })
    .expect("the agent speaks");
    assert_eq!(said, Content::text("Found 42"));
    bed.end().await
}

async fn of_two_answers_the_first_wins(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, LOOKUP).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let id = asked(&bed).await?;
    bed.post("s1", vec![custom_result("r1", &id, "first")]).await?;
    bed.post("s1", vec![custom_result("r2", &id, "second"), message("m2", "and?")]).await?;
    let mut log = bed
        .wait("s1", |log| {
            log.uncommitted().next().is_none() && log.summary().is_some_and(|summary| summary.status == Status::Idle)
        })
        .await?;
    let entries = bed.entries(&mut log).await?;
    let ignored: Vec<_> = entries.iter().filter(|entry| entry.ignored).map(|entry| entry.event.id.as_str()).collect();
    assert_eq!(ignored, ["r2"], "in the log, without effect");
    let said: Vec<_> = entries.iter().filter(|entry| entry.event.body.type_name() == "agent.message").collect();
    assert!(!said.is_empty());
    bed.end().await
}

async fn an_unknown_tool_is_refused(on: On) -> anyhow::Result<()> {
    let script = r#"
        version = 1
        [[rules]]
        when = { results = 0 }
        answer = [{ tool = "launch", input = {} }, { tool = "bash", raw_input = "{nonsense" }]
        [[rules]]
        answer = [{ text = "ok" }]
    "#;
    let bed = Bed::new(on, script).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let results = tool_results(&bed.entries(&mut log).await?);
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|(_, is_error)| *is_error), "{results:?}");
    assert!(results[0].0.contains("launch"), "{results:?}");
    assert_eq!(bed.hands.effects(), 0);
    bed.end().await
}

async fn a_provider_that_recovers(on: On) -> anyhow::Result<()> {
    let script = r#"
        version = 1
        [[rules]]
        answer = [{ text = "at last" }]
        fault = { kind = "status", status = 529, tries = 2, retry_after_ms = 10 }
    "#;
    let bed = Bed::new(on, script).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let types = bed.types(&mut log).await?;
    assert_eq!(count(&types, "session.error"), 2);
    assert_eq!(count(&types, "session.status_rescheduled"), 2);
    assert_eq!(count(&types, "span.model_request_start"), 3);
    assert_eq!(count(&types, "span.model_request_end"), 3);
    assert_eq!(types[types.len() - 3..], TURN_END);
    assert_eq!(last_stop(&bed.entries(&mut log).await?), Some(StopReason::EndTurn {}));
    bed.end().await
}

async fn a_provider_that_refuses_for_good(on: On) -> anyhow::Result<()> {
    let script = r#"
        version = 1
        [[rules]]
        when = { user_contains = "please" }
        answer = [{ text = "welcome" }]
        [[rules]]
        fault = { kind = "status", status = 401, error_type = "authentication_error", message = "bad key" }
    "#;
    let bed = Bed::new(on, script).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let entries = bed.entries(&mut log).await?;
    assert_eq!(last_stop(&entries), Some(StopReason::RetriesExhausted {}));
    let (_, error) = find(&entries, |body| match body {
        EventBody::SessionError { error } => Some(error.clone()),
        _ => None,
    })
    .expect("an error is shown");
    assert_eq!(error.retry_status, domain::event::RetryStatus::Exhausted);
    bed.post("s1", vec![message("m2", "please")]).await?;
    let mut log = bed.wait("s1", |log| log.end_position() > entries.len() as u64 + 8).await?;
    assert_eq!(last_stop(&bed.entries(&mut log).await?), Some(StopReason::EndTurn {}), "a new message starts over");
    bed.end().await
}

async fn an_interrupt_stops_a_model_call(on: On) -> anyhow::Result<()> {
    let script = r#"
        version = 1
        [[rules]]
        when = { user_contains = "quick" }
        answer = [{ text = "here I am" }]
        [[rules]]
        delay_ms = 60000
        answer = [{ text = "too late" }]
    "#;
    let bed = Bed::new(on, script).await?;
    bed.start("s1", vec![message("m1", "slow")]).await?;
    bed.wait("s1", |log| log.end_position() >= 4).await?;
    bed.post("s1", vec![interrupt("i1"), message("m2", "quick")]).await?;
    let mut log = bed.wait("s1", |log| log.end_position() >= 18).await?;
    assert_eq!(
        bed.types(&mut log).await?,
        [
            "user.message",
            "session.status_running",
            "session.thread_status_running",
            "span.model_request_start",
            "span.model_request_end",
            "user.interrupt",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
            "user.message",
            "session.status_running",
            "session.thread_status_running",
            "span.model_request_start",
            "agent.message",
            "span.model_request_end",
            "session.thread_status_idle",
            "session.usage",
            "session.status_idle",
        ]
    );
    bed.end().await
}

async fn an_interrupt_stops_a_tool(on: On) -> anyhow::Result<()> {
    let script = r#"
        version = 1
        [[rules]]
        when = { results = 0, user_contains = "go" }
        answer = [{ tool = "bash", input = { wait = true } }]
        [[rules]]
        answer = [{ text = "ok" }]
    "#;
    let bed = Bed::new(on, script).await?;
    let waiting = bed.hands.waiting.clone();
    bed.start("s1", vec![message("m1", "go")]).await?;
    waiting.notified().await;
    bed.post("s1", vec![interrupt("i1")]).await?;
    let mut log = bed.idle("s1").await?;
    let types = bed.types(&mut log).await?;
    let result = types.iter().position(|name| *name == "agent.tool_result").expect("the call is closed");
    let stopped = types.iter().position(|name| *name == "user.interrupt").expect("the interrupt is applied");
    assert!(result < stopped, "stamped when the tool is dead: {types:?}");
    assert_eq!(types[types.len() - 3..], TURN_END);
    assert_eq!(count(&types, "span.model_request_start"), 1, "the model is not called");
    bed.end().await
}

async fn an_interrupt_answers_open_questions(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, LOOKUP).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    asked(&bed).await?;
    bed.post("s1", vec![interrupt("i1")]).await?;
    let mut log = bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.status == Status::Idle)).await?;
    let entries = bed.entries(&mut log).await?;
    let results = tool_results(&entries);
    assert!(results.len() == 1 && results[0].1 && results[0].0.contains("interrupted"), "{results:?}");
    assert_eq!(last_stop(&entries), Some(StopReason::EndTurn {}));
    bed.end().await
}

async fn an_interrupt_while_idle_changes_nothing(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, HELLO).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let before = bed.idle("s1").await?.end_position();
    bed.post("s1", vec![interrupt("i1")]).await?;
    let mut log = bed.wait("s1", |log| log.end_position() > before).await?;
    let types = bed.types(&mut log).await?;
    assert_eq!(types[before as usize..], ["user.interrupt"]);
    bed.end().await
}

async fn runs_continue_and_the_log_reads_as_one(on: On) -> anyhow::Result<()> {
    let mut bed = Bed::new(on, ONE_CALL).await?;
    bed.tuning.decisions_per_run = 3;
    bed.start("s1", vec![]).await?;
    let mut expected = 0;
    for turn in 0..6 {
        bed.post("s1", vec![message(&format!("m{turn}"), "go")]).await?;
        expected += 14;
        bed.wait("s1", |log| log.end_position() >= expected).await?;
    }
    let mut log = bed.wait("s1", |log| log.manifest().count() >= 3 && log.end_position() >= expected).await?;
    let entries = bed.entries(&mut log).await?;
    assert_eq!(entries.len() as u64, expected);
    assert_eq!(bed.hands.effects(), 6);
    let said: Vec<_> = entries.iter().filter(|entry| entry.event.body.type_name() == "user.message").collect();
    assert_eq!(said.len(), 6);
    let mut last = None;
    for entry in &entries {
        assert!(entry.event.processed_at >= last, "stamps do not go back");
        last = entry.event.processed_at;
    }
    bed.end().await
}

async fn a_session_outlives_its_brain(on: On) -> anyhow::Result<()> {
    let mut bed = Bed::new(on, LOOKUP).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    let id = asked(&bed).await?;
    bed.stop_brain().await?;
    // Accepted while no brain is alive.
    bed.post("s1", vec![custom_result("r1", &id, "42")]).await?;
    bed.start_brain(LOOKUP).await?;
    let mut log = bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.status == Status::Idle)).await?;
    assert_eq!(last_stop(&bed.entries(&mut log).await?), Some(StopReason::EndTurn {}));
    bed.end().await
}

async fn a_closed_session_ends(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, ONE_CALL).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    bed.idle("s1").await?;
    bed.signal("s1", domain::session::signal::CLOSE, &domain::session::Close { id: "x1".into() }).await?;
    let mut log = bed.wait("s1", |log| log.is_closed()).await?;
    let types = bed.types(&mut log).await?;
    assert_eq!(types.last(), Some(&"session.status_terminated"));
    assert!(log.summary().is_some_and(|summary| summary.hand.is_none()), "the hand was released");
    bed.end().await
}

/// Calls of one answer that wait for somebody outside: each is small enough for the state, together they are not.
const CALLS: usize = 600;
/// What a server takes in one payload.
const PAYLOAD_BYTES_MAX: usize = 2 * 1024 * 1024;

async fn what_no_server_takes_in_one_piece_passes(on: On) -> anyhow::Result<()> {
    let key = "k".repeat(3_800);
    let call = format!(r#"{{ tool = "lookup", input = {{ key = "{key}" }} }}"#);
    let answer = vec![call; CALLS].join(", ");
    let script = format!(
        "version = 1\n[[rules]]\nwhen = {{ turn = 0, results = 0 }}\nanswer = [{answer}]\n\
         [[rules]]\nanswer = [{{ text = \"ok\" }}]\n"
    );
    let mut bed = Bed::new(on, &script).await?;
    bed.tuning.decisions_per_run = 3;
    let said = "m".repeat(700_000);
    bed.start("s1", vec![]).await?;
    bed.post("s1", vec![message("m1", &said)]).await?;
    let mut log = bed.idle("s1").await?;
    let Some(StopReason::RequiresAction { event_ids }) = last_stop(&bed.entries(&mut log).await?) else {
        panic!("it asks")
    };
    assert_eq!(event_ids.len(), CALLS);
    // One more decision than a run is to have: the next one begins with what is left of the state.
    bed.post("s1", vec![custom_result("r1", &event_ids[0], "42")]).await?;
    bed.wait("s1", |log| log.manifest().count() > 0).await?;
    let (in_history, whole) = bed.input_bytes("s1").await?;
    assert!(whole > PAYLOAD_BYTES_MAX, "the state has only {whole} bytes");
    assert!(in_history < 1_000, "history has {in_history} bytes of the state");

    bed.post("s1", vec![interrupt("i1")]).await?;
    let mut log = bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.status == Status::Idle)).await?;
    let entries = bed.entries(&mut log).await?;
    assert_eq!(entries[0].event.body, EventBody::UserMessage { content: Content::text(&said) });
    let uses = entries.iter().filter_map(|entry| match &entry.event.body {
        EventBody::AgentCustomToolUse { input: Json::Inline { value }, .. } => Some(value["key"] == *key),
        _ => None,
    });
    assert_eq!(uses.collect::<Vec<_>>(), [true; CALLS]);
    assert_eq!(tool_results(&entries).len(), CALLS - 1, "the interrupt answers what was left");
    bed.end().await
}
