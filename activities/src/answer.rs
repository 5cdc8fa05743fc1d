//! From a model's answer to session events: which block becomes which event, and under which id.
//!
//! Previews use the same numbering, so a preview and the event it becomes have one id.

use crate::{
    judge::Verdicts,
    model::{Answer, BlockKind, Delta as ModelDelta},
};
use domain::{
    Event, EventBody, HandName, Usage,
    agent::{AgentFacts, Policy, ToolFact, ToolKind},
    content::{Block, Content, Json},
    delta::{Delta, DeltaKind},
    event::Permission,
    ids,
    limits::VIEW_TEXT_EDGE_BYTES,
    outcome::{BlockDigest, Call, ModelDigest},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Whose answer it is: everything that event ids are derived from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub session_id: String,
    pub activity_id: String,
    pub attempt: u32,
}

impl Origin {
    fn event_id(&self, index: usize) -> String {
        ids::activity_event(&self.session_id, &self.activity_id, self.attempt, index)
    }
}

/// Counts events along the blocks of an answer: texts in a row are one message.
#[derive(Default)]
struct Numbering {
    next: usize,
    in_text: bool,
}

impl Numbering {
    /// The number of the event that a block belongs to, and whether it is the event's first block.
    fn block(&mut self, is_text: bool) -> (usize, bool) {
        let is_first = !(is_text && self.in_text);
        self.in_text = is_text;
        if is_first {
            self.next += 1;
        }
        (self.next - 1, is_first)
    }
}

/// Turns a model's deltas into previews of session events.
pub struct Previews {
    origin: Origin,
    numbering: Numbering,
    /// Event number of the message that is being written.
    message: Option<usize>,
}

impl Previews {
    pub fn new(origin: Origin) -> Self {
        Previews { origin, numbering: Numbering::default(), message: None }
    }

    pub fn next(&mut self, delta: ModelDelta) -> Option<Delta> {
        let (number, what) = match delta {
            ModelDelta::BlockStart { kind, .. } => {
                let (number, is_first) = self.numbering.block(kind == BlockKind::Text);
                self.message = (kind == BlockKind::Text).then_some(number);
                let event_type = match kind {
                    BlockKind::Text => "agent.message",
                    BlockKind::Thinking => "agent.thinking",
                    BlockKind::ToolUse { .. } | BlockKind::Other(_) => return None,
                };
                if !is_first {
                    return None;
                }
                (number, DeltaKind::Start { event_type: event_type.to_owned() })
            }
            ModelDelta::Text { text, .. } => (self.message?, DeltaKind::Text { text }),
            ModelDelta::Thinking { .. } | ModelDelta::InputJson { .. } | ModelDelta::BlockStop { .. } => return None,
        };
        Some(Delta { session_id: self.origin.session_id.clone(), event_id: self.origin.event_id(number), what })
    }
}

/// A whole answer as the log takes it.
pub struct Parts {
    pub digest: ModelDigest,
    pub events: Vec<Event>,
    /// Use event id -> the model's own id.
    pub tool_ids: BTreeMap<String, String>,
}

/// `verdicts` are those on calls of tools with the policy `auto`.
pub fn parts(origin: &Origin, agent: &AgentFacts, answer: &Answer, verdicts: &Verdicts) -> Parts {
    let mut numbering = Numbering::default();
    let mut events: BTreeMap<usize, EventBody> = BTreeMap::new();
    let mut calls = Vec::new();
    let mut tool_ids = BTreeMap::new();
    for block in &answer.blocks {
        let kind = block["type"].as_str().unwrap_or_default();
        let (number, _) = numbering.block(kind == "text");
        match kind {
            "text" => add_text(events.entry(number).or_insert(message()), block),
            "thinking" | "redacted_thinking" => {
                events.insert(number, EventBody::AgentThinking {});
            }
            "tool_use" => {
                let id = origin.event_id(number);
                tool_ids.insert(id.clone(), block["id"].as_str().unwrap_or_default().to_owned());
                let (call, policy) = call(&id, block, agent, answer, verdicts);
                events.insert(number, use_event(&call, policy));
                calls.push(call);
            }
            // A block that only the provider understands: it goes back to it, and has no event.
            _ => {}
        }
    }
    let events = events
        .into_iter()
        .map(|(number, body)| Event { id: origin.event_id(number), body, processed_at: None })
        .collect();
    let refusal = answer.stop_details.as_ref().and_then(|details| details["explanation"].as_str()).map(str::to_owned);
    let digest = ModelDigest::Answer {
        stop_reason: answer.stop_reason.clone(),
        usage: usage(&answer.usage),
        blocks: answer.blocks.iter().map(digest).collect(),
        calls,
        refusal,
    };
    Parts { digest, events, tool_ids }
}

