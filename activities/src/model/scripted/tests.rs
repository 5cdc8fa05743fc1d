//! The scripted model inside the process: which rule answers, what is filled in, and that time and cancelling work.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::testing::{answer, call, failure, patient, request, request_of};

fn model(script: &str) -> Scripted {
    Scripted::new(Script::from_toml(script, "script".as_ref()).unwrap(), patient())
}

/// A request with the messages of `users`, and `results` results behind the last.
fn conversation(users: &[&str], results: &[(&str, bool)]) -> Request {
    let mut messages = Vec::new();
    for user in users {
        messages.push(json!({"role": "user", "content": user}));
        messages.push(json!({"role": "assistant", "content": "ok"}));
    }
    if results.is_empty() {
        messages.pop();
    }
    for (content, is_error) in results {
        let block = json!({"type": "tool_result", "tool_use_id": "t", "content": content, "is_error": is_error});
        messages.push(json!({"role": "user", "content": [block]}));
    }
    request_of(json!({"model": "big", "system": "You are careful", "messages": messages,
        "tools": [{"name": "bash", "input_schema": {}}]}))
}

async fn text(model: &Scripted, request: &Request) -> String {
    answer(model, request).await.blocks[0]["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_rule_that_holds_answers() {
    let rule = |when: &str| format!("[[rules]]\nwhen = {{ {when} }}\nanswer = [{{ text = '{when}' }}]\n");
    let conditions = [
        "user_contains = \"b\", turn = 1",
        "result_contains = \"FAILED\", result_is_error = true",
        "result_is_error = false, results = { min = 2, max = 3 }",
        "tries = { min = 2 }",
        "tool_offered = \"bash\", system_contains = \"careful\", model = \"big\", user_contains = \"everything\"",
        "results = 0",
    ];
    let script: String = std::iter::once("version = 1\n".to_owned()).chain(conditions.map(rule)).collect();
    let model = model(&script);
    let check = async |request: Request, rule: usize| assert_eq!(text(&model, &request).await, conditions[rule]);
    check(conversation(&["a", "b"], &[]), 0).await;
    check(conversation(&["b"], &[]), 5).await;
    check(conversation(&["a"], &[("2 FAILED", true)]), 1).await;
    check(conversation(&["a"], &[("ok", false), ("ok", false)]), 2).await;
    check(conversation(&["a"], &[("FAILED", true), ("ok", false), ("ok", false)]), 2).await;
    check(Request { tries: 2, ..conversation(&["a"], &[]) }, 3).await;
    check(conversation(&["everything"], &[]), 4).await;
    check(conversation(&["a"], &[]), 5).await;
    let failed = failure(&model, &conversation(&["a"], &[("ok", false)])).await;
    assert_eq!(failed.class, FailureClass::Request);
    assert_eq!(failed.message, "no rule of the script fits (turn 0, results 1, tries 0)");
}

#[tokio::test]
async fn a_long_turn_counts_on_the_request_alone() {
    let model = model(
        r#"
        version = 1
        [[rules]]
        when = { results = { max = 4 } }
        answer = [{ tool = "bash", input = { command = "echo {{results}} >> log", deep = [["{{turn}}"]] } }]
        [[rules]]
        answer = [{ text = "{{user}}: {{results}} results, the last {{result}}" }]
        "#,
    );
    let mut body = json!({"messages": [{"role": "user", "content": "go"}]});
    let mut ids = Vec::new();
    for round in 0..5 {
        let answer = answer(&model, &request_of(body.clone())).await;
        let call = &answer.blocks[0];
        assert_eq!(call["input"], json!({"command": format!("echo {round} >> log"), "deep": [["0"]]}));
        let result = json!({"type": "tool_result", "tool_use_id": call["id"], "content": format!("r{round}")});
        ids.push(call["id"].as_str().unwrap().to_owned());
        let messages = body["messages"].as_array_mut().unwrap();
        messages.push(json!({"role": "assistant", "content": answer.blocks}));
        messages.push(json!({"role": "user", "content": [result]}));
    }
    assert_eq!(text(&model, &request_of(body)).await, "go: 5 results, the last r4");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5, "every call has its own id");
}

#[tokio::test]
async fn the_same_request_has_the_same_answer_and_another_session_other_ids() {
    let model = model("version = 1\n[[rules]]\nanswer = [{ tool = \"bash\" }, { tool = \"bash\" }]");
    let of = |session_id: &str| Request { session_id: session_id.to_owned(), ..request("hi") };
    let first = answer(&model, &of("a")).await;
    assert_eq!(answer(&model, &of("a")).await, first);
    assert_ne!(first.blocks[0]["id"], first.blocks[1]["id"]);
    assert_ne!(answer(&model, &of("b")).await.blocks[0]["id"], first.blocks[0]["id"]);
}

