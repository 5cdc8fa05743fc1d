use proptest::prelude::*;

use super::*;
use crate::model::FailureClass;

fn request() -> Request {
    let body = json!({"messages": [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_0", "name": "bash", "input": {}}]},
    ]});
    Request { body, betas: Vec::new(), session_id: "sesn_1".to_owned(), tries: 0 }
}

fn run(data: &[&str]) -> (Result<Answer, Failure>, Vec<Delta>) {
    let request = request();
    let mut assembler = Assembler::new(&request, 400);
    let mut deltas = Vec::new();
    let mut on_delta = |delta| deltas.push(delta);
    for data in data {
        let event = sse::Event { name: String::new(), data: (*data).to_owned() };
        match assembler.event(event, &mut on_delta) {
            Ok(Flow::More) => {}
            Ok(Flow::Done) => break,
            Err(failure) => return (Err(failure), deltas),
        }
    }
    (assembler.finish(&mut on_delta), deltas)
}

/// The blocks and the stop reason.
fn check(data: &[&str], blocks: Value, stop_reason: &str) -> Answer {
    let answer = run(data).0.unwrap();
    assert_eq!((Value::Array(answer.blocks.clone()), answer.stop_reason.as_str()), (blocks, stop_reason), "{data:?}");
    answer
}

const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
const CALLS: &str = r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#;

#[test]
fn names_and_ids_are_kept_too_and_count() {
    let request = request();
    let mut assembler = Assembler::new(&request, 400);
    let long = "x".repeat(1 << 20);
    let call = json!({"choices": [{"delta": {"tool_calls": [{"id": long, "function": {"name": long}}]}}]});
    let event = sse::Event { name: String::new(), data: call.to_string() };
    assembler.event(event, &mut |_| {}).unwrap();
    assert!(assembler.held_bytes() > 2 << 20, "{}", assembler.held_bytes());
    // And calls that say nothing are not free: each is looked through for every fragment.
    let before = assembler.held_bytes();
    let calls: Vec<Value> = (0..100).map(|index| json!({"index": index})).collect();
    let event =
        sse::Event { name: String::new(), data: json!({"choices": [{"delta": {"tool_calls": calls}}]}).to_string() };
    assembler.event(event, &mut |_| {}).unwrap();
    assert!(assembler.held_bytes() - before >= 99 * CALL_BYTES);
}

#[test]
fn text_with_late_usage() {
    let (answer, deltas) = run(&[
        r#"{"model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
        r#"{"model":"m-1","choices":[{"index":0,"delta":{"content":"Hel"}}],"usage":null}"#,
        r#"{"model":"m-1","choices":[{"index":0,"delta":{"content":"lo"}}]}"#,
        STOP,
        r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#,
        "[DONE]",
    ]);
    let answer = answer.unwrap();
    assert_eq!(answer.blocks, [json!({"type": "text", "text": "Hello"})]);
    assert_eq!((answer.model_id.as_str(), answer.stop_reason.as_str()), ("m-1", "end_turn"));
    let usage = Usage { input_tokens: 8, output_tokens: 2, cache_read_tokens: 4, ..Usage::default() };
    assert_eq!(answer.usage, usage);
    assert_eq!(
        deltas,
        [
            Delta::BlockStart { index: 0, kind: BlockKind::Text },
            Delta::Text { index: 0, text: "Hel".to_owned() },
            Delta::Text { index: 0, text: "lo".to_owned() },
            Delta::BlockStop { index: 0 },
        ]
    );
}

