//! The script's shapes, and everything that can be wrong with one, found when it is loaded.
//!
//! What the fields mean is told in `scripted.rs`.

mod block;
mod fault;
mod when;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

pub(super) use self::{
    block::{Block, Input},
    fault::FaultKind,
};
use self::{fault::Fault, when::When};
use super::facts::Facts;

/// Why there is no script.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("understand {}: {message}", path.display())]
    Syntax { path: PathBuf, message: String },
    #[error("understand {}: at {at}: {message}", path.display())]
    Shape { path: PathBuf, at: String, message: String },
}

/// A checked script.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ScriptForm")]
pub struct Script {
    pub(super) model: Option<String>,
    pub(super) rules: Vec<Rule>,
}

impl Script {
    /// Reads the file: JSON if its name ends in `.json`, else TOML.
    pub fn load(path: &Path) -> Result<Script, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if path.extension().is_some_and(|extension| extension == "json") {
            Script::from_json(&text, path)
        } else {
            Script::from_toml(&text, path)
        }
    }

    /// `path` is for error messages.
    pub fn from_toml(text: &str, path: &Path) -> Result<Script, Error> {
        let syntax = |error: toml::de::Error| Error::Syntax { path: path.to_owned(), message: error.to_string() };
        let document = toml::Value::Table(text.parse().map_err(syntax)?);
        if let Some(at) = date_in(&document) {
            let message = format!("{at} is a date: write it as a string");
            return Err(Error::Syntax { path: path.to_owned(), message });
        }
        read(serde_json::to_value(document).expect("TOML without dates is JSON"), path)
    }

    /// `path` is for error messages.
    pub fn from_json(text: &str, path: &Path) -> Result<Script, Error> {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Error::Syntax { path: path.to_owned(), message: error.to_string() })?;
        read(value, path)
    }
}

