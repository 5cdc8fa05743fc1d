//! What is otherwise in one JSON value than in another: where, and both sides of it, cut down to what a person reads.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// How many places are told of.
const CHANGES_MAX: usize = 8;
/// How much is shown of one side, in characters.
const SHOWN_MAX: usize = 160;
/// How much of what is the same is shown before the first character that is not.
const BEFORE_MAX: usize = 40;

/// One place at which two values differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Like `messages[2].content[0].text`; `[2..5]` where several items have no counterpart one by one.
    pub at: String,
    /// An extract; absent: there is nothing on this side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<String>,
}

/// The first of them, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    pub shown: Vec<Change>,
    #[serde(default)]
    pub more: u64,
}

impl Changes {
    /// Where requests are marked for the provider's cache follows from what they contain: that is told of only where nothing else differs.
    pub fn between(recorded: &Value, tried: &Value) -> Self {
        let mut changes = Changes::default();
        changes.compare("", &without_marks(recorded), &without_marks(tried));
        if changes.shown.is_empty() {
            changes.compare("", recorded, tried);
        }
        changes
    }

    fn compare(&mut self, at: &str, recorded: &Value, tried: &Value) {
        match (recorded, tried) {
            (one, other) if one == other => {}
            (Value::Object(one), Value::Object(other)) => {
                let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
                for name in names {
                    let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                    match (one.get(name), other.get(name)) {
                        (Some(one), Some(other)) => self.compare(&at, one, other),
                        (one, other) => self.note(at, one.map(whole), other.map(whole)),
                    }
                }
            }
            (Value::Array(one), Value::Array(other)) => self.items(at, one, other),
            (Value::String(one), Value::String(other)) => {
                let from = same_before(one, other);
                self.note(at.to_owned(), Some(extract(one, from)), Some(extract(other, from)));
            }
            (one, other) => self.note(at.to_owned(), Some(whole(one)), Some(whole(other))),
        }
    }

    /// What is the same at both ends is left out. What remains is compared one by one if it is as much on both sides.
    fn items(&mut self, at: &str, recorded: &[Value], tried: &[Value]) {
        let same = |(one, other): &(&Value, &Value)| one == other;
        let before = recorded.iter().zip(tried).take_while(same).count();
        let [one, other] = [&recorded[before..], &tried[before..]];
        let behind = one.iter().rev().zip(other.iter().rev()).take_while(same).count();
        let [one, other] = [&one[..one.len() - behind], &other[..other.len() - behind]];
        if one.len() == other.len() {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                self.compare(&format!("{at}[{}]", before + index), one, other);
            }
            return;
        }
        let longer = one.len().max(other.len());
        let place = if longer == 1 { format!("{before}") } else { format!("{before}..{}", before + longer) };
        self.note(format!("{at}[{place}]"), several(one), several(other));
    }

    fn note(&mut self, at: String, recorded: Option<String>, tried: Option<String>) {
        if self.shown.len() < CHANGES_MAX {
            self.shown.push(Change { at, recorded, tried });
        } else {
            self.more += 1;
        }
    }
}

fn without_marks(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| *name != "cache_control");
            fields.map(|(name, value)| (name.clone(), without_marks(value))).collect()
        }
        Value::Array(items) => items.iter().map(without_marks).collect(),
        other => other.clone(),
    }
}

/// Their number, and the first of them.
fn several(items: &[Value]) -> Option<String> {
    match items {
        [] => None,
        [one] => Some(whole(one)),
        [first, ..] => Some(format!("{} items, the first: {}", items.len(), whole(first))),
    }
}

fn whole(value: &Value) -> String {
    match value {
        Value::String(text) => extract(text, 0),
        other => extract(&other.to_string(), 0),
    }
}

/// How many characters are the same at the beginning.
fn same_before(one: &str, other: &str) -> usize {
    one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count()
}

