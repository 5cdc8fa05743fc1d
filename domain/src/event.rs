//! Session events: what a client sends, what a session emits. One variant for one type of the API.

use crate::{
    Time, Usage,
    content::{Content, Json},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A session event with its id and, once it is applied, its time.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub id: String,
    #[serde(flatten)]
    pub body: EventBody,
    #[serde(default)]
    pub processed_at: Option<Time>,
}

/// The types of a single-agent session, under their API names.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum EventBody {
    #[serde(rename = "user.message")]
    UserMessage { content: Content },
    #[serde(rename = "user.interrupt")]
    UserInterrupt {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_thread_id: Option<String>,
    },
    #[serde(rename = "user.tool_confirmation")]
    UserToolConfirmation {
        tool_use_id: String,
        result: Confirmation,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deny_message: Option<String>,
    },
    #[serde(rename = "user.custom_tool_result")]
    UserCustomToolResult {
        custom_tool_use_id: String,
        #[serde(default)]
        content: Content,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    },
    #[serde(rename = "user.tool_result")]
    UserToolResult {
        tool_use_id: String,
        #[serde(default)]
        content: Content,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    },
    #[serde(rename = "system.message")]
    SystemMessage { content: Content },

    #[serde(rename = "agent.message")]
    AgentMessage { content: Content },
    #[serde(rename = "agent.thinking")]
    AgentThinking {},
    #[serde(rename = "agent.tool_use")]
    AgentToolUse {
        name: String,
        input: Json,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluated_permission: Option<Permission>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluation: Option<Value>,
    },
    #[serde(rename = "agent.tool_result")]
    AgentToolResult {
        tool_use_id: String,
        #[serde(default)]
        content: Content,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    },
    #[serde(rename = "agent.mcp_tool_use")]
    AgentMcpToolUse {
        name: String,
        mcp_server_name: String,
        input: Json,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluated_permission: Option<Permission>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        evaluation: Option<Value>,
    },
    #[serde(rename = "agent.mcp_tool_result")]
    AgentMcpToolResult {
        mcp_tool_use_id: String,
        #[serde(default)]
        content: Content,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        is_error: Option<bool>,
    },
    #[serde(rename = "agent.custom_tool_use")]
    AgentCustomToolUse { name: String, input: Json },
    #[serde(rename = "agent.thread_context_compacted")]
    AgentThreadContextCompacted {},

    #[serde(rename = "session.status_running")]
    SessionStatusRunning {},
    #[serde(rename = "session.status_idle")]
    SessionStatusIdle { stop_reason: StopReason, stop_details: Option<StopDetails> },
    #[serde(rename = "session.status_rescheduled")]
    SessionStatusRescheduled {},
    #[serde(rename = "session.status_terminated")]
    SessionStatusTerminated {},
    #[serde(rename = "session.updated")]
    SessionUpdated {
        /// The full public agent snapshot, by reference; the api puts the object in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<Json>,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
        title: Option<Option<String>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        metadata: Option<std::collections::BTreeMap<String, String>>,
    },
    #[serde(rename = "session.usage")]
    SessionUsage { usage: Usage },
    #[serde(rename = "session.error")]
    SessionError { error: ErrorBody },
    #[serde(rename = "session.thread_status_running")]
    SessionThreadStatusRunning { session_thread_id: String, agent_name: String },
    #[serde(rename = "session.thread_status_idle")]
    SessionThreadStatusIdle {
        session_thread_id: String,
        agent_name: String,
        stop_reason: StopReason,
        stop_details: Option<StopDetails>,
    },
    #[serde(rename = "session.thread_status_rescheduled")]
    SessionThreadStatusRescheduled { session_thread_id: String, agent_name: String },
    #[serde(rename = "session.thread_status_terminated")]
    SessionThreadStatusTerminated { session_thread_id: String, agent_name: String },

    #[serde(rename = "span.model_request_start")]
    SpanModelRequestStart {},
    #[serde(rename = "span.model_request_end")]
    SpanModelRequestEnd { model_request_start_id: String, is_error: Option<bool>, model_usage: Usage },
}