#[tokio::test]
async fn a_fault_with_tries_goes_away_and_one_without_stays() {
    let model = model(
        r#"
        version = 1
        [[rules]]
        fault = { kind = "status", status = 529, tries = 2 }
        [[rules]]
        when = { user_contains = "broken" }
        fault = { kind = "status", status = 401, message = "no" }
        [[rules]]
        answer = [{ text = "after {{tries}}" }]
        "#,
    );
    let of = |text: &str, tries: u32| Request { tries, ..request(text) };
    assert_eq!(failure(&model, &of("hi", 0)).await.class, FailureClass::Overloaded);
    assert_eq!(failure(&model, &of("hi", 1)).await.class, FailureClass::Overloaded);
    assert_eq!(text(&model, &of("hi", 2)).await, "after 2");
    let failed = failure(&model, &of("broken", 9)).await;
    assert_eq!((failed.class, failed.message.as_str()), (FailureClass::Auth, "no"));
}

#[tokio::test]
async fn raw_input_is_sent_as_it_stands() {
    let model = model("version = 1\n[[rules]]\nanswer = [{ tool = \"bash\", raw_input = '{\"a\": ' }]\nliteral = true");
    let answer = answer(&model, &request("hi")).await;
    assert_eq!(answer.blocks[0]["input"], json!({"INVALID_JSON": "{\"a\": "}));
    assert_eq!(answer.bad_inputs.len(), 1);
}

#[tokio::test]
async fn a_refusal_and_literal_braces() {
    let model = model(
        r#"
        version = 1
        model = "scripted-1"
        [[rules]]
        answer = [{ text = "{{ helm }}" }]
        literal = true
        stop_reason = "refusal"
        stop_details = { type = "refusal", category = "cyber" }
        "#,
    );
    let answer = answer(&model, &request("hi")).await;
    assert_eq!(answer.blocks[0]["text"], "{{ helm }}");
    assert_eq!((answer.stop_reason.as_str(), answer.model_id.as_str()), ("refusal", "scripted-1"));
    assert_eq!(answer.stop_details, Some(json!({"type": "refusal", "category": "cyber"})));
}

#[tokio::test]
async fn time_passes_as_the_script_says() {
    let model = model(
        r#"
        version = 1
        [[rules]]
        answer = [{ text = "hi" }]
        delay_ms = 20
        event_delay_ms = 2
        pauses = [{ before_event = 3, ms = 20 }]
        "#,
    );
    let begun = tokio::time::Instant::now();
    answer(&model, &request("hi")).await;
    // Six events.
    assert!(begun.elapsed() >= Duration::from_millis(20 + 6 * 2 + 20));
}

#[tokio::test]
async fn stalls_end_by_timeout_or_by_cancelling() {
    let script = "version = 1\n[[rules]]\nanswer = [{ text = \"hi\" }]\nfault = { kind = \"stall\", after_events = 3 }";
    let parsed = Script::from_toml(script, "script".as_ref()).unwrap();
    let idle = Duration::from_millis(10);
    let (outcome, _) = call(&Scripted::new(parsed.clone(), Timeouts { idle, ..patient() }), &request("hi")).await;
    let Outcome::Failed(failed) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failed.class, failed.partial), (FailureClass::Stream, true));
    let (outcome, _) = call(&Scripted::new(parsed, Timeouts { overall: idle, ..patient() }), &request("hi")).await;
    let Outcome::Failed(failed) = outcome else { panic!("{outcome:?}") };
    assert_eq!((failed.class, failed.partial), (FailureClass::Timeout, true));

    let seen = tokio::sync::Notify::new();
    let mut on_delta = |delta| {
        if matches!(delta, Delta::Text { .. }) {
            seen.notify_one();
        }
    };
    let cancelled = Box::pin(seen.notified());
    assert_eq!(model(script).call(&request("hi"), &mut on_delta, cancelled).await, Outcome::Cancelled);
}

#[tokio::test]
async fn json_scripts_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.json");
    let script: Value = json!({"version": 1, "rules": [{"when": {"turn": 0}, "answer": [{"text": "from JSON"}]}]});
    std::fs::write(&path, script.to_string()).unwrap();
    let model = Scripted::new(Script::load(&path).unwrap(), patient());
    assert_eq!(text(&model, &request("hi")).await, "from JSON");
}
