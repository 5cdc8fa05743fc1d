//! `get_events`: the tool by which a model reads slices of its own session's log, also what its context does not show any more.
//!
//! What the model is told of it, what its input means, and how a slice is shown. Reading is somebody else's.

use domain::{Content, EventBody, content::Json, session::LogEntry};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::ops::Range;

pub const NAME: &str = "get_events";

pub const DESCRIPTION: &str = "Read events of this session's own log by position, also those that are not in your context any \
    more: messages, your own answers, tool calls and their results, from the first event (position 0) on. Each line of the result \
    is one event as JSON. Long texts are cut; ask for one position alone to get all of it that fits. Where not everything fits, \
    the last line says from which position to go on. Nothing is changed by reading.";

/// Bytes of a result: as a few pages of a file, and inline in the log.
const RESULT_BYTES_MAX: usize = 24 * 1024;
/// Bytes of one text in it, where more than one event is asked for.
const TEXT_BYTES_MAX: usize = 2 * 1024;
/// Events that are looked through for one result.
const EVENTS_MAX: u64 = 1_000;
/// What stands around a text that fills a result by itself.
const ROOM_AROUND: usize = 1024;

/// JSON Schema of the input.
pub fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "from": {
                "type": "integer",
                "description": "Position of the first event. Below 0 it counts from the end: -20 is the twentieth event from the end.",
            },
            "to": {
                "type": "integer",
                "minimum": 0,
                "description": "Position behind the last event. Left out: as many as fit.",
            },
            "types": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Only events of these types, such as user.message, agent.message, agent.tool_use, agent.tool_result.",
            },
        },
        "required": ["from"],
        "additionalProperties": false,
    })
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub range: Range<u64>,
    types: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    from: i64,
    #[serde(default)]
    to: Option<u64>,
    #[serde(default)]
    types: Vec<String>,
}

/// Why there is nothing to read, in words for the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("invalid input: {0}")]
    Input(String),
    #[error("position {from} is behind the end of the log, which is at {end}")]
    Behind { from: u64, end: u64 },
    #[error("there is nothing from position {from} to {to}")]
    Empty { from: u64, to: u64 },
}

/// Reads an input against a log that ends at `end`.
pub fn asked(input: &Value, end: u64) -> Result<Asked, Refused> {
    let Input { from, to, types } = Input::deserialize(input).map_err(|error| Refused::Input(error.to_string()))?;
    let from = match u64::try_from(from) {
        Ok(from) => from,
        Err(_) => end.saturating_sub(from.unsigned_abs()),
    };
    if from >= end {
        return Err(Refused::Behind { from, end });
    }
    let to = to.unwrap_or(end).min(end);
    if to <= from {
        return Err(Refused::Empty { from, to });
    }
    Ok(Asked { range: from..to.min(from + EVENTS_MAX), types })
}

/// The slice as the model reads it: an event a line. `end` is that of the log.
pub fn shown(asked: &Asked, entries: &[LogEntry], end: u64) -> String {
    let is_one = asked.range.end - asked.range.start == 1;
    let text_max = if is_one { RESULT_BYTES_MAX - ROOM_AROUND } else { TEXT_BYTES_MAX };
    let mut lines = String::new();
    let mut next = asked.range.end;
    for entry in entries {
        if !asked.types.is_empty() && !asked.types.iter().any(|name| name == entry.event.body.type_name()) {
            continue;
        }
        let line = line(entry, text_max);
        if !lines.is_empty() && lines.len() + line.len() > RESULT_BYTES_MAX {
            next = entry.position;
            break;
        }
        lines.push_str(&line);
        lines.push('\n');
    }
    let more = match next < end {
        true => json!({"next": next, "end": end}),
        false => json!({"end": end}),
    };
    lines.push_str(&more.to_string());
    lines
}

fn line(entry: &LogEntry, text_max: usize) -> String {
    let mut shown = Map::new();
    shown.insert("position".to_owned(), json!(entry.position));
    if let Value::Object(event) = serde_json::to_value(plain(&entry.event.body)).unwrap_or_default() {
        shown.extend(event);
    }
    shown.insert("id".to_owned(), json!(entry.event.id));
    shown.insert("processed_at".to_owned(), json!(entry.event.processed_at));
    if entry.ignored {
        shown.insert("ignored".to_owned(), json!(true));
    }
    let mut shown = Value::Object(shown);
    cut(&mut shown, text_max);
    let line = shown.to_string();
    if line.len() <= RESULT_BYTES_MAX {
        return line;
    }
    // Many texts, each of them short enough.
    let (kind, head) = (entry.event.body.type_name(), &line[..line.floor_char_boundary(text_max)]);
    json!({"position": entry.position, "type": kind, "cut": head}).to_string()
}

