//! The tool by which a session reads its own log, `get_events`: an extension of ours, offered to whoever asks for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::PermissionPolicy;

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
    pub(super) fn resolve(param: LogToolParam) -> Self {
        // It shows a session nothing that is not its own.
        Self { permission_policy: param.permission_policy.unwrap_or(PermissionPolicy::AlwaysAllow) }
    }
}
