//! `read`: text as it is, images and PDFs as blocks.

use super::{Files, Refused, Run, Stop, Tool, parse};
use crate::limits::{FILE_TEXT_BYTES, IMAGE_BASE64_BYTES, PDF_BYTES};
use crate::protocol::{Block, Source, ToolResult};
use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};

pub const TOOL: Tool = Tool {
    name: "read",
    description: "Read a file. Text files are returned as UTF-8 text, whole up to 256 KiB; use view_range \
                  [start, end] (1-based, inclusive; an end of 0 or less means to the end of the file) for a part, or \
                  for larger files. png, jpg, jpeg, gif and webp files are shown as images, pdf files as documents. \
                  Paths are relative to the working directory, or absolute.",
    schema,
    run: Run::Files(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    file_path: String,
    view_range: Option<[i64; 2]>,
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "file_path": {"type": "string", "description": "The file to read"},
            "view_range": {
                "type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2,
                "description": "First and last line, 1-based and inclusive; a last line of 0 or less reads to the end"
            }
        },
        "required": ["file_path"],
        "additionalProperties": false
    })
}

fn run(files: &Files, stop: &Stop, input: Value) -> Result<ToolResult, Refused> {
    let Input { file_path, view_range } = parse(input)?;
    if let Some(range) = view_range {
        return Ok(ToolResult::ok(lines(files, stop, &file_path, range)?));
    }
    match media_type(&file_path) {
        None => Ok(ToolResult::ok(files.read_text(&file_path, FILE_TEXT_BYTES).map_err(|refused| {
            let hint = if refused.0.contains("larger than") { "; use view_range" } else { "" };
            Refused(format!("{refused}{hint}"))
        })?)),
        Some(kind @ "application/pdf") => {
            let data = base64_of(files, &file_path, PDF_BYTES)?;
            Ok(block(Block::Document { source: Source::Base64 { media_type: kind.to_owned(), data } }))
        }
        Some(kind) => {
            let data = base64_of(files, &file_path, IMAGE_BASE64_BYTES as u64 / 4 * 3)?;
            Ok(block(Block::Image { source: Source::Base64 { media_type: kind.to_owned(), data } }))
        }
    }
}

fn block(block: Block) -> ToolResult {
    ToolResult { content: vec![block], is_error: false, truncated: false, blob: None }
}

fn media_type(path: &str) -> Option<&'static str> {
    let (_, extension) = path.rsplit_once('.')?;
    Some(match extension.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        _ => return None,
    })
}

