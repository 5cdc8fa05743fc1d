//! Events as one line of text. Pure; takes events in the API's form and knows every type of it, and shows one that it
//! does not know by its name alone.
//!
//! What agents and tools write is not trusted: control characters never reach the terminal.

use serde_json::Value;

/// Columns of the text behind the name of an event.
const TEXT_COLUMNS: usize = 100;
/// Characters of one value of a call that has to be answered for.
const FULL_CHARS: usize = 10_000;

/// A line of `session events` and `session watch`: position, time, type, and what it says.
pub fn row(position: Option<u64>, event: &Value) -> String {
    let position = position.map_or_else(|| "-".to_owned(), |position| position.to_string());
    let time = event["processed_at"].as_str().map_or("waiting", clock);
    let kind = one_line(event["type"].as_str().unwrap_or("?"), 40);
    format!("{position:>5}  {time:<8}  {kind:<29}  {}", summary(event)).trim_end().to_owned()
}

/// A line of `run`: what the agent does and what comes of it. `None` for what only machines care about.
pub fn step(event: &Value) -> Option<String> {
    let text = summary(event);
    let line = match event["type"].as_str()? {
        "agent.tool_use" | "agent.mcp_tool_use" | "agent.custom_tool_use" => format!("> {text}"),
        "agent.tool_result" | "agent.mcp_tool_result" | "user.tool_result" | "user.custom_tool_result" => {
            format!("  {text}")
        }
        "agent.message" => text,
        "agent.thread_context_compacted" => "* the conversation was summarised".to_owned(),
        "user.tool_confirmation" => format!("* {text}"),
        "user.interrupt" => "* interrupted".to_owned(),
        "session.error" => format!("! {text}"),
        "session.status_terminated" => "! the session was terminated".to_owned(),
        "session.deleted" => "! the session was deleted".to_owned(),
        _ => return None,
    };
    Some(line)
}

