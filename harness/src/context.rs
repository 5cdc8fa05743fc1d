//! Context strategies: a slice of the log in, a model request out. Pure; every released one stays, because
//! recipes name it and the bytes must come out again.

mod bytes;
mod clear;
mod compact;
mod full;
mod messages;
mod reset;
mod window;

pub use bytes::{SERIALIZER, serialize};

use crate::{marks::Marks, state::Slice};
use domain::{
    agent::{AgentSnapshot, StrategyRef},
    model::Purpose,
    outcome::ModelDigest,
    session::LogEntry,
};
use serde_json::{Value, json};

/// A named way to turn the log into what the model sees.
pub struct Strategy {
    pub name: &'static str,
    pub version: u32,
    /// Where the slice that it needs begins. What the session and the turn are about comes along in any case.
    pub reach: fn(&Marks, &Value) -> u64,
    /// The `messages` of a request. Entries are in order of position and hold no unresolved blobs.
    pub messages: fn(&[LogEntry], &Value) -> Vec<Value>,
    /// There if the strategy reads summaries.
    pub summary: Option<Summary>,
    /// What its parameters may say.
    pub params: &'static [Param],
}

/// A parameter, by its name. All may be left out.
pub enum Param {
    /// A whole number that is not negative.
    Number(&'static str),
    /// An object with these.
    Of(&'static str, &'static [Param]),
}

impl Param {
    fn name(&self) -> &'static str {
        match self {
            Param::Number(name) | Param::Of(name, _) => name,
        }
    }
}

/// How a summary is asked for.
pub struct Summary {
    /// The position that it covers the log up to, given where the log ends.
    pub end: fn(&Marks, &Value, u64) -> u64,
    pub prompt: &'static str,
}

/// Oldest first. Released ones never change: the tests hold the bytes that each makes of a sample.
pub static STRATEGIES: &[Strategy] =
    &[full::STRATEGY, full::STRATEGY_2, clear::STRATEGY, window::STRATEGY, compact::STRATEGY, reset::STRATEGY];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the context strategy {name}@{version}, which is not in this build")]
    Unknown { name: String, version: u32 },
    #[error("a summary for {name}@{version}, which reads none")]
    NoSummary { name: String, version: u32 },
    #[error("{name}@{version} with parameters that it does not take: {why}")]
    Params { name: String, version: u32, why: String },
}

/// What a session uses that asks for nothing else.
pub fn default_strategy() -> StrategyRef {
    StrategyRef { name: full::STRATEGY.name.to_owned(), version: full::STRATEGY.version, params: Value::Null }
}

pub fn find(wanted: &StrategyRef) -> Result<&'static Strategy, Error> {
    STRATEGIES
        .iter()
        .find(|known| known.name == wanted.name && known.version == wanted.version)
        .ok_or_else(|| Error::Unknown { name: wanted.name.clone(), version: wanted.version })
}

/// Whether it is known, and its parameters say what it goes by. For whoever takes one from outside: what is in a log stays as it is.
pub fn check(wanted: &StrategyRef) -> Result<(), Error> {
    let params = |why| Error::Params { name: wanted.name.clone(), version: wanted.version, why };
    takes(find(wanted)?.params, &wanted.params, "params").map_err(params)
}

fn takes(known: &[Param], given: &Value, place: &str) -> Result<(), String> {
    let fields = match given {
        Value::Null => return Ok(()),
        Value::Object(fields) => fields,
        _ => return Err(format!("{place} must be an object")),
    };
    for (name, value) in fields {
        let place = format!("{place}.{name}");
        match known.iter().find(|param| param.name() == name) {
            None => {
                let names: Vec<&str> = known.iter().map(Param::name).collect();
                let known = if names.is_empty() { "it has none".to_owned() } else { names.join(", ") };
                return Err(format!("{place} is unknown (known: {known})"));
            }
            Some(Param::Number(_)) if !value.is_u64() => return Err(format!("{place} must be a number from 0 on")),
            Some(Param::Number(_)) => {}
            Some(Param::Of(_, known)) => takes(known, value, &place)?,
        }
    }
    Ok(())
}

/// Where the slice of a strategy begins; the whole log for one that is unknown, which nobody will be asked to read.
pub fn reach(strategy: &StrategyRef, marks: &Marks) -> u64 {
    find(strategy).map_or(0, |found| (found.reach)(marks, &strategy.params))
}

pub fn can_summarize(strategy: &StrategyRef) -> Result<(), Error> {
    summary(strategy).map(|_| ())
}

/// Where the part of the log ends that a summary is to stand for.
pub fn summary_end(strategy: &StrategyRef, marks: &Marks, end: u64) -> u64 {
    summary(strategy).map_or(end, |summary| (summary.end)(marks, &strategy.params, end))
}

fn summary(strategy: &StrategyRef) -> Result<&'static Summary, Error> {
    let found = find(strategy)?;
    let none = || Error::NoSummary { name: strategy.name.clone(), version: strategy.version };
    found.summary.as_ref().ok_or_else(none)
}

/// Whether an answer to a summary's prompt can stand for what it summarises.
pub fn is_summary(digest: &ModelDigest) -> bool {
    match digest {
        ModelDigest::Answer { blocks, refusal: None, .. } => {
            blocks.iter().any(|block| block.kind == "text" && !block.head.trim().is_empty())
        }
        _ => false,
    }
}

/// The entries of a slice, out of a whole log.
pub fn entries(log: &[LogEntry], slice: &Slice) -> Vec<LogEntry> {
    let shown = |position: u64| {
        (slice.from..slice.to).contains(&position)
            || slice.keep.iter().any(|kept| (kept.from..kept.to).contains(&position))
    };
    log.iter().filter(|entry| shown(entry.position)).cloned().collect()
}

/// Results that a strategy clears out of what it is given.
pub fn cleared_positions(entries: &[LogEntry], strategy: &StrategyRef) -> Vec<u64> {
    let params = match strategy.name.as_str() {
        "clear-tool-results" => &strategy.params,
        _ => &strategy.params["clear"],
    };
    clear::positions(entries, params).into_iter().collect()
}

/// What a request is made of, beside the log and the agent.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    pub strategy: &'a StrategyRef,
    /// Synthetic messages after the strategy's last one.
    pub suffix: &'a [Value],
    pub purpose: Purpose,
}

/// Makes a request in the Anthropic Messages form, without `stream`.
pub fn request(entries: &[LogEntry], agent: &AgentSnapshot, shape: Shape<'_>) -> Result<Value, Error> {
    let Shape { strategy, suffix, purpose } = shape;
    let mut messages = (find(strategy)?.messages)(entries, &strategy.params);
    messages.extend(suffix.iter().cloned());
    if purpose == Purpose::Summary {
        messages.push(json!({"role": "user", "content": [{"type": "text", "text": summary(strategy)?.prompt}]}));
    }
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
        if purpose == Purpose::Summary {
            // The tools stay, for the prefix that the provider has cached; none is to be used.
            body["tool_choice"] = json!({"type": "none"});
        }
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
