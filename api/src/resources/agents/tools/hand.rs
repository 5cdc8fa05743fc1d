//! Another hand of an agent's sessions, beside the one that they have anyway: an extension of ours. The built-in tools then say which
//! hand runs a call.

use domain::HandName;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Result};

/// Each has processes and a disk of its own.
pub const HANDS_MAX: usize = 8;
/// It stands in the schema of every built-in tool.
const DESCRIPTION_CHARS_MAX: usize = 500;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct NamedHand {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedHandParam {
    name: String,
    #[serde(default)]
    description: Option<String>,
}

impl NamedHand {
    pub(super) fn resolve(param: NamedHandParam, at: &str) -> Result<Self> {
        let NamedHandParam { name, description } = param;
        if HandName::other(&name).is_none() {
            let problem = format!(
                "must be a lower-case letter and up to {} more letters, digits, underscores and hyphens, and not {}",
                HandName::CHARS_MAX - 1,
                HandName::MAIN
            );
            return Err(ApiError::field(format!("{at}.name"), problem));
        }
        if description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX) {
            let problem = format!("at most {DESCRIPTION_CHARS_MAX} characters");
            return Err(ApiError::field(format!("{at}.description"), problem));
        }
        Ok(Self { name, description })
    }
}