impl EventBody {
    /// The `type` of the API, as in `types[]` filters and SSE event names.
    pub fn type_name(&self) -> &'static str {
        match self {
            EventBody::UserMessage { .. } => "user.message",
            EventBody::UserInterrupt { .. } => "user.interrupt",
            EventBody::UserToolConfirmation { .. } => "user.tool_confirmation",
            EventBody::UserCustomToolResult { .. } => "user.custom_tool_result",
            EventBody::UserToolResult { .. } => "user.tool_result",
            EventBody::SystemMessage { .. } => "system.message",
            EventBody::AgentMessage { .. } => "agent.message",
            EventBody::AgentThinking {} => "agent.thinking",
            EventBody::AgentToolUse { .. } => "agent.tool_use",
            EventBody::AgentToolResult { .. } => "agent.tool_result",
            EventBody::AgentMcpToolUse { .. } => "agent.mcp_tool_use",
            EventBody::AgentMcpToolResult { .. } => "agent.mcp_tool_result",
            EventBody::AgentCustomToolUse { .. } => "agent.custom_tool_use",
            EventBody::AgentThreadContextCompacted {} => "agent.thread_context_compacted",
            EventBody::SessionStatusRunning {} => "session.status_running",
            EventBody::SessionStatusIdle { .. } => "session.status_idle",
            EventBody::SessionStatusRescheduled {} => "session.status_rescheduled",
            EventBody::SessionStatusTerminated {} => "session.status_terminated",
            EventBody::SessionUpdated { .. } => "session.updated",
            EventBody::SessionUsage { .. } => "session.usage",
            EventBody::SessionError { .. } => "session.error",
            EventBody::SessionThreadStatusRunning { .. } => "session.thread_status_running",
            EventBody::SessionThreadStatusIdle { .. } => "session.thread_status_idle",
            EventBody::SessionThreadStatusRescheduled { .. } => "session.thread_status_rescheduled",
            EventBody::SessionThreadStatusTerminated { .. } => "session.thread_status_terminated",
            EventBody::SpanModelRequestStart {} => "span.model_request_start",
            EventBody::SpanModelRequestEnd { .. } => "span.model_request_end",
        }
    }

    /// Whether a client may send it.
    pub fn is_from_client(&self) -> bool {
        matches!(
            self,
            EventBody::UserMessage { .. }
                | EventBody::UserInterrupt { .. }
                | EventBody::UserToolConfirmation { .. }
                | EventBody::UserCustomToolResult { .. }
                | EventBody::UserToolResult { .. }
                | EventBody::SystemMessage { .. }
        )
    }

    /// The content of the event, if its type has any.
    pub fn content(&self) -> Option<&Content> {
        match self {
            EventBody::UserMessage { content }
            | EventBody::UserCustomToolResult { content, .. }
            | EventBody::UserToolResult { content, .. }
            | EventBody::SystemMessage { content }
            | EventBody::AgentMessage { content }
            | EventBody::AgentToolResult { content, .. }
            | EventBody::AgentMcpToolResult { content, .. } => Some(content),
            _ => None,
        }
    }

    pub fn content_mut(&mut self) -> Option<&mut Content> {
        match self {
            EventBody::UserMessage { content }
            | EventBody::UserCustomToolResult { content, .. }
            | EventBody::UserToolResult { content, .. }
            | EventBody::SystemMessage { content }
            | EventBody::AgentMessage { content }
            | EventBody::AgentToolResult { content, .. }
            | EventBody::AgentMcpToolResult { content, .. } => Some(content),
            _ => None,
        }
    }

    /// The use event that this result or confirmation answers.
    pub fn answers(&self) -> Option<&str> {
        match self {
            EventBody::UserToolConfirmation { tool_use_id, .. }
            | EventBody::UserToolResult { tool_use_id, .. }
            | EventBody::AgentToolResult { tool_use_id, .. } => Some(tool_use_id),
            EventBody::UserCustomToolResult { custom_tool_use_id, .. } => Some(custom_tool_use_id),
            EventBody::AgentMcpToolResult { mcp_tool_use_id, .. } => Some(mcp_tool_use_id),
            _ => None,
        }
    }
}

#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    Allow,
    Deny,
}

#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    Allow,
    Ask,
    Deny,
}

