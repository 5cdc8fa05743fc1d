use super::*;
use domain::{
    Event, EventBody, Usage,
    agent::ModelParams,
    content::{BlobRef, Content, Json},
    model::{ModelPrivate, Purpose, Recipe},
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
            keep: Vec::new(),
            purpose: Purpose::Answer,
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
        mcp: Vec::new(),
        web_fetch: None,
    }
}

fn shape(strategy: &StrategyRef) -> Shape<'_> {
    Shape { strategy, suffix: &[], purpose: Purpose::Answer }
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
    let body = request(&log, &agent(), shape(&default_strategy())).unwrap();
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
    let body = request(&log, &agent(), shape(&default_strategy())).unwrap();
    assert_eq!(body["messages"].as_array().unwrap().len(), 1);
    assert_eq!(body["messages"][0]["content"].as_array().unwrap().len(), 1);
}

#[test]
fn an_unknown_strategy_is_named() {
    let strategy = StrategyRef { name: "magic".into(), version: 7, params: Value::Null };
    let error = request(&[], &agent(), shape(&strategy)).unwrap_err();
    assert_eq!(error.to_string(), "the context strategy magic@7, which is not in this build");
}

/// A task, two rounds with a result each, a summary of the first round, a nudge, an answer.
fn sample() -> Vec<LogEntry> {
    let long = "x".repeat(500);
    let call =
        |id: &str| json!([{"type": "text", "text": id}, {"type": "tool_use", "id": id, "name": "bash", "input": {}}]);
    let mut nudged = answer(7, json!([{"type": "text", "text": "sorry"}]), &[]);
    let nudge = json!({"role": "user", "content": [{"type": "text", "text": "go on"}]});
    nudged.private.as_mut().unwrap().recipe.suffix = vec![nudge];
    let mut compacted = answer(6, json!([{"type": "text", "text": "the summary"}]), &[]);
    compacted.event.body = EventBody::AgentThreadContextCompacted {};
    compacted.private.as_mut().unwrap().recipe.to = 3;
    vec![
        message(0, "the task"),
        answer(1, call("toolu_a"), &[("sevt_a", "toolu_a")]),
        result(2, "sevt_a", &long),
        answer(3, call("toolu_b"), &[("sevt_b", "toolu_b")]),
        result(4, "sevt_b", &long),
        message(5, "hurry"),
        compacted,
        nudged,
    ]
}

fn made(name: &str, version: u32, params: Value, entries: &[LogEntry]) -> Value {
    let strategy = StrategyRef { name: name.into(), version, params };
    request(entries, &agent(), shape(&strategy)).unwrap()["messages"].clone()
}

/// Roles with the texts of the blocks, results by their first bytes.
fn outline(messages: &Value) -> Vec<String> {
    let text = |block: &Value| match block["type"].as_str() {
        Some("tool_result") => format!("={}", &block["content"][0]["text"].as_str().unwrap()[..12]),
        Some("tool_use") => format!("!{}", block["id"].as_str().unwrap()),
        _ => block["text"].as_str().unwrap().chars().take(24).collect(),
    };
    let messages = messages.as_array().unwrap().iter();
    messages
        .map(|message| {
            let blocks: Vec<String> = message["content"].as_array().unwrap().iter().map(text).collect();
            format!("{}: {}", message["role"].as_str().unwrap(), blocks.join(" | "))
        })
        .collect()
}

#[test]
fn a_file_is_given_as_what_it_had() {
    let text = json!({"type": "text", "media_type": "text/plain", "data": "a"});
    let source = json!({"type": "file", "file_id": "file_1", "content": text});
    let document = domain::content::Block::Document { source, title: Some("t".into()), context: None };
    let log = [entry(0, EventBody::UserMessage { content: Content::Inline(vec![document]) }, None)];
    let block = &made("full", 2, Value::Null, &log)[0]["content"][0];
    assert_eq!((&block["source"], &block["title"]), (&text, &json!("t")));
}

#[test]
fn synthetic_messages_stay_where_the_model_saw_them() {
    let log = sample();
    let forgotten = outline(&made("full", 1, Value::Null, &log));
    let kept = outline(&made("full", 2, Value::Null, &log));
    assert!(!forgotten.iter().any(|line| line.contains("go on")), "{forgotten:?}");
    assert_eq!(kept[kept.len() - 2..], ["user: go on", "assistant: sorry"]);
}

