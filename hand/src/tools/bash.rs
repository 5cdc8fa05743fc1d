//! `bash`: a command in the hand's one persistent shell.

use super::{Refused, Run, Tool, parse};
use crate::init::shell::Ask;
use serde::Deserialize;
use serde_json::{Value, json};

pub const TOOL: Tool = Tool {
    name: "bash",
    description: "Run a command in a persistent bash shell. The working directory, variables and background jobs \
                  survive between calls; stdin is empty; stdout and stderr come back together, the last 100 KiB of \
                  them. A command that outlives timeout_ms (default 120000, at most 600000) is killed with all \
                  processes in the sandbox, and the shell starts anew. restart: true starts a new shell.",
    schema,
    run: Run::Shell(ask),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    command: Option<String>,
    #[serde(default)]
    restart: bool,
    timeout_ms: Option<u64>,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "command": {"type": "string", "description": "The command to run"},
            "restart": {"type": "boolean", "description": "End the shell and everything it started, and begin anew"},
            "timeout_ms": {"type": "integer", "minimum": 1, "maximum": 600_000, "description": "Milliseconds to wait"}
        },
        "required": [],
        "additionalProperties": false
    })
}

fn ask(input: Value) -> Result<Ask, Refused> {
    let Input { command, restart, timeout_ms } = parse(input)?;
    match command {
        _ if restart => Ok(Ask::Restart),
        Some(command) if command.contains('\0') => Err("invalid input: the command holds a NUL byte".into()),
        Some(command) => Ok(Ask::Run { command, timeout_ms }),
        None => Err("invalid input: either command or restart is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs() {
        let run = |command: &str, timeout_ms| Ask::Run { command: command.to_owned(), timeout_ms };
        for (input, expect) in [
            (json!({"command": "ls"}), Some(run("ls", None))),
            (json!({"command": "ls", "timeout_ms": 5, "restart": false}), Some(run("ls", Some(5)))),
            (json!({"restart": true}), Some(Ask::Restart)),
            (json!({"restart": true, "command": "ls"}), Some(Ask::Restart)),
            (json!({"restart": false}), None),
            (json!({}), None),
            (json!({"command": "a\0b"}), None),
            (json!({"command": "ls", "timeout_ms": -1}), None),
            (json!({"command": ["ls"]}), None),
            (json!({"command": "ls", "env": {}}), None),
        ] {
            assert_eq!(ask(input.clone()).ok(), expect, "{input}");
        }
    }
}
