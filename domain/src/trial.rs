//! Workflows that try something on recorded sessions, from outside: their name, and what they are given and give back.
//!
//! These are data in history: a field may be added with a default, none may change its meaning.

use serde::{Deserialize, Serialize};

pub const WORKFLOW_TYPE: &str = "TrialWorkflow";

/// Input; `I` is what one trial is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialInput<I> {
    pub trial_id: String,
    pub trials: Vec<I>,
}

/// What came of one trial; `R` is its report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Tried<R> {
    Report {
        report: R,
    },
    /// Why there is none.
    Failed {
        why: String,
    },
}
