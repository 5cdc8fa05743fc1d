//! The Anthropic Messages API, and whatever else speaks it.
//!
//! The request is sent as it is, with `stream: true`. What the stream means is in `assemble.rs`.

pub(super) mod assemble;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use serde_json::Value;

use self::assemble::Assembler;
use super::{
    Answer, ApiKey, Cancelled, Error, Failure, FailureClass, Model, OnDelta, Outcome, Request, Settings, asked::asked,
    transport, transport::Transport,
};

const DEFAULT_URL: &str = "https://api.anthropic.com";
const VERSION: &str = "2023-06-01";

/// How many tries came before, in the header that the official SDKs use for it.
pub(super) const TRIES: HeaderName = HeaderName::from_static("x-stainless-retry-count");

pub(super) fn make(settings: &Settings) -> Result<Arc<dyn Model>, Error> {
    let base = settings.url.as_deref().unwrap_or(DEFAULT_URL);
    let url = transport::endpoint(base, "messages")?;
    if settings.key.is_none() && settings.url.is_none() {
        return Err(Error::NoKey { url: DEFAULT_URL.to_owned() });
    }
    let transport = Transport::new(url, settings.key.clone(), settings.timeouts)?;
    Ok(Arc::new(Anthropic { transport, key: settings.key.clone() }))
}

struct Anthropic {
    transport: Transport,
    key: Option<ApiKey>,
}

#[async_trait]
impl Model for Anthropic {
    async fn call(&self, request: &Request, on_delta: &mut OnDelta<'_>, cancelled: Cancelled<'_>) -> Outcome {
        asked("anthropic", request, async { self.ask(request, on_delta).await.into() }, cancelled).await
    }
}

impl Anthropic {
    async fn ask(&self, request: &Request, on_delta: &mut OnDelta<'_>) -> Result<Answer, Failure> {
        let mut headers = transport::json_headers();
        headers.insert("anthropic-version", HeaderValue::from_static(VERSION));
        headers.insert(TRIES, HeaderValue::from(request.tries));
        if !request.betas.is_empty() {
            let betas = HeaderValue::try_from(request.betas.join(","))
                .map_err(|_| Failure::new(FailureClass::Request, "a beta's name cannot be sent in a header"))?;
            headers.insert("anthropic-beta", betas);
        }
        if let Some(key) = &self.key {
            headers.insert("x-api-key", key.header(""));
        }
        self.transport.ask(headers, streaming(&request.body)?, Assembler::default(), on_delta).await
    }
}

/// The body's bytes with `stream: true`, keys in order.
fn streaming(body: &Value) -> Result<Vec<u8>, Failure> {
    let Value::Object(fields) = body else {
        return Err(Failure::new(FailureClass::Request, "the request is not a JSON object"));
    };
    let stream = Value::Bool(true);
    let mut fields: BTreeMap<&str, &Value> = fields.iter().map(|(key, value)| (key.as_str(), value)).collect();
    fields.insert("stream", &stream);
    Ok(serde_json::to_vec(&fields).expect("a JSON value serializes"))
}

#[cfg(test)]
mod tests;