/// What an event says, on one line.
pub fn summary(event: &Value) -> String {
    let field = |name: &str| event[name].as_str().unwrap_or_default();
    let text = match event["type"].as_str().unwrap_or_default() {
        "user.message" | "system.message" | "agent.message" => text_of(&event["content"]),
        "user.tool_confirmation" => match event["deny_message"].as_str() {
            Some(message) => format!("{} {}: {message}", field("result"), field("tool_use_id")),
            None => format!("{} {}", field("result"), field("tool_use_id")),
        },
        "agent.tool_use" | "agent.mcp_tool_use" | "agent.custom_tool_use" => {
            let note = match field("evaluated_permission") {
                "ask" => " (asks first)",
                "deny" => " (denied)",
                _ => "",
            };
            format!("{}{note}  {}", tool(event), input(&event["input"]))
        }
        "agent.tool_result" | "agent.mcp_tool_result" | "user.tool_result" | "user.custom_tool_result" => {
            let outcome = if event["is_error"] == true { "error" } else { "ok" };
            format!("{outcome}  {}", text_of(&event["content"]))
        }
        "session.status_idle" | "session.thread_status_idle" => stop_reason(&event["stop_reason"]),
        "session.error" => {
            let error = &event["error"];
            let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let retry = part(&error["retry_status"]["type"]);
            format!("{}: {} ({retry})", part(&error["type"]), part(&error["message"]))
        }
        "session.usage" => tokens(&event["usage"]),
        "span.model_request_end" => {
            let failed = if event["is_error"] == true { "failed, " } else { "" };
            format!("{failed}{}", tokens(&event["model_usage"]))
        }
        "session.updated" => {
            let changed = ["agent", "title", "metadata", "budget"];
            changed.into_iter().filter(|name| event.get(name).is_some()).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    };
    one_line(&text, TEXT_COLUMNS)
}

/// The text blocks of a content; other blocks by their type.
pub fn text_of(content: &Value) -> String {
    let blocks = content.as_array().map_or(&[][..], Vec::as_slice);
    let texts = blocks.iter().map(|block| match block["text"].as_str() {
        Some(text) => text.to_owned(),
        None => format!("[{}]", block["type"].as_str().unwrap_or("?")),
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// A tool call without what becomes of it, on one line.
pub fn call(event: &Value) -> String {
    one_line(&format!("{}  {}", tool(event), input(&event["input"])), TEXT_COLUMNS)
}

/// Everything that a tool was given, for whoever has to answer for it: what is cut short is said.
pub fn call_in_full(event: &Value) -> String {
    let mut lines = vec![printable(&tool(event))];
    for (name, value) in event["input"].as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let shown: String = text.chars().take(FULL_CHARS).collect();
        let more = text.chars().count().saturating_sub(FULL_CHARS);
        let more = if more > 0 { format!("\n[{} more characters]", grouped(more as u64)) } else { String::new() };
        let shown = printable(&shown).replace('\n', "\n    ");
        lines.push(format!("  {}: {shown}{more}", one_line(name, 40)));
    }
    lines.join("\n")
}

/// The name of a called tool, with the server that has it.
fn tool(event: &Value) -> String {
    let name = event["name"].as_str().unwrap_or_default();
    match event["mcp_server_name"].as_str() {
        Some(server) => format!("{server}/{name}"),
        None => name.to_owned(),
    }
}

/// What a tool was given: the one value that says it, where the tool is a known one.
fn input(input: &Value) -> String {
    let known = ["command", "file_path", "pattern", "query", "url"];
    match known.into_iter().find_map(|name| input[name].as_str()) {
        Some(text) => text.to_owned(),
        None if input.as_object().is_some_and(serde_json::Map::is_empty) => String::new(),
        None => input.to_string(),
    }
}

pub fn stop_reason(reason: &Value) -> String {
    let kind = reason["type"].as_str().unwrap_or_default();
    let ids: Vec<&str> = reason["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if ids.is_empty() { kind.to_owned() } else { format!("{kind}: {}", ids.join(" ")) }
}

/// `1,234 in, 56 out`: what went to the model counts whether it was cached or not.
pub fn tokens(usage: &Value) -> String {
    let (input, output) = token_counts(usage);
    format!("{} in, {} out", grouped(input), grouped(output))
}

/// Tokens in and out of `usage` or `model_usage`.
pub fn token_counts(usage: &Value) -> (u64, u64) {
    let count = |value: &Value| value.as_u64().unwrap_or(0);
    let created = &usage["cache_creation"];
    let input = count(&usage["input_tokens"])
        + count(&usage["cache_read_input_tokens"])
        + count(&usage["cache_creation_input_tokens"])
        + count(&created["ephemeral_5m_input_tokens"])
        + count(&created["ephemeral_1h_input_tokens"]);
    (input, count(&usage["output_tokens"]))
}

/// Digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most `columns` characters on one line, without anything that a terminal would act on.
pub fn one_line(text: &str, columns: usize) -> String {
    let plain = text.chars().map(|c| if is_unsafe(c) { ' ' } else { c });
    let plain: String = plain.take(columns * 4).collect();
    let words = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.chars().count() <= columns {
        return words;
    }
    let cut: String = words.chars().take(columns.saturating_sub(3)).collect();
    format!("{}...", cut.trim_end())
}

/// Lines kept, everything else that a terminal would act on taken out.
pub fn printable(text: &str) -> String {
    text.chars().filter(|&c| matches!(c, '\n' | '\t') || !is_unsafe(c)).collect()
}

/// Control characters, and those that turn the direction of text around.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The time of day of a timestamp in UTC, as the API writes it.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

/// Date and time of a timestamp in UTC, to the second.
pub fn moment(time: &Value) -> String {
    let time = time.as_str().unwrap_or_default();
    time.get(..19).unwrap_or(time).replace('T', " ")
}

/// `850 ms`, `12 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// `1 turn`, `2 turns`: what has its plural in an s.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn every_type_has_its_line() {
        let text = |text: &str| json!([{"type": "text", "text": text}]);
        let cases = [
            (json!({"type": "user.message", "content": text("fix it\nplease")}), "fix it please", None),
            (json!({"type": "agent.message", "content": text("done")}), "done", Some("done")),
            (json!({"type": "agent.message", "content": [{"type": "redacted"}]}), "[redacted]", Some("[redacted]")),
            (json!({"type": "agent.thinking"}), "", None),
            (
                json!({"type": "agent.tool_use", "name": "bash", "input": {"command": "cargo test"}}),
                "bash cargo test",
                Some("> bash cargo test"),
            ),
            (
                json!({"type": "agent.tool_use", "name": "write", "evaluated_permission": "ask",
                       "input": {"file_path": "/workspace/a.rs", "content": "fn main() {}"}}),
                "write (asks first) /workspace/a.rs",
                Some("> write (asks first) /workspace/a.rs"),
            ),
            (
                json!({"type": "agent.tool_use", "name": "grep", "evaluated_permission": "deny",
                       "input": {"pattern": "TODO", "path": "src"}}),
                "grep (denied) TODO",
                Some("> grep (denied) TODO"),
            ),
            (
                json!({"type": "agent.mcp_tool_use", "name": "search", "mcp_server_name": "docs", "input": {"n": 3}}),
                "docs/search {\"n\":3}",
                Some("> docs/search {\"n\":3}"),
            ),
            (json!({"type": "agent.custom_tool_use", "name": "weather", "input": {}}), "weather", Some("> weather")),
            (json!({"type": "agent.tool_result", "content": text("3 passed")}), "ok 3 passed", Some("  ok 3 passed")),
            (
                json!({"type": "agent.tool_result", "is_error": true, "content": text("exit 1")}),
                "error exit 1",
                Some("  error exit 1"),
            ),
            (
                json!({"type": "user.tool_confirmation", "tool_use_id": "sevt_1", "result": "deny", "deny_message": "no"}),
                "deny sevt_1: no",
                Some("* deny sevt_1: no"),
            ),
            (json!({"type": "user.interrupt"}), "", Some("* interrupted")),
            (
                json!({"type": "session.status_idle", "stop_reason": {"type": "requires_action", "event_ids": ["a", "b"]}}),
                "requires_action: a b",
                None,
            ),
            (json!({"type": "session.status_idle", "stop_reason": {"type": "end_turn"}}), "end_turn", None),
            (
                json!({"type": "session.error", "error": {"type": "model_overloaded_error", "message": "busy",
                       "retry_status": {"type": "retrying"}}}),
                "model_overloaded_error: busy (retrying)",
                Some("! model_overloaded_error: busy (retrying)"),
            ),
            (
                json!({"type": "session.usage", "usage": {"input_tokens": 1200, "output_tokens": 34,
                       "cache_read_input_tokens": 5, "cache_creation": {"ephemeral_5m_input_tokens": 60}}}),
                "1,265 in, 34 out",
                None,
            ),
            (
                json!({"type": "span.model_request_end", "is_error": true, "model_usage": {"input_tokens": 7}}),
                "failed, 7 in, 0 out",
                None,
            ),
            (json!({"type": "session.updated", "title": null, "metadata": {}}), "title, metadata", None),
            (json!({"type": "session.status_terminated"}), "", Some("! the session was terminated")),
            (json!({"type": "something.new", "content": 7}), "", None),
            (json!({}), "", None),
        ];
        for (event, expect, expect_step) in cases {
            assert_eq!(summary(&event), expect, "{event}");
            assert_eq!(step(&event).as_deref(), expect_step, "{event}");
        }
    }

    #[test]
    fn a_call_that_asks_hides_nothing() {
        let command = format!("ls{}; rm -rf /\u{1b}[8m", " ".repeat(300));
        let call = json!({"type": "agent.tool_use", "name": "bash", "evaluated_permission": "ask",
                          "input": {"command": command, "timeout_ms": 5}});
        assert_eq!(
            call_in_full(&call),
            format!("bash\n  command: ls{}; rm -rf /[8m\n  timeout_ms: 5", " ".repeat(300))
        );
        let call = json!({"name": "write", "input": {"content": format!("a\nb{}", "x".repeat(12_345))}});
        assert!(call_in_full(&call).starts_with("write\n  content: a\n    bxxx"));
        assert!(call_in_full(&call).ends_with("x\n[2,348 more characters]"));
    }

    #[test]
    fn a_row_has_position_time_and_type() {
        let event = json!({"type": "user.interrupt", "processed_at": "2026-11-22T15:04:05.678Z"});
        assert_eq!(row(Some(12), &event), "   12  15:04:05  user.interrupt");
        let event = json!({"type": "user.message", "processed_at": null, "content": [{"type": "text", "text": "hi"}]});
        assert_eq!(row(None, &event), "    -  waiting   user.message                   hi");
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_act_on() {
        let hostile = "a\u{1b}[2Jb\rc\u{9b}31md\u{202e}e\u{7}\u{0}f\ng";
        assert_eq!(one_line(hostile, 80), "a [2Jb c 31md e f g");
        assert_eq!(printable(hostile), "a[2Jbc31mdef\ng");
        let event = json!({"type": "agent.tool_use", "name": "\u{1b}]0;x\u{7}", "input": {"\u{1b}": "\u{1b}"}});
        assert!(!row(None, &event).contains(char::is_control));
        let event = json!({"type": "\u{1b}[1m"});
        assert!(!row(None, &event).contains(char::is_control));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abc...");
        assert_eq!(one_line("äöüäöüä", 6), "äöü...");
        assert_eq!(one_line(&"x ".repeat(5000), 9), "x x x...");
    }

    #[test]
    fn numbers_and_durations() {
        for (number, expect) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), expect);
        }
        for (ms, expect) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (59_999, "59 s"),
            (65_000, "1 min 05 s"),
            (7_620_000, "2 h 07 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), expect);
        }
    }
}
