//! `edit`: replace an exact string in a file.

use super::{Files, Refused, Run, Stop, Tool, parse};
use crate::limits::FILE_TEXT_BYTES;
use crate::protocol::ToolResult;
use serde::Deserialize;
use serde_json::{Value, json};

pub const TOOL: Tool = Tool {
    name: "edit",
    description: "Replace old_string by new_string in a text file of at most 256 KiB. old_string must match exactly \
                  once, whitespace included, unless replace_all is true. Paths are relative to the working \
                  directory, or absolute.",
    schema,
    run: Run::Writes(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    old_string: String,
    new_string: String,
    #[serde(default)]
    replace_all: bool,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "file_path": {"type": "string", "description": "The file to edit"},
            "old_string": {"type": "string", "description": "The exact text to replace"},
            "new_string": {"type": "string", "description": "What to put in its place"},
            "replace_all": {"type": "boolean", "description": "Replace every match instead of exactly one"}
        },
        "required": ["file_path", "old_string", "new_string"],
        "additionalProperties": false
    })
}

fn run(files: &Files, _: &Stop, input: Value) -> Result<ToolResult, Refused> {
    let Input { file_path, old_string, new_string, replace_all } = parse(input)?;
    if old_string.is_empty() {
        return Err("old_string is empty".into());
    }
    if old_string == new_string {
        return Err("old_string and new_string are the same".into());
    }
    let text = files.read_text(&file_path, FILE_TEXT_BYTES)?;
    let matches = text.matches(&old_string).count();
    match matches {
        0 => return Err(Refused(format!("{file_path}: old_string was not found"))),
        2.. if !replace_all => {
            return Err(Refused(format!(
                "{file_path}: old_string matches {matches} times; make it longer so that it matches once, or set \
                 replace_all"
            )));
        }
        _ => {}
    }
    let edited = text.replace(&old_string, &new_string);
    if edited.len() as u64 > FILE_TEXT_BYTES {
        return Err(Refused(format!("{file_path}: would be larger than {} KiB", FILE_TEXT_BYTES / 1024)));
    }
    files.replace(&file_path, edited.as_bytes())?;
    let noun = if matches == 1 { "replacement" } else { "replacements" };
    Ok(ToolResult::ok(format!("made {matches} {noun} in {file_path}")))
}

#[cfg(test)]
mod tests {
    use crate::tools::testing::Bench;
    use serde_json::json;

    #[test]
    fn matches_exactly_once_unless_told_otherwise() {
        let bench = Bench::new();
        bench.put("work/f", "a b a");
        let edit = |old: &str, new: &str, all: bool| {
            bench.run("edit", json!({"file_path": "f", "old_string": old, "new_string": new, "replace_all": all}))
        };
        assert!(edit("c", "d", false).text().contains("not found"));
        assert!(edit("a", "d", false).text().contains("matches 2 times"));
        assert!(edit("", "d", true).is_error && edit("a", "a", true).is_error);
        assert_eq!(std::fs::read_to_string(bench.path("work/f")).unwrap(), "a b a");
        assert_eq!(edit("b", "B", false).text(), "made 1 replacement in f");
        assert_eq!(edit("a", "A", true).text(), "made 2 replacements in f");
        assert_eq!(std::fs::read_to_string(bench.path("work/f")).unwrap(), "A B A");
    }

    #[test]
    fn the_cap_holds_before_and_after() {
        let bench = Bench::new();
        bench.put("work/large", "x".repeat(256 * 1024 + 1));
        bench.put("work/full", "x".repeat(256 * 1024 - 1) + "y");
        let input = |file: &str, old: &str, new: &str| json!({"file_path": file, "old_string": old, "new_string": new});
        assert!(bench.bad("edit", input("large", "xx", "y")).contains("larger than 256 KiB"));
        assert!(bench.bad("edit", input("full", "y", "zz")).contains("would be larger"));
        assert!(bench.bad("edit", input("none", "y", "zz")).contains("no such file"));
    }
}
