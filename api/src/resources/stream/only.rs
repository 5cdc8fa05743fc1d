//! What streams send beside the events of the log: previews, the word that a session is gone, and signs of life. And, for
//! the OpenAPI document, what any message of a stream looks like.

use domain::Time;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use crate::resources::events::public::PublicEvent;
use crate::sse::Message;

/// None of these is in a list, or has a position.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "StreamOnlyEvent")]
#[serde(tag = "type")]
pub enum StreamOnly<'a> {
    /// An event of this type is being written, and will have this id.
    #[serde(rename = "event_start")]
    EventStart { event: Begun<'a> },
    /// More of it.
    #[serde(rename = "event_delta")]
    EventDelta { event_id: &'a str, delta: Delta<'a> },
    /// The last message of a stream.
    #[serde(rename = "session.deleted")]
    SessionDeleted { id: &'a str, processed_at: Time },
    #[serde(rename = "ping")]
    Ping {},
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "BegunEvent")]
pub struct Begun<'a> {
    #[serde(rename = "type")]
    pub kind: &'a str,
    pub id: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventDelta")]
#[serde(tag = "type")]
pub enum Delta<'a> {
    #[serde(rename = "content_delta")]
    Content { index: u32, content: Piece<'a> },
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EventDeltaContent")]
#[serde(tag = "type")]
pub enum Piece<'a> {
    #[serde(rename = "text")]
    Text { text: &'a str },
}

impl StreamOnly<'_> {
    pub fn message(&self) -> Message {
        let data = serde_json::to_value(self).expect("a message has string keys only");
        let name = data["type"].as_str().expect("a message has a type").to_owned();
        Message { name, id: None, data }
    }
}

/// One message of a stream, as OpenAPI describes those: its lines by their names, and what is in its data.
pub fn schema(generator: &mut SchemaGenerator) -> Value {
    let data = [generator.subschema_for::<PublicEvent>(), generator.subschema_for::<StreamOnly<'static>>()];
    json!({
        "type": "object",
        "required": ["event", "data"],
        "additionalProperties": false,
        "properties": {
            "event": {"type": "string", "description": "The type of what is in data."},
            "id": {
                "type": "string",
                "pattern": "^[0-9]+$",
                "description": "The position of a committed event, for `Last-Event-ID`.",
            },
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": data}},
        },
    })
}
