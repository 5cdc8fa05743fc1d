//! The chunks of a Chat Completions stream, turned into previews and Anthropic-shaped blocks.
//!
//! Pure, and tolerant, as every server does it a little differently: usage may come late or never, `delta` may be null,
//! `[DONE]` may be missing, calls may share an index, lack an id or repeat one, and arguments may come whole, as JSON
//! or broken. The one thing that must be there is an end: a `finish_reason` or `[DONE]`. Reasoning text is dropped:
//! without a signature it could not be sent to anyone again.

use std::collections::HashSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::model::{
    Answer, BadInput, BlockKind, Delta, Failure, OnDelta, Request, Usage, failure, sse, tool_input,
    transport::{Assemble, Flow, broken},
};

/// What a call counts beside what it says. Each fragment looks for its call among all of them, so there are 4,096 at most.
const CALL_BYTES: usize = 16 << 10;

pub(super) struct Assembler<'a> {
    ids: Ids<'a>,
    request_bytes: usize,
    answer_bytes: usize,
    held_bytes: usize,
    model_id: String,
    /// In the order in which they began.
    blocks: Vec<Block>,
    refused: bool,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    done: bool,
}

enum Block {
    Text(String),
    Call(Call),
}

struct Call {
    /// The server's index, where it gave one.
    index: Option<u64>,
    /// The id that the server gave, if any.
    said_id: String,
    /// The id that the answer has.
    id: String,
    name: String,
    arguments: tool_input::Text,
    /// The preview of its start waits for the name.
    announced: bool,
}

impl<'a> Assembler<'a> {
    /// `request_bytes` is for the estimate, should the server count nothing.
    pub(super) fn new(request: &'a Request, request_bytes: usize) -> Assembler<'a> {
        Assembler {
            ids: Ids::of(request),
            request_bytes,
            answer_bytes: 0,
            held_bytes: 0,
            model_id: String::new(),
            blocks: Vec::new(),
            refused: false,
            finish_reason: None,
            usage: None,
            done: false,
        }
    }
}

impl Assemble for Assembler<'_> {
    fn event(&mut self, event: sse::Event, on_delta: &mut OnDelta<'_>) -> Result<Flow, Failure> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.done = true;
            return Ok(Flow::Done);
        }
        if data.is_empty() {
            return Ok(Flow::More);
        }
        let chunk: Value = serde_json::from_str(data).map_err(|error| {
            broken(format!(
                "a chunk of the answer is malformed JSON (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
        if event.name == "error" || chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(failure::from_stream_error(&chunk));
        }
        if let Some(model) = chunk["model"].as_str().filter(|_| self.model_id.is_empty()) {
            self.model_id = model.to_owned();
        }
        if let Some(usage) = usage(&chunk["usage"]) {
            self.usage = Some(usage);
        }
        // Only one choice was asked for; usage chunks have none.
        if let Some(choice) = chunk["choices"].get(0) {
            self.choice(choice, on_delta);
        }
        Ok(Flow::More)
    }

    fn is_whole(&self) -> bool {
        self.done || self.finish_reason.is_some()
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn finish(mut self, on_delta: &mut OnDelta<'_>) -> Result<Answer, Failure> {
        if !self.is_whole() {
            return Err(broken("the answer ended without a finish_reason"));
        }
        if let Some(reason @ ("error" | "abort")) = self.finish_reason.as_deref() {
            return Err(broken(format!("the model server gave up: finish_reason {reason}")));
        }
        let stop_reason = self.stop_reason().to_owned();
        let usage = self.usage.unwrap_or_else(|| Usage::estimate(self.request_bytes, self.answer_bytes));
        let mut bad_inputs = Vec::new();
        let mut blocks = Vec::new();
        for (index, block) in self.blocks.iter_mut().enumerate() {
            if let Block::Call(call) = block {
                call.announce(index, on_delta);
            }
            blocks.push(block.close(&mut bad_inputs));
            on_delta(Delta::BlockStop { index });
        }
        Ok(Answer { blocks, stop_reason, usage, model_id: self.model_id, bad_inputs, ..Answer::default() })
    }
}

impl Assembler<'_> {
    fn choice(&mut self, choice: &Value, on_delta: &mut OnDelta<'_>) {
        let delta = &choice["delta"];
        for key in ["content", "refusal"] {
            if let Some(text) = delta[key].as_str().filter(|text| !text.is_empty()) {
                self.refused |= key == "refusal";
                self.text(text, on_delta);
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, on_delta);
        }
        if let Some(reason) = choice["finish_reason"].as_str().filter(|reason| !reason.is_empty()) {
            self.finish_reason = Some(reason.to_owned());
        }
    }

    /// All text is one block, wherever it stands among the calls.
    fn text(&mut self, more: &str, on_delta: &mut OnDelta<'_>) {
        self.answer_bytes += more.len();
        self.held_bytes += more.len();
        let at = self.blocks.iter().position(|block| matches!(block, Block::Text(_)));
        let index = at.unwrap_or_else(|| {
            self.blocks.push(Block::Text(String::new()));
            on_delta(Delta::BlockStart { index: self.blocks.len() - 1, kind: BlockKind::Text });
            self.blocks.len() - 1
        });
        if let Block::Text(text) = &mut self.blocks[index] {
            text.push_str(more);
        }
        on_delta(Delta::Text { index, text: more.to_owned() });
    }

    fn call(&mut self, part: &Value, on_delta: &mut OnDelta<'_>) {
        let index = part["index"].as_u64();
        let said_id = part["id"].as_str().unwrap_or_default();
        let function = &part["function"];
        let at = self.find_call(index, said_id).unwrap_or_else(|| {
            let id = self.ids.pick(said_id, self.blocks.len());
            // Ids are kept once more, so that none comes twice.
            self.held_bytes += CALL_BYTES + said_id.len() + 2 * id.len();
            self.blocks.push(Block::Call(Call {
                index,
                said_id: said_id.to_owned(),
                id,
                name: String::new(),
                arguments: tool_input::Text::default(),
                announced: false,
            }));
            self.blocks.len() - 1
        });
        let Block::Call(call) = &mut self.blocks[at] else { return };
        if call.name.is_empty() {
            call.name = function["name"].as_str().unwrap_or_default().to_owned();
            self.held_bytes += call.name.len();
        }
        let more = match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            // Some servers send the arguments as JSON instead of JSON in a string.
            whole => whole.to_string(),
        };
        self.answer_bytes += more.len();
        let before = call.arguments.as_str().len();
        call.arguments.push(&more);
        self.held_bytes = self.held_bytes + call.arguments.as_str().len() - before;
        if !call.name.is_empty() {
            if call.announce(at, on_delta) {
                let json = call.arguments.as_str().to_owned();
                if !json.is_empty() {
                    on_delta(Delta::InputJson { index: at, json });
                }
            } else if !more.is_empty() {
                on_delta(Delta::InputJson { index: at, json: more });
            }
        }
    }

    /// The call that a fragment belongs to. A new id always is a new call: some servers give every call index 0.
    fn find_call(&self, index: Option<u64>, said_id: &str) -> Option<usize> {
        let calls = self.blocks.iter().enumerate().rev().filter_map(|(at, block)| match block {
            Block::Call(call) => Some((at, call)),
            Block::Text(_) => None,
        });
        let mut same_place = calls.filter(|(_, call)| index.is_none() || call.index == index);
        if said_id.is_empty() {
            return same_place.next().map(|(at, _)| at);
        }
        same_place.find(|(_, call)| call.said_id == said_id).map(|(at, _)| at)
    }

    /// In Anthropic's words. A call counts whatever the server says: some end them with `stop`.
    fn stop_reason(&self) -> &'static str {
        let calls = self.blocks.iter().any(|block| matches!(block, Block::Call(_)));
        match self.finish_reason.as_deref() {
            Some("length") => "max_tokens",
            Some("content_filter") => "refusal",
            _ if calls => "tool_use",
            _ if self.refused => "refusal",
            _ => "end_turn",
        }
    }
}

