//! Model clients: one finished request in, one [`Outcome`] out, with previews on the way.
//!
//! Everything inside Steadyhand has the shape of the Anthropic Messages API; a backend for another API converts at its
//! own edge. A provider's failure is a result ([`Failure`]), never an error of the caller's: the harness decides
//! whether and when to ask again, where everyone can see it. So a client here never waits out a rate limit and never
//! asks twice, but for one immediate reconnect when the connection broke before the first byte of the answer.
//!
//! Nothing here knows of Temporal, of sessions' logs, or of how the request was put together.
//!
//! A new backend is one file beside this one and one line in [`MODELS`].

mod anthropic;
mod asked;
#[cfg(test)]
mod counterparts;
mod failure;
mod key;
mod openai;
mod outcome;
pub mod scripted;
mod sse;
#[cfg(test)]
mod testing;
mod tool_input;
mod transport;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use serde_json::Value;

pub use self::{
    key::{ApiKey, Error as KeyError},
    outcome::{Answer, BadInput, Failure, FailureClass, Outcome, Usage},
};

/// One finished request, ready to send.
///
/// It has no `Debug`, so that no message text gets into a log.
#[derive(Clone)]
pub struct Request {
    /// The body in the Anthropic Messages form (`model`, `max_tokens`, `system`, `messages`, `tools`, ...) without
    /// `stream`, which the client adds. Keys are sent in the order of the map.
    pub body: Value,
    /// Values of `anthropic-beta`; other backends ignore them.
    pub betas: Vec<String>,
    /// For spans, and for ids that have to be made up. Never sent to the provider.
    pub session_id: String,
    /// How many tries of this very request failed before this one: from the log, so that a call repeated after a crash
    /// has the same number. 0 for the first.
    pub tries: u32,
}

/// A best-effort preview of the answer while it comes. `index` counts blocks as [`Answer::blocks`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    BlockStart {
        index: usize,
        kind: BlockKind,
    },
    Text {
        index: usize,
        text: String,
    },
    /// The model is thinking; what it thinks is not for previews.
    Thinking {
        index: usize,
    },
    /// A fragment of the JSON of a tool's input.
    InputJson {
        index: usize,
        json: String,
    },
    BlockStop {
        index: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockKind {
    Text,
    Thinking,
    ToolUse {
        id: String,
        name: String,
    },
    /// The `type` of any other block (`redacted_thinking`, `server_tool_use`, ...).
    Other(String),
}

/// Where previews go. It is called from inside the read loop and must not block.
pub type OnDelta<'a> = dyn FnMut(Delta) + Send + 'a;

/// Resolves when nobody wants the answer any more.
pub type Cancelled<'a> = BoxFuture<'a, ()>;

/// A model, wherever it runs.
#[async_trait]
pub trait Model: Send + Sync {
    /// Asks once. When `cancelled` resolves first the connection is closed, which stops the provider's work, and the
    /// outcome is [`Outcome::Cancelled`].
    async fn call(&self, request: &Request, on_delta: &mut OnDelta<'_>, cancelled: Cancelled<'_>) -> Outcome;
}

/// What a backend is made from.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The base URL, with or without a trailing slash or `/v1`. Without one: the provider's own.
    pub url: Option<String>,
    pub key: Option<ApiKey>,
    /// The script of the scripted model.
    pub script: Option<PathBuf>,
    pub timeouts: Timeouts,
}

/// How long to wait for what, and the class of the failure when that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To a connection, TLS included: `timeout`.
    pub connect: Duration,
    /// From the request to the first byte of the answer: `timeout`. Long, as local servers read the whole prompt first.
    pub first_byte: Duration,
    /// Between two pieces of the answer: `stream` (stalled). Anthropic pings well within it.
    pub idle: Duration,
    /// The whole call: `timeout`.
    pub overall: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(300),
            idle: Duration::from_secs(90),
            overall: Duration::from_secs(1800),
        }
    }
}

/// Why a backend could not be made from its settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("find a model backend named {name:?} (there are: {known})")]
    UnknownBackend { name: String, known: String },
    #[error("use the model URL {url:?}: {reason}")]
    BadUrl { url: String, reason: String },
    #[error("talk to {url} without a model key")]
    NoKey { url: String },
    #[error("use the scripted model without a script")]
    NoScript,
    #[error("make the HTTP client for the model")]
    Client(#[source] reqwest::Error),
    #[error("load the model's script")]
    Script(#[from] scripted::Error),
}

/// One way to reach a model.
pub struct Backend {
    pub name: &'static str,
    pub make: fn(&Settings) -> Result<Arc<dyn Model>, Error>,
}

/// Every backend, by the name that configuration uses.
pub const MODELS: &[Backend] = &[
    Backend { name: "anthropic", make: anthropic::make },
    Backend { name: "openai", make: openai::make },
    Backend { name: "scripted", make: scripted::make },
];

/// Makes the backend of that name.
pub fn make(name: &str, settings: &Settings) -> Result<Arc<dyn Model>, Error> {
    let Some(backend) = MODELS.iter().find(|backend| backend.name == name) else {
        let known = MODELS.iter().map(|backend| backend.name).collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownBackend { name: name.to_owned(), known });
    };
    (backend.make)(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_made_by_its_name_and_none_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script.toml");
        std::fs::write(&script, "version = 1\n[[rules]]\nanswer = [{ text = \"hi\" }]\n").unwrap();
        let settings = Settings {
            url: Some("http://127.0.0.1:9/v1/".to_owned()),
            key: Some(ApiKey::new("sk-test").unwrap()),
            script: Some(script),
            timeouts: Timeouts::default(),
        };
        for backend in MODELS {
            assert!(make(backend.name, &settings).is_ok(), "{}", backend.name);
        }
        let error = make("gpt", &settings).err().unwrap();
        assert_eq!(error.to_string(), "find a model backend named \"gpt\" (there are: anthropic, openai, scripted)");
    }

    #[test]
    fn names_are_unique() {
        for (at, backend) in MODELS.iter().enumerate() {
            assert!(MODELS[..at].iter().all(|other| other.name != backend.name));
        }
    }
}
