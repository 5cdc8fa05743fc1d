//! One answer of a script: pure, from script and request to everything that goes over the wire and when.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    facts::Facts,
    script::{Block, FaultKind, Input, Rule, Script},
};
use crate::model::Usage;

#[derive(Debug, PartialEq)]
pub(super) struct Play {
    pub(super) delay: Duration,
    pub(super) reply: Reply,
}

#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// The connection closes without an answer.
    Closed,
    Refused {
        status: StatusCode,
        headers: HeaderMap,
        body: Value,
    },
    /// An event stream that ends cleanly where the steps end.
    Stream(Vec<Step>),
}

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Wait(Duration),
    Event {
        name: String,
        data: String,
    },
    /// The connection breaks here.
    Cut,
    /// Nothing more comes, and the connection stays open.
    Stall,
}

/// The answer to `body` (without `stream`). `session_id` only makes ids differ between sessions.
pub(super) fn play(script: &Script, body: &Value, session_id: &str, tries: u32) -> Play {
    let facts = Facts::read(body, tries);
    let Some(rule) = script.rules.iter().find(|rule| rule.holds(&facts)) else {
        return Play { delay: Duration::ZERO, reply: no_rule(&facts) };
    };
    let delay = Duration::from_millis(rule.delay_ms);
    let fault = rule.fault_at(tries);
    let reply = match fault {
        Some(FaultKind::Refuse) => Reply::Closed,
        Some(FaultKind::Status { status, retry_after_ms, retry_after_s, error_type, message }) => {
            let mut headers = HeaderMap::new();
            if let Some(ms) = retry_after_ms {
                headers.insert("retry-after-ms", HeaderValue::from(*ms));
            }
            if let Some(s) = retry_after_s {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*s));
            }
            let kind = error_type.as_deref().unwrap_or_else(|| error_type_of(*status));
            let message = message.as_deref().unwrap_or("scripted");
            Reply::Refused { status: *status, headers, body: error(kind, message) }
        }
        _ => {
            let request = serde_json::to_vec(body).expect("a JSON value serializes");
            let mut seed = Sha256::new();
            seed.update(session_id);
            seed.update([0]);
            seed.update(&request);
            let model = script.model.as_deref().unwrap_or(&facts.model);
            let events = Answer { rule, facts: &facts, model, request_bytes: request.len(), seed }.events();
            Reply::Stream(timed(rule, events, fault))
        }
    };
    Play { delay, reply }
}

/// Lays the events out in time and breaks them where the fault says.
fn timed(rule: &Rule, events: Vec<Value>, fault: Option<&FaultKind>) -> Vec<Step> {
    let last = events.len() - 1;
    let (whole, tail) = match fault {
        Some(FaultKind::Drop { after_events }) => ((*after_events).min(last), Some(Step::Cut)),
        Some(FaultKind::End { after_events }) => ((*after_events).min(last), None),
        Some(FaultKind::Stall { after_events }) => ((*after_events).min(last), Some(Step::Stall)),
        Some(FaultKind::Malformed { after_events }) => {
            let data = "{\"type\": \"content_block_del".to_owned();
            ((*after_events).min(last), Some(Step::Event { name: "content_block_delta".to_owned(), data }))
        }
        Some(FaultKind::Error { after_events, error_type, message }) => {
            ((*after_events).min(last), Some(event(&error(error_type, message))))
        }
        Some(FaultKind::Status { .. } | FaultKind::Refuse) | None => (events.len(), None),
    };
    let mut steps = Vec::new();
    for (at, value) in events.iter().take(whole).enumerate() {
        let pauses = rule.pauses.iter().filter(|pause| pause.before_event == at + 1);
        let ms = rule.event_delay_ms + pauses.map(|pause| pause.ms).sum::<u64>();
        if ms > 0 {
            steps.push(Step::Wait(Duration::from_millis(ms)));
        }
        steps.push(event(value));
    }
    steps.extend(tail);
    steps
}

fn event(value: &Value) -> Step {
    Step::Event { name: value["type"].as_str().unwrap_or_default().to_owned(), data: value.to_string() }
}

/// A rule at work on one request.
struct Answer<'a> {
    rule: &'a Rule,
    facts: &'a Facts,
    model: &'a str,
    request_bytes: usize,
    /// Of session and request.
    seed: Sha256,
}

