use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::FailureClass;

/// Runs the events; the previews are worth looking at however it ends.
fn run(events: &[Value]) -> (Result<Answer, Failure>, Vec<Delta>) {
    let mut assembler = Assembler::default();
    let mut deltas = Vec::new();
    let mut on_delta = |delta| deltas.push(delta);
    for event in events {
        let name = event["type"].as_str().unwrap_or_default().to_owned();
        match assembler.event(sse::Event { name, data: event.to_string() }, &mut on_delta) {
            Ok(Flow::More) => {}
            Ok(Flow::Done) => break,
            Err(failure) => return (Err(failure), deltas),
        }
    }
    (assembler.finish(&mut on_delta), deltas)
}

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "role": "assistant", "content": [], "model": "m-1",
        "usage": {"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 4,
            "cache_creation_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3}}}})
}

fn block(index: u64, content: Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": content})
}

fn delta(index: u64, delta: Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn stop(index: u64) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

fn end(reason: &str) -> [Value; 2] {
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    [json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}}), json!({"type": "message_stop"})]
}

/// A whole stream around `middle`.
fn stream(middle: &[Value], reason: &str) -> Vec<Value> {
    [&[start()], middle, &end(reason)].concat()
}

fn answer(events: &[Value]) -> Answer {
    run(events).0.expect("an answer")
}

