//! Previews of an answer while it is being written. Best effort: never in history, lost without harm.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    pub session_id: String,
    /// The id that the event will have, if the answer is finished by this attempt.
    pub event_id: String,
    #[serde(flatten)]
    pub what: DeltaKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "delta", rename_all = "snake_case")]
pub enum DeltaKind {
    /// First for its event.
    Start { event_type: String },
    /// More text of an `agent.message`.
    Text { text: String },
}
