//! Log entries to messages of the Messages API: shared by the strategies.
//!
//! What the assistant said comes from the private part of its span, verbatim; the public events of the same
//! answer are for clients. Results find the model's own `toolu_...` ids through the span that asked.

use domain::{
    EventBody,
    content::{Block, Content, Json},
    session::LogEntry,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Whether the synthetic messages of earlier requests are shown again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synthetic {
    Forgotten,
    /// Where the model saw them, if it said something to them.
    Kept,
}

pub struct Messages {
    synthetic: Synthetic,
    done: Vec<Value>,
    /// Blocks of the user message in the making: results first, as the API wants them.
    results: Vec<Value>,
    blocks: Vec<Value>,
    tool_ids: BTreeMap<String, String>,
}

impl Messages {
    pub fn of(entries: &[LogEntry], synthetic: Synthetic) -> Vec<Value> {
        let mut messages = Messages::new(synthetic);
        for entry in entries {
            messages.push(entry);
        }
        messages.finish()
    }

    pub fn new(synthetic: Synthetic) -> Self {
        Messages { synthetic, done: Vec::new(), results: Vec::new(), blocks: Vec::new(), tool_ids: BTreeMap::new() }
    }

    /// A block of the strategy's own, in the user message at this place.
    pub fn note(&mut self, block: Value) {
        self.blocks.push(block);
    }

    pub fn push(&mut self, entry: &LogEntry) {
        if entry.ignored {
            return;
        }
        match &entry.event.body {
            EventBody::UserMessage { content } => self.blocks.extend(blocks(content)),
            EventBody::SystemMessage { content } => {
                for block in inline(content) {
                    if let Block::Text { text } = block {
                        self.blocks.push(json!({"type": "text", "text": format!("<system>\n{text}\n</system>")}));
                    }
                }
            }
            EventBody::SpanModelRequestEnd { .. } => {
                if let Some(private) = &entry.private {
                    self.tool_ids.extend(private.tool_ids.clone());
                    if let Json::Inline { value: Value::Array(blocks) } = &private.blocks
                        && !blocks.is_empty()
                    {
                        self.end_user_message();
                        if self.synthetic == Synthetic::Kept {
                            self.done.extend(private.recipe.suffix.iter().cloned());
                        }
                        self.done.push(json!({"role": "assistant", "content": blocks}));
                    }
                }
            }
            EventBody::AgentToolResult { tool_use_id, content, is_error }
            | EventBody::UserToolResult { tool_use_id, content, is_error }
            | EventBody::UserCustomToolResult { custom_tool_use_id: tool_use_id, content, is_error }
            | EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, content, is_error } => {
                self.result(tool_use_id, content, is_error.unwrap_or(false));
            }
            _ => {}
        }
    }

    fn result(&mut self, tool_use_id: &str, content: &Content, is_error: bool) {
        // A result whose call is not in the slice would make the request invalid.
        let Some(id) = self.tool_ids.get(tool_use_id) else { return };
        let mut content = blocks(content);
        if content.is_empty() {
            content.push(json!({"type": "text", "text": "(no output)"}));
        }
        let mut result = json!({"type": "tool_result", "tool_use_id": id, "content": content});
        if is_error {
            result["is_error"] = Value::Bool(true);
        }
        self.results.push(result);
    }

    fn end_user_message(&mut self) {
        let mut content = std::mem::take(&mut self.results);
        content.append(&mut self.blocks);
        if !content.is_empty() {
            self.done.push(json!({"role": "user", "content": content}));
        }
    }

    pub fn finish(mut self) -> Vec<Value> {
        self.end_user_message();
        self.done
    }
}

fn inline(content: &Content) -> &[Block] {
    match content {
        Content::Inline(blocks) => blocks,
        Content::Blob(_) => &[],
    }
}

fn blocks(content: &Content) -> Vec<Value> {
    inline(content)
        .iter()
        // An empty text block is refused by the provider.
        .filter(|block| !matches!(block, Block::Text { text } if text.is_empty()))
        .filter(|block| !matches!(block, Block::Redacted {}))
        .map(|block| serde_json::to_value(block).expect("a block has string keys only"))
        .map(out_of_files)
        .collect()
}

/// What a file had when it was named stands beside its name: the provider does not know the file.
fn out_of_files(mut block: Value) -> Value {
    if block["source"]["type"] == "file"
        && let Some(content) = block["source"].get_mut("content").map(Value::take)
    {
        block["source"] = content;
    }
    block
}

/// The texts among a model's blocks.
pub fn texts(blocks: &Json) -> Vec<&str> {
    match blocks {
        Json::Inline { value: Value::Array(blocks) } => {
            blocks.iter().filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str()).collect()
        }
        _ => Vec::new(),
    }
}
