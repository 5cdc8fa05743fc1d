//! The tool by which a session reads its own log, `get_events`: an extension of ours, offered to whoever asks for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PermissionPolicy;
use crate::error::Result;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LogTool {
    pub permission_policy: PermissionPolicy,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogToolParam {
    #[serde(default)]
    permission_policy: Option<PermissionPolicy>,
}

impl LogTool {
    pub(super) fn resolve(param: LogToolParam, at: &str) -> Result<Self> {
        // It shows a session nothing that is not its own.
        let policy = param.permission_policy.unwrap_or(PermissionPolicy::AlwaysAllow);
        Ok(Self { permission_policy: policy.supported(&format!("{at}.permission_policy"))? })
    }
}
