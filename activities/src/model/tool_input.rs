//! The input of a tool call as it comes: fragments of JSON text that may turn out not to be JSON, or more than any tool
//! takes.

use domain::limits::TOOL_INPUT_BYTES_MAX;
use serde_json::{Map, Value, json};

use super::BadInput;

/// The field under which input that is no JSON object is shown back to the model, as Anthropic's documentation
/// proposes.
const INVALID_JSON: &str = "INVALID_JSON";
/// The field under which the beginning of input that is too long is shown back to the model.
const TOO_LARGE: &str = "TOO_LARGE";
/// As much of it: enough to know which call it was. The rest must not come back with every request.
const HEAD_BYTES: usize = 2 * 1024;

/// The text so far. What is more than a call takes is counted and not kept.
#[derive(Default)]
pub(super) struct Text {
    kept: String,
    bytes: usize,
}

impl Text {
    pub(super) fn push(&mut self, more: &str) {
        let was_whole = self.is_whole();
        self.bytes += more.len();
        if self.is_whole() {
            self.kept.push_str(more);
        } else if was_whole {
            let missing = more.floor_char_boundary(HEAD_BYTES.saturating_sub(self.kept.len()));
            self.kept.push_str(&more[..missing]);
            self.kept.truncate(self.kept.floor_char_boundary(HEAD_BYTES));
            self.kept.shrink_to_fit();
        }
    }

    /// What of it is kept.
    pub(super) fn as_str(&self) -> &str {
        &self.kept
    }

    fn is_whole(&self) -> bool {
        self.bytes <= TOOL_INPUT_BYTES_MAX
    }
}

/// The input that `text` stands for, and what is wrong with it, if anything. Empty text is `{}`.
pub(super) fn parse(tool_use_id: &str, text: &Text) -> (Value, Option<BadInput>) {
    let bad = |error| Some(BadInput { tool_use_id: tool_use_id.to_owned(), error });
    let Text { kept, bytes } = text;
    if !text.is_whole() {
        let error = format!(
            "the input has {bytes} bytes, and a call takes at most {TOOL_INPUT_BYTES_MAX}: nothing was run, and only the \
             first {} bytes were kept. Send it in smaller pieces, or have a command make it",
            kept.len()
        );
        return (json!({ TOO_LARGE: kept }), bad(error));
    }
    if kept.trim().is_empty() {
        return (Value::Object(Map::new()), None);
    }
    let error = match serde_json::from_str(kept) {
        Ok(input @ Value::Object(_)) => return (input, None),
        Ok(_) => "the input is JSON, but not an object".to_owned(),
        Err(error) => format!("the input is not valid JSON: {error}"),
    };
    (json!({ INVALID_JSON: kept }), bad(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pieces: &[&str]) -> Text {
        let mut text = Text::default();
        pieces.iter().for_each(|piece| text.push(piece));
        text
    }

    #[test]
    fn table() {
        let check = |whole: &str, input: Value, error: Option<&str>| {
            let (got, bad) = parse("toolu_1", &text(&[whole]));
            assert_eq!(got, input, "{whole:?}");
            let bad = bad.inspect(|bad| assert_eq!(bad.tool_use_id, "toolu_1")).map(|bad| bad.error);
            assert_eq!(bad.as_deref(), error, "{whole:?}");
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

    #[test]
    fn what_is_too_long_is_counted_and_its_beginning_kept_however_it_is_cut() {
        let (begin, rest) = (r#"{"content": ""#, "ä".repeat(TOOL_INPUT_BYTES_MAX / 2));
        let (half, other) = rest.split_at(rest.floor_char_boundary(rest.len() / 2 + 1));
        for pieces in
            [&[begin, &rest, "\"}"][..], &[begin, half, other, "\"}", &rest], &[&format!("{begin}{rest}\"}}")]]
        {
            let text = text(pieces);
            let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
            assert!(text.as_str().len() <= HEAD_BYTES && text.kept.capacity() <= HEAD_BYTES);
            let (input, bad) = parse("toolu_1", &text);
            let head = input["TOO_LARGE"].as_str().unwrap();
            assert!(
                head.starts_with(begin) && head.len() > HEAD_BYTES - 2 && format!("{begin}{rest}").starts_with(head)
            );
            let said = bad.unwrap().error;
            assert!(
                said.starts_with(&format!("the input has {bytes} bytes, and a call takes at most 16777216")),
                "{said}"
            );
        }
    }

    #[test]
    fn the_longest_that_a_call_takes_is_whole() {
        let (begin, end) = (r#"{"a":""#, r#""}"#);
        let filling = "x".repeat(TOOL_INPUT_BYTES_MAX - begin.len() - end.len());
        let (input, bad) = parse("toolu_1", &text(&[begin, &filling, end]));
        assert_eq!((input["a"].as_str().map(str::len), bad), (Some(filling.len()), None));
    }
}
