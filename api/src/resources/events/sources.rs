//! Images and documents out of files. What a file has is kept with the event that names it, so the log and every request made
//! from it stay whole when the file goes; clients are shown the name alone (`public.rs`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::EventBody;
use domain::content::{Block, Content};
use serde_json::{Value, json};

use super::wire::{IMAGE_TYPES, PDF, PLAIN};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::resources::files;

/// Of all files of one request: encoded they are what a body may have.
const BYTES_MAX: u64 = 20_000_000;
/// Documents out of files in one request.
const DOCUMENTS_MAX: usize = 100;

/// The field of a source that clients never see.
pub const CONTENT: &str = "content";

/// Puts the content of files beside their names.
pub async fn embed(app: &App, bodies: &mut [EventBody]) -> Result<()> {
    let mut documents = 0;
    let mut left = BYTES_MAX;
    for block in bodies.iter_mut().filter_map(inline).flatten() {
        let (source, is_image) = match block {
            Block::Image { source } => (source, true),
            Block::Document { source, .. } => (source, false),
            _ => continue,
        };
        let Some(file_id) = file_id(source).map(str::to_owned) else { continue };
        documents += usize::from(!is_image);
        if documents > DOCUMENTS_MAX {
            return Err(ApiError::invalid(format!("at most {DOCUMENTS_MAX} documents of a request can be files")));
        }
        let file = files::load(app, &file_id).await?;
        left = left.checked_sub(file.size_bytes).ok_or_else(|| {
            ApiError::invalid(format!("the files of a request have at most {BYTES_MAX} bytes together: {file_id}"))
        })?;
        let kind = file.mime_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bytes = app.blobs.get(file.digest).await?;
        source[CONTENT] = content(&kind, &bytes, is_image).ok_or_else(|| {
            let what = if is_image { "an image" } else { "a PDF or a text" };
            ApiError::invalid(format!("file {file_id} is {kind} and not {what} that a model takes"))
        })?;
    }
    Ok(())
}

fn inline(body: &mut EventBody) -> Option<&mut Vec<Block>> {
    match body.content_mut() {
        Some(Content::Inline(blocks)) => Some(blocks),
        _ => None,
    }
}

fn file_id(source: &Value) -> Option<&str> {
    source["file_id"].as_str().filter(|_| source["type"] == "file")
}

/// The source that a model gets in the file's place.
fn content(kind: &str, bytes: &[u8], is_image: bool) -> Option<Value> {
    let encoded = || json!({"type": "base64", "media_type": kind, "data": STANDARD.encode(bytes)});
    match is_image {
        true => IMAGE_TYPES.contains(&kind).then(encoded),
        false if kind == PDF => Some(encoded()),
        false if kind.starts_with("text/") || kind == "application/json" => {
            let text = std::str::from_utf8(bytes).ok()?;
            Some(json!({"type": "text", "media_type": PLAIN, "data": text}))
        }
        false => None,
    }
}

/// Takes from an event in its public form what clients are not shown.
pub fn hide(event: &mut Value) {
    for block in event.get_mut("content").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(source) = block.get_mut("source").and_then(Value::as_object_mut)
            && source.get("type").is_some_and(|kind| kind == "file")
        {
            source.remove(CONTENT);
        }
    }
}
