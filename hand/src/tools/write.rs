//! `write`: one whole file.

use super::{Files, Refused, Run, Stop, Tool, parse};
use crate::protocol::ToolResult;
use serde::Deserialize;
use serde_json::{Value, json};

pub const TOOL: Tool = Tool {
    name: "write",
    description: "Write a file with the given content. Makes the directories above it and overwrites what is there. \
                  Paths are relative to the working directory, or absolute.",
    schema,
    run: Run::Writes(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    content: String,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "file_path": {"type": "string", "description": "The file to write"},
            "content": {"type": "string", "description": "The whole new content"}
        },
        "required": ["file_path", "content"],
        "additionalProperties": false
    })
}

fn run(files: &Files, _: &Stop, input: Value) -> Result<ToolResult, Refused> {
    let Input { file_path, content } = parse(input)?;
    files.replace(&file_path, content.as_bytes())?;
    Ok(ToolResult::ok(format!("wrote {} bytes to {file_path}", content.len())))
}

#[cfg(test)]
mod tests {
    use crate::tools::testing::Bench;
    use serde_json::json;

    #[test]
    fn makes_parents_and_overwrites() {
        let bench = Bench::new();
        let said = bench.good("write", json!({"file_path": "a/b/c.txt", "content": "hällo"}));
        assert_eq!(said, "wrote 6 bytes to a/b/c.txt");
        bench.good("write", json!({"file_path": "a/b/c.txt", "content": ""}));
        assert_eq!(std::fs::read_to_string(bench.path("work/a/b/c.txt")).unwrap(), "");
        assert!(bench.bad("write", json!({"file_path": "a/b/c.txt/d", "content": ""})).contains("c.txt/d"));
    }
}
