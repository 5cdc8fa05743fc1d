//! Content blocks of messages and tool results, and where large content lives.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One content block, as the API lists them.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    Text {
        text: String,
    },
    Image {
        source: Value,
    },
    Document {
        source: Value,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        context: Option<String>,
    },
    SearchResult {
        source: String,
        title: String,
        content: Vec<Block>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        citations: Option<Value>,
    },
    /// Server-only placeholder; refused when a client sends it.
    Redacted {},
}

impl Block {
    pub fn text(text: impl Into<String>) -> Self {
        Block::Text { text: text.into() }
    }
}

/// Blocks by value, or by reference once they are larger than `limits::INLINE_BYTES_MAX`.
///
/// A reader of the log resolves references; the public API never shows one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    Inline(Vec<Block>),
    Blob(BlobRef),
}

/// Bytes kept outside history, addressed by their sha-256.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Lower-case hex of the sha-256.
    pub blob: String,
    pub bytes: u64,
}

impl Content {
    pub fn text(text: impl Into<String>) -> Self {
        Content::Inline(vec![Block::text(text)])
    }

    pub fn blob(&self) -> Option<&BlobRef> {
        match self {
            Content::Blob(blob) => Some(blob),
            Content::Inline(_) => None,
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Content::Inline(Vec::new())
    }
}

/// A JSON value by value or, when large, by reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "snake_case")]
pub enum Json {
    Inline { value: Value },
    Blob(BlobRef),
}
