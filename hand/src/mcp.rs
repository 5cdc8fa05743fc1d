//! Requests of MCP servers that live in a hand, and what comes back: the input and the result of a call named [`NAME`].
//!
//! It is no tool that a model is offered. Whoever asks reads the answer; on its way it is text, which nothing else interprets.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What such a call is named in the journal.
pub const NAME: &str = "mcp";

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// One of this name runs at a time.
    pub server: String,
    pub program: Program,
    pub request: Request,
}

/// How a server is started: in the workspace, with the sandbox's environment and this.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Program {
    pub command: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Which tools it has.
    List {},
    Call {
        tool: String,
        arguments: Value,
    },
}

/// What the server said. That it said nothing is an error result, in words.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Tools(Vec<Value>),
    /// Of a call.
    Result(Value),
    /// An error of the protocol: nothing was done.
    Refused {
        code: i64,
        message: String,
    },
}
