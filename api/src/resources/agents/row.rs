//! An agent's definition, the rows that keep it and the object that clients see.

use domain::agent::StrategyRef;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use store::{Record, Table};

use super::model::Model;
use super::tools::{McpServer, Tool};
use crate::metadata::Metadata;
use crate::time;

/// The definition, with every default filled in: what a version is a version of.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AgentConfig {
    pub name: String,
    pub description: Option<String>,
    pub model: Model,
    pub system: Option<String>,
    pub tools: Vec<Tool>,
    pub mcp_servers: Vec<McpServer>,
    pub skills: Vec<Skill>,
    /// Always null: agents of several threads are not built.
    pub multiagent: (),
    pub execution_identity: ExecutionIdentity,
    pub metadata: Metadata,
    /// Ours: the context strategy of its sessions, where they ask for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyRef>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Skill {
    #[serde(rename = "type")]
    pub kind: SkillKind,
    pub skill_id: String,
    pub version: String,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkillKind {
    Anthropic,
    Custom,
}

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ExecutionIdentity {
    #[default]
    ServiceAccount,
    #[schemars(skip)]
    AwsRole { role_arn: String },
}

/// The agent as it is now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AgentRow {
    pub id: String,
    pub version: u32,
    pub config: AgentConfig,
    pub created_at: Timestamp,
    /// When this version was made.
    pub updated_at: Timestamp,
    pub archived_at: Option<Timestamp>,
}

impl Record for AgentRow {
    const TABLE: Table = Table::new("agents");
    const VERSION: u32 = 1;
}

/// One version, never changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VersionRow {
    pub version: u32,
    pub config: AgentConfig,
    pub made_at: Timestamp,
}

impl Record for VersionRow {
    const TABLE: Table = Table::new("agent_versions");
    const VERSION: u32 = 1;
}

impl VersionRow {
    pub fn of(agent: &AgentRow) -> Self {
        Self { version: agent.version, config: agent.config.clone(), made_at: agent.updated_at }
    }

    pub fn prefix(agent_id: &str) -> String {
        format!("{agent_id}/")
    }

    pub fn key(agent_id: &str, version: u32) -> String {
        format!("{agent_id}/{version:010}")
    }

    /// The agent as it was at this version.
    pub fn of_agent(self, agent: &AgentRow) -> AgentRow {
        AgentRow {
            id: agent.id.clone(),
            version: self.version,
            config: self.config,
            created_at: agent.created_at,
            updated_at: self.made_at,
            archived_at: agent.archived_at,
        }
    }
}

/// As clients see it.
#[derive(Serialize, JsonSchema)]
pub struct Agent {
    id: String,
    #[serde(rename = "type")]
    #[schemars(extend("const" = "agent"))]
    kind: &'static str,
    version: u32,
    #[serde(flatten)]
    config: AgentConfig,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    created_at: Timestamp,
    #[serde(serialize_with = "time::wire")]
    #[schemars(with = "Timestamp")]
    updated_at: Timestamp,
    #[serde(serialize_with = "time::wire_option")]
    #[schemars(with = "Option<Timestamp>")]
    archived_at: Option<Timestamp>,
}

impl From<AgentRow> for Agent {
    fn from(row: AgentRow) -> Self {
        let AgentRow { id, version, config, created_at, updated_at, archived_at } = row;
        Self { id, kind: "agent", version, config, created_at, updated_at, archived_at }
    }
}