/// Why a session went idle.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StopReason {
    EndTurn {},
    RequiresAction { event_ids: Vec<String> },
    RetriesExhausted {},
    Refusal {},
}

#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopDetails {
    #[serde(rename = "type")]
    pub kind: String,
    pub category: Option<String>,
    pub explanation: Option<String>,
}

/// The `error` of `session.error`.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    #[serde(flatten)]
    pub kind: ErrorKind,
    pub message: String,
    pub retry_status: RetryStatus,
}

/// The `type` of an error, and what it is about.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum ErrorKind {
    #[serde(rename = "unknown_error")]
    Unknown,
    #[serde(rename = "model_overloaded_error")]
    ModelOverloaded,
    #[serde(rename = "model_rate_limited_error")]
    ModelRateLimited,
    #[serde(rename = "model_request_failed_error")]
    ModelRequestFailed,
    #[serde(rename = "billing_error")]
    Billing,
    #[serde(rename = "tool_use_limit_reached_error")]
    ToolUseLimitReached,
    #[serde(rename = "compaction_limit_reached_error")]
    CompactionLimitReached,
    #[serde(rename = "mcp_connection_failed_error")]
    McpConnectionFailed { mcp_server_name: String },
    #[serde(rename = "mcp_authentication_failed_error")]
    McpAuthenticationFailed { mcp_server_name: String },
    #[serde(rename = "repository_authentication_error")]
    RepositoryAuthentication { repository_url: String },
    #[serde(rename = "repository_forbidden_error")]
    RepositoryForbidden { repository_url: String },
    #[serde(rename = "repository_not_found_error")]
    RepositoryNotFound { repository_url: String },
    #[serde(rename = "repository_checkout_error")]
    RepositoryCheckout { repository_url: String },
    #[serde(rename = "repository_clone_error")]
    RepositoryClone { repository_url: String },
}

#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RetryStatus {
    Retrying,
    Exhausted,
    Terminal,
}

/// Reads a field that is there, so that null is a value of its own beside a field that is not.
pub(crate) fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_type_tag_is_the_api_name() {
        let bodies = [
            EventBody::UserMessage { content: Content::text("hi") },
            EventBody::AgentThinking {},
            EventBody::SessionStatusIdle { stop_reason: StopReason::EndTurn {}, stop_details: None },
            EventBody::SpanModelRequestStart {},
            EventBody::AgentToolUse {
                name: "bash".into(),
                input: Json::Inline { value: json!({"command": "ls"}) },
                evaluated_permission: Some(Permission::Allow),
                evaluation: None,
            },
        ];
        for body in bodies {
            let event = Event { id: "sevt_1".into(), body: body.clone(), processed_at: None };
            let value = serde_json::to_value(&event).unwrap();
            assert_eq!(value["type"], body.type_name());
            assert_eq!(serde_json::from_value::<Event>(value).unwrap(), event);
        }
    }

    #[test]
    fn a_title_that_was_cleared_is_not_one_that_stays() {
        for title in [None, Some(None), Some(Some("new".to_owned()))] {
            let body = EventBody::SessionUpdated { agent: None, title, metadata: None };
            let value = serde_json::to_value(&body).unwrap();
            assert_eq!(serde_json::from_value::<EventBody>(value).unwrap(), body);
        }
    }

    #[test]
    fn retry_status_is_an_object() {
        let error =
            ErrorBody { kind: ErrorKind::ModelOverloaded, message: "busy".into(), retry_status: RetryStatus::Retrying };
        assert_eq!(
            serde_json::to_value(error).unwrap(),
            json!({"type": "model_overloaded_error", "message": "busy", "retry_status": {"type": "retrying"}})
        );
        let kind = ErrorKind::RepositoryNotFound { repository_url: "https://a.test/b".into() };
        let error = ErrorBody { kind, message: "gone".into(), retry_status: RetryStatus::Retrying };
        let value = serde_json::to_value(&error).unwrap();
        assert_eq!(
            value,
            json!({"type": "repository_not_found_error", "repository_url": "https://a.test/b", "message": "gone",
                "retry_status": {"type": "retrying"}})
        );
        assert_eq!(serde_json::from_value::<ErrorBody>(value).unwrap(), error);
    }
}
