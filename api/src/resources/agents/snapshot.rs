//! The agent that a session runs: one version of it, with the session's own changes. Later updates of the agent do not
//! touch it, and its changes do not touch the agent.

use domain::agent::StrategyRef;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{Model, ModelParam};
use super::row::{AgentRow, ExecutionIdentity, Skill};
use super::tools::{self, McpServer, Tool, ToolParam, Unreferenced};
use super::update::{SkillParam, check_skills, check_system};
use crate::app::App;
use crate::body::Patch;
use crate::error::{ApiError, Result};
use crate::shorthand::TextOr;

/// As clients see it and as a session keeps it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AgentSnapshot {
    pub id: String,
    #[serde(rename = "type")]
    kind: AgentKind,
    pub version: u32,
    pub name: String,
    pub description: Option<String>,
    pub model: Model,
    pub system: Option<String>,
    pub tools: Vec<Tool>,
    pub mcp_servers: Vec<McpServer>,
    pub skills: Vec<Skill>,
    pub multiagent: (),
    pub execution_identity: ExecutionIdentity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<StrategyRef>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum AgentKind {
    Agent,
}

/// The `agent` of a session to be created: the id of an agent, or an object.
pub type AgentParam = TextOr<AgentReference>;

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentReference {
    Agent(Pinned),
    AgentWithOverrides(Overridden),
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    id: String,
    #[serde(default)]
    version: Option<u32>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overridden {
    id: String,
    #[serde(default)]
    version: Option<u32>,
    #[serde(default)]
    model: Patch<ModelParam>,
    #[serde(default)]
    system: Patch<String>,
    #[serde(default)]
    tools: Patch<Vec<ToolParam>>,
    #[serde(default)]
    mcp_servers: Patch<Vec<McpServer>>,
    #[serde(default)]
    skills: Patch<Vec<SkillParam>>,
}

/// A session's own changes to its agent: a value replaces whole, null clears, omitted inherits.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Overrides {
    pub model: Patch<ModelParam>,
    pub system: Patch<String>,
    pub tools: Patch<Vec<ToolParam>>,
    pub mcp_servers: Patch<Vec<McpServer>>,
    pub skills: Patch<Vec<SkillParam>>,
}

/// Finds the agent that a new session names and makes its snapshot. An archived agent is refused.
pub async fn resolve(app: &App, param: AgentParam) -> Result<AgentSnapshot> {
    let (id, version, overrides) = match param {
        TextOr::Text(id) => (id, None, Overrides::default()),
        TextOr::Object(AgentReference::Agent(Pinned { id, version })) => (id, version, Overrides::default()),
        TextOr::Object(AgentReference::AgentWithOverrides(param)) => {
            let Overridden { id, version, model, system, tools, mcp_servers, skills } = param;
            (id, version, Overrides { model, system, tools, mcp_servers, skills })
        }
    };
    let agent = super::load(app, &id, version).await?;
    if agent.archived_at.is_some() {
        return Err(ApiError::field("agent", format!("agent {id} is archived")));
    }
    AgentSnapshot::from(agent).overridden(overrides)
}

impl From<AgentRow> for AgentSnapshot {
    fn from(row: AgentRow) -> Self {
        let config = row.config;
        Self {
            id: row.id,
            kind: AgentKind::Agent,
            version: row.version,
            name: config.name,
            description: config.description,
            model: config.model,
            system: config.system,
            tools: config.tools,
            mcp_servers: config.mcp_servers,
            skills: config.skills,
            multiagent: config.multiagent,
            execution_identity: config.execution_identity,
            strategy: config.strategy,
        }
    }
}

impl AgentSnapshot {
    /// The snapshot with changes of its session, that a client sent under `agent`. Pure.
    pub fn overridden(self, overrides: Overrides) -> Result<Self> {
        self.apply(overrides).map_err(|error| error.within("agent"))
    }

