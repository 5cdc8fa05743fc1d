//! A request in the Anthropic Messages form, turned into Chat Completions.
//!
//! Pure. The rules, in short: the system prompt is the first message; thinking is dropped; tool calls and results
//! become `tool_calls` and messages of role `tool`; images of a result follow in a user message, as a tool message
//! holds text only; a block without a counterpart becomes a line of text that names it, so that the model knows of it.

use serde_json::{Map, Value, json};

use super::TokenLimit;
use crate::model::{Failure, FailureClass};

/// The body's bytes, keys in order.
pub(super) fn body(request: &Value, limit: TokenLimit) -> Result<Vec<u8>, Failure> {
    let Value::Object(fields) = request else {
        return Err(unsendable("the request is not a JSON object"));
    };
    let mut messages = Vec::new();
    if let Some(system) = fields.get("system").map(text_of).filter(|text| !text.is_empty()) {
        messages.push(json!({"role": "system", "content": system}));
    }
    for message in list(fields.get("messages")) {
        convert_message(message, &mut messages)?;
    }
    let mut body = json!({
        "model": fields.get("model"),
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let mut put = |key: &str, value: Value| body[key] = value;
    if let Some(max) = fields.get("max_tokens") {
        put(limit.field(), max.clone());
    }
    for (from, to) in [("temperature", "temperature"), ("top_p", "top_p"), ("stop_sequences", "stop")] {
        if let Some(value) = fields.get(from) {
            put(to, value.clone());
        }
    }
    let tools = list(fields.get("tools")).iter().map(tool).collect::<Result<Vec<_>, _>>()?;
    if !tools.is_empty() {
        put("tools", Value::Array(tools));
        if let Some(choice) = fields.get("tool_choice") {
            put("tool_choice", tool_choice(choice)?);
            if choice["disable_parallel_tool_use"] == true {
                put("parallel_tool_calls", Value::Bool(false));
            }
        }
    }
    let format = &fields.get("output_config").unwrap_or(&Value::Null)["format"];
    if format["type"] == "json_schema" {
        let schema = json!({"name": "output", "strict": true, "schema": format["schema"]});
        put("response_format", json!({"type": "json_schema", "json_schema": schema}));
    }
    Ok(serde_json::to_vec(&body).expect("a JSON value serializes"))
}

fn convert_message(message: &Value, messages: &mut Vec<Value>) -> Result<(), Failure> {
    let content = &message["content"];
    match message["role"].as_str() {
        Some("user") => convert_user(content, messages),
        Some("assistant") => messages.extend(assistant(content)),
        // A system message in mid-conversation has the same form in both.
        Some("system") => messages.push(json!({"role": "system", "content": text_of(content)})),
        _ => return Err(unsendable("a message has no known role")),
    }
    Ok(())
}

/// Results first, as they must follow the calls at once; then what else the user says.
fn convert_user(content: &Value, messages: &mut Vec<Value>) {
    if let Value::String(text) = content {
        messages.push(json!({"role": "user", "content": text}));
        return;
    }
    let mut parts = Vec::new();
    for block in list(Some(content)) {
        if block["type"] == "tool_result" {
            messages.push(tool_result(block, &mut parts));
        } else {
            parts.extend(part(block));
        }
    }
    // A single text goes as a string: some servers know no parts.
    match parts.as_slice() {
        [] => {}
        [part] if part["type"] == "text" => messages.push(json!({"role": "user", "content": part["text"]})),
        _ => messages.push(json!({"role": "user", "content": parts})),
    }
}

/// The message of role `tool`. What it cannot hold goes to `rest`, the user message behind all results.
fn tool_result(block: &Value, rest: &mut Vec<Value>) -> Value {
    let id = &block["tool_use_id"];
    let mut text = String::new();
    if block["is_error"] == true {
        text.push_str("Error: ");
    }
    match &block["content"] {
        Value::String(content) => text.push_str(content),
        content => {
            let mut lines = Vec::new();
            for part in list(Some(content)).iter().filter_map(part) {
                match part["text"].as_str() {
                    Some(line) => lines.push(line.to_owned()),
                    None => {
                        let name = id.as_str().unwrap_or_default();
                        lines.push("[see the attachment below]".to_owned());
                        rest.push(json!({"type": "text", "text": format!("[attachment of the result of {name}]")}));
                        rest.push(part);
                    }
                }
            }
            text.push_str(&lines.join("\n"));
        }
    }
    if text.is_empty() {
        // Some servers refuse an empty message.
        text.push_str("(no output)");
    }
    json!({"role": "tool", "tool_call_id": id, "content": text})
}

/// A content part of a user message; none for empty text, which servers refuse.
fn part(block: &Value) -> Option<Value> {
    let source = &block["source"];
    let data_url = || {
        let (kind, data) = (source["media_type"].as_str()?, source["data"].as_str()?);
        Some(format!("data:{kind};base64,{data}"))
    };
    let known = match (block["type"].as_str().unwrap_or_default(), source["type"].as_str().unwrap_or_default()) {
        ("text", _) => {
            let text = block["text"].as_str().unwrap_or_default();
            return (!text.is_empty()).then(|| json!({"type": "text", "text": text}));
        }
        ("image", "base64") => data_url().map(|url| json!({"type": "image_url", "image_url": {"url": url}})),
        ("image", "url") => Some(json!({"type": "image_url", "image_url": {"url": source["url"]}})),
        ("document", "text") => Some(json!({"type": "text", "text": source["data"]})),
        ("document", "base64") => data_url().map(|url| {
            let name = block["title"].as_str().unwrap_or("document.pdf");
            json!({"type": "file", "file": {"filename": name, "file_data": url}})
        }),
        _ => None,
    };
    Some(known.unwrap_or_else(|| {
        let kind = block["type"].as_str().unwrap_or("unknown");
        json!({"type": "text", "text": format!("[a block of type {kind} is not shown: this model server cannot take it]")})
    }))
}

/// The assistant's message; none when nothing is left of it.
fn assistant(content: &Value) -> Option<Value> {
    if let Value::String(text) = content {
        return Some(json!({"role": "assistant", "content": text}));
    }
    let mut calls = Vec::new();
    for block in list(Some(content)).iter().filter(|block| block["type"] == "tool_use") {
        let function = json!({"name": block["name"], "arguments": block["input"].to_string()});
        calls.push(json!({"id": block["id"], "type": "function", "function": function}));
    }
    let text = text_of(content);
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    message.insert("content".to_owned(), if text.is_empty() { Value::Null } else { Value::String(text) });
    if calls.is_empty() {
        return message["content"].is_string().then_some(Value::Object(message));
    }
    message.insert("tool_calls".to_owned(), Value::Array(calls));
    Some(Value::Object(message))
}

fn tool(tool: &Value) -> Result<Value, Failure> {
    let name = tool["name"].as_str().unwrap_or_default();
    let Some(schema) = tool.get("input_schema") else {
        return Err(unsendable(&format!("the tool {name:?} is one that only Anthropic's servers run")));
    };
    let mut function = json!({"name": name, "parameters": schema});
    if let Some(description) = tool.get("description") {
        function["description"] = description.clone();
    }
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(choice: &Value) -> Result<Value, Failure> {
    match choice["type"].as_str() {
        Some("auto") => Ok(json!("auto")),
        Some("any") => Ok(json!("required")),
        Some("none") => Ok(json!("none")),
        Some("tool") => Ok(json!({"type": "function", "function": {"name": choice["name"]}})),
        _ => Err(unsendable("tool_choice has no known type")),
    }
}

/// The text of content that is a string or a list of blocks. Parts of one text are told apart by a blank line.
fn text_of(content: &Value) -> String {
    if let Value::String(text) = content {
        return text.clone();
    }
    let blocks = list(Some(content)).iter().filter(|block| block["type"] == "text");
    let texts = blocks.filter_map(|block| block["text"].as_str()).filter(|text| !text.is_empty());
    texts.collect::<Vec<_>>().join("\n\n")
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn unsendable(message: &str) -> Failure {
    Failure::new(FailureClass::Request, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(request: Value) -> Value {
        serde_json::from_slice(&body(&request, TokenLimit::MaxTokens).unwrap()).unwrap()
    }

    /// The messages that `messages` become.
    fn check(messages: Value, expect: Value) {
        assert_eq!(convert(json!({"model": "m", "messages": messages}))["messages"], expect, "{messages}");
    }

    #[test]
    fn the_whole_request() {
        let request = json!({
            "model": "m", "max_tokens": 100, "temperature": 0.5, "top_k": 3, "stop_sequences": ["END"],
            "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}],
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [{"name": "bash", "description": "runs", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "thinking": {"type": "enabled", "budget_tokens": 10}, "metadata": {"user_id": "u"},
            "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        });
        let expect = json!({
            "model": "m", "max_tokens": 100, "temperature": 0.5, "stop": ["END"],
            "stream": true, "stream_options": {"include_usage": true},
            "messages": [{"role": "system", "content": "a\n\nb"}, {"role": "user", "content": "hi"}],
            "tools": [{"type": "function", "function":
                {"name": "bash", "description": "runs", "parameters": {"type": "object"}}}],
            "tool_choice": "required", "parallel_tool_calls": false,
            "response_format": {"type": "json_schema", "json_schema":
                {"name": "output", "strict": true, "schema": {"type": "object"}}},
        });
        assert_eq!(convert(request.clone()), expect);
        let newer = body(&request, TokenLimit::MaxCompletionTokens).unwrap();
        let newer: Value = serde_json::from_slice(&newer).unwrap();
        assert_eq!((&newer["max_completion_tokens"], newer.get("max_tokens")), (&json!(100), None));
    }

    #[test]
    fn a_round_of_tools() {
        let call = |id: &str, input: Value| json!({"type": "tool_use", "id": id, "name": "bash", "input": input});
        let result = |id: &str, content: Value| json!({"type": "tool_result", "tool_use_id": id, "content": content});
        let chat_call = |id: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": "bash", "arguments": arguments}});
        let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}});
        check(
            json!([
                {"role": "user", "content": [{"type": "text", "text": "go"}]},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I will"},
                    call("t1", json!({"command": "ls"})), call("t2", json!({}))]},
                {"role": "user", "content": [
                    result("t1", json!([{"type": "text", "text": "a"}, image])),
                    {"type": "tool_result", "tool_use_id": "t2", "content": "no", "is_error": true},
                    {"type": "text", "text": "hurry"}]},
                {"role": "assistant", "content": [call("t3", json!({}))]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t3"}]},
            ]),
            json!([
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "I will",
                    "tool_calls": [chat_call("t1", "{\"command\":\"ls\"}"), chat_call("t2", "{}")]},
                {"role": "tool", "tool_call_id": "t1", "content": "a\n[see the attachment below]"},
                {"role": "tool", "tool_call_id": "t2", "content": "Error: no"},
                {"role": "user", "content": [
                    {"type": "text", "text": "[attachment of the result of t1]"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}},
                    {"type": "text", "text": "hurry"}]},
                {"role": "assistant", "content": null, "tool_calls": [chat_call("t3", "{}")]},
                {"role": "tool", "tool_call_id": "t3", "content": "(no output)"},
            ]),
        );
    }

    #[test]
    fn content_of_every_kind() {
        let user = |block: Value| json!([{"role": "user", "content": [block, {"type": "text", "text": "?"}]}]);
        let check = |block: Value, part: Value| {
            let expect = json!([{"role": "user", "content": [part, {"type": "text", "text": "?"}]}]);
            check(user(block), expect);
        };
        check(
            json!({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}),
            json!({"type": "image_url", "image_url": {"url": "https://x/y.png"}}),
        );
        check(
            json!({"type": "document", "title": "a.pdf",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "eA=="}}),
            json!({"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,eA=="}}),
        );
        check(
            json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}),
            json!({"type": "text", "text": "words"}),
        );
        check(
            json!({"type": "image", "source": {"type": "file", "file_id": "file_1"}}),
            json!({"type": "text", "text": "[a block of type image is not shown: this model server cannot take it]"}),
        );
    }

    #[test]
    fn nothing_empty_is_sent() {
        check(
            json!([
                {"role": "user", "content": [{"type": "text", "text": ""}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
                {"role": "assistant", "content": []},
                {"role": "system", "content": "mind the gap"},
            ]),
            json!([{"role": "system", "content": "mind the gap"}]),
        );
    }

    #[test]
    fn tool_choices() {
        let check = |choice: Value, expect: Value| {
            let tools = json!([{"name": "bash", "input_schema": {}}]);
            let got = convert(json!({"messages": [], "tools": tools, "tool_choice": choice}));
            assert_eq!(got["tool_choice"], expect);
        };
        check(json!({"type": "auto"}), json!("auto"));
        check(json!({"type": "none"}), json!("none"));
        check(json!({"type": "tool", "name": "bash"}), json!({"type": "function", "function": {"name": "bash"}}));
        let unused = convert(json!({"messages": [], "tools": [], "tool_choice": {"type": "auto"}}));
        assert_eq!((unused.get("tools"), unused.get("tool_choice")), (None, None));
    }

    #[test]
    fn what_cannot_be_sent_is_a_request_failure() {
        let check = |request: Value, message: &str| {
            let failure = body(&request, TokenLimit::MaxTokens).unwrap_err();
            assert_eq!((failure.class, failure.message.as_str()), (FailureClass::Request, message));
        };
        check(json!([]), "the request is not a JSON object");
        check(json!({"messages": [{"role": "robot"}]}), "a message has no known role");
        check(
            json!({"messages": [], "tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "the tool \"web_search\" is one that only Anthropic's servers run",
        );
    }
}
