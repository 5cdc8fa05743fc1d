//! What a server says of a call, as the log and the model take it: every block is one that a provider accepts, as a session
//! whose history holds another one could never go on.

use crate::hands::Executed;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use domain::content::Block;
use hand::limits::IMAGE_BASE64_BYTES;
use serde_json::{Value, json};

/// Text of one result.
const TEXT_CHARS_MAX: usize = 100_000;
/// Blocks of one result, and how many of them may be images.
const BLOCKS_MAX: usize = 256;
const IMAGES_MAX: usize = 20;
/// All images of one result, as base64: each request that follows carries them again, and may have 32 MB.
const IMAGES_BASE64_BYTES: usize = 2 * IMAGE_BASE64_BYTES;

/// What a result has room for yet.
struct Room {
    chars: usize,
    images: usize,
    image_bytes: usize,
}

/// Reads a result off the wire's JSON.
pub fn executed(result: &Value) -> Executed {
    let mut room = Room { chars: TEXT_CHARS_MAX, images: IMAGES_MAX, image_bytes: IMAGES_BASE64_BYTES };
    let blocks = result["content"].as_array().map_or(&[][..], Vec::as_slice);
    let (shown, more) = blocks.split_at(blocks.len().min(BLOCKS_MAX));
    let mut content: Vec<Block> = shown.iter().map(|block| taken(block, &mut room)).collect();
    if !more.is_empty() {
        content.push(Block::text(format!("[{} more blocks that are not shown here]", more.len())));
    }
    if content.is_empty() {
        let structured = result.get("structuredContent").map(Value::to_string);
        content.push(text(structured.as_deref().unwrap_or("(no output)"), &mut room));
    }
    let is_error = result["isError"].as_bool().unwrap_or(false);
    Executed { content, is_error, lost: false, hand_lost: false }
}

fn taken(block: &Value, room: &mut Room) -> Block {
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match block["type"].as_str() {
        Some("text") => text(&string(&block["text"]), room),
        Some("resource") if block["resource"]["text"].is_string() => text(&string(&block["resource"]["text"]), room),
        Some("resource_link") => text(&format!("{} ({})", string(&block["uri"]), string(&block["name"])), room),
        kind => {
            let image = (kind == Some("image")).then(|| image(block, room)).flatten();
            image.unwrap_or_else(|| {
                let kind: String = kind.unwrap_or("unknown").chars().take(KIND_CHARS).collect();
                text(&format!("[a block of type {kind} that cannot be shown here]"), room)
            })
        }
    }
}

/// What is repeated of a block's type.
const KIND_CHARS: usize = 64;

/// One that the provider takes: of a type that it knows and that the bytes are of, whole, and not too large.
fn image(block: &Value, room: &mut Room) -> Option<Block> {
    let (media_type, data) = (block["mimeType"].as_str()?, block["data"].as_str()?);
    if room.images == 0 || data.len() > IMAGE_BASE64_BYTES.min(room.image_bytes) {
        return None;
    }
    let bytes = BASE64.decode(data).ok()?;
    if type_of(&bytes)? != media_type {
        return None;
    }
    room.images -= 1;
    room.image_bytes -= data.len();
    Some(Block::Image { source: json!({"type": "base64", "media_type": media_type, "data": data}) })
}

