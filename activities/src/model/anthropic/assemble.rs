//! The events of a Messages stream, turned into previews and the assistant's message.
//!
//! Pure. Blocks are kept verbatim: one of an unknown type stays as it began, plus what its deltas added. Unknown events
//! are skipped, as the API asks of its clients. A stream without `message_stop` is no answer: the official SDKs pass it
//! in silence, and half a sentence would be taken for a whole one.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::{
    Answer, BadInput, BlockKind, Delta, Failure, OnDelta, Usage, failure, sse, tool_input,
    transport::{Assemble, Flow, broken},
};

#[derive(Default)]
pub(in crate::model) struct Assembler {
    /// `message_start` came, with the message's own fields.
    message: Option<Map<String, Value>>,
    blocks: BTreeMap<u64, Block>,
    bad_inputs: Vec<BadInput>,
    stop: Option<Map<String, Value>>,
    usage: Map<String, Value>,
    ended: bool,
    held_bytes: usize,
}

struct Block {
    fields: Map<String, Value>,
    /// Where it stands in the answer.
    position: usize,
    /// The JSON text of the input so far.
    input: tool_input::Text,
    open: bool,
}

impl Assemble for Assembler {
    fn event(&mut self, event: sse::Event, on_delta: &mut OnDelta<'_>) -> Result<Flow, Failure> {
        // Only an empty one passes unread: where a ping is garbled, what follows it may be too.
        if event.name == "ping" && event.data.is_empty() {
            return Ok(Flow::More);
        }
        let data: Value = serde_json::from_str(&event.data).map_err(|error| {
            broken(format!(
                "an event of the answer is malformed JSON (line {}, column {})",
                error.line(),
                error.column()
            ))
        })?;
        // What an input adds is known where it is cut.
        self.held_bytes += match data["delta"]["type"].as_str() {
            Some("input_json_delta") => 0,
            _ => event.data.len(),
        };
        let Value::Object(mut data) = data else {
            return Err(broken("an event of the answer is not a JSON object"));
        };
        let kind = match data.get("type").and_then(Value::as_str) {
            Some(kind) => kind.to_owned(),
            None => event.name,
        };
        match kind.as_str() {
            "ping" => {}
            "error" => return Err(failure::from_stream_error(&Value::Object(data))),
            "message_start" => self.start(data)?,
            "content_block_start" => self.block_start(data, on_delta)?,
            "content_block_delta" => self.block_delta(data, on_delta)?,
            "content_block_stop" => {
                let index = self.index(&data)?;
                self.block_stop(index, on_delta);
            }
            "message_delta" => {
                self.merge_usage(data.remove("usage"));
                let stop = object(data.remove("delta"), "message_delta")?;
                self.stop.get_or_insert_default().extend(stop.into_iter().filter(|(_, value)| !value.is_null()));
            }
            "message_stop" => {
                self.ended = true;
                return Ok(Flow::Done);
            }
            _ => {}
        }
        Ok(Flow::More)
    }

    fn is_whole(&self) -> bool {
        self.ended
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn finish(mut self, on_delta: &mut OnDelta<'_>) -> Result<Answer, Failure> {
        if !self.ended {
            return Err(broken("the answer ended without message_stop"));
        }
        // Some servers forget to say that their blocks are over.
        for index in self.blocks.keys().copied().collect::<Vec<_>>() {
            self.block_stop(index, on_delta);
        }
        let mut message = self.message.ok_or_else(|| broken("the answer has no message_start"))?;
        let mut stop = self.stop.unwrap_or_default();
        let stop_reason = text(stop.remove("stop_reason")).ok_or_else(|| broken("the answer has no stop_reason"))?;
        Ok(Answer {
            blocks: self.blocks.into_values().map(|block| Value::Object(block.fields)).collect(),
            stop_reason,
            stop_details: stop.remove("stop_details"),
            stop_sequence: text(stop.remove("stop_sequence")),
            usage: usage(&self.usage),
            model_id: text(message.remove("model")).unwrap_or_default(),
            request_id: None,
            bad_inputs: self.bad_inputs,
        })
    }
}

impl Assembler {
    fn start(&mut self, mut data: Map<String, Value>) -> Result<(), Failure> {
        if self.message.is_some() {
            return Err(broken("the answer began twice"));
        }
        let mut message = object(data.remove("message"), "message_start")?;
        self.merge_usage(message.remove("usage"));
        self.message = Some(message);
        Ok(())
    }

    fn block_start(&mut self, mut data: Map<String, Value>, on_delta: &mut OnDelta<'_>) -> Result<(), Failure> {
        if self.message.is_none() {
            return Err(broken("a block came before message_start"));
        }
        let index = data.get("index").and_then(Value::as_u64).ok_or_else(|| broken("a block has no index"))?;
        if self.blocks.last_key_value().is_some_and(|(last, _)| *last >= index) {
            return Err(broken("a block began out of order"));
        }
        let fields = object(data.remove("content_block"), "content_block_start")?;
        let position = self.blocks.len();
        on_delta(Delta::BlockStart { index: position, kind: kind(&fields) });
        self.blocks.insert(index, Block { fields, position, input: tool_input::Text::default(), open: true });
        Ok(())
    }