#[test]
fn parallel_calls_in_interleaved_fragments() {
    let (answer, deltas) = run(&[
        r#"{"choices":[{"delta":{"content":"ok"}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"bash","arguments":""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"id":"b","function":{"name":"read"}},{"index":0,"function":{"arguments":"{\"x\""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"","function":{"name":null,"arguments":":1}"}}]}}]}"#,
        CALLS,
    ]);
    let answer = answer.unwrap();
    assert_eq!(
        answer.blocks,
        [
            json!({"type": "text", "text": "ok"}),
            json!({"type": "tool_use", "id": "a", "name": "bash", "input": {"x": 1}}),
            json!({"type": "tool_use", "id": "b", "name": "read", "input": {}}),
        ]
    );
    assert_eq!(answer.stop_reason, "tool_use");
    let tool = |id: &str, name: &str| BlockKind::ToolUse { id: id.to_owned(), name: name.to_owned() };
    let json = |index: usize, json: &str| Delta::InputJson { index, json: json.to_owned() };
    assert_eq!(
        deltas[2..],
        [
            Delta::BlockStart { index: 1, kind: tool("a", "bash") },
            Delta::BlockStart { index: 2, kind: tool("b", "read") },
            json(1, "{\"x\""),
            json(2, "{}"),
            json(1, ":1}"),
            Delta::BlockStop { index: 0 },
            Delta::BlockStop { index: 1 },
            Delta::BlockStop { index: 2 },
        ]
    );
}

#[test]
fn servers_with_their_own_ideas() {
    let call = |id: &str, name: &str, input: Value| json!({"type": "tool_use", "id": id, "name": name, "input": input});
    // Every call has index 0, and comes whole, with the arguments as JSON.
    check(
        &[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":{"x":1}}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}]}}]}"#,
            STOP,
        ],
        json!([call("a", "f", json!({"x": 1})), call("b", "f", json!({}))]),
        "tool_use",
    );
    // No index at all; the name repeated with every fragment.
    check(
        &[
            r#"{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"x\":"}}]}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":"1}"}}]}}]}"#,
            CALLS,
        ],
        json!([call("a", "f", json!({"x": 1}))]),
        "tool_use",
    );
    // Null deltas, missing choices, an empty event; [DONE] as the only end.
    check(
        &[r#"{"choices":[{"delta":null}]}"#, "{}", "", r#"{"choices":[{"delta":{"content":"a"}}]}"#, "[DONE]"],
        json!([{"type": "text", "text": "a"}]),
        "end_turn",
    );
    // Text behind a call joins the text before it; reasoning is dropped.
    check(
        &[
            r#"{"choices":[{"delta":{"reasoning_content":"hm","content":"a"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f"}}],"content":null}}]}"#,
            r#"{"choices":[{"delta":{"content":"b"}}]}"#,
            CALLS,
        ],
        json!([{"type": "text", "text": "ab"}, call("a", "f", json!({}))]),
        "tool_use",
    );
}

#[test]
fn finish_reasons() {
    let finish = |reason: &str| format!(r#"{{"choices":[{{"delta":{{}},"finish_reason":"{reason}"}}]}}"#);
    for (reason, stop_reason) in
        [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("eos", "end_turn")]
    {
        check(&[&finish(reason)], json!([]), stop_reason);
    }
    let refusal = r#"{"choices":[{"delta":{"refusal":"No."}}]}"#;
    check(&[refusal, STOP], json!([{"type": "text", "text": "No."}]), "refusal");
    let failure = run(&[&finish("error")]).0.unwrap_err();
    assert_eq!(failure.class, FailureClass::Stream);
}

#[test]
fn missing_and_repeated_ids_are_made_up_the_same_way_each_time() {
    let chunk = r#"{"choices":[{"delta":{"tool_calls":[
        {"index":0,"function":{"name":"f"}}, {"index":1,"id":"call_0","function":{"name":"f"}},
        {"index":2,"id":"x","function":{"name":"f"}}, {"index":3,"id":"x","function":{"name":"f"}}]}}]}"#;
    let ids = || -> Vec<String> {
        let answer = run(&[chunk, CALLS]).0.unwrap();
        answer.blocks.iter().map(|block| block["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = ids();
    assert_eq!(first, ids());
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 4, "{first:?}");
    assert_eq!(first[2], "x");
    assert_ne!(first[1], "call_0", "the request has it already");
    assert!(first[0].starts_with("call_") && first[0].len() == 29, "{first:?}");
}

#[test]
fn broken_arguments_are_marked() {
    let answer = check(
        &[
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\": tru"}}]}}]}"#,
            CALLS,
        ],
        json!([{"type": "tool_use", "id": "a", "name": "f", "input": {"INVALID_JSON": "{\"x\": tru"}}]),
        "tool_use",
    );
    assert_eq!(answer.bad_inputs.len(), 1);
    assert_eq!(answer.bad_inputs[0].tool_use_id, "a");
}

