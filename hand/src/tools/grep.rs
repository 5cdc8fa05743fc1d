//! `grep`: lines by a regular expression. Searches by itself, so that its answer does not depend on what is installed.

use super::walk::walk;
use super::{Files, Refused, Run, Stop, Tool, parse};
use crate::limits::GREP_BYTES;
use crate::protocol::ToolResult;
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

pub const TOOL: Tool = Tool {
    name: "grep",
    description: "Search file contents by a regular expression; prints path:line:text, at most 100 KiB. Searches path \
                  (a file or a directory, default: the working directory); skips .git, node_modules, symlinks and \
                  binary files.",
    schema,
    run: Run::Files(run),
};

/// A file is held in memory while it is searched; what is larger is hardly source text.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Where a NUL in the first part makes a file binary, as git and ripgrep have it.
const BINARY_PROBE: usize = 8 * 1024;

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
            "pattern": {"type": "string", "description": "A regular expression (Rust syntax)"},
            "path": {"type": "string", "description": "The file or directory to search, default the working directory"}
        },
        "required": ["pattern"],
        "additionalProperties": false
    })
}

fn run(files: &Files, stop: &Stop, input: Value) -> Result<ToolResult, Refused> {
    let Input { pattern, path } = parse(input)?;
    let regex = RegexBuilder::new(&pattern)
        .size_limit(4 << 20)
        .build()
        .map_err(|e| Refused(format!("invalid pattern: {e}")))?;
    let root = files.existing(path.as_deref().unwrap_or("."))?;
    let mut hits = Hits { text: String::new(), full: false };
    if root.is_dir() {
        walk(&root, stop, |entry, kind| {
            if hits.full || entry.file_name() == ".git" || entry.file_name() == "node_modules" {
                return Ok(false);
            }
            if kind.is_file() {
                search(files, &regex, stop, &entry.path(), &mut hits)?;
            }
            Ok(true)
        })?;
    } else {
        search(files, &regex, stop, &root, &mut hits)?;
    }
    Ok(ToolResult {
        truncated: hits.full,
        ..ToolResult::ok(if hits.text.is_empty() { "no matches" } else { &hits.text })
    })
}

struct Hits {
    text: String,
    full: bool,
}

impl Hits {
    fn add(&mut self, path: &Path, line: usize, text: &[u8]) {
        let hit = format!("{}:{line}:{}\n", path.display(), String::from_utf8_lossy(text));
        if self.text.len() + hit.len() > GREP_BYTES {
            self.full = true;
            // One line longer than all that may be said is still a match.
            if self.text.is_empty() {
                self.text = hit;
                self.text.truncate(self.text.floor_char_boundary(GREP_BYTES));
            }
        } else {
            self.text.push_str(&hit);
        }
    }
}

fn search(files: &Files, regex: &Regex, stop: &Stop, path: &Path, hits: &mut Hits) -> Result<(), Refused> {
    // A file that vanished, may not be read or was swapped for a link is not searched.
    let Ok(content) = read(path) else { return Ok(()) };
    if content[..content.len().min(BINARY_PROBE)].contains(&0) {
        return Ok(());
    }
    // A line break at the end ends the last line and begins none.
    let text = content.strip_suffix(b"\n").unwrap_or(&content);
    if content.is_empty() {
        return Ok(());
    }
    for (number, line) in text.split(|&b| b == b'\n').enumerate() {
        if number % 4096 == 0 {
            stop.check()?;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if regex.is_match(line) {
            hits.add(files.shown(path), number + 1, line);
            if hits.full {
                break;
            }
        }
    }
    Ok(())
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let mut content = Vec::new();
    if file.metadata()?.is_file() {
        BufReader::new(file).take(FILE_BYTES).read_to_end(&mut content)?;
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use crate::limits::GREP_BYTES;
    use crate::tools::testing::Bench;
    use serde_json::json;

    #[test]
    fn path_line_text() {
        let bench = Bench::new();
        bench.put("work/a.txt", "one\ntwo\r\nthree two\n");
        bench.put("work/b/c.txt", "two");
        for skipped in ["work/.git/x", "work/node_modules/x", "out/x"] {
            bench.put(skipped, "two");
        }
        bench.put("work/binary", b"two\0two");
        std::os::unix::fs::symlink(bench.path("out/x"), bench.path("work/link")).unwrap();
        for (pattern, path, expect) in [
            ("two", None, "a.txt:2:two\na.txt:3:three two\nb/c.txt:1:two\n"),
            ("^two$", Some("b"), "b/c.txt:1:two\n"),
            ("t.o", Some("a.txt"), "a.txt:2:two\na.txt:3:three two\n"),
            ("four", None, "no matches"),
            ("^$", None, "no matches"),
            ("two", Some("binary"), "no matches"),
        ] {
            assert_eq!(bench.good("grep", json!({"pattern": pattern, "path": path})), expect, "{pattern} {path:?}");
        }
        bench.bad("grep", json!({"pattern": "("}));
        bench.bad("grep", json!({"pattern": "x", "path": "none"}));
        bench.bad("grep", json!({"pattern": "x", "path": "/etc"}));
    }

    #[test]
    fn output_is_capped_at_whole_lines() {
        let bench = Bench::new();
        bench.put("work/f", "x".repeat(1000) + "\n" + &"match\n".repeat(GREP_BYTES));
        let result = bench.run("grep", json!({"pattern": "match"}));
        assert!(result.truncated && result.text().len() <= GREP_BYTES && result.text().ends_with(":match\n"));
        bench.put("work/f", "é".repeat(GREP_BYTES));
        let result = bench.run("grep", json!({"pattern": "é"}));
        assert!(result.truncated && result.text().len() <= GREP_BYTES && result.text().starts_with("f:1:é"));
    }
}