    fn apply(mut self, overrides: Overrides) -> Result<Self> {
        match overrides.model {
            Patch::Keep => {}
            Patch::Clear => {
                return Err(ApiError::field("model", "cannot be null").code("agent_model_required"));
            }
            // The effort that an override names does not count: the model's default does.
            Patch::Set(param) => {
                let model = Model::resolve(param, None)?;
                self.model = Model { effort: Default::default(), ..model };
            }
        }
        self.system = check_system(overrides.system.or_keep(self.system))?;
        match overrides.skills {
            Patch::Keep => {}
            Patch::Clear => self.skills.clear(),
            Patch::Set(skills) => self.skills = check_skills(skills)?,
        }
        match overrides.tools {
            Patch::Keep => {}
            Patch::Clear => self.tools.clear(),
            Patch::Set(params) => self.tools = tools::resolve(params)?,
        }
        if self.tools.is_empty() && !self.skills.is_empty() {
            return Err(ApiError::field("tools", "cannot be cleared while there are skills, which need read"));
        }
        match overrides.mcp_servers {
            Patch::Keep => {}
            Patch::Clear => self.mcp_servers.clear(),
            Patch::Set(servers) => self.mcp_servers = McpServer::check_all(servers)?,
        }
        tools::check_servers(&self.tools, &self.mcp_servers, Unreferenced::Allowed)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body::json;

    fn base() -> AgentSnapshot {
        let snapshot = json!({"id": "agent_1", "type": "agent", "version": 3, "name": "a", "description": null,
            "model": {"id": "m", "effort": {"type": "low"}, "speed": "fast"}, "system": "be brief",
            "tools": [{"type": "mcp_toolset", "mcp_server_name": "s", "configs": [],
                "default_config": {"enabled": true, "permission_policy": {"type": "always_ask"}}}],
            "mcp_servers": [{"type": "url", "name": "s", "url": "https://s.example.com"}],
            "skills": [], "multiagent": null, "execution_identity": {"type": "service_account"}});
        serde_json::from_value(snapshot).unwrap()
    }

    fn overridden(base: AgentSnapshot, mut body: Value) -> Result<AgentSnapshot> {
        body["type"] = json!("agent_with_overrides");
        body["id"] = json!("agent_1");
        let TextOr::Object(AgentReference::AgentWithOverrides(param)) = json(body.to_string().as_bytes())? else {
            panic!("not overrides")
        };
        let Overridden { model, system, tools, mcp_servers, skills, .. } = param;
        base.overridden(Overrides { model, system, tools, mcp_servers, skills })
    }

    #[test]
    fn a_reference_is_an_id_a_pin_or_overrides() {
        for (body, sound) in [
            (json!("agent_1"), true),
            (json!({"type": "agent", "id": "agent_1"}), true),
            (json!({"type": "agent", "id": "agent_1", "version": 2}), true),
            (json!({"type": "agent", "id": "agent_1", "system": "x"}), false),
            (json!({"type": "agent_with_overrides", "id": "agent_1", "system": "x"}), true),
            (json!({"type": "agent_with_overrides", "id": "agent_1", "name": "x"}), false),
            (json!({"id": "agent_1"}), false),
            (json!(1), false),
        ] {
            assert_eq!(json::<AgentParam>(body.to_string().as_bytes()).is_ok(), sound, "{body}");
        }
    }

    #[test]
    fn overrides_replace_whole_and_null_clears() {
        let toolset = json!({"type": "agent_toolset_20260401", "configs": [],
            "default_config": {"enabled": true, "permission_policy": {"type": "always_allow"}}});
        for (body, changed) in [
            (json!({}), json!({})),
            (json!({"system": "be long"}), json!({"system": "be long"})),
            (json!({"system": null}), json!({"system": null})),
            (json!({"tools": null}), json!({"tools": []})),
            (json!({"tools": null, "mcp_servers": []}), json!({"tools": [], "mcp_servers": []})),
            (json!({"tools": [{"type": "agent_toolset_20260401"}]}), json!({"tools": [toolset]})),
            (json!({"skills": null}), json!({})),
            (
                json!({"model": {"id": "n", "effort": "max", "speed": "fast"}}),
                json!({"model": {"id": "n", "effort": {"type": "high"}, "speed": "fast"}}),
            ),
        ] {
            let mut expected = serde_json::to_value(base()).unwrap();
            expected.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
            let found = overridden(base(), body.clone()).unwrap();
            assert_eq!(serde_json::to_value(found).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn what_would_leave_a_broken_agent_is_refused() {
        let with_skill = || {
            let skill = json!({"type": "anthropic", "skill_id": "xlsx", "version": "1"});
            AgentSnapshot { skills: vec![serde_json::from_value(skill).unwrap()], ..base() }
        };
        let refused = overridden(base(), json!({"model": null})).unwrap_err();
        assert_eq!(refused.message(), "agent.model: cannot be null");
        assert!(overridden(base(), json!({"mcp_servers": null})).is_err());
        assert!(overridden(base(), json!({"tools": [{"type": "mcp_toolset", "mcp_server_name": "t"}]})).is_err());
        assert!(overridden(base(), json!({"system": "s".repeat(100_001)})).is_err());
        assert!(overridden(with_skill(), json!({"tools": []})).is_err());
        assert!(overridden(with_skill(), json!({"tools": [], "skills": []})).is_ok());
    }
}