#[test]
fn old_results_are_named_and_the_last_ones_stay() {
    let outlined = |params| outline(&made("clear-tool-results", 1, params, &sample())).join("\n");
    assert!(!outlined(Value::Null).contains("=[This result"));
    assert_eq!(outlined(json!({"before": 5})).matches("=[This result").count(), 2);
    assert_eq!(outlined(json!({"before": 5, "keep": 1})).matches("=[This result").count(), 1);
    assert_eq!(outlined(json!({"before": 3})).matches("=[This result").count(), 1);
    assert_eq!(outlined(json!({"before": 5, "keep": 9})).matches("=[This result").count(), 0);
}

#[test]
fn a_compaction_keeps_the_task_and_what_it_does_not_stand_for() {
    let log = sample();
    // As it is read: the task, and everything from where the summary ends.
    let mut slice = vec![log[0].clone()];
    slice.extend_from_slice(&log[3..]);
    let outlined = outline(&made("compact", 1, Value::Null, &slice));
    assert_eq!(
        outlined,
        [
            "user: the task | [The conversation so far",
            "assistant: toolu_b | !toolu_b",
            "user: =xxxxxxxxxxxx | hurry",
            "user: go on",
            "assistant: sorry",
        ]
    );
    let whole = made("compact", 1, Value::Null, &slice).to_string();
    assert!(whole.contains("the summary") && !whole.contains("toolu_a"), "{whole}");
    let before = outline(&made("compact", 1, Value::Null, &log[..5]));
    assert_eq!(before.len(), 5, "without a summary everything is shown: {before:?}");
}

#[test]
fn a_window_moves_in_leaps_and_says_what_is_missing() {
    let mut marks = Marks::default();
    let params = json!({"rounds": 4, "leap": 3});
    let mut from = Vec::new();
    for position in 0..14 {
        from.push((window::STRATEGY.reach)(&marks, &params));
        marks.asked(position * 10);
    }
    assert_eq!(from, [0, 0, 0, 0, 0, 0, 0, 30, 30, 30, 60, 60, 60, 90]);
    (14..400).for_each(|position| marks.asked(position * 10));
    assert_eq!((window::STRATEGY.reach)(&marks, &params), 3_960, "also when early rounds are forgotten");

    let log = sample();
    let mut slice = vec![log[0].clone()];
    slice.extend_from_slice(&log[3..]);
    let outlined = outline(&made("window", 1, params, &slice));
    assert_eq!(outlined[0], "user: the task | [What came between is le");
}

#[test]
fn what_is_summarised_ends_before_the_rounds_that_stay() {
    let mut marks = Marks::default();
    for position in [3, 10, 20, 30] {
        marks.asked(position);
    }
    let end = |marks: &Marks, keep: u64| {
        let strategy = StrategyRef { name: "compact".into(), version: 1, params: json!({"keep": keep}) };
        summary_end(&strategy, marks, 40)
    };
    assert_eq!([end(&marks, 0), end(&marks, 1), end(&marks, 3), end(&marks, 9)], [40, 30, 10, 40]);
    marks.compacted(crate::marks::Cut { at: 25, from: 20 });
    assert_eq!([end(&marks, 1), end(&marks, 2)], [30, 40], "rounds before the last summary are not counted again");
    let reset = StrategyRef { name: "reset".into(), version: 1, params: Value::Null };
    assert_eq!((summary_end(&reset, &marks, 40), reach(&reset, &marks)), (40, 20));
}

#[test]
fn a_summary_is_asked_for_without_tools() {
    let mut agent = agent();
    agent.tools.push(domain::agent::ToolSpec {
        name: "bash".into(),
        description: String::new(),
        input_schema: json!({}),
        kind: domain::agent::ToolKind::Builtin,
        policy: domain::agent::Policy::AlwaysAllow,
    });
    let strategy = StrategyRef { name: "compact".into(), version: 1, params: Value::Null };
    let shape = Shape { strategy: &strategy, suffix: &[], purpose: Purpose::Summary };
    let body = request(&sample(), &agent, shape).unwrap();
    assert_eq!(body["tool_choice"], json!({"type": "none"}));
    assert_eq!(body["tools"].as_array().unwrap().len(), 1, "the cached prefix has them");
    let last = body["messages"].as_array().unwrap().last().unwrap();
    assert!(last["content"][0]["text"].as_str().unwrap().starts_with("The context is nearly full"));
    assert!(can_summarize(&default_strategy()).is_err());
}

