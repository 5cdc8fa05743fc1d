//! An event as clients see it: content out of its blobs, tool inputs as plain JSON, usage in the API's form, and
//! nothing private. Lists, streams and answers all show events through [`public_event`].

use std::borrow::Cow;

use domain::content::Json;
use domain::{Event, EventBody, Usage};
use log::blobs;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};
use store::Blobs;

use super::sources;
use crate::resources::agents::snapshot::AgentSnapshot;

/// `usage` of a session.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct PublicUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation: CacheCreation,
}

#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
struct CacheCreation {
    ephemeral_5m_input_tokens: u64,
    ephemeral_1h_input_tokens: u64,
}

impl From<&Usage> for PublicUsage {
    fn from(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_input_tokens: usage.cache_read_input_tokens,
            cache_creation: CacheCreation {
                ephemeral_5m_input_tokens: usage.cache_creation_5m_tokens,
                ephemeral_1h_input_tokens: usage.cache_creation_1h_tokens,
            },
        }
    }
}

/// `model_usage` of a span: flat.
#[derive(Serialize, JsonSchema)]
struct SpanUsage {
    input_tokens: u64,
    output_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
}

impl From<&Usage> for SpanUsage {
    fn from(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_creation_input_tokens: usage.cache_creation(),
            cache_read_input_tokens: usage.cache_read_input_tokens,
        }
    }
}

/// An event in its public form.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(transparent)]
pub struct PublicEvent(pub Value);

/// The schema of the log's event with the changes that [`plain`] makes.
impl JsonSchema for PublicEvent {
    fn schema_name() -> Cow<'static, str> {
        "SessionEvent".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Event::json_schema(generator);
        let changed = [
            ("session.updated", "agent", generator.subschema_for::<AgentSnapshot>()),
            ("session.usage", "usage", generator.subschema_for::<PublicUsage>()),
            ("session.usage", "budget", generator.subschema_for::<()>()),
            ("span.model_request_end", "model_usage", generator.subschema_for::<SpanUsage>()),
        ];
        let kinds = schema.get_mut("oneOf").and_then(Value::as_array_mut).expect("an event is one of its types");
        for (kind, field, shown) in changed {
            let kind = kinds.iter_mut().find(|it| it["properties"]["type"]["const"] == kind);
            kind.expect("every type has a schema")["properties"][field] = shown.to_value();
        }
        schema
    }
}

/// The one way out of the log.
pub async fn public_event(blobs: &dyn Blobs, mut event: Event) -> Result<PublicEvent, blobs::Error> {
    blobs::resolve(blobs, &mut event).await?;
    Ok(PublicEvent(plain(&event)))
}

/// The public form of an event whose content is all there.
fn plain(event: &Event) -> Value {
    let mut value = serde_json::to_value(event).expect("an event has string keys only");
    sources::hide(&mut value);
    match &event.body {
        EventBody::AgentToolUse { input: Json::Inline { value: input }, .. }
        | EventBody::AgentMcpToolUse { input: Json::Inline { value: input }, .. }
        | EventBody::AgentCustomToolUse { input: Json::Inline { value: input }, .. } => value["input"] = input.clone(),
        EventBody::SessionUpdated { agent: Some(Json::Inline { value: agent }), .. } => value["agent"] = agent.clone(),
        EventBody::SessionUsage { usage } => {
            value["usage"] = json!(PublicUsage::from(usage));
            value["budget"] = Value::Null;
        }
        EventBody::SpanModelRequestEnd { model_usage, .. } => {
            value["model_usage"] = json!(SpanUsage::from(model_usage))
        }
        _ => {}
    }
    value
}
