//! A model that answers from a script: for tests, and for trying the service without a key.
//!
//! What it answers depends on the script and the request alone. A call repeated after a crash gets the same answer, ids
//! included; a fault that goes away counts [`Request::tries`], which the log knows, and nothing in memory.
//!
//! # The script
//!
//! TOML, or the same in JSON when the file's name ends in `.json`. The first rule whose conditions all hold answers;
//! when none does, the call fails with class `request` and says what it looked for.
//!
//! ```toml
//! version = 1
//! model = "scripted-1"                    # what the answers say; without it, the model that was asked
//!
//! [[rules]]
//! name = "look at the tests first"        # for error messages
//! when = { user_contains = "fix", results = 0 }
//! answer = [
//!     { thinking = "I should run them.", signature = "c2ln" },
//!     { text = "Let me see what fails." },
//!     { tool = "bash", input = { command = "cargo test" } },
//!     { tool = "read", input = { file_path = "src/lib.rs" } },
//! ]
//!
//! [[rules]]
//! name = "done, after one bad moment"
//! when = { result_contains = "0 failed" }
//! answer = [{ text = "All tests pass. You said: {{user}}" }]
//! fault = { kind = "status", status = 529, tries = 1 }
//!
//! [[rules]]
//! answer = [{ text = "Turn {{turn}}, result {{results}}." }]
//! ```
//!
//! **Conditions** (`when`; without any, a rule always holds):
//!
//! | condition | holds when |
//! |---|---|
//! | `user_contains = "..."` | the last user message with text contains it |
//! | `system_contains = "..."` | the system prompt does |
//! | `result_contains = "..."` | a tool result in the last message does |
//! | `result_is_error = true` | a tool result in the last message is an error (`false`: there are some, and none is) |
//! | `turn = N` | user messages with text so far, counted from 0 |
//! | `results = N` | tool results since the last user message with text |
//! | `tries = N` | failed tries of this request so far |
//! | `model = "..."` | the request asks for this model |
//! | `tool_offered = "..."` | the request offers this tool |
//!
//! `N` is a number or `{ min = A, max = B }`, both inclusive, either left out.
//!
//! **The answer** is a list of blocks, each one of
//!
//! * `{ text = "..." }`
//! * `{ thinking = "...", signature = "..." }`; without a signature one is made up
//! * `{ redacted = "..." }`: a redacted_thinking block with this data
//! * `{ tool = "bash", input = { ... } }`, with `id = "..."` or a made-up id. Instead of `input`, `raw_input = "..."`
//!   is sent as it stands, to see what happens when it is not JSON
//! * `{ block = { type = "...", ... } }`: any block, verbatim
//!
//! In texts and in the strings of an input `{{user}}` (last user text), `{{result}}` (results in the last message),
//! `{{turn}}`, `{{results}}` and `{{tries}}` are filled in; any other name is an error. `literal = true` in a rule
//! turns that off. `stop_reason` is `tool_use` when there is a tool block and `end_turn` otherwise, unless given
//! (`stop_details` beside it, for a refusal). `usage = { input_tokens, output_tokens, cache_read_tokens,
//! cache_creation_5m_tokens, cache_creation_1h_tokens }`: what is left out is bytes / 4, or 0 for the caches.
//!
//! **Time**: `delay_ms` before the answer begins, `event_delay_ms` before each event, `pauses = [{ before_event = 3,
//! ms = 200 }]`. Text comes in pieces of `chunk_chars` (40). Events count from 1: `message_start` is the first.
//!
//! **Faults** (`fault`), one a rule:
//!
//! | `kind` | what happens |
//! |---|---|
//! | `status` | `status`, with `retry_after_ms` or `retry_after_s`, `error_type`, `message` |
//! | `refuse` | the connection is closed without a word |
//! | `drop` | the connection breaks after `after_events` |
//! | `end` | the stream ends cleanly after `after_events`, without `message_stop` |
//! | `stall` | nothing comes any more after `after_events` |
//! | `malformed` | after `after_events` comes one that is no JSON |
//! | `error` | after `after_events` comes an `error` event of `error_type` with `message` |
//!
//! `after_events` is 1 unless given, and at most all events but the last. With `tries = N` only the first N tries
//! break; after that the rule gives its answer, or, when it has none, does not hold.

