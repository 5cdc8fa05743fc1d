//! Token counts of model requests.

use serde::{Deserialize, Serialize};

/// Tokens of one model request, or summed over a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_creation_5m_tokens: u64,
    pub cache_creation_1h_tokens: u64,
    pub cache_read_input_tokens: u64,
}

impl Usage {
    /// All tokens that this request put in front of the model.
    pub fn context_tokens(&self) -> u64 {
        self.input_tokens + self.cache_creation() + self.cache_read_input_tokens
    }

    pub fn cache_creation(&self) -> u64 {
        self.cache_creation_5m_tokens + self.cache_creation_1h_tokens
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_creation_5m_tokens += other.cache_creation_5m_tokens;
        self.cache_creation_1h_tokens += other.cache_creation_1h_tokens;
        self.cache_read_input_tokens += other.cache_read_input_tokens;
    }
}