/// From a little before character `from` on.
fn extract(text: &str, from: usize) -> String {
    let from = from.saturating_sub(BEFORE_MAX);
    let mut rest = text.chars().skip(from);
    let shown: String = rest.by_ref().take(SHOWN_MAX).collect();
    let left = rest.count();
    let dots = if from > 0 { "..." } else { "" };
    match left {
        0 => format!("{dots}{shown}"),
        left => format!("{dots}{shown}... ({left} characters more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(recorded: &Value, tried: &Value) -> Vec<(String, Option<String>, Option<String>)> {
        let changes = Changes::between(recorded, tried);
        assert_eq!(changes.more, 0);
        changes.shown.into_iter().map(|change| (change.at, change.recorded, change.tried)).collect()
    }

    #[test]
    fn each_place_is_named_with_both_sides() {
        let text = |text: &str| json!({"role": "user", "content": [{"type": "text", "text": text}]});
        let some = |text: &str| Some(text.to_owned());
        let long = |end: &str| format!("{}{end}", "same ".repeat(20));
        for (recorded, tried, expected) in [
            (json!({"a": [1, {"b": null}]}), json!({"a": [1, {"b": null}]}), vec![]),
            (
                json!({"model": "one", "max_tokens": 5}),
                json!({"model": "other", "max_tokens": 5}),
                vec![("model", some("one"), some("other"))],
            ),
            (json!({}), json!({"system": [1]}), vec![("system", None, some("[1]"))]),
            (
                json!({"messages": [text("a"), text("b"), text("c"), text("d")]}),
                json!({"messages": [text("a"), text("d")]}),
                vec![("messages[1..3]", some(&format!("2 items, the first: {}", text("b"))), None)],
            ),
            (
                json!({"messages": [text("a"), text("b")]}),
                json!({"messages": [text("a"), text("b"), text("nudge")]}),
                vec![("messages[2]", None, Some(text("nudge").to_string()))],
            ),
            (
                json!({"messages": [text("a"), text("b"), text("c")]}),
                json!({"messages": [text("a"), text("x"), text("c")]}),
                vec![("messages[1].content[0].text", some("b"), some("x"))],
            ),
            (json!([long("old")]), json!([long("new")]), {
                let same = format!("...{}", "same ".repeat(8));
                vec![("[0]", Some(format!("{same}old")), Some(format!("{same}new")))]
            }),
            (json!({"a": 1}), json!({"a": {"b": 1}}), vec![("a", some("1"), some("{\"b\":1}"))]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(at, one, other)| (at.to_owned(), one, other)).collect();
            assert_eq!(told(&recorded, &tried), expected, "{recorded} {tried}");
        }
    }

    #[test]
    fn marks_for_the_cache_are_told_of_where_nothing_else_differs() {
        let text = |text: &str, is_marked: bool| match is_marked {
            true => json!({"text": text, "cache_control": {"type": "ephemeral"}}),
            false => json!({"text": text}),
        };
        let added = told(&json!([text("a", true)]), &json!([text("a", false), text("b", true)]));
        assert_eq!(added, [("[1]".to_owned(), None, Some("{\"text\":\"b\"}".to_owned()))]);
        let moved = told(&json!([text("a", true)]), &json!([text("a", false)]));
        assert_eq!(moved, [("[0].cache_control".to_owned(), Some("{\"type\":\"ephemeral\"}".to_owned()), None)]);
    }

    #[test]
    fn much_is_cut_and_what_is_left_out_is_counted() {
        let wide = "ä".repeat(1_000);
        let [change] = Changes::between(&json!({"a": wide}), &json!({})).shown.try_into().unwrap();
        let shown = change.recorded.unwrap();
        assert_eq!(shown, format!("{}... (840 characters more)", "ä".repeat(SHOWN_MAX)));
        let many: Value = (0..50).map(|at| (at.to_string(), json!(at))).collect();
        let changes = Changes::between(&many, &json!({}));
        assert_eq!((changes.shown.len(), changes.more), (CHANGES_MAX, 42));
    }
}