impl Block {
    fn close(&mut self, bad_inputs: &mut Vec<BadInput>) -> Value {
        match self {
            Block::Text(text) => json!({"type": "text", "text": text}),
            Block::Call(call) => {
                let (input, bad) = tool_input::parse(&call.id, &call.arguments);
                bad_inputs.extend(bad);
                json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input})
            }
        }
    }
}

impl Call {
    /// Whether this was the first time.
    fn announce(&mut self, index: usize, on_delta: &mut OnDelta<'_>) -> bool {
        let first = !std::mem::replace(&mut self.announced, true);
        if first {
            let kind = BlockKind::ToolUse { id: self.id.clone(), name: self.name.clone() };
            on_delta(Delta::BlockStart { index, kind });
        }
        first
    }
}

/// Tool-use ids that are the session's own: some servers give none, or start again from `call_0` in every answer.
struct Ids<'a> {
    request: &'a Request,
    used: HashSet<String>,
}

impl<'a> Ids<'a> {
    fn of(request: &'a Request) -> Ids<'a> {
        let messages = request.body["messages"].as_array().into_iter().flatten();
        let blocks = messages.flat_map(|message| message["content"].as_array().into_iter().flatten());
        let used = blocks.filter_map(|block| Some(block["id"].as_str()?.to_owned())).collect();
        Ids { request, used }
    }

    /// `said` if nothing else has it, else one that only depends on the request and the position.
    fn pick(&mut self, said: &str, position: usize) -> String {
        let id = if said.is_empty() || self.used.contains(said) { self.made_up(position) } else { said.to_owned() };
        self.used.insert(id.clone());
        id
    }

    fn made_up(&self, position: usize) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.request.session_id);
        hash.update([0]);
        hash.update(serde_json::to_vec(&self.request.body).expect("a JSON value serializes"));
        hash.update((position as u64).to_le_bytes());
        format!("call_{}", &hex::encode(hash.finalize())[..24])
    }
}

fn usage(raw: &Value) -> Option<Usage> {
    let prompt = raw["prompt_tokens"].as_u64()?;
    let cached = raw["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
    Some(Usage {
        input_tokens: prompt.saturating_sub(cached),
        output_tokens: raw["completion_tokens"].as_u64().unwrap_or(0),
        cache_read_tokens: cached,
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests;
