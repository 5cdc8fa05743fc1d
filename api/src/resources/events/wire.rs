//! Events as clients send them, checked as far as that needs nothing but the request.
//!
//! These are types of their own: what the log can hold by reference, a client must never be able to name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use domain::content::{Block, Content};
use domain::event::{Confirmation, EventBody};
use domain::limits::{EVENTS_PER_POST_MAX, INLINE_BYTES_MAX};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::error::{ApiError, Result};

const SYSTEM_BLOCKS_MAX: usize = 1000;
pub(super) const IMAGE_TYPES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];
pub(super) const PDF: &str = "application/pdf";
pub(super) const PLAIN: &str = "text/plain";
const URL_CHARS_MAX: usize = 2048;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PostEvents")]
pub struct Post {
    events: Vec<EventParam>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum EventParam {
    #[serde(rename = "user.message")]
    UserMessage { content: Vec<BlockParam> },
    #[serde(rename = "user.interrupt")]
    UserInterrupt {
        #[serde(default)]
        session_thread_id: Option<String>,
    },
    #[serde(rename = "user.tool_confirmation")]
    UserToolConfirmation {
        tool_use_id: String,
        result: Confirmation,
        #[serde(default)]
        deny_message: Option<String>,
        #[serde(default)]
        session_thread_id: Option<String>,
    },
    #[serde(rename = "user.custom_tool_result")]
    UserCustomToolResult {
        custom_tool_use_id: String,
        #[serde(default)]
        content: Option<Vec<BlockParam>>,
        #[serde(default)]
        is_error: Option<bool>,
        #[serde(default)]
        session_thread_id: Option<String>,
    },
    #[serde(rename = "user.tool_result")]
    UserToolResult {
        tool_use_id: String,
        #[serde(default)]
        content: Option<Vec<BlockParam>>,
        #[serde(default)]
        is_error: Option<bool>,
        #[serde(default)]
        session_thread_id: Option<String>,
    },
    #[serde(rename = "user.define_outcome")]
    #[schemars(skip)]
    UserDefineOutcome(IgnoredAny),
    #[serde(rename = "system.message")]
    SystemMessage { content: Vec<BlockParam> },
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum BlockParam {
    Text {
        text: String,
    },
    Image {
        source: SourceParam,
    },
    Document {
        source: SourceParam,
        #[serde(default)]
        title: Option<String>,
        #[serde(default)]
        context: Option<String>,
    },
    SearchResult {
        source: String,
        title: String,
        content: Vec<BlockParam>,
        #[serde(default)]
        citations: Option<CitationsParam>,
    },
    #[schemars(skip)]
    Redacted {},
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CitationsParam {
    enabled: bool,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum SourceParam {
    Base64 { media_type: String, data: String },
    Text { media_type: String, data: String },
    Url { url: String },
    File { file_id: String },
}

/// What a place of the API allows in its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Message,
    ToolResult,
    System,
}

impl Post {
    /// The bodies of a POST of events, all of them sound or none taken.
    pub fn check(self, thread_id: &str) -> Result<Vec<EventBody>> {
        if self.events.is_empty() {
            return Err(ApiError::field("events", "must have at least one event"));
        }
        let bodies = check_all(self.events, "events", thread_id)?;
        check_order(&bodies)?;
        Ok(bodies)
    }
}

/// The bodies of `initial_events`: messages only.
pub fn check_initial(events: Vec<EventParam>) -> Result<Vec<EventBody>> {
    for (n, event) in events.iter().enumerate() {
        if !matches!(event, EventParam::UserMessage { .. } | EventParam::UserDefineOutcome(_)) {
            let problem = "must be user.message or user.define_outcome";
            return Err(ApiError::field(format!("initial_events[{n}].type"), problem));
        }
    }
    check_all(events, "initial_events", "")
}

fn check_all(events: Vec<EventParam>, at: &str, thread_id: &str) -> Result<Vec<EventBody>> {
    if events.len() > EVENTS_PER_POST_MAX {
        let problem = format!("{} events, at most {EVENTS_PER_POST_MAX} are allowed", events.len());
        return Err(ApiError::field(at, problem));
    }
    let events = events.into_iter().enumerate();
    events.map(|(n, event)| event.check(&format!("{at}[{n}]"), thread_id)).collect()
}

/// A `system.message` is the last of its request and stands directly behind what it accompanies.
fn check_order(bodies: &[EventBody]) -> Result<()> {
    for (n, body) in bodies.iter().enumerate() {
        if !matches!(body, EventBody::SystemMessage { .. }) {
            continue;
        }
        let before = n.checked_sub(1).map(|before| &bodies[before]);
        let accompanies = matches!(
            before,
            Some(
                EventBody::UserMessage { .. }
                    | EventBody::UserToolResult { .. }
                    | EventBody::UserCustomToolResult { .. }
            )
        );
        if n + 1 != bodies.len() || !accompanies {
            let problem = "a system.message must be the last event, directly after a user.message or a tool result";
            return Err(ApiError::field(format!("events[{n}]"), problem));
        }
    }
    Ok(())
}

impl EventParam {
    fn check(self, at: &str, thread_id: &str) -> Result<EventBody> {
        let on_primary = |named: &Option<String>| match named {
            Some(named) if named != thread_id => {
                Err(ApiError::field(format!("{at}.session_thread_id"), format!("the session has no thread {named}")))
            }
            _ => Ok(()),
        };
        Ok(match self {
            EventParam::UserMessage { content } => {
                EventBody::UserMessage { content: blocks(content, Place::Message, at)? }
            }
            EventParam::SystemMessage { content } => {
                EventBody::SystemMessage { content: blocks(content, Place::System, at)? }
            }
            EventParam::UserInterrupt { session_thread_id } => {
                on_primary(&session_thread_id)?;
                EventBody::UserInterrupt { session_thread_id }
            }
            EventParam::UserToolConfirmation { tool_use_id, result, deny_message, session_thread_id } => {
                on_primary(&session_thread_id)?;
                let deny_at = format!("{at}.deny_message");
                match &deny_message {
                    Some(_) if result == Confirmation::Allow => {
                        return Err(ApiError::field(deny_at, "goes with a result of deny only"));
                    }
                    Some(message) if message.len() > INLINE_BYTES_MAX => {
                        return Err(ApiError::field(deny_at, format!("must be at most {INLINE_BYTES_MAX} bytes")));
                    }
                    _ => {}
                }
                EventBody::UserToolConfirmation { tool_use_id, result, deny_message }
            }
            EventParam::UserCustomToolResult { custom_tool_use_id, content, is_error, session_thread_id } => {
                on_primary(&session_thread_id)?;
                let content = blocks(content.unwrap_or_default(), Place::ToolResult, at)?;
                EventBody::UserCustomToolResult { custom_tool_use_id, content, is_error }
            }
            EventParam::UserToolResult { tool_use_id, content, is_error, session_thread_id } => {
                on_primary(&session_thread_id)?;
                let content = blocks(content.unwrap_or_default(), Place::ToolResult, at)?;
                EventBody::UserToolResult { tool_use_id, content, is_error }
            }
            EventParam::UserDefineOutcome(_) => {
                return Err(ApiError::not_built(format!("{at}: outcomes")));
            }
        })
    }
}

fn blocks(params: Vec<BlockParam>, place: Place, at: &str) -> Result<Content> {
    let at = format!("{at}.content");
    if place != Place::ToolResult && params.is_empty() {
        return Err(ApiError::field(at, "must have at least one block"));
    }
    if place == Place::System && params.len() > SYSTEM_BLOCKS_MAX {
        return Err(ApiError::field(at, format!("{} blocks, at most {SYSTEM_BLOCKS_MAX} are allowed", params.len())));
    }
    let blocks = params.into_iter().enumerate().map(|(n, param)| param.check(place, &format!("{at}[{n}]")));
    Ok(Content::Inline(blocks.collect::<Result<_>>()?))
}

impl BlockParam {
    fn check(self, place: Place, at: &str) -> Result<Block> {
        match (self, place) {
            // No model takes a message without text; what a tool printed is nobody's fault.
            (BlockParam::Text { text }, Place::Message | Place::System) if text.trim().is_empty() => {
                Err(ApiError::field(format!("{at}.text"), "must not be empty"))
            }
            (BlockParam::Text { text }, _) => Ok(Block::Text { text }),
            (BlockParam::Redacted {}, _) => {
                Err(ApiError::field(format!("{at}.type"), "redacted blocks cannot be sent"))
            }
            (_, Place::System) => Err(ApiError::field(format!("{at}.type"), "must be text")),
            (BlockParam::Image { source }, _) => {
                Ok(Block::Image { source: source.check(&IMAGE_TYPES, &format!("{at}.source"))? })
            }
            (BlockParam::Document { source, title, context }, _) => {
                let source = source.check(&[PDF], &format!("{at}.source"))?;
                Ok(Block::Document { source, title, context })
            }
            (BlockParam::SearchResult { source, title, content, citations }, Place::ToolResult) => {
                let texts = content.into_iter().enumerate().map(|(n, param)| match param {
                    BlockParam::Text { text } => Ok(Block::Text { text }),
                    _ => Err(ApiError::field(format!("{at}.content[{n}].type"), "must be text")),
                });
                let content = texts.collect::<Result<_>>()?;
                let citations = citations.map(|citations| json!({"enabled": citations.enabled}));
                Ok(Block::SearchResult { source, title, content, citations })
            }
            (BlockParam::SearchResult { .. }, Place::Message) => {
                Err(ApiError::field(format!("{at}.type"), "search results belong into tool results"))
            }
        }
    }
}

impl SourceParam {
    /// `types` are the media types of bytes that are allowed here. Text goes with documents only.
    fn check(self, types: &[&str], at: &str) -> Result<Value> {
        match self {
            SourceParam::Base64 { media_type, data } => {
                if !types.contains(&media_type.as_str()) {
                    return Err(ApiError::field(format!("{at}.media_type"), format!("must be {}", types.join(", "))));
                }
                if data.is_empty() || STANDARD.decode(&data).is_err() {
                    return Err(ApiError::field(format!("{at}.data"), "must be base64"));
                }
                Ok(json!({"type": "base64", "media_type": media_type, "data": data}))
            }
            SourceParam::Text { media_type, data } => {
                if !types.contains(&PDF) {
                    return Err(ApiError::field(format!("{at}.type"), "must be base64, url or file"));
                }
                if media_type != PLAIN {
                    return Err(ApiError::field(format!("{at}.media_type"), format!("must be {PLAIN}")));
                }
                Ok(json!({"type": "text", "media_type": media_type, "data": data}))
            }
            SourceParam::Url { url } => {
                let sound = url.chars().count() <= URL_CHARS_MAX
                    && url.parse::<http::Uri>().is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
                if !sound {
                    return Err(ApiError::field(format!("{at}.url"), "must be an http or https URL"));
                }
                Ok(json!({"type": "url", "url": url}))
            }
            SourceParam::File { file_id } => Ok(json!({"type": "file", "file_id": file_id})),
        }
    }
}