#[test]
fn text_thinking_and_parallel_tools() {
    let tool = |id: &str| json!({"type": "tool_use", "id": id, "name": "bash", "input": {}});
    let json_part = |text: &str| json!({"type": "input_json_delta", "partial_json": text});
    let (result, deltas) = run(&stream(
        &[
            block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "thinking_delta", "thinking": "m"})),
            delta(0, json!({"type": "signature_delta", "signature": "c2ln"})),
            stop(0),
            json!({"type": "ping"}),
            block(1, json!({"type": "redacted_thinking", "data": "eA=="})),
            stop(1),
            block(2, json!({"type": "text", "text": ""})),
            delta(2, json!({"type": "text_delta", "text": "I lo"})),
            delta(2, json!({"type": "text_delta", "text": "ok"})),
            stop(2),
            block(3, tool("toolu_1")),
            delta(3, json_part("")),
            delta(3, json_part("{\"command\":")),
            delta(3, json_part(" \"ls\"}")),
            stop(3),
            block(4, tool("toolu_2")),
            stop(4),
        ],
        "tool_use",
    ));
    let answer = result.unwrap();
    assert_eq!(
        answer.blocks,
        [
            json!({"type": "thinking", "thinking": "hmm", "signature": "c2ln"}),
            json!({"type": "redacted_thinking", "data": "eA=="}),
            json!({"type": "text", "text": "I look"}),
            json!({"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "ls"}}),
            json!({"type": "tool_use", "id": "toolu_2", "name": "bash", "input": {}}),
        ]
    );
    assert_eq!((answer.stop_reason.as_str(), answer.model_id.as_str()), ("tool_use", "m-1"));
    assert_eq!(answer.bad_inputs, []);
    assert_eq!(
        answer.usage,
        Usage {
            input_tokens: 10,
            output_tokens: 7,
            cache_creation_5m_tokens: 2,
            cache_creation_1h_tokens: 3,
            cache_read_tokens: 4,
            estimated: false
        }
    );
    let tool = |id: &str| BlockKind::ToolUse { id: id.to_owned(), name: "bash".to_owned() };
    let json_delta = |json: &str| Delta::InputJson { index: 3, json: json.to_owned() };
    let text = |text: &str| Delta::Text { index: 2, text: text.to_owned() };
    assert_eq!(
        deltas,
        [
            Delta::BlockStart { index: 0, kind: BlockKind::Thinking },
            Delta::Thinking { index: 0 },
            Delta::Thinking { index: 0 },
            Delta::BlockStop { index: 0 },
            Delta::BlockStart { index: 1, kind: BlockKind::Other("redacted_thinking".to_owned()) },
            Delta::BlockStop { index: 1 },
            Delta::BlockStart { index: 2, kind: BlockKind::Text },
            text("I lo"),
            text("ok"),
            Delta::BlockStop { index: 2 },
            Delta::BlockStart { index: 3, kind: tool("toolu_1") },
            json_delta(""),
            json_delta("{\"command\":"),
            json_delta(" \"ls\"}"),
            Delta::BlockStop { index: 3 },
            Delta::BlockStart { index: 4, kind: tool("toolu_2") },
            Delta::BlockStop { index: 4 },
        ]
    );
}

#[test]
fn what_is_newer_than_this_code_is_kept() {
    let answer = answer(&stream(
        &[
            json!({"type": "message_note", "anything": 1}),
            block(0, json!({"type": "hologram", "beam": "a", "of": {"x": 1}})),
            delta(0, json!({"type": "beam_delta", "beam": "b", "angle": 3})),
            stop(0),
            block(1, json!({"type": "text", "text": "", "citations": null})),
            delta(1, json!({"type": "citations_delta", "citation": {"cited_text": "a"}})),
            delta(1, json!({"type": "citations_delta", "citation": {"cited_text": "b"}})),
            delta(1, json!({"type": "text_delta", "text": "t"})),
            stop(1),
        ],
        "a_new_reason",
    ));
    assert_eq!(
        answer.blocks,
        [
            json!({"type": "hologram", "beam": "ab", "of": {"x": 1}, "angle": 3}),
            json!({"type": "text", "text": "t", "citations": [{"cited_text": "a"}, {"cited_text": "b"}]}),
        ]
    );
    assert_eq!(answer.stop_reason, "a_new_reason");
}

#[test]
fn stop_reasons_and_their_details() {
    for reason in ["end_turn", "max_tokens", "stop_sequence", "pause_turn", "refusal"] {
        assert_eq!(answer(&stream(&[], reason)).stop_reason, reason);
    }
    let details = json!({"type": "refusal", "category": "cyber", "explanation": null});
    let delta = json!({"stop_reason": "refusal", "stop_details": details});
    let got = answer(&[start(), json!({"type": "message_delta", "delta": delta}), json!({"type": "message_stop"})]);
    assert_eq!(got.stop_details, Some(details));
    assert_eq!(got.usage.output_tokens, 1, "the count of message_start survives");
}

#[test]
fn a_cut_off_input_is_marked_and_not_lost() {
    let tool = json!({"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {}});
    let part = json!({"type": "input_json_delta", "partial_json": "{\"command\": \"rm -r"});
    let answer = answer(&stream(&[block(0, tool), delta(0, part), stop(0)], "max_tokens"));
    assert_eq!(answer.blocks[0]["input"], json!({"INVALID_JSON": "{\"command\": \"rm -r"}));
    assert_eq!(answer.bad_inputs.len(), 1);
    assert_eq!(answer.bad_inputs[0].tool_use_id, "toolu_1");
}

#[test]
fn blocks_that_nobody_closed_are_closed_at_the_end() {
    let tool = json!({"type": "tool_use", "id": "t", "name": "bash", "input": {}});
    let part = json!({"type": "input_json_delta", "partial_json": "{\"a\": 1}"});
    let (result, deltas) = run(&stream(&[block(0, tool), delta(0, part)], "tool_use"));
    assert_eq!(result.unwrap().blocks[0]["input"], json!({"a": 1}));
    assert_eq!(deltas.last(), Some(&Delta::BlockStop { index: 0 }));
}

#[test]
fn usage_without_the_split() {
    let usage = json!({"input_tokens": 1, "output_tokens": 0, "cache_creation_input_tokens": 9});
    let message = json!({"type": "message_start", "message": {"model": "m", "usage": usage}});
    let [delta, stop] = end("end_turn");
    let got = answer(&[message, delta, stop]).usage;
    assert_eq!((got.cache_creation_5m_tokens, got.cache_creation_1h_tokens), (9, 0));
}

#[test]
fn broken_streams() {
    let check = |events: &[Value], message: &str| {
        let failure = run(events).0.unwrap_err();
        assert_eq!((failure.class, failure.message.as_str()), (FailureClass::Stream, message));
    };
    let text = block(0, json!({"type": "text", "text": ""}));
    let more = delta(0, json!({"type": "text_delta", "text": "a"}));
    let [finish, over] = end("end_turn");
    check(&[], "the answer ended without message_stop");
    check(&[start(), text.clone(), more.clone(), stop(0), finish.clone()], "the answer ended without message_stop");
    check(&[start(), over.clone()], "the answer has no stop_reason");
    check(&[finish.clone(), over.clone()], "the answer has no message_start");
    check(std::slice::from_ref(&text), "a block came before message_start");
    check(&[start(), start()], "the answer began twice");
    check(&[start(), more.clone()], "an event names a block that is not open");
    check(&[start(), text.clone(), stop(0), more], "an event names a block that is not open");
    check(&[start(), text.clone(), text], "a block began out of order");
    check(&[json!({"type": "message_start"})], "an event of type message_start has no content");
    check(&[json!([1])], "an event of the answer is not a JSON object");
}

#[test]
fn malformed_json_is_a_broken_stream_that_quotes_nothing() {
    let event = sse::Event { name: "content_block_delta".to_owned(), data: "{\"secret\": ".to_owned() };
    let failure = Assembler::default().event(event, &mut |_| {}).unwrap_err();
    assert_eq!(failure.class, FailureClass::Stream);
    assert_eq!(failure.message, "an event of the answer is malformed JSON (line 1, column 11)");
    let ping = |data: &str| sse::Event { name: "ping".to_owned(), data: data.to_owned() };
    assert_eq!(Assembler::default().event(ping(""), &mut |_| {}), Ok(Flow::More));
    assert!(Assembler::default().event(ping("{\"type"), &mut |_| {}).is_err());
}

#[test]
fn errors_in_the_stream_have_their_own_class() {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
    let failure = run(&[start(), error]).0.unwrap_err();
    assert_eq!(failure.class, FailureClass::Overloaded);
    assert_eq!(failure.provider_type.as_deref(), Some("overloaded_error"));
}

/// A stream with a block of every kind.
fn rich() -> Vec<Value> {
    stream(
        &[
            block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "s"})),
            stop(0),
            block(1, json!({"type": "text", "text": ""})),
            delta(1, json!({"type": "text_delta", "text": "grün"})),
            delta(1, json!({"type": "citations_delta", "citation": {}})),
            stop(1),
            block(2, json!({"type": "tool_use", "id": "t", "name": "bash", "input": {}})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
            delta(2, json!({"type": "input_json_delta", "partial_json": "1}"})),
            stop(2),
        ],
        "tool_use",
    )
}

/// `value` with one of its parts, chosen by `path`, replaced.
fn replace_part(value: &mut Value, mut path: usize, with: Value) {
    let parts: Vec<&mut Value> = match value {
        Value::Array(list) => list.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    let count = parts.len() + 1;
    match parts.into_iter().nth(path % count) {
        Some(part) => {
            path /= count;
            replace_part(part, path, with);
        }
        None => *value = with,
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        Just(json!("text")),
        Just(json!([])),
        Just(json!({})),
        Just(json!({"type": "tool_use", "input": 3})),
    ]
}

proptest! {
    #[test]
    fn damage_never_panics_and_a_cut_is_never_an_answer(
        order in proptest::collection::vec(0usize..14, 0..20),
        damage in proptest::collection::vec((any::<usize>(), any::<usize>(), any_json()), 0..4),
        kept in 0usize..14,
    ) {
        let whole = rich();
        prop_assert!(run(&whole).0.is_ok());
        prop_assert!(run(&whole[..kept]).0.is_err());
        let mut events: Vec<Value> = order.into_iter().map(|at| whole[at % whole.len()].clone()).collect();
        let _ = run(&events);
        events.splice(.., whole);
        for (event, path, with) in damage {
            let at = event % events.len();
            replace_part(&mut events[at], path, with);
        }
        let (result, deltas) = run(&events);
        if let Ok(answer) = result {
            let starts = deltas.iter().filter(|delta| matches!(delta, Delta::BlockStart { .. })).count();
            let stops = deltas.iter().filter(|delta| matches!(delta, Delta::BlockStop { .. })).count();
            prop_assert_eq!((starts, stops), (answer.blocks.len(), answer.blocks.len()));
        }
    }
}
