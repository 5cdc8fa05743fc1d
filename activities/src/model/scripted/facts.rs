//! What a script can see of a request, and the placeholders that it fills in.

use serde_json::Value;

/// The parts of a request that rules look at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) model: String,
    pub(super) system: String,
    /// The text of the last user message that has any.
    pub(super) user: String,
    /// How many user messages with text came before it.
    pub(super) turn: u64,
    /// Tool results after it.
    pub(super) results: u64,
    /// The text of the tool results in the last message.
    pub(super) result: String,
    /// Whether one of those is an error; none without any.
    pub(super) result_is_error: Option<bool>,
    pub(super) tools: Vec<String>,
    pub(super) tries: u32,
}

const PLACEHOLDERS: [&str; 5] = ["user", "result", "turn", "results", "tries"];

impl Facts {
    /// Reads a body in the Anthropic Messages form. What is not there is empty.
    pub(super) fn read(body: &Value, tries: u32) -> Facts {
        let mut facts = Facts {
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            system: text_of(&body["system"]),
            tools: list(&body["tools"]).iter().filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect(),
            tries,
            ..Facts::default()
        };
        let mut users = 0u64;
        for message in list(&body["messages"]) {
            facts.result.clear();
            facts.result_is_error = None;
            if message["role"] != "user" {
                continue;
            }
            let content = &message["content"];
            for result in list(content).iter().filter(|block| block["type"] == "tool_result") {
                facts.results += 1;
                if facts.result_is_error.is_some() {
                    facts.result.push('\n');
                }
                facts.result.push_str(&text_of(&result["content"]));
                let is_error = result["is_error"] == true;
                facts.result_is_error = Some(is_error || facts.result_is_error == Some(true));
            }
            let text = text_of(content);
            if !text.is_empty() {
                users += 1;
                facts.user = text;
                facts.results = 0;
            }
        }
        facts.turn = users.saturating_sub(1);
        facts
    }

    /// `text` with its placeholders filled in.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, name, after)) = next_placeholder(rest) {
            filled.push_str(before);
            match name {
                "user" => filled.push_str(&self.user),
                "result" => filled.push_str(&self.result),
                "turn" => filled.push_str(&self.turn.to_string()),
                "results" => filled.push_str(&self.results.to_string()),
                "tries" => filled.push_str(&self.tries.to_string()),
                other => unreachable!("{other} was refused when the script was loaded"),
            }
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    /// `value` with the placeholders in its strings filled in.
    pub(super) fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(list) => list.iter().map(|value| self.fill_value(value)).collect(),
            Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), self.fill_value(value))).collect(),
            other => other.clone(),
        }
    }
}

/// Refuses a text with a placeholder that [`Facts::fill`] does not know.
pub(super) fn check(text: &str) -> Result<(), String> {
    let mut rest = text;
    while let Some((_, name, after)) = next_placeholder(rest) {
        if !PLACEHOLDERS.contains(&name) {
            let known = PLACEHOLDERS.join(", ");
            return Err(format!(
                "there is nothing to fill in for {{{{{name}}}}}: {known}; literal = true sends braces as they are"
            ));
        }
        rest = after;
    }
    Ok(())
}

pub(super) fn check_value(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) => check(text),
        Value::Array(list) => list.iter().try_for_each(check_value),
        Value::Object(fields) => fields.values().try_for_each(check_value),
        _ => Ok(()),
    }
}

/// What is before `{{name}}`, the name, and what is after it.
fn next_placeholder(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (name, after) = rest.split_once("}}")?;
    Some((before, name.trim(), after))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The text of content that is a string or a list of blocks.
fn text_of(content: &Value) -> String {
    if let Value::String(text) = content {
        return text.clone();
    }
    let texts = list(content).iter().filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str());
    texts.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_turns_and_results() {
        let result = |text: &str, is_error: bool| {
            json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": text}],
                "is_error": is_error})
        };
        let body = json!({"model": "m", "system": [{"type": "text", "text": "be brief"}],
        "tools": [{"name": "bash"}, {"name": "read"}],
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "bash", "input": {}}]},
            {"role": "user", "content": [result("ignored", false)]},
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "lines"}]},
            {"role": "assistant", "content": "..."},
            {"role": "user", "content": [result("a", false), result("b", true)]},
            {"role": "assistant", "content": "..."},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "c"}]},
        ]});
        let facts = Facts::read(&body, 3);
        let expect = Facts {
            model: "m".to_owned(),
            system: "be brief".to_owned(),
            user: "two\nlines".to_owned(),
            turn: 1,
            results: 3,
            result: "c".to_owned(),
            result_is_error: Some(false),
            tools: vec!["bash".to_owned(), "read".to_owned()],
            tries: 3,
        };
        assert_eq!(facts, expect);
    }

    #[test]
    fn an_odd_request_has_no_facts() {
        for body in [json!(null), json!([]), json!({"messages": 3, "tools": {}}), json!({"messages": [1, "x", {}]})] {
            assert_eq!(Facts::read(&body, 0), Facts::default(), "{body}");
        }
    }

    #[test]
    fn fills_placeholders_once() {
        let facts = Facts { user: "{{turn}}".to_owned(), turn: 2, ..Facts::default() };
        let check_fill = |text: &str, expect: &str| {
            check(text).unwrap();
            assert_eq!(facts.fill(text), expect, "{text}");
        };
        check_fill("", "");
        check_fill("no braces", "no braces");
        check_fill("turn {{turn}}, {{ results }}.", "turn 2, 0.");
        check_fill("{{user}}", "{{turn}}");
        check_fill("open {{turn", "open {{turn");
        check_fill("}} {{tries}}", "}} 0");
        let filled = facts.fill_value(&json!({"{{turn}}": ["{{turn}}", 3, null]}));
        assert_eq!(filled, json!({"{{turn}}": ["2", 3, null]}));
        assert!(check("${{HOME}}").is_err());
    }
}