impl Answer<'_> {
    fn events(&self) -> Vec<Value> {
        let blocks = self.rule.answer.as_deref().unwrap_or_default();
        let mut middle = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let (start, deltas) = self.block(index, block);
            middle.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
            let deltas = deltas.into_iter();
            middle.extend(deltas.map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})));
            middle.push(json!({"type": "content_block_stop", "index": index}));
        }
        let written: usize = middle.iter().map(|event| event["delta"].to_string().len()).sum();
        let estimate = Usage::estimate(self.request_bytes, written);
        let usage = &self.rule.usage;
        let output = usage.output_tokens.unwrap_or(estimate.output_tokens);
        let calls = blocks.iter().any(|block| matches!(block, Block::Tool { .. }));
        let otherwise = if calls { "tool_use" } else { "end_turn" };
        let start = json!({"type": "message_start", "message": {
            "id": self.id("msg_", usize::MAX), "type": "message", "role": "assistant", "model": self.model,
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {
                "input_tokens": usage.input_tokens.unwrap_or(estimate.input_tokens),
                "output_tokens": 1,
                "cache_read_input_tokens": usage.cache_read_tokens,
                "cache_creation_input_tokens": usage.cache_creation_5m_tokens + usage.cache_creation_1h_tokens,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": usage.cache_creation_5m_tokens,
                    "ephemeral_1h_input_tokens": usage.cache_creation_1h_tokens,
                },
            },
        }});
        let stop = json!({"stop_reason": self.rule.stop_reason.as_deref().unwrap_or(otherwise), "stop_sequence": null,
            "stop_details": self.rule.stop_details});
        let mut events = vec![start];
        events.extend(middle);
        events.push(json!({"type": "message_delta", "delta": stop, "usage": {"output_tokens": output}}));
        events.push(json!({"type": "message_stop"}));
        events
    }

    /// The block as it begins, and its deltas.
    fn block(&self, index: usize, block: &Block) -> (Value, Vec<Value>) {
        let pieces = |kind: &str, key: &str, text: &str| -> Vec<Value> {
            pieces(text, self.rule.chunk_chars).map(|piece| json!({"type": kind, key: piece})).collect()
        };
        match block {
            Block::Text(text) => (json!({"type": "text", "text": ""}), pieces("text_delta", "text", &self.fill(text))),
            Block::Thinking { thinking, signature } => {
                let mut deltas = pieces("thinking_delta", "thinking", &self.fill(thinking));
                let signature = signature.clone().unwrap_or_else(|| self.id("", index));
                deltas.push(json!({"type": "signature_delta", "signature": signature}));
                (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas)
            }
            Block::Redacted(data) => (json!({"type": "redacted_thinking", "data": data}), Vec::new()),
            Block::Tool { name, id, input } => {
                let id = id.clone().unwrap_or_else(|| self.id("toolu_", index));
                let text = match input {
                    Input::Json(input) if self.rule.literal => input.to_string(),
                    Input::Json(input) => self.facts.fill_value(input).to_string(),
                    Input::Raw(text) => self.fill(text),
                };
                let start = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                (start, pieces("input_json_delta", "partial_json", &text))
            }
            Block::Verbatim(block) => (block.clone(), Vec::new()),
        }
    }

    fn fill(&self, text: &str) -> String {
        if self.rule.literal { text.to_owned() } else { self.facts.fill(text) }
    }

    /// The same for the same request of the same session, whatever happened in between.
    fn id(&self, prefix: &str, index: usize) -> String {
        let mut hash = self.seed.clone();
        hash.update((index as u64).to_le_bytes());
        format!("{prefix}{}", &hex::encode(hash.finalize())[..24])
    }
}

/// `text` in pieces of at most `chars` characters.
fn pieces(text: &str, chars: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().nth(chars).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

fn no_rule(facts: &Facts) -> Reply {
    let Facts { turn, results, tries, .. } = facts;
    let message = format!("no rule of the script fits (turn {turn}, results {results}, tries {tries})");
    Reply::Refused {
        status: StatusCode::BAD_REQUEST,
        headers: HeaderMap::new(),
        body: error("invalid_request_error", &message),
    }
}

pub(super) fn error(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

/// What the Messages API says with a status.
fn error_type_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500..=599 => "api_error",
        _ => "invalid_request_error",
    }
}