/// Inputs of tools as they were given; media by their size.
fn plain(body: &EventBody) -> Value {
    let mut value = serde_json::to_value(body).unwrap_or_default();
    if let EventBody::AgentToolUse { input, .. }
    | EventBody::AgentCustomToolUse { input, .. }
    | EventBody::AgentMcpToolUse { input, .. } = body
        && let Json::Inline { value: input } = input
    {
        value["input"] = input.clone();
    }
    if let Some(Content::Blob(blob)) = body.content() {
        value["content"] = json!(format!("({} bytes)", blob.bytes));
    }
    value
}

/// Texts to so many bytes.
fn cut(value: &mut Value, text_max: usize) {
    match value {
        Value::String(text) if text.len() > text_max => {
            let kept = text.floor_char_boundary(text_max);
            let left_out = text.len() - kept;
            text.truncate(kept);
            text.push_str(&format!("... ({left_out} more bytes)"));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| cut(value, text_max)),
        Value::Object(fields) => fields.values_mut().for_each(|value| cut(value, text_max)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Event, Time};

    fn entry(position: u64, text: &str) -> LogEntry {
        let body = EventBody::AgentMessage { content: Content::text(text) };
        let event = Event { id: format!("sevt_{position}"), body, processed_at: Some(Time::from_ms(0)) };
        LogEntry { position, commit: position, event, private: None, ignored: false }
    }

    fn log(texts: &[&str]) -> Vec<LogEntry> {
        texts.iter().enumerate().map(|(at, text)| entry(at as u64, text)).collect()
    }

    fn read(input: Value, log: &[LogEntry]) -> Result<Vec<Value>, String> {
        let end = log.len() as u64;
        let asked = asked(&input, end).map_err(|refused| refused.to_string())?;
        let slice: Vec<LogEntry> = log.iter().filter(|entry| asked.range.contains(&entry.position)).cloned().collect();
        Ok(shown(&asked, &slice, end).lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn positions_are_counted_from_both_ends() {
        let log = log(&["a", "b", "c", "d"]);
        for (input, expected) in [
            (json!({"from": 0}), &[0, 1, 2, 3][..]),
            (json!({"from": 1, "to": 3}), &[1, 2]),
            (json!({"from": 3, "to": 99}), &[3]),
            (json!({"from": -1}), &[3]),
            (json!({"from": -99, "to": 1}), &[0]),
            (json!({"from": 0, "types": ["user.message"]}), &[]),
        ] {
            let lines = read(input.clone(), &log).unwrap();
            let (last, events) = lines.split_last().unwrap();
            let positions: Vec<u64> = events.iter().map(|line| line["position"].as_u64().unwrap()).collect();
            assert_eq!(positions, expected, "{input}");
            assert_eq!(last["end"], 4);
        }
        let first = &read(json!({"from": 0, "to": 1}), &log).unwrap();
        assert_eq!((&first[0]["type"], &first[0]["content"][0]["text"]), (&json!("agent.message"), &json!("a")));
        assert_eq!(first[1]["next"], 1);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let log = log(&["a"]);
        for (input, expected) in [
            (json!({"from": 1}), "position 1 is behind the end of the log, which is at 1"),
            (json!({"from": 0, "to": 0}), "there is nothing from position 0 to 0"),
            (json!({}), "invalid input: missing field `from`"),
            (json!({"from": 0, "until": 1}), "invalid input: unknown field `until`"),
        ] {
            let refused = read(input, &log).unwrap_err();
            assert!(refused.starts_with(expected), "{refused}");
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_and_can_be_asked_for_again() {
        let long = "ä".repeat(RESULT_BYTES_MAX);
        let texts: Vec<&str> = (0..40).map(|_| long.as_str()).collect();
        let log = log(&texts);
        let lines = read(json!({"from": 0}), &log).unwrap();
        let bytes: usize = lines.iter().map(|line| line.to_string().len()).sum();
        assert!(bytes < RESULT_BYTES_MAX + 100, "{bytes}");
        let next = lines.last().unwrap()["next"].as_u64().unwrap();
        assert_eq!(next, lines.len() as u64 - 1);
        assert_eq!(read(json!({"from": next}), &log).unwrap()[0]["position"], next);
        let cut = |lines: &[Value]| lines[0]["content"][0]["text"].as_str().unwrap().len();
        assert!(cut(&lines) < 2 * TEXT_BYTES_MAX);
        assert!(cut(&read(json!({"from": 0, "to": 1}), &log).unwrap()) > 8 * TEXT_BYTES_MAX, "alone it has more room");
    }

    #[test]
    fn inputs_of_tools_are_shown_as_they_were_given() {
        let mut call = entry(0, "");
        call.event.body = EventBody::AgentToolUse {
            name: "bash".into(),
            input: Json::Inline { value: json!({"command": "ls"}) },
            evaluated_permission: None,
            evaluation: None,
        };
        assert_eq!(read(json!({"from": 0}), &[call]).unwrap()[0]["input"], json!({"command": "ls"}));
    }
}
