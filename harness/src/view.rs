//! What a harness sees (`View`) and what it returns (`Decision`): the interface that outlives harnesses.
//!
//! A View is built from the log alone, so the same log always gives the same View; its hash stands in the
//! commit and proves it. A new field comes with a new [`VERSION`] and the old builder stays.

use domain::{
    Failure, Step, Time, Usage,
    agent::{StrategyRef, ToolFact},
    event::ErrorBody,
    limits::VIEW_BYTES_MAX,
    outcome::{BlockDigest, ToolDigest},
};
use serde::{Deserialize, Serialize};

/// Version of the View that this build makes.
pub const VERSION: u32 = 2;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub version: u32,
    pub now: Time,
    /// Of session id and decision number: the only chance a harness has.
    pub seed: u64,
    /// Turns begun in this session, this one included.
    pub turn: u64,
    /// Model requests made in this turn.
    pub round: u32,
    /// The last model request, if nothing was decided on it yet.
    pub last: Option<Last>,
    /// Uses that the model asked for and nothing was decided about.
    pub calls: Vec<CallView>,
    /// Results since the last model request.
    pub results: Vec<ToolDigest>,
    /// Accepted events that wait for the next turn.
    pub queued: Vec<Queued>,
    pub context: ContextView,
    pub agent: AgentView,
    /// What the harness returned as memo in an earlier step.
    pub memo: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "last", rename_all = "snake_case")]
pub enum Last {
    Answer {
        stop_reason: String,
        usage: Usage,
        blocks: Vec<BlockDigest>,
        refusal: Option<String>,
    },
    Failed {
        failure: Failure,
        /// Failed requests in a row, this one included.
        tries: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallView {
    pub tool_use_id: String,
    pub name: String,
    pub input_sha256: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queued {
    pub id: String,
    pub kind: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextView {
    /// Tokens of the last request and its answer, and a quarter of the bytes that came since.
    pub tokens: u64,
    pub window_tokens: u64,
    /// Position of the next event of the log. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// Summaries since the model's last answer. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compactions: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentView {
    pub model: String,
    pub tools: Vec<ToolFact>,
    pub strategy: StrategyRef,
    pub shims_off: Vec<String>,
}

/// What a harness answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub step: Step,
    /// Become `session.error` events, in order.
    #[serde(default)]
    pub errors: Vec<ErrorBody>,
    /// At most `limits::MEMO_BYTES_MAX` bytes; `None` keeps what was there.
    #[serde(default)]
    pub memo: Option<String>,
}

impl From<Step> for Decision {
    fn from(step: Step) -> Self {
        Decision { step, errors: Vec::new(), memo: None }
    }
}

impl View {
    /// The bytes that are hashed and, for a harness that is data, handed over.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a view has string keys only")
    }

    /// The first moment of a session without an agent: what every harness must be able to decide on.
    pub fn probe(version: u32) -> Self {
        View {
            version: VERSION,
            now: Time::from_ms(0),
            seed: 0,
            turn: 1,
            round: 0,
            last: None,
            calls: Vec::new(),
            results: Vec::new(),
            queued: Vec::new(),
            context: ContextView { tokens: 0, window_tokens: 200_000, end: Some(3), compactions: Some(0) },
            agent: AgentView {
                model: "probe".to_owned(),
                tools: Vec::new(),
                strategy: crate::context::default_strategy(),
                shims_off: Vec::new(),
            },
            memo: None,
        }
        .at(version)
    }

    /// The View as builds of an earlier version made it: without the fields that came later.
    pub(crate) fn at(mut self, version: u32) -> Self {
        self.version = version;
        if version < 2 {
            self.context.end = None;
            self.context.compactions = None;
        }
        self.fit()
    }

    /// Cuts what can be cut, oldest and longest first, until the View fits its limit.
    fn fit(mut self) -> Self {
        let mut edge = domain::limits::VIEW_TEXT_EDGE_BYTES;
        while self.to_json().len() > VIEW_BYTES_MAX && edge > 0 {
            edge /= 2;
            if let Some(Last::Answer { blocks, .. }) = &mut self.last {
                for block in blocks {
                    block.head.truncate(block.head.floor_char_boundary(edge));
                    block.tail.truncate(block.tail.floor_char_boundary(edge));
                }
            }
            for result in &mut self.results {
                result.head.truncate(result.head.floor_char_boundary(edge / 4));
            }
        }
        while self.to_json().len() > VIEW_BYTES_MAX && self.results.len() > 1 {
            self.results.remove(0);
        }
        self
    }
}
