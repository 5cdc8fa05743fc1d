//! What a session is doing, folded from its events as they come: one line for a person who waits. Pure.

use crate::render;
use serde_json::Value;
use std::{collections::HashMap, time::Duration};

/// Characters of a message being written that are shown.
const TAIL_CHARS: usize = 60;

#[derive(Debug, Default)]
pub struct Progress {
    now: Now,
    /// Tool calls by event id: what they are, as `render` says it.
    calls: HashMap<String, Value>,
    /// Calls without a result, in the order in which they were made.
    open: Vec<String>,
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    message: Option<String>,
}

#[derive(Debug, Default, PartialEq)]
enum Now {
    #[default]
    Starting,
    Thinking,
    Writing(String),
    Tools,
    Retrying,
    Waiting,
    Done,
}

impl Progress {
    pub fn event(&mut self, event: &Value) {
        match event["type"].as_str().unwrap_or_default() {
            "span.model_request_start" => {
                self.requests += 1;
                self.now = Now::Thinking;
            }
            "span.model_request_end" => {
                let (input, output) = render::token_counts(&event["model_usage"]);
                self.input_tokens += input;
                self.output_tokens += output;
                self.now = if self.open.is_empty() { Now::Thinking } else { Now::Tools };
            }
            "agent.message" => self.message = Some(render::text_of(&event["content"])),
            "agent.tool_use" | "agent.mcp_tool_use" | "agent.custom_tool_use" => {
                if let Some(id) = event["id"].as_str() {
                    self.calls.insert(id.to_owned(), event.clone());
                    self.open.push(id.to_owned());
                }
                self.now = Now::Tools;
            }
            "agent.tool_result" | "agent.mcp_tool_result" | "user.tool_result" | "user.custom_tool_result" => {
                let names = ["tool_use_id", "mcp_tool_use_id", "custom_tool_use_id"];
                let id = names.into_iter().find_map(|name| event[name].as_str());
                self.open.retain(|open| Some(open.as_str()) != id);
                self.now = if self.open.is_empty() { Now::Thinking } else { Now::Tools };
            }
            "session.status_rescheduled" => self.now = Now::Retrying,
            "session.status_running" => {
                self.now = if self.open.is_empty() { Now::Thinking } else { Now::Tools };
            }
            "session.status_idle" if event["stop_reason"]["type"] == "requires_action" => self.now = Now::Waiting,
            "session.status_idle" | "session.status_terminated" | "session.deleted" => self.now = Now::Done,
            _ => {}
        }
    }

    /// A preview: text of a message that is being written.
    pub fn preview(&mut self, preview: &Value) {
        if let Some(text) = preview["delta"]["content"]["text"].as_str() {
            let mut written = match std::mem::take(&mut self.now) {
                Now::Writing(written) => written,
                _ => String::new(),
            };
            written.push_str(text);
            let excess = written.chars().count().saturating_sub(TAIL_CHARS);
            self.now = Now::Writing(written.chars().skip(excess).collect());
        }
    }

    /// The tool call that an event id names.
    pub fn call(&self, id: &str) -> Option<&Value> {
        self.calls.get(id)
    }

    /// The last message of the agent.
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// `bash cargo test | 12 s | 3 requests, 1,234 in, 56 out`, at most `columns` wide.
    pub fn status(&self, elapsed: Duration, columns: usize) -> String {
        let facts = format!(" | {} | {}", render::duration(elapsed), self.figures());
        let room = columns.saturating_sub(facts.chars().count()).max(10);
        render::one_line(&format!("{}{facts}", render::one_line(&self.doing(), room)), columns)
    }

    pub fn figures(&self) -> String {
        let requests = render::count(self.requests, "request");
        let (input, output) = (render::grouped(self.input_tokens), render::grouped(self.output_tokens));
        format!("{requests}, {input} in, {output} out")
    }

    fn doing(&self) -> String {
        match &self.now {
            Now::Starting => "starting".to_owned(),
            Now::Thinking => "waiting for the model".to_owned(),
            Now::Writing(text) => format!("writing: {text}"),
            Now::Tools => {
                let call = self.open.first().and_then(|id| self.calls.get(id));
                let call = call.map_or_else(|| "tools".to_owned(), render::call);
                if self.open.len() > 1 { format!("{} tools: {call}", self.open.len()) } else { call }
            }
            Now::Retrying => "waiting to try the model again".to_owned(),
            Now::Waiting => "waiting for you".to_owned(),
            Now::Done => "done".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_turn_told_line_by_line() {
        let mut progress = Progress::default();
        let tool = |id: &str, command: &str| json!({"type": "agent.tool_use", "id": id, "name": "bash", "input": {"command": command}});
        let result = |id: &str| json!({"type": "agent.tool_result", "tool_use_id": id, "content": []});
        let turn = [
            (json!({"type": "session.status_running"}), "waiting for the model | 2 s | 0 requests, 0 in, 0 out"),
            (json!({"type": "span.model_request_start"}), "waiting for the model | 2 s | 1 request, 0 in, 0 out"),
            (tool("a", "ls"), "bash ls | 2 s | 1 request, 0 in, 0 out"),
            (tool("b", "pwd"), "2 tools: bash ls | 2 s | 1 request, 0 in, 0 out"),
            (
                json!({"type": "span.model_request_end", "model_usage": {"input_tokens": 1500, "output_tokens": 20}}),
                "2 tools: bash ls | 2 s | 1 request, 1,500 in, 20 out",
            ),
            (result("a"), "bash pwd | 2 s | 1 request, 1,500 in, 20 out"),
            (result("b"), "waiting for the model | 2 s | 1 request, 1,500 in, 20 out"),
            (
                json!({"type": "session.status_rescheduled"}),
                "waiting to try the model again | 2 s | 1 request, 1,500 in, 20 out",
            ),
            (
                json!({"type": "session.status_idle", "stop_reason": {"type": "requires_action", "event_ids": ["a"]}}),
                "waiting for you | 2 s | 1 request, 1,500 in, 20 out",
            ),
            (
                json!({"type": "session.status_idle", "stop_reason": {"type": "end_turn"}}),
                "done | 2 s | 1 request, 1,500 in, 20 out",
            ),
        ];
        for (event, expect) in turn {
            progress.event(&event);
            assert_eq!(progress.status(Duration::from_secs(2), 80), expect, "{event}");
        }
        assert_eq!(progress.call("b").unwrap()["input"]["command"], "pwd");
    }

    #[test]
    fn the_end_of_what_is_being_written_is_shown() {
        let mut progress = Progress::default();
        for word in ["Hello", " ", "there\n", "you"] {
            progress.preview(&json!({"type": "event_delta", "delta": {"content": {"type": "text", "text": word}}}));
        }
        assert_eq!(progress.status(Duration::ZERO, 80), "writing: Hello there you | 0 ms | 0 requests, 0 in, 0 out");
        progress.preview(&json!({"delta": {"content": {"text": "x".repeat(200)}}}));
        assert!(progress.status(Duration::ZERO, 60).chars().count() <= 60);
        assert_eq!(progress.message(), None, "a preview is no message");
        progress.event(&json!({"type": "agent.message", "content": [{"type": "text", "text": "Hello"}]}));
        assert_eq!(progress.message(), Some("Hello"));
    }
}