fn read(document: Value, path: &Path) -> Result<Script, Error> {
    serde_path_to_error::deserialize(document).map_err(|error| Error::Shape {
        path: path.to_owned(),
        at: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

/// TOML has dates and JSON has none: they would reach the model as something odd.
fn date_in(value: &toml::Value) -> Option<&toml::value::Datetime> {
    match value {
        toml::Value::Datetime(date) => Some(date),
        toml::Value::Array(list) => list.iter().find_map(date_in),
        toml::Value::Table(table) => table.values().find_map(date_in),
        _ => None,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScriptForm {
    version: u32,
    model: Option<String>,
    rules: Vec<Rule>,
}

impl TryFrom<ScriptForm> for Script {
    type Error = String;

    fn try_from(form: ScriptForm) -> Result<Script, String> {
        if form.version != 1 {
            return Err(format!("version is {}, and this build knows version 1", form.version));
        }
        if form.rules.is_empty() {
            return Err("there is no rule".to_owned());
        }
        Ok(Script { model: form.model, rules: form.rules })
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RuleForm")]
pub(super) struct Rule {
    pub(super) when: When,
    pub(super) answer: Option<Vec<Block>>,
    pub(super) stop_reason: Option<String>,
    pub(super) stop_details: Option<Value>,
    pub(super) usage: UsageForm,
    pub(super) delay_ms: u64,
    pub(super) event_delay_ms: u64,
    pub(super) pauses: Vec<Pause>,
    pub(super) chunk_chars: usize,
    pub(super) literal: bool,
    pub(super) fault: Option<Fault>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleForm {
    name: Option<String>,
    #[serde(default)]
    when: When,
    answer: Option<Vec<Block>>,
    stop_reason: Option<String>,
    stop_details: Option<Value>,
    #[serde(default)]
    usage: UsageForm,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    event_delay_ms: u64,
    #[serde(default)]
    pauses: Vec<Pause>,
    #[serde(default = "chunk_chars")]
    chunk_chars: usize,
    #[serde(default)]
    literal: bool,
    fault: Option<Fault>,
}

fn chunk_chars() -> usize {
    40
}

impl TryFrom<RuleForm> for Rule {
    type Error = String;

    fn try_from(form: RuleForm) -> Result<Rule, String> {
        let name = form.name.map(|name| format!("rule {name:?}: ")).unwrap_or_default();
        if form.answer.is_none() && form.fault.is_none() {
            return Err(format!("{name}it has neither an answer nor a fault"));
        }
        if form.chunk_chars == 0 {
            return Err(format!("{name}chunk_chars is 0"));
        }
        if !form.literal {
            for block in form.answer.iter().flatten() {
                block.check_placeholders().map_err(|error| format!("{name}{error}"))?;
            }
        }
        Ok(Rule {
            when: form.when,
            answer: form.answer,
            stop_reason: form.stop_reason,
            stop_details: form.stop_details,
            usage: form.usage,
            delay_ms: form.delay_ms,
            event_delay_ms: form.event_delay_ms,
            pauses: form.pauses,
            chunk_chars: form.chunk_chars,
            literal: form.literal,
            fault: form.fault,
        })
    }
}

impl Rule {
    pub(super) fn holds(&self, facts: &Facts) -> bool {
        self.when.holds(facts) && (self.answer.is_some() || self.fault_at(facts.tries).is_some())
    }

    /// The fault of this try.
    pub(super) fn fault_at(&self, tries: u32) -> Option<&FaultKind> {
        let fault = self.fault.as_ref()?;
        fault.tries.is_none_or(|first| tries < first).then_some(&fault.kind)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageForm {
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    #[serde(default)]
    pub(super) cache_read_tokens: u64,
    #[serde(default)]
    pub(super) cache_creation_5m_tokens: u64,
    #[serde(default)]
    pub(super) cache_creation_1h_tokens: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    /// From 1.
    pub(super) before_event: usize,
    pub(super) ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str, expect: &str) {
        let error = Script::from_toml(toml, Path::new("s.toml")).unwrap_err();
        assert_eq!(error.to_string(), expect, "{toml}");
    }

    #[test]
    fn errors_say_where_and_what() {
        let rule = |text: &str| format!("version = 1\n[[rules]]\nanswer = []\n[[rules]]\n{text}\n");
        check("version = 2\nrules = []", "understand s.toml: at .: version is 2, and this build knows version 1");
        check("version = 1\nrules = []", "understand s.toml: at .: there is no rule");
        check("version = 1", "understand s.toml: at .: missing field `rules`");
        check(&rule(""), "understand s.toml: at rules[1]: it has neither an answer nor a fault");
        check(
            &rule("name = \"x\"\nanswer = [{ text = \"{{usr}}\" }]"),
            "understand s.toml: at rules[1]: rule \"x\": there is nothing to fill in for {{usr}}: user, result, turn, \
             results, tries; literal = true sends braces as they are",
        );
        check(
            &rule("answer = [{ text = \"a\" }, { txt = \"b\" }]"),
            "understand s.toml: at rules[1].answer[1].txt: unknown field `txt`, expected one of `text`, `thinking`, \
             `signature`, `redacted`, `tool`, `id`, `input`, `raw_input`, `block`",
        );
        check(
            &rule("answer = [{ text = \"a\", tool = \"b\" }]"),
            "understand s.toml: at rules[1].answer[0]: a block is one of text, thinking, redacted, tool and block",
        );
        check(
            &rule("answer = [{ tool = \"a\", input = 3 }]"),
            "understand s.toml: at rules[1].answer[0]: input is not a table of fields",
        );
        check(
            &rule("answer = []\nwhen = { turn = \"first\" }"),
            "understand s.toml: at rules[1].when.turn: expected a number, or { min, max }",
        );
        check(
            &rule("fault = { kind = \"explode\" }"),
            "understand s.toml: at rules[1].fault: there is no fault of kind \"explode\": status, refuse, drop, end, \
             stall, malformed, error",
        );
        check(
            &rule("fault = { kind = \"status\", status = 200 }"),
            "understand s.toml: at rules[1].fault: 200 is not the status of a failure",
        );
        check(
            &rule("fault = { kind = \"status\" }"),
            "understand s.toml: at rules[1].fault: a fault of kind \"status\" needs a status",
        );
        check(
            &rule("fault = { kind = \"drop\", status = 500 }"),
            "understand s.toml: at rules[1].fault: a fault of kind \"drop\" has no status or retry_after",
        );
        check(
            &rule("answer = [{ tool = \"a\", input = { at = 2026-01-01 } }]"),
            "understand s.toml: 2026-01-01 is a date: write it as a string",
        );
    }

    #[test]
    fn syntax_and_missing_files() {
        let error = Script::from_json("{", Path::new("s.json")).unwrap_err();
        assert_eq!(error.to_string(), "understand s.json: EOF while parsing an object at line 1 column 1");
        let error = Script::from_toml("version = ", Path::new("s.toml")).unwrap_err().to_string();
        assert!(error.contains("TOML parse error at line 1, column 11"), "{error}");
        let error = Script::load(Path::new("/nowhere/s.toml")).unwrap_err();
        assert_eq!(error.to_string(), "read /nowhere/s.toml");
    }

    #[test]
    fn the_documented_script_is_a_script() {
        let docs: String = include_str!("../scripted.rs")
            .lines()
            .skip_while(|line| *line != "//! ```toml")
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
            .collect();
        let script = Script::from_toml(&docs, Path::new("docs")).unwrap();
        assert_eq!(script.rules.len(), 3);
    }
}