fn base64_of(files: &Files, path: &str, max: u64) -> Result<String, Refused> {
    let opened = files.open(path)?;
    let mut bytes = Vec::new();
    opened.file.take(max + 1).read_to_end(&mut bytes).map_err(|e| Refused(format!("{path}: {e}")))?;
    if bytes.len() as u64 > max {
        return Err(Refused(format!("{path}: too large to show ({} bytes, at most {max})", opened.bytes)));
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// Lines `start` to `end` of a file of any size; the cap is on what is selected.
fn lines(files: &Files, stop: &Stop, path: &str, [start, end]: [i64; 2]) -> Result<String, Refused> {
    if start < 1 || (end > 0 && end < start) {
        return Err(Refused(format!(
            "invalid view_range [{start}, {end}]: lines count from 1, the end is not before it"
        )));
    }
    let mut reader = BufReader::new(files.open(path)?.file);
    let mut selected = Vec::new();
    let mut number = 0;
    while end <= 0 || number < end {
        number += 1;
        let wanted = number >= start;
        // One line may be as large as the file, so even what is skipped is read in bounded pieces.
        loop {
            stop.check()?;
            let buffer = reader.fill_buf().map_err(|e| Refused(format!("{path}: {e}")))?;
            if buffer.is_empty() {
                return if number > start || !selected.is_empty() {
                    text(path, selected)
                } else {
                    Err(Refused(format!("{path}: has only {} lines", number - 1)))
                };
            }
            let (taken, whole) = match buffer.iter().position(|&b| b == b'\n') {
                Some(at) => (at + 1, true),
                None => (buffer.len(), false),
            };
            if wanted {
                selected.extend_from_slice(&buffer[..taken]);
            }
            reader.consume(taken);
            if selected.len() as u64 > FILE_TEXT_BYTES {
                let max = FILE_TEXT_BYTES / 1024;
                return Err(Refused(format!("{path}: the selected lines are more than {max} KiB; select fewer")));
            }
            if whole {
                break;
            }
        }
    }
    text(path, selected)
}

fn text(path: &str, bytes: Vec<u8>) -> Result<String, Refused> {
    String::from_utf8(bytes).map_err(|_| Refused(format!("{path}: not UTF-8 text")))
}

#[cfg(test)]
mod tests {
    use crate::limits::{FILE_TEXT_BYTES, IMAGE_BASE64_BYTES};
    use crate::protocol::{Block, Source};
    use crate::tools::testing::Bench;
    use serde_json::json;

    #[test]
    fn ranges() {
        let bench = Bench::new();
        bench.put("work/f", "one\ntwo\nthree");
        for (range, expect) in [
            ([1, 1], "one\n"),
            ([2, 3], "two\nthree"),
            ([2, 0], "two\nthree"),
            ([1, -1], "one\ntwo\nthree"),
            ([3, 9], "three"),
        ] {
            assert_eq!(bench.good("read", json!({"file_path": "f", "view_range": range})), expect, "{range:?}");
        }
        for range in [[0, 1], [3, 2], [4, 4], [9, 0]] {
            bench.bad("read", json!({"file_path": "f", "view_range": range}));
        }
        bench.bad("read", json!({"file_path": "f", "view_range": [1]}));
        assert_eq!(bench.good("read", json!({"file_path": "f"})), "one\ntwo\nthree");
    }

    #[test]
    fn text_is_capped_whole_and_by_selection() {
        let bench = Bench::new();
        let line = "x".repeat(1023) + "\n";
        bench.put("work/exact", line.repeat(256));
        bench.put("work/large", line.repeat(257));
        assert_eq!(bench.good("read", json!({"file_path": "exact"})).len() as u64, FILE_TEXT_BYTES);
        assert!(bench.bad("read", json!({"file_path": "large"})).contains("view_range"));
        assert_eq!(bench.good("read", json!({"file_path": "large", "view_range": [257, 257]})), line);
        assert!(bench.bad("read", json!({"file_path": "large", "view_range": [1, 0]})).contains("select fewer"));
    }

    #[test]
    fn what_is_not_text_is_said_to_be() {
        let bench = Bench::new();
        bench.put("work/bin", [0xff, 0xfe, 0]);
        assert!(bench.bad("read", json!({"file_path": "bin"})).contains("not UTF-8"));
        assert!(bench.bad("read", json!({"file_path": "none"})).contains("no such file"));
        bench.put("work/empty", "");
        assert_eq!(bench.good("read", json!({"file_path": "empty"})), "(no output)");
    }

    #[test]
    fn images_and_documents_are_blocks() {
        let bench = Bench::new();
        bench.put("work/a.PNG", [1, 2, 3]);
        bench.put("work/a.pdf", b"%PDF");
        bench.put("work/huge.gif", vec![0; IMAGE_BASE64_BYTES / 4 * 3 + 1]);
        let expect = Source::Base64 { media_type: "image/png".into(), data: "AQID".into() };
        assert_eq!(bench.run("read", json!({"file_path": "a.PNG"})).content, [Block::Image { source: expect }]);
        let result = bench.run("read", json!({"file_path": "a.pdf"}));
        assert!(matches!(&result.content[..], [Block::Document { .. }]));
        assert!(bench.bad("read", json!({"file_path": "huge.gif"})).contains("too large"));
    }
}