/// The type of an image by its first bytes.
fn type_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Texts of a result share one bound; an empty one is none that the model could be shown.
fn text(text: &str, room: &mut Room) -> Block {
    let shown: String = text.chars().take(room.chars).collect();
    room.chars -= shown.chars().count();
    Block::text(match (shown.len() < text.len(), shown.trim().is_empty()) {
        (true, _) => format!("{shown}\n[output truncated]"),
        (false, true) => "(no output)".to_owned(),
        (false, false) => shown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on.";

    fn image(mime_type: &str, bytes: &[u8]) -> Value {
        json!({"type": "image", "data": BASE64.encode(bytes), "mimeType": mime_type})
    }

    fn one(block: Value) -> Block {
        executed(&json!({"content": [block]})).content.remove(0)
    }

    fn hidden() -> Block {
        Block::text("[a block of type image that cannot be shown here]")
    }

    #[test]
    fn results_become_blocks_that_a_model_can_be_shown() {
        for (block, expected) in [
            (json!({"type": "text", "text": "hello"}), Block::text("hello")),
            (json!({"type": "text", "text": " "}), Block::text("(no output)")),
            (json!({"type": "resource", "resource": {"uri": "a:b", "text": "inside"}}), Block::text("inside")),
            (json!({"type": "resource_link", "uri": "a:b", "name": "n"}), Block::text("a:b (n)")),
        ] {
            assert_eq!(one(block), expected);
        }
        assert_eq!(executed(&json!({"content": []})).content, [Block::text("(no output)")]);
        let structured = executed(&json!({"content": [], "structuredContent": {"a": 1}, "isError": true}));
        assert!(structured.is_error && structured.content == [Block::text("{\"a\":1}")]);
        let long = json!({"type": "text", "text": "ä".repeat(TEXT_CHARS_MAX)});
        let cut = executed(&json!({"content": [long, {"type": "text", "text": "more"}]}));
        assert_eq!(cut.content[1], Block::text("\n[output truncated]"));
    }

    #[test]
    fn only_images_that_a_provider_takes_are_shown() {
        let data = BASE64.encode(PNG);
        let shown = Block::Image { source: json!({"type": "base64", "media_type": "image/png", "data": data}) };
        assert_eq!(one(image("image/png", PNG)), shown);
        let webp = b"RIFF\x04\0\0\0WEBPVP8 ";
        for (mime_type, bytes) in
            [("image/jpeg", &b"\xff\xd8\xff\xe0"[..]), ("image/gif", b"GIF89a"), ("image/webp", webp)]
        {
            assert!(matches!(one(image(mime_type, bytes)), Block::Image { .. }), "{mime_type}");
        }
        for wrong in [
            image("image/svg+xml", b"<svg/>"),
            image("image/png", b"<svg/>"),
            image("image/jpeg", PNG),
            image("image/png", b""),
            json!({"type": "image", "mimeType": "image/png"}),
            json!({"type": "image", "data": data, "mimeType": 1}),
            json!({"type": "image", "data": format!("{data}!"), "mimeType": "image/png"}),
            json!({"type": "image", "data": data.trim_end_matches('='), "mimeType": "image/png"}),
            json!({"type": "image", "data": {"nested": data}, "mimeType": "image/png"}),
        ] {
            assert_eq!(one(wrong.clone()), hidden(), "{wrong}");
        }
    }

    #[test]
    fn images_are_bounded_each_and_together() {
        let of_bytes = |bytes: usize| {
            let mut png = PNG.to_vec();
            png.resize(bytes, 0);
            image("image/png", &png)
        };
        let shown = |blocks: &[Value]| {
            let content = executed(&json!({"content": blocks})).content;
            assert!(content.iter().all(|block| matches!(block, Block::Image { .. }) || *block == hidden()));
            content.iter().filter(|block| matches!(block, Block::Image { .. })).count()
        };
        let largest = of_bytes(IMAGE_BASE64_BYTES / 4 * 3);
        assert_eq!(shown(&[of_bytes(IMAGE_BASE64_BYTES / 4 * 3 + 1), largest.clone()]), 1);
        assert_eq!(shown(&[largest.clone(), largest.clone(), of_bytes(64)]), 2);
        assert_eq!(shown(&vec![of_bytes(64); IMAGES_MAX + 5]), IMAGES_MAX);
    }

    #[test]
    fn blocks_without_end_come_to_one() {
        let blocks = vec![json!({"type": "text", "text": ""}); BLOCKS_MAX + 7];
        let content = executed(&json!({"content": blocks})).content;
        assert_eq!(content.len(), BLOCKS_MAX + 1);
        assert_eq!(content[BLOCKS_MAX], Block::text("[7 more blocks that are not shown here]"));
        let kind = executed(&json!({"content": [{"type": "x".repeat(1000)}]})).content;
        assert!(matches!(&kind[0], Block::Text { text, .. } if text.len() < 200), "{kind:?}");
    }
}
