//! Chat Completions as OpenAI defined them and many servers speak them: vLLM, llama.cpp, Ollama, gateways.
//!
//! `convert.rs` turns the request, `assemble.rs` the stream. What has no counterpart there (thinking, cache marks,
//! betas) is left out; what the model would miss is replaced by a line that says so. Nothing of the other API leaks
//! further in.

mod assemble;
mod convert;

use std::sync::Arc;

use async_trait::async_trait;
use http::header;
use reqwest::Url;

use self::assemble::Assembler;
use super::{
    Answer, ApiKey, Cancelled, Error, Failure, Model, OnDelta, Outcome, Request, Settings, asked::asked, transport,
    transport::Transport,
};

const DEFAULT_URL: &str = "https://api.openai.com";

pub(super) fn make(settings: &Settings) -> Result<Arc<dyn Model>, Error> {
    let base = settings.url.as_deref().unwrap_or(DEFAULT_URL);
    let url = transport::endpoint(base, "chat/completions")?;
    if settings.key.is_none() && settings.url.is_none() {
        return Err(Error::NoKey { url: DEFAULT_URL.to_owned() });
    }
    let limit = TokenLimit::of(&url);
    let transport = Transport::new(url, settings.key.clone(), settings.timeouts)?;
    Ok(Arc::new(OpenAi { transport, key: settings.key.clone(), limit }))
}

struct OpenAi {
    transport: Transport,
    /// Local servers mostly want none.
    key: Option<ApiKey>,
    limit: TokenLimit,
}

/// What the field for `max_tokens` is called: OpenAI's own models refuse the old name, other servers ignore the new
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenLimit {
    MaxTokens,
    MaxCompletionTokens,
}

impl TokenLimit {
    fn of(url: &Url) -> TokenLimit {
        let host = url.host_str().unwrap_or_default();
        if host == "openai.com" || host.ends_with(".openai.com") || host.ends_with(".openai.azure.com") {
            TokenLimit::MaxCompletionTokens
        } else {
            TokenLimit::MaxTokens
        }
    }

    fn field(self) -> &'static str {
        match self {
            TokenLimit::MaxTokens => "max_tokens",
            TokenLimit::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

#[async_trait]
impl Model for OpenAi {
    async fn call(&self, request: &Request, on_delta: &mut OnDelta<'_>, cancelled: Cancelled<'_>) -> Outcome {
        asked("openai", request, async { self.ask(request, on_delta).await.into() }, cancelled).await
    }
}

impl OpenAi {
    async fn ask(&self, request: &Request, on_delta: &mut OnDelta<'_>) -> Result<Answer, Failure> {
        let body = convert::body(&request.body, self.limit)?;
        let mut headers = transport::json_headers();
        if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, key.header("Bearer "));
        }
        let assembler = Assembler::new(request, body.len());
        self.transport.ask(headers, body, assembler, on_delta).await
    }
}

#[cfg(test)]
mod tests;