#[test]
fn a_server_that_counts_nothing_is_estimated() {
    let answer = run(&[r#"{"choices":[{"delta":{"content":"12345678"}}]}"#, STOP]).0.unwrap();
    assert_eq!(answer.usage, Usage { input_tokens: 100, output_tokens: 2, estimated: true, ..Usage::default() });
}

#[test]
fn broken_streams() {
    let check = |data: &[&str], class: FailureClass, message: &str| {
        let failure = run(data).0.unwrap_err();
        assert_eq!((failure.class, failure.message.as_str()), (class, message), "{data:?}");
    };
    let text = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    check(&[], FailureClass::Stream, "the answer ended without a finish_reason");
    check(&[text], FailureClass::Stream, "the answer ended without a finish_reason");
    check(&["{\"a\""], FailureClass::Stream, "a chunk of the answer is malformed JSON (line 1, column 4)");
    check(&[text, r#"{"error":{"message":"busy","code":529}}"#], FailureClass::Overloaded, "busy");
    check(&[text, r#"{"error":{"message":"oom","type":"server_error"}}"#], FailureClass::Server, "oom");
}

fn fragment() -> impl Strategy<Value = String> {
    let call =
        (proptest::option::of(0u64..3), proptest::option::of("[ab]?"), proptest::option::of("[fg]?"), "[{}\":1]{0,3}");
    let call = call.prop_map(|(index, id, name, arguments)| {
        let function = json!({"name": name, "arguments": arguments});
        json!({"choices": [{"delta": {"tool_calls": [{"index": index, "id": id, "function": function}]}}]}).to_string()
    });
    prop_oneof![
        6 => call,
        2 => "[a-z]{0,3}".prop_map(|text| json!({"choices": [{"delta": {"content": text}}]}).to_string()),
        1 => Just(r#"{"choices":[{"delta":null,"finish_reason":"tool_calls"}]}"#.to_owned()),
        1 => Just(r#"{"choices":[3],"usage":[]}"#.to_owned()),
        1 => Just("[]".to_owned()),
    ]
}

proptest! {
    #[test]
    fn any_fragments_give_blocks_that_can_be_sent_back(mut data in proptest::collection::vec(fragment(), 0..24)) {
        data.push("[DONE]".to_owned());
        let data: Vec<&str> = data.iter().map(String::as_str).collect();
        let (result, deltas) = run(&data);
        let answer = result.unwrap();
        let mut ids = HashSet::new();
        for block in &answer.blocks {
            if block["type"] == "tool_use" {
                prop_assert!(block["input"].is_object() && ids.insert(block["id"].as_str().unwrap()), "{:?}", block);
            }
        }
        for (at, block) in answer.blocks.iter().enumerate() {
            let json: String = deltas.iter().filter_map(|delta| match delta {
                Delta::InputJson { index, json } if *index == at => Some(json.as_str()),
                _ => None,
            }).collect();
            // A call that never got a name is announced at the very end, without its arguments.
            if block["type"] == "tool_use" && block["name"] != "" {
                let mut text = tool_input::Text::default();
                text.push(&json);
                prop_assert_eq!(&tool_input::parse("", &text).0, &block["input"]);
            }
        }
    }
}
