//! Rollouts of harnesses from outside: the workflow's name, input and signals, and what it is told to do.
//!
//! These are data in history: a field may be added with a default, none may change its meaning.

use crate::{Time, agent::HarnessRef, content::BlobRef};
use serde::{Deserialize, Serialize};

pub const WORKFLOW_TYPE: &str = "RolloutWorkflow";

/// Signal names.
pub mod signal {
    pub const COMMAND: &str = "command";
    pub const OBSERVED: &str = "observed";
}

/// Input of every run of a rollout; `S` is its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutInput<S> {
    pub rollout_id: String,
    #[serde(flatten)]
    pub from: Origin<S>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "origin", rename_all = "snake_case")]
pub enum Origin<S> {
    /// The first run.
    Created { created_at: Time, spec: Box<Spec> },
    /// Every later run.
    Continued { state: Box<S>, mailbox: Vec<Mail> },
}

/// What is to be rolled out, to whom, and what stops it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    pub from: HarnessRef,
    pub to: HarnessRef,
    /// Sessions of this agent alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    pub gate: Gate,
    /// Percent of sessions, rising.
    pub stages: Vec<u8>,
    /// Live sessions are swapped too, at their turn boundary.
    #[serde(default)]
    pub live: bool,
    pub watch: Watch,
    /// Decisions after which a run continues as new, before the engine suggests it. 0: only when suggested.
    #[serde(default)]
    pub decisions_per_run: u64,
}

/// What the new version has to pass before any session gets it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// [`Recorded`] sessions, as a JSON list.
    pub sample: BlobRef,
    pub sessions: u32,
    /// Any decision that differs from the record is a failure.
    #[serde(default)]
    pub strict: bool,
}

/// A recorded session in a sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    pub session_id: String,
    /// The manifest of its whole log, if it is over: histories may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<BlobRef>,
}

/// When the new version counts as worse than the old one, and when a stage is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    /// Sessions with a turn behind them that either version needs before the two are compared, and the new one in each
    /// stage before the next begins.
    pub sessions_min: u64,
    /// Milliseconds that a stage lasts at least.
    pub stage_ms: u64,
    /// Largest probability that a version no worse than the old one shows a difference as large.
    pub alpha: f64,
    /// By how much, as a share of the old version's mean, requests, tokens, cost and time of a turn may rise.
    pub tolerance: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

/// What a million tokens cost, in dollars.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    pub input: f64,
    pub output: f64,
    #[serde(default)]
    pub cache_read: f64,
    #[serde(default)]
    pub cache_write: f64,
}

/// A message to the workflow, as it waits in the mailbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mail", rename_all = "snake_case")]
pub enum Mail {
    Command { command: Command },
    Observed { observed: Box<Observed> },
}

/// Signal `command`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// What redelivery is recognised by.
    pub id: String,
    pub to: Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Stay where it is. The watch goes on.
    Pause,
    Resume,
    /// Give the new version to everybody, now.
    Promote,
    /// Give it to nobody any more.
    Rollback,
}

/// Signal `observed`: how the sessions of both versions do, whole; a later one replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub old: Figures,
    pub new: Figures,
}

/// Sessions of one version that have at least one turn behind them. A session counts once, with the mean of its turns: it
/// is sessions that are given a version by lot, not turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    pub sessions: u64,
    /// Of these, sessions of which a turn ended in `retries_exhausted`.
    pub failed: u64,
    pub turns: u64,
    /// Model requests of a turn.
    pub requests: Moments,
    /// Tokens of a turn, of every kind.
    pub tokens: Moments,
    /// Dollars of a turn, where prices are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Moments>,
    /// Milliseconds that a turn ran.
    pub active_ms: Moments,
}

/// A sample, as far as its mean and its spread go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    pub n: u64,
    pub sum: f64,
    pub sum_of_squares: f64,
}

impl Moments {
    pub fn add(&mut self, value: f64) {
        self.n += 1;
        self.sum += value;
        self.sum_of_squares += value * value;
    }

    pub fn mean(&self) -> f64 {
        if self.n == 0 { 0.0 } else { self.sum / self.n as f64 }
    }

    /// The unbiased estimate; 0 for fewer than two values.
    pub fn variance(&self) -> f64 {
        if self.n < 2 {
            return 0.0;
        }
        let n = self.n as f64;
        ((self.sum_of_squares - self.sum * self.sum / n) / (n - 1.0)).max(0.0)
    }
}
