//! Context strategies: a slice of the log in, a model request out. Pure; every released one stays, because
//! recipes name it and the bytes must come out again.

mod bytes;
mod full;
mod messages;

pub use bytes::{SERIALIZER, serialize};

use domain::{
    agent::{AgentSnapshot, StrategyRef},
    session::LogEntry,
};
use serde_json::{Value, json};

/// A named way to turn the log into what the model sees.
pub struct Strategy {
    pub name: &'static str,
    pub version: u32,
    /// The `messages` of a request. Entries are in order of position and hold no unresolved blobs.
    pub messages: fn(&[LogEntry], &Value) -> Vec<Value>,
}

pub static STRATEGIES: &[Strategy] = &[full::STRATEGY];

#[derive(Debug, thiserror::Error)]
#[error("no context strategy {name}@{version} in this build")]
pub struct UnknownStrategy {
    name: String,
    version: u32,
}

/// What a session uses that asks for nothing else.
pub fn default_strategy() -> StrategyRef {
    StrategyRef { name: full::STRATEGY.name.to_owned(), version: full::STRATEGY.version, params: Value::Null }
}

/// Makes a request in the Anthropic Messages form, without `stream`.
pub fn request(
    entries: &[LogEntry],
    agent: &AgentSnapshot,
    strategy: &StrategyRef,
    suffix: &[Value],
) -> Result<Value, UnknownStrategy> {
    let found = STRATEGIES
        .iter()
        .find(|known| known.name == strategy.name && known.version == strategy.version)
        .ok_or_else(|| UnknownStrategy { name: strategy.name.clone(), version: strategy.version })?;
    let mut messages = (found.messages)(entries, &strategy.params);
    messages.extend(suffix.iter().cloned());
    mark_cacheable(messages.last_mut());

    let mut body = json!({
        "model": agent.model.id,
        "max_tokens": agent.model.max_tokens,
        "messages": messages,
    });
    if let Some(system) = agent.system.as_deref().filter(|system| !system.is_empty()) {
        body["system"] = json!([{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]);
    }
    if !agent.tools.is_empty() {
        body["tools"] = agent
            .tools
            .iter()
            .map(|tool| json!({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema}))
            .collect();
    }
    if let Some(effort) = &agent.model.effort {
        body["output_config"] = json!({"effort": effort});
    }
    Ok(body)
}

/// The next request begins with this one: let the provider keep the prefix.
fn mark_cacheable(message: Option<&mut Value>) {
    let last = message.and_then(|message| message["content"].as_array_mut()).and_then(|content| content.last_mut());
    if let Some(block) = last.and_then(Value::as_object_mut)
        && !matches!(block.get("type").and_then(Value::as_str), Some("thinking" | "redacted_thinking"))
    {
        block.insert("cache_control".to_owned(), json!({"type": "ephemeral"}));
    }
}

#[cfg(test)]
mod tests;