fn message() -> EventBody {
    EventBody::AgentMessage { content: Content::Inline(Vec::new()) }
}

fn add_text(body: &mut EventBody, block: &Value) {
    if let EventBody::AgentMessage { content: Content::Inline(blocks) } = body {
        blocks.push(Block::text(block["text"].as_str().unwrap_or_default()));
    }
}

/// A call, and the policy of its tool if there is such a tool.
fn call(id: &str, block: &Value, agent: &AgentFacts, answer: &Answer, verdicts: &Verdicts) -> (Call, Option<Policy>) {
    let model_id = block["id"].as_str().unwrap_or_default();
    let name = block["name"].as_str().unwrap_or_default();
    let input = block["input"].clone();
    let known: Option<&ToolFact> = agent.tools.iter().find(|tool| tool.name == name);
    let permission = match known.map(|tool| tool.policy) {
        Some(Policy::AlwaysAllow) => Permission::Allow,
        Some(Policy::AlwaysAsk) => Permission::Ask,
        // Without a verdict nobody vouches for it.
        Some(Policy::Auto) => verdicts.get(model_id).copied().unwrap_or(Permission::Ask),
        None => Permission::Deny,
    };
    let bad = answer.bad_inputs.iter().find(|bad| bad.tool_use_id == model_id).map(|bad| bad.error.clone());
    let kind = known.map_or(ToolKind::Builtin, |tool| tool.kind.clone());
    let hand = match &kind {
        ToolKind::Builtin => hand(&input, agent),
        ToolKind::Mcp { inside: Some(name), .. } => Ok(name.clone()),
        _ => Ok(HandName::default()),
    };
    let refused = match known {
        Some(_) if permission == Permission::Deny => {
            Some(format!("This call of {name} was judged to be of high risk, and was not made."))
        }
        Some(_) => bad.or_else(|| hand.as_ref().err().cloned()),
        None => Some(format!("There is no tool {name:?} in this session.")),
    };
    let call = Call {
        tool_use_id: id.to_owned(),
        name: name.to_owned(),
        hand: hand.unwrap_or_default(),
        kind,
        input_sha256: ids::content_hash(&harness::context::serialize(&input)),
        input: Json::Inline { value: input },
        permission,
        refused,
    };
    (call, known.map(|tool| tool.policy))
}

/// The hand that a call names, or what the model is told instead of a result.
fn hand(input: &Value, agent: &AgentFacts) -> Result<HandName, String> {
    // Without other hands the tools know no such property, and say so themselves.
    let Some(named) = input.get("hand").filter(|_| !agent.hands.is_empty()) else { return Ok(HandName::default()) };
    let known = named.as_str().and_then(HandName::parse);
    known.filter(|name| name.is_main() || agent.hands.contains(name)).ok_or_else(|| {
        let names: Vec<&str> =
            std::iter::once(HandName::MAIN).chain(agent.hands.iter().map(HandName::as_str)).collect();
        format!("There is no hand {named} in this session; there are {}. Nothing was run.", names.join(", "))
    })
}

/// How the policy came to the permission, as the API tells it.
fn evaluation(policy: Policy, permission: Permission) -> Value {
    let judged = match (policy, permission) {
        (Policy::AlwaysAllow, _) => return json!({"type": "always_allow"}),
        (Policy::AlwaysAsk, _) => return json!({"type": "always_ask"}),
        (Policy::Auto, Permission::Allow) => json!({"type": "allow"}),
        (Policy::Auto, Permission::Ask) => json!({"type": "ask", "reason_code": "indeterminate"}),
        (Policy::Auto, Permission::Deny) => json!({"type": "deny", "reason_code": "high_risk"}),
    };
    json!({"type": "auto", "evaluated_permission": judged})
}

