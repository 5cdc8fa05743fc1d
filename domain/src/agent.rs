//! What a session keeps of its agent: the snapshot (a blob) and the facts that decisions need (by value).

use crate::{HandName, content::BlobRef, egress::Domains};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The agent as a model request needs it, as it was when the session took it over. Stored as a blob;
/// its hash stands in every recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentSnapshot {
    /// The agent object of the public API, without timestamps and metadata.
    pub public: Value,
    pub model: ModelParams,
    pub system: Option<String>,
    /// Every tool that is offered to the model, with the texts it is offered with. Those of MCP servers are among them once
    /// their server was asked.
    pub tools: Vec<ToolSpec>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp: Vec<McpToolset>,
    /// Where `web_fetch` is among the tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_fetch: Option<WebFetch>,
}

/// How `web_fetch` may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebFetch {
    #[serde(default)]
    pub domains: Domains,
    /// Of one page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_content_tokens: Option<u32>,
    #[serde(default)]
    pub user_input: Source,
    /// By the names of custom tools.
    #[serde(default)]
    pub client_tool_results: Source,
    /// By the names of the service's own.
    #[serde(default)]
    pub server_tool_results: Source,
}

/// Whether a URL that stood there may be fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    #[default]
    All,
    None,
    Only(Vec<String>),
    Except(Vec<String>),
}

impl Source {
    pub fn holds(&self, tool: &str) -> bool {
        match self {
            Source::All => true,
            Source::None => false,
            Source::Only(tools) => tools.iter().any(|name| name == tool),
            Source::Except(tools) => tools.iter().all(|name| name != tool),
        }
    }
}

/// What of an MCP server's tools the agent may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct McpToolset {
    pub server: String,
    #[serde(flatten)]
    pub at: McpAt,
    /// For every tool that is not in `tools`.
    pub default: ToolConfig,
    /// By the server's name for the tool.
    #[serde(default)]
    pub tools: BTreeMap<String, ToolConfig>,
}

/// Where an MCP server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum McpAt {
    /// Out in the network, reached through egress.
    Url { url: String },
    /// In one of the session's hands, which starts it.
    Inside { inside: McpProgram },
}

/// What is started in a hand and speaks on its stdin and stdout. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpProgram {
    pub hand: HandName,
    pub command: String,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl McpToolset {
    /// The hand that it lives in, if it does in one.
    pub fn hand(&self) -> Option<&HandName> {
        match &self.at {
            McpAt::Url { .. } => None,
            McpAt::Inside { inside } => Some(&inside.hand),
        }
    }

    pub fn config(&self, tool: &str) -> ToolConfig {
        self.tools.get(tool).copied().unwrap_or(self.default)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolConfig {
    pub enabled: bool,
    pub policy: Policy,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelParams {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// Output tokens of one request.
    pub max_tokens: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    pub name: String,
    pub description: String,
    pub input_schema: Value,
    #[serde(flatten)]
    pub kind: ToolKind,
    pub policy: Policy,
}

/// Who runs a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToolKind {
    /// One of `agent_toolset_20260401`, run in a hand.
    Builtin,
    /// Run by the client.
    Custom,
    /// Run by an MCP server, which calls it `tool`.
    Mcp {
        server: String,
        tool: String,
        /// The hand that the server lives in; none for one that is reached through egress.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        inside: Option<HandName>,
    },
    /// Run by a brain worker, which reads the session's own log.
    Log,
    /// One of `agent_toolset_20260401` that no hand runs: `web_fetch`.
    Web,
}

/// `permission_policy` of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    AlwaysAllow,
    AlwaysAsk,
    /// A model judges each call. Builds before it cannot read an agent that has it.
    Auto,
}

/// What decisions need to know of the agent without reading a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentFacts {
    pub agent_id: String,
    pub version: u32,
    pub name: String,
    pub model: String,
    /// Tokens that the model can take in.
    pub window_tokens: u64,
    pub max_tokens: u32,
    pub tools: Vec<ToolFact>,
    /// The agent's MCP servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mcp: Vec<McpFact>,
    /// Its hands beside the main one: what calls may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hands: Vec<HandName>,
    pub strategy: StrategyRef,
    /// Shims of the harness that are switched off, by name.
    #[serde(default)]
    pub shims_off: Vec<String>,
    pub snapshot: BlobRef,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpFact {
    pub server: String,
    /// It said which tools it has: they are among the agent's.
    pub listed: bool,
    /// The hand that it lives in; none for one that is reached through egress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<HandName>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolFact {
    pub name: String,
    #[serde(flatten)]
    pub kind: ToolKind,
    pub policy: Policy,
}

/// A context strategy by name and version, with its parameters.
// What may be left out of a request is always shown, so it is two schemas.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(inline))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StrategyRef {
    pub name: String,
    pub version: u32,
    #[serde(default)]
    pub params: Value,
}

/// A harness by name, version and the sha-256 of its source.
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarnessRef {
    pub name: String,
    pub version: u32,
    pub sha256: String,
}

impl std::fmt::Display for HarnessRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}
