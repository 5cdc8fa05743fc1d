//! An MCP server that is started in one of the session's hands and speaks on its stdin and stdout: an extension of ours.
//!
//! What stands here is read by whoever may read the agent, and by all code in the sandbox, so no secret belongs in it. Nothing is
//! substituted in it either: a value that looks as if it should be is refused rather than handed on.

use std::collections::BTreeMap;

use domain::HandName;
use domain::agent::McpProgram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Result};

/// All of it stands in the agent, and with every call in the hand's journal.
const TEXT_CHARS_MAX: usize = 4_096;
const ARGS_MAX: usize = 64;
const VARIABLES_MAX: usize = 64;
const VARIABLE_CHARS_MAX: usize = 128;
/// How other programs write that a value stands elsewhere, and how ids of vaults and their credentials begin.
const REFERENCES: [&str; 4] = ["${", "{{", "vlt_", "vcrd_"];

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdioServer {
    pub(super) name: String,
    /// A program of the sandbox, found by its `PATH`.
    command: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    /// Beside the sandbox's own variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    /// The main one if none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hand: Option<String>,
}

impl StdioServer {
    pub(super) fn named_hand(&self) -> Option<&str> {
        self.hand.as_deref().filter(|name| *name != HandName::MAIN)
    }

    pub(super) fn check(&self, at: &str) -> Result<()> {
        let wrong = |field: &str, problem: String| Err(ApiError::field(format!("{at}.{field}"), problem));
        if self.command.trim().is_empty() || !is_text(&self.command) {
            return wrong("command", format!("must be 1 to {TEXT_CHARS_MAX} characters, none of them NUL"));
        }
        if self.args.len() > ARGS_MAX {
            return wrong("args", format!("{} arguments, at most {ARGS_MAX} are allowed", self.args.len()));
        }
        if let Some(n) = self.args.iter().position(|arg| !is_text(arg)) {
            return wrong(
                &format!("args[{n}]"),
                format!("must be at most {TEXT_CHARS_MAX} characters, none of them NUL"),
            );
        }
        if self.env.len() > VARIABLES_MAX {
            return wrong("env", format!("{} variables, at most {VARIABLES_MAX} are allowed", self.env.len()));
        }
        for (name, value) in &self.env {
            if !is_variable(name) {
                let problem = format!(
                    "{name:.40}: the name of a variable is a letter or underscore and up to {} more letters, digits and underscores",
                    VARIABLE_CHARS_MAX - 1
                );
                return wrong("env", problem);
            }
            if !is_text(value) {
                return wrong("env", format!("{name}: must be at most {TEXT_CHARS_MAX} characters, none of them NUL"));
            }
            if REFERENCES.iter().any(|reference| value.contains(reference)) {
                let problem = format!(
                    "{name}: values are passed on as they are, and are no place for secrets; a vault's credential of type \
                     environment_variable is in the sandbox's environment by its own name"
                );
                return wrong("env", problem);
            }
        }
        if self.hand.as_deref().is_some_and(|name| HandName::parse(name).is_none()) {
            return wrong("hand", "is no name of a hand".to_owned());
        }
        Ok(())
    }

    /// As a session keeps it; none if the hand's name, which was checked, is none.
    pub fn program(&self) -> Option<McpProgram> {
        let hand = self.hand.as_deref().map_or_else(|| Some(HandName::default()), HandName::parse)?;
        Some(McpProgram { hand, command: self.command.clone(), args: self.args.clone(), env: self.env.clone() })
    }
}

fn is_text(text: &str) -> bool {
    text.chars().count() <= TEXT_CHARS_MAX && !text.contains('\0')
}

fn is_variable(name: &str) -> bool {
    let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_word && (1..=VARIABLE_CHARS_MAX).contains(&name.len()) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is wrong with a server of this kind that has these fields beside its command; nothing if nothing is.
    fn problem(fields: Value) -> String {
        let mut server = json!({"name": "a", "command": "server"});
        server.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let server: StdioServer = match serde_json::from_value(server) {
            Ok(server) => server,
            Err(error) => return error.to_string(),
        };
        server.check("s").map_or_else(|error| error.message().to_owned(), |()| String::new())
    }

    #[test]
    fn a_server_is_a_program_with_arguments_and_plain_variables() {
        let many: BTreeMap<String, &str> = (0..=VARIABLES_MAX).map(|n| (format!("V{n}"), "")).collect();
        for (fields, expected) in [
            (json!({}), ""),
            (json!({"args": ["-m", "x"], "env": {"LEVEL": "$5 a day", "_A1": ""}, "hand": "build"}), ""),
            (json!({"command": " "}), "s.command: must be 1 to"),
            (json!({"command": "a\0b"}), "s.command: must be 1 to"),
            (json!({"args": ["x", "y".repeat(TEXT_CHARS_MAX + 1)]}), "s.args[1]: must be at most"),
            (json!({"args": vec!["x"; ARGS_MAX + 1]}), "s.args: 65 arguments"),
            (json!({"env": many}), "s.env: 65 variables"),
            (json!({"env": {"A-B": "x"}}), "s.env: A-B: the name of a variable"),
            (json!({"env": {"1A": "x"}}), "s.env: 1A: the name of a variable"),
            (json!({"env": {"A": "x\0"}}), "s.env: A: must be at most"),
            (json!({"env": {"TOKEN": "${GITHUB_TOKEN}"}}), "s.env: TOKEN: values are passed on as they are"),
            (json!({"env": {"TOKEN": "vcrd_01abc"}}), "s.env: TOKEN: values are passed on as they are"),
            (json!({"hand": "../up"}), "s.hand: is no name of a hand"),
            (json!({"url": "https://a.com"}), "unknown field `url`"),
        ] {
            let said = problem(fields.clone());
            assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{fields}: {said}");
        }
    }

    #[test]
    fn a_server_is_kept_as_it_is_and_lives_in_the_main_hand_unless_said() {
        for (hand, is_main) in [(json!({}), true), (json!({"hand": "main"}), true), (json!({"hand": "build"}), false)] {
            let mut sent = json!({"name": "a", "command": "server"});
            sent.as_object_mut().unwrap().extend(hand.as_object().unwrap().clone());
            let server: StdioServer = serde_json::from_value(sent.clone()).unwrap();
            assert_eq!(serde_json::to_value(&server).unwrap(), sent);
            assert_eq!(server.program().unwrap().hand.is_main(), is_main);
            assert_eq!(server.named_hand().is_none(), is_main);
        }
    }
}