mod facts;
mod play;
mod script;
mod serve;

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use http::StatusCode;

use self::play::{Reply, Step};
pub use self::{
    script::{Error, Script},
    serve::{Received, Server, serve},
};
use super::{
    Answer, Cancelled, Delta, Failure, FailureClass, Model, OnDelta, Outcome, Request, Settings, Timeouts,
    anthropic::assemble::Assembler,
    asked::asked,
    failure, sse,
    transport::{Assemble, Flow, broken},
};

pub(super) fn make(settings: &Settings) -> Result<Arc<dyn Model>, super::Error> {
    let path = settings.script.as_deref().ok_or(super::Error::NoScript)?;
    Ok(Arc::new(Scripted::new(Script::load(path)?, settings.timeouts)))
}

/// The scripted model inside the process. Its answers take the same way as those of the Messages API, without the
/// socket.
pub struct Scripted {
    script: Script,
    timeouts: Timeouts,
}

impl Scripted {
    /// `timeouts.idle` ends a scripted stall.
    pub fn new(script: Script, timeouts: Timeouts) -> Scripted {
        Scripted { script, timeouts }
    }

    async fn perform(&self, request: &Request, on_delta: &mut OnDelta<'_>) -> Result<Answer, Failure> {
        let play = play::play(&self.script, &request.body, &request.session_id, request.tries);
        if !play.delay.is_zero() {
            tokio::time::sleep(play.delay).await;
        }
        let steps = match play.reply {
            Reply::Stream(steps) => steps,
            Reply::Closed => {
                return Err(Failure::new(FailureClass::Connection, "the scripted model closed the connection"));
            }
            Reply::Refused { status, headers, body } => {
                let body = body.to_string();
                return Err(failure::from_response(status, &headers, body.as_bytes(), SystemTime::now()));
            }
        };
        self.stream(steps, on_delta)
            .await
            .map_err(|failure| Failure { status: Some(StatusCode::OK.as_u16()), ..failure })
    }

    async fn stream(&self, steps: Vec<Step>, on_delta: &mut OnDelta<'_>) -> Result<Answer, Failure> {
        let mut assembler = Assembler::default();
        for step in steps {
            let event = match step {
                Step::Wait(time) => {
                    tokio::time::sleep(time).await;
                    continue;
                }
                Step::Event { name, data } => sse::Event { name, data },
                Step::Cut => return Err(broken("the connection broke inside the answer: scripted")),
                Step::Stall => {
                    let idle = self.timeouts.idle;
                    tokio::time::sleep(idle).await;
                    return Err(broken(format!("the answer stalled for {} ms", idle.as_millis())));
                }
            };
            if assembler.event(event, on_delta)? == Flow::Done {
                break;
            }
        }
        assembler.finish(on_delta)
    }
}

#[async_trait]
impl Model for Scripted {
    async fn call(&self, request: &Request, on_delta: &mut OnDelta<'_>, cancelled: Cancelled<'_>) -> Outcome {
        let call = async {
            let mut published = false;
            let mut on_delta = |delta: Delta| {
                published = true;
                on_delta(delta);
            };
            let timed = tokio::time::timeout(self.timeouts.overall, self.perform(request, &mut on_delta)).await;
            let late = |_| Err(Failure::new(FailureClass::Timeout, "the answer did not end in time"));
            let result = timed.unwrap_or_else(late);
            result.map_err(|failure| Failure { partial: published, ..failure }).into()
        };
        asked("scripted", request, call, cancelled).await
    }
}

#[cfg(test)]
mod tests;