fn use_event(call: &Call, policy: Option<Policy>) -> EventBody {
    let (name, input) = (call.name.clone(), call.input.clone());
    let evaluation = policy.map(|policy| evaluation(policy, call.permission));
    let evaluated_permission = Some(call.permission);
    match &call.kind {
        ToolKind::Custom => EventBody::AgentCustomToolUse { name, input },
        ToolKind::Builtin | ToolKind::Log | ToolKind::Web => {
            EventBody::AgentToolUse { name, input, evaluated_permission, evaluation }
        }
        ToolKind::Mcp { server, tool, .. } => {
            let (name, mcp_server_name) = (tool.clone(), server.clone());
            EventBody::AgentMcpToolUse { name, mcp_server_name, input, evaluated_permission, evaluation }
        }
    }
}

fn digest(block: &Value) -> BlockDigest {
    let kind = block["type"].as_str().unwrap_or_default().to_owned();
    let bytes = serde_json::to_vec(block).map_or(0, |json| json.len() as u64);
    let (head, tail) = edges(block["text"].as_str().unwrap_or_default());
    let tool = block["name"].as_str().map(str::to_owned);
    let input_sha256 = tool.is_some().then(|| ids::content_hash(&harness::context::serialize(&block["input"])));
    BlockDigest { kind, bytes, head, tail, tool, input_sha256 }
}

fn edges(text: &str) -> (String, String) {
    if text.len() <= VIEW_TEXT_EDGE_BYTES {
        return (text.to_owned(), String::new());
    }
    let head = &text[..text.floor_char_boundary(VIEW_TEXT_EDGE_BYTES)];
    let tail = &text[text.ceil_char_boundary(text.len() - VIEW_TEXT_EDGE_BYTES)..];
    (head.to_owned(), tail.to_owned())
}

