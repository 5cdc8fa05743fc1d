//! `glob`: files by name, newest first.

use super::walk::walk;
use super::{Files, Refused, Run, Stop, Tool, parse};
use crate::limits::GLOB_RESULTS;
use crate::protocol::ToolResult;
use globset::GlobBuilder;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Component, Path};

pub const TOOL: Tool = Tool {
    name: "glob",
    description: "Find files by a glob pattern such as **/*.rs, newest first, at most 200. The pattern is relative to \
                  path (default: the working directory) and may not contain '..'.",
    schema,
    run: Run::Files(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    pattern: String,
    path: Option<String>,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "description": "A relative glob pattern; ** matches any directories"},
            "path": {"type": "string", "description": "The directory to search, default the working directory"}
        },
        "required": ["pattern"],
        "additionalProperties": false
    })
}

fn run(files: &Files, stop: &Stop, input: Value) -> Result<ToolResult, Refused> {
    let Input { pattern, path } = parse(input)?;
    if pattern.is_empty()
        || Path::new(&pattern).components().any(|c| !matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err("the pattern must be relative and without '..'".into());
    }
    let relative = pattern.strip_prefix("./").unwrap_or(&pattern);
    let matcher = GlobBuilder::new(relative)
        .literal_separator(true)
        .build()
        .map_err(|e| Refused(format!("invalid pattern: {}", e.kind())))?
        .compile_matcher();
    let root = files.directory(path.as_deref())?;
    let mut found = Vec::new();
    walk(&root, stop, |entry, kind| {
        let path = entry.path();
        if !kind.is_dir() && path.strip_prefix(&root).is_ok_and(|rest| matcher.is_match(rest)) {
            let modified = entry.metadata().and_then(|meta| meta.modified()).ok();
            found.push((std::cmp::Reverse(modified), path));
        }
        Ok(true)
    })?;
    if found.is_empty() {
        return Ok(ToolResult::ok("no matches"));
    }
    found.sort();
    let truncated = found.len() > GLOB_RESULTS;
    found.truncate(GLOB_RESULTS);
    let lines: Vec<_> = found.iter().map(|(_, path)| files.shown(path).to_string_lossy()).collect();
    Ok(ToolResult { truncated, ..ToolResult::ok(lines.join("\n")) })
}

#[cfg(test)]
mod tests {
    use crate::tools::testing::Bench;
    use serde_json::json;
    use std::time::{Duration, SystemTime};

    #[test]
    fn newest_first_and_doublestar() {
        let bench = Bench::new();
        for (age, name) in [(3, "work/a.rs"), (1, "work/x/y/b.rs"), (2, "work/x/c.rs"), (0, "work/x/c.txt")] {
            let file = std::fs::File::create(bench.put(name, "")).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age * 100)).unwrap();
        }
        for (pattern, path, expect) in [
            ("**/*.rs", None, "x/y/b.rs\nx/c.rs\na.rs"),
            ("*.rs", None, "a.rs"),
            ("./x/*", None, "x/c.txt\nx/c.rs"),
            ("*.rs", Some("x"), "x/c.rs"),
            ("*.{rs,txt}", Some("x"), "x/c.txt\nx/c.rs"),
            ("*.none", None, "no matches"),
        ] {
            let input = json!({"pattern": pattern, "path": path});
            assert_eq!(bench.good("glob", input), expect, "{pattern}");
        }
    }

    #[test]
    fn patterns_stay_inside() {
        let bench = Bench::new();
        for pattern in ["../*", "/etc/*", "", "a/../b", "["] {
            bench.bad("glob", json!({"pattern": pattern}));
        }
        bench.bad("glob", json!({"pattern": "*", "path": "/etc"}));
        bench.put("out/secret", "");
        std::os::unix::fs::symlink(bench.path("out"), bench.path("work/away")).unwrap();
        assert_eq!(bench.good("glob", json!({"pattern": "**/secret"})), "no matches");
    }

    #[test]
    fn results_are_capped() {
        let bench = Bench::new();
        for n in 0..201 {
            bench.put(&format!("work/{n}"), "");
        }
        let result = bench.run("glob", json!({"pattern": "*"}));
        assert!(result.truncated);
        assert_eq!(result.text().lines().count(), 200);
    }
}