    fn block_delta(&mut self, mut data: Map<String, Value>, on_delta: &mut OnDelta<'_>) -> Result<(), Failure> {
        let index = self.index(&data)?;
        let mut delta = object(data.remove("delta"), "content_block_delta")?;
        let block = self.blocks.get_mut(&index).expect("the index was looked up");
        let at = block.position;
        match delta.get("type").and_then(Value::as_str).unwrap_or_default() {
            "text_delta" => {
                let text = text(delta.remove("text")).unwrap_or_default();
                append(&mut block.fields, "text", &text);
                on_delta(Delta::Text { index: at, text });
            }
            "thinking_delta" => {
                append(&mut block.fields, "thinking", &text(delta.remove("thinking")).unwrap_or_default());
                on_delta(Delta::Thinking { index: at });
            }
            // Comes whole: the official SDKs replace, they do not append.
            "signature_delta" => {
                block.fields.insert("signature".to_owned(), delta.remove("signature").unwrap_or_default());
            }
            "input_json_delta" => {
                let json = text(delta.remove("partial_json")).unwrap_or_default();
                let before = block.input.as_str().len();
                block.input.push(&json);
                self.held_bytes = self.held_bytes + block.input.as_str().len() - before;
                on_delta(Delta::InputJson { index: at, json });
            }
            "citations_delta" => {
                let citations = block.fields.entry("citations").or_insert(Value::Null);
                if !citations.is_array() {
                    *citations = Value::Array(Vec::new());
                }
                let list = citations.as_array_mut().expect("made one above");
                list.extend(delta.remove("citation"));
            }
            // A newer kind: text grows, anything else is the latest value.
            _ => {
                for (key, value) in delta.into_iter().filter(|(key, _)| key != "type") {
                    match value {
                        Value::String(more) => append(&mut block.fields, &key, &more),
                        other => {
                            block.fields.insert(key, other);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn block_stop(&mut self, index: u64, on_delta: &mut OnDelta<'_>) {
        let Some(block) = self.blocks.get_mut(&index).filter(|block| block.open) else { return };
        block.open = false;
        if block.fields.contains_key("input") || !block.input.as_str().is_empty() {
            self.bad_inputs.extend(block.close_input());
        }
        on_delta(Delta::BlockStop { index: block.position });
    }

    fn index(&self, data: &Map<String, Value>) -> Result<u64, Failure> {
        let index = data.get("index").and_then(Value::as_u64);
        index
            .filter(|index| self.blocks.get(index).is_some_and(|block| block.open))
            .ok_or_else(|| broken("an event names a block that is not open"))
    }

    /// Counts are totals so far; what a later event leaves out keeps its value.
    fn merge_usage(&mut self, usage: Option<Value>) {
        if let Some(Value::Object(usage)) = usage {
            self.usage.extend(usage.into_iter().filter(|(_, value)| !value.is_null()));
        }
    }
}

impl Block {
    /// Sets the input from its text; without any text the block began with its input, mostly `{}`.
    fn close_input(&mut self) -> Option<BadInput> {
        let text = std::mem::take(&mut self.input);
        if text.as_str().trim().is_empty() && self.fields.get("input").is_some_and(Value::is_object) {
            return None;
        }
        let id = self.fields.get("id").and_then(Value::as_str).unwrap_or_default();
        let (input, bad) = tool_input::parse(id, &text);
        self.fields.insert("input".to_owned(), input);
        bad
    }
}

fn kind(fields: &Map<String, Value>) -> BlockKind {
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match text("type").as_str() {
        "text" => BlockKind::Text,
        "thinking" => BlockKind::Thinking,
        "tool_use" => BlockKind::ToolUse { id: text("id"), name: text("name") },
        other => BlockKind::Other(other.to_owned()),
    }
}

fn usage(raw: &Map<String, Value>) -> Usage {
    let count = |value: Option<&Value>| value.and_then(Value::as_u64);
    let total = count(raw.get("cache_creation_input_tokens"));
    let split = |key: &str| raw.get("cache_creation").and_then(|split| count(split.get(key)));
    let hour = split("ephemeral_1h_input_tokens").unwrap_or(0);
    // Without the split, all of it is the default kind.
    let five = split("ephemeral_5m_input_tokens").unwrap_or_else(|| total.unwrap_or(0).saturating_sub(hour));
    Usage {
        input_tokens: count(raw.get("input_tokens")).unwrap_or(0),
        output_tokens: count(raw.get("output_tokens")).unwrap_or(0),
        cache_creation_5m_tokens: five,
        cache_creation_1h_tokens: hour,
        cache_read_tokens: count(raw.get("cache_read_input_tokens")).unwrap_or(0),
        estimated: false,
    }
}

fn object(value: Option<Value>, of: &str) -> Result<Map<String, Value>, Failure> {
    match value {
        Some(Value::Object(fields)) => Ok(fields),
        _ => Err(broken(format!("an event of type {of} has no content"))),
    }
}

fn text(value: Option<Value>) -> Option<String> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn append(fields: &mut Map<String, Value>, key: &str, more: &str) {
    match fields.get_mut(key) {
        Some(Value::String(text)) => text.push_str(more),
        _ => {
            fields.insert(key.to_owned(), Value::String(more.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests;