/// What each released strategy makes of the sample. Recipes in old logs name them, and the bytes must come out again:
/// a hash that does not hold any more means that a released strategy was changed.
const RELEASED: &[(&str, u32, &str)] = &[
    ("full", 1, "28df3b541cadbaa376b532db607b68e1a06ec749efa9f02db6519902dde27776"),
    ("full", 2, "173bd03c3289ed32a32c3dadd20c40f1b80f91956ee1ffafd82ca11c89d32242"),
    ("clear-tool-results", 1, "40dc23d4d8091bcfe901bcbdce6a4b438e226487b89c7cda0a4b60a5bde004dc"),
    ("window", 1, "112d315341c3ff3bc4f1de9342240599b16158086c6bc5f91829829728fa5b47"),
    ("compact", 1, "38721eed6c451780834418b2988fa2eece0b7c22451e9cf2a964a70d2954f283"),
    ("reset", 1, "439ecd50ac0b5c19eb58882f79df9c46f420b18132aa2c3b43775e453817a534"),
];

#[test]
fn released_strategies_are_frozen() {
    let params = json!({"before": 5, "keep": 1, "clear": {"before": 5}});
    let made: Vec<(&str, u32, String)> = STRATEGIES
        .iter()
        .map(|strategy| {
            let named = StrategyRef { name: strategy.name.into(), version: strategy.version, params: params.clone() };
            let mut bytes = serialize(&request(&sample(), &agent(), shape(&named)).unwrap());
            // With a gap, as bounded strategies read it.
            let mut slice = sample();
            slice.drain(1..3);
            bytes.extend(serialize(&request(&slice, &agent(), shape(&named)).unwrap()));
            if strategy.summary.is_some() {
                let shape = Shape { strategy: &named, suffix: &[], purpose: Purpose::Summary };
                bytes.extend(serialize(&request(&sample(), &agent(), shape).unwrap()));
            }
            (strategy.name, strategy.version, domain::ids::content_hash(&bytes))
        })
        .collect();
    let made: Vec<_> = made.iter().map(|(name, version, hash)| (*name, *version, hash.as_str())).collect();
    assert_eq!(made, RELEASED);
}

#[test]
fn parameters_that_a_strategy_does_not_take_are_refused() {
    let strategy = |name: &str, params: Value| StrategyRef { name: name.to_owned(), version: 1, params };
    for (name, params) in [
        ("full", Value::Null),
        ("full", json!({})),
        ("window", json!({"rounds": 3, "leap": 1})),
        ("clear-tool-results", json!({"before": 7, "keep": 0})),
        ("compact", json!({"keep": 2, "clear": {"before": 7}})),
        ("reset", json!({"clear": {"keep": 1}})),
    ] {
        check(&strategy(name, params.clone())).unwrap_or_else(|error| panic!("{name} {params}: {error}"));
    }
    for (name, params, why) in [
        (
            "full",
            json!({"rounds": 1}),
            "full@1 with parameters that it does not take: params.rounds is unknown (known: it has none)",
        ),
        (
            "window",
            json!({"rouns": 3}),
            "window@1 with parameters that it does not take: params.rouns is unknown (known: rounds, leap)",
        ),
        (
            "window",
            json!({"rounds": -5}),
            "window@1 with parameters that it does not take: params.rounds must be a number from 0 on",
        ),
        ("window", json!([1]), "window@1 with parameters that it does not take: params must be an object"),
        (
            "reset",
            json!({"clear": {"form": 1}}),
            "reset@1 with parameters that it does not take: params.clear.form is unknown (known: before, keep)",
        ),
    ] {
        assert_eq!(check(&strategy(name, params)).unwrap_err().to_string(), why);
    }
}
