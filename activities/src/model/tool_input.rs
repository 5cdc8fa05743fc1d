//! The input of a tool call as it comes: fragments of JSON text that may turn out not to be JSON.

use serde_json::{Map, Value, json};

use super::BadInput;

/// The field under which input that is no JSON object is shown back to the model, as Anthropic's documentation
/// proposes.
const INVALID_JSON: &str = "INVALID_JSON";

/// The input that `text` stands for, and what is wrong with it, if anything. Empty text is `{}`.
pub(super) fn parse(tool_use_id: &str, text: &str) -> (Value, Option<BadInput>) {
    if text.trim().is_empty() {
        return (Value::Object(Map::new()), None);
    }
    let error = match serde_json::from_str(text) {
        Ok(input @ Value::Object(_)) => return (input, None),
        Ok(_) => "the input is JSON, but not an object".to_owned(),
        Err(error) => format!("the input is not valid JSON: {error}"),
    };
    (json!({ INVALID_JSON: text }), Some(BadInput { tool_use_id: tool_use_id.to_owned(), error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let check = |text: &str, input: Value, error: Option<&str>| {
            let (got, bad) = parse("toolu_1", text);
            assert_eq!(got, input, "{text:?}");
            let bad = bad.inspect(|bad| assert_eq!(bad.tool_use_id, "toolu_1")).map(|bad| bad.error);
            assert_eq!(bad.as_deref(), error, "{text:?}");
        };
        check("", json!({}), None);
        check("  \n", json!({}), None);
        check("{}", json!({}), None);
        check(r#"{"a": [1]}"#, json!({"a": [1]}), None);
        check("[1]", json!({"INVALID_JSON": "[1]"}), Some("the input is JSON, but not an object"));
        check(
            r#"{"a": "#,
            json!({"INVALID_JSON": r#"{"a": "#}),
            Some("the input is not valid JSON: EOF while parsing a value at line 1 column 6"),
        );
    }
}
