use super::*;
use domain::{
    Event, EventBody, Usage,
    agent::ModelParams,
    content::{BlobRef, Content, Json},
    model::{ModelPrivate, Recipe},
};

fn entry(position: u64, body: EventBody, private: Option<ModelPrivate>) -> LogEntry {
    let event = Event { id: format!("sevt_{position}"), body, processed_at: None };
    LogEntry { position, commit: position, event, private, ignored: false }
}

fn answer(position: u64, blocks: Value, tool_ids: &[(&str, &str)]) -> LogEntry {
    let private = ModelPrivate {
        blocks: Json::Inline { value: blocks },
        tool_ids: tool_ids.iter().map(|(event, model)| ((*event).to_owned(), (*model).to_owned())).collect(),
        recipe: Recipe {
            from: 0,
            to: position,
            strategy: default_strategy(),
            snapshot: BlobRef { blob: "0".repeat(64), bytes: 2 },
            serializer: SERIALIZER,
            suffix: Vec::new(),
            request_sha256: String::new(),
        },
    };
    let body = EventBody::SpanModelRequestEnd {
        model_request_start_id: "sevt_span".into(),
        is_error: Some(false),
        model_usage: Usage::default(),
    };
    entry(position, body, Some(private))
}

fn message(position: u64, text: &str) -> LogEntry {
    entry(position, EventBody::UserMessage { content: Content::text(text) }, None)
}

fn result(position: u64, tool_use_id: &str, text: &str) -> LogEntry {
    let body = EventBody::AgentToolResult {
        tool_use_id: tool_use_id.into(),
        content: Content::text(text),
        is_error: Some(false),
    };
    entry(position, body, None)
}

fn agent() -> AgentSnapshot {
    AgentSnapshot {
        public: Value::Null,
        model: ModelParams { id: "m".into(), effort: None, speed: None, max_tokens: 100 },
        system: Some("be brief".into()),
        tools: Vec::new(),
    }
}

#[test]
fn results_come_first_and_carry_the_models_own_ids() {
    let thinking = json!({"type": "thinking", "thinking": "hm", "signature": "sig"});
    let uses = json!([
        thinking,
        {"type": "tool_use", "id": "toolu_a", "name": "bash", "input": {}},
        {"type": "tool_use", "id": "toolu_b", "name": "bash", "input": {}},
    ]);
    let log = [
        message(0, "go"),
        answer(1, uses.clone(), &[("sevt_a", "toolu_a"), ("sevt_b", "toolu_b")]),
        message(2, "and hurry"),
        result(3, "sevt_b", "B"),
        result(4, "sevt_a", ""),
    ];
    let body = request(&log, &agent(), &default_strategy(), &[]).unwrap();
    let messages = body["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[1], json!({"role": "assistant", "content": uses}), "thinking and signature verbatim");
    let last = messages[2]["content"].as_array().unwrap();
    assert_eq!(last[0]["tool_use_id"], "toolu_b");
    assert_eq!(last[1]["content"][0]["text"], "(no output)", "an empty result stays valid");
    assert_eq!(last[2]["text"], "and hurry");
}

#[test]
fn what_was_ignored_or_has_no_call_is_left_out() {
    let mut late = result(2, "sevt_a", "late");
    late.ignored = true;
    let log = [message(0, "go"), late, result(3, "sevt_unknown", "x")];
    let body = request(&log, &agent(), &default_strategy(), &[]).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 1);
    assert_eq!(body["messages"][0]["content"].as_array().unwrap().len(), 1);
}

#[test]
fn an_unknown_strategy_is_named() {
    let strategy = StrategyRef { name: "magic".into(), version: 7, params: Value::Null };
    let error = request(&[], &agent(), &strategy, &[]).unwrap_err();
    assert_eq!(error.to_string(), "no context strategy magic@7 in this build");
}