pub fn usage(usage: &crate::model::Usage) -> Usage {
    Usage {
        input_tokens: usage.input_tokens,
        output_tokens: usage.output_tokens,
        cache_creation_5m_tokens: usage.cache_creation_5m_tokens,
        cache_creation_1h_tokens: usage.cache_creation_1h_tokens,
        cache_read_input_tokens: usage.cache_read_tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{agent::StrategyRef, content::BlobRef};

    fn agent() -> AgentFacts {
        let tool = |name: &str, kind, policy| ToolFact { name: name.into(), kind, policy };
        AgentFacts {
            agent_id: "agent_1".into(),
            version: 1,
            name: "a".into(),
            model: "m".into(),
            window_tokens: 1000,
            max_tokens: 100,
            tools: vec![
                tool("bash", ToolKind::Builtin, Policy::AlwaysAllow),
                tool("write", ToolKind::Builtin, Policy::AlwaysAsk),
                tool("ask_boss", ToolKind::Custom, Policy::AlwaysAllow),
            ],
            strategy: StrategyRef { name: "full".into(), version: 1, params: Value::Null },
            mcp: Vec::new(),
            hands: vec![HandName::other("build").unwrap()],
            shims_off: Vec::new(),
            snapshot: BlobRef { blob: "0".repeat(64), bytes: 0 },
        }
    }

    fn origin() -> Origin {
        Origin { session_id: "sesn_1".into(), activity_id: "model-3".into(), attempt: 1 }
    }

    fn tool_use(id: &str, name: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": name, "input": {"a": 1}})
    }

    #[test]
    fn texts_in_a_row_are_one_message_and_previews_have_its_id() {
        let answer = Answer {
            blocks: vec![
                json!({"type": "thinking", "thinking": "t", "signature": "s"}),
                json!({"type": "text", "text": "a"}),
                json!({"type": "text", "text": "b"}),
                tool_use("toolu_1", "bash"),
                json!({"type": "text", "text": "c"}),
            ],
            ..Answer::default()
        };
        let parts = parts(&origin(), &agent(), &answer, &Verdicts::new());
        let kinds: Vec<_> = parts.events.iter().map(|event| event.body.type_name()).collect();
        assert_eq!(kinds, ["agent.thinking", "agent.message", "agent.tool_use", "agent.message"]);

        let mut previews = Previews::new(origin());
        let start = |index, kind| ModelDelta::BlockStart { index, kind };
        let text = |index, text: &str| ModelDelta::Text { index, text: text.into() };
        let seen: Vec<_> = [
            start(0, BlockKind::Thinking),
            start(1, BlockKind::Text),
            text(1, "a"),
            start(2, BlockKind::Text),
            text(2, "b"),
            start(3, BlockKind::ToolUse { id: "toolu_1".into(), name: "bash".into() }),
            start(4, BlockKind::Text),
            text(4, "c"),
        ]
        .into_iter()
        .filter_map(|delta| previews.next(delta))
        .map(|delta| delta.event_id)
        .collect();
        let id = |at: usize| parts.events[at].id.clone();
        assert_eq!(seen, [id(0), id(1), id(1), id(1), id(3), id(3)]);
    }

    #[test]
    fn what_was_judged_says_so_and_without_a_verdict_it_asks() {
        let mut agent = agent();
        agent.tools.truncate(1);
        agent.tools[0].policy = Policy::Auto;
        let ids = ["toolu_1", "toolu_2", "toolu_3"];
        let answer = Answer { blocks: ids.map(|id| tool_use(id, "bash")).into(), ..Answer::default() };
        let verdicts = [("toolu_1", Permission::Allow), ("toolu_2", Permission::Deny)];
        let verdicts = verdicts.map(|(id, verdict)| (id.to_owned(), verdict)).into();
        let parts = parts(&origin(), &agent, &answer, &verdicts);
        let ModelDigest::Answer { calls, .. } = &parts.digest else { panic!("an answer") };
        let expected = [
            (Permission::Allow, json!({"type": "allow"})),
            (Permission::Deny, json!({"type": "deny", "reason_code": "high_risk"})),
            (Permission::Ask, json!({"type": "ask", "reason_code": "indeterminate"})),
        ];
        for ((call, event), (permission, judged)) in calls.iter().zip(&parts.events).zip(expected) {
            let EventBody::AgentToolUse { evaluated_permission, evaluation, .. } = &event.body else { panic!("a use") };
            assert_eq!((call.permission, *evaluated_permission), (permission, Some(permission)));
            assert_eq!(*evaluation, Some(json!({"type": "auto", "evaluated_permission": judged})));
            assert_eq!(call.refused.is_some(), permission == Permission::Deny);
        }
    }

    #[test]
    fn a_call_goes_to_the_hand_that_it_names_and_one_that_names_a_stranger_is_told_who_is_there() {
        let named = |hand: Value| {
            let block = json!({"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "make", "hand": hand}});
            let parts =
                parts(&origin(), &agent(), &Answer { blocks: vec![block], ..Answer::default() }, &Verdicts::new());
            let ModelDigest::Answer { mut calls, .. } = parts.digest else { panic!("an answer") };
            let EventBody::AgentToolUse { input: Json::Inline { value }, .. } = &parts.events[0].body else {
                panic!("a use")
            };
            assert_eq!(value["hand"], hand, "the log has it as the model said it");
            calls.remove(0)
        };
        assert_eq!((named(json!("build")).hand.as_str(), named(json!("build")).refused), ("build", None));
        assert!(named(json!("main")).hand.is_main() && named(json!("main")).refused.is_none());
        for wrong in [json!("test"), json!(""), json!(3), json!(null), json!(["build"])] {
            let refused = named(wrong.clone()).refused.unwrap_or_else(|| panic!("{wrong} is nobody"));
            assert!(refused.contains("there are main, build"), "{refused}");
        }
    }

    #[test]
    fn permission_comes_from_the_policy_and_an_unknown_tool_is_denied() {
        let answer = Answer {
            blocks: vec![
                tool_use("toolu_1", "bash"),
                tool_use("toolu_2", "write"),
                tool_use("toolu_3", "ask_boss"),
                tool_use("toolu_4", "rm"),
            ],
            ..Answer::default()
        };
        let parts = parts(&origin(), &agent(), &answer, &Verdicts::new());
        let ModelDigest::Answer { calls, .. } = &parts.digest else { panic!("an answer") };
        let permissions: Vec<_> = calls.iter().map(|call| (call.permission, call.refused.is_some())).collect();
        assert_eq!(
            permissions,
            [
                (Permission::Allow, false),
                (Permission::Ask, false),
                (Permission::Allow, false),
                (Permission::Deny, true)
            ]
        );
        assert_eq!(parts.events[2].body.type_name(), "agent.custom_tool_use");
        assert_eq!(parts.tool_ids[&parts.events[0].id], "toolu_1");
    }

    #[test]
    fn edges_do_not_cut_characters() {
        let text = "ä".repeat(VIEW_TEXT_EDGE_BYTES);
        let (head, tail) = edges(&text);
        assert!(head.len() <= VIEW_TEXT_EDGE_BYTES && tail.len() <= VIEW_TEXT_EDGE_BYTES);
        assert_eq!(edges("short"), ("short".to_owned(), String::new()));
    }
}
