//! What clients send to make and change an agent, and what comes of it. Pure: no row is read or written here.

use domain::agent::StrategyRef;
use schemars::JsonSchema;
use serde::Deserialize;

use super::model::{Model, ModelParam};
use super::row::{AgentConfig, ExecutionIdentity, Skill, SkillKind};
use super::tools::{self, McpServer, ToolParam, Unreferenced};
use crate::body::Patch;
use crate::error::{ApiError, Result};
use crate::metadata::{self, Metadata, MetadataPatch};
use crate::resources::harnesses;

const NAME_CHARS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 2048;
const SYSTEM_CHARS_MAX: usize = 100_000;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateAgent {
    name: String,
    model: ModelParam,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    system: Option<String>,
    #[serde(default)]
    tools: Option<Vec<ToolParam>>,
    #[serde(default)]
    mcp_servers: Option<Vec<McpServer>>,
    #[serde(default)]
    skills: Option<Vec<SkillParam>>,
    #[serde(default)]
    #[schemars(with = "()")]
    multiagent: Option<serde_json::Value>,
    #[serde(default)]
    execution_identity: Option<ExecutionIdentity>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    strategy: Option<StrategyRef>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateAgent {
    /// The version that the client believes to be current.
    #[serde(default)]
    pub version: Option<u32>,
    #[serde(default)]
    name: Patch<String>,
    #[serde(default)]
    model: Patch<ModelParam>,
    #[serde(default)]
    description: Patch<String>,
    #[serde(default)]
    system: Patch<String>,
    #[serde(default)]
    tools: Patch<Vec<ToolParam>>,
    #[serde(default)]
    mcp_servers: Patch<Vec<McpServer>>,
    #[serde(default)]
    skills: Patch<Vec<SkillParam>>,
    #[serde(default)]
    #[schemars(with = "()")]
    multiagent: Patch<serde_json::Value>,
    #[serde(default)]
    execution_identity: Patch<ExecutionIdentity>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
    #[serde(default)]
    strategy: Patch<StrategyRef>,
}

/// Read in full, so that what is no skill is refused as such.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SkillParam {
    #[serde(rename = "type")]
    kind: SkillKind,
    skill_id: String,
    #[serde(default)]
    version: Option<String>,
}

impl CreateAgent {
    pub(super) fn resolve(self) -> Result<AgentConfig> {
        let config = AgentConfig {
            name: check_name(self.name)?,
            description: check_text("description", self.description, DESCRIPTION_CHARS_MAX)?,
            model: Model::resolve(self.model, None)?,
            system: check_system(self.system)?,
            tools: tools::resolve(self.tools.unwrap_or_default())?,
            mcp_servers: McpServer::check_all(self.mcp_servers.unwrap_or_default())?,
            skills: check_skills(self.skills.unwrap_or_default())?,
            multiagent: check_multiagent(self.multiagent)?,
            execution_identity: check_identity(self.execution_identity.unwrap_or_default())?,
            metadata: metadata::check(self.metadata.unwrap_or_default())?,
            strategy: check_strategy(self.strategy)?,
        };
        tools::check_servers(&config.tools, &config.mcp_servers, Unreferenced::Refused)?;
        Ok(config)
    }
}

impl UpdateAgent {
    /// The definition after the update. Omitted fields stay; lists are replaced whole; metadata is merged by key.
    pub(super) fn resolve(self, current: &AgentConfig) -> Result<AgentConfig> {
        let mut config = current.clone();
        if let Some(name) = self.name.not_null("name")? {
            config.name = check_name(name)?;
        }
        if let Some(model) = self.model.not_null("model")? {
            config.model = Model::resolve(model, Some(&current.model))?;
        }
        let description = self.description.or_keep(config.description);
        config.description = check_text("description", description, DESCRIPTION_CHARS_MAX)?;
        config.system = check_system(self.system.or_keep(config.system))?;
        match self.tools {
            Patch::Keep => {}
            Patch::Clear => config.tools.clear(),
            Patch::Set(params) => config.tools = tools::resolve(params)?,
        }
        match self.mcp_servers {
            Patch::Keep => {}
            Patch::Clear => config.mcp_servers.clear(),
            Patch::Set(servers) => config.mcp_servers = McpServer::check_all(servers)?,
        }
        match self.skills {
            Patch::Keep => {}
            Patch::Clear => config.skills.clear(),
            Patch::Set(skills) => config.skills = check_skills(skills)?,
        }
        check_multiagent(self.multiagent.or_keep(None))?;
        config.execution_identity = match self.execution_identity {
            Patch::Keep => config.execution_identity,
            Patch::Clear => ExecutionIdentity::default(),
            Patch::Set(identity) => check_identity(identity)?,
        };
        let patched = metadata::patched(config.metadata, self.metadata.unwrap_or_default());
        config.metadata = metadata::check(patched)?;
        config.strategy = check_strategy(self.strategy.or_keep(config.strategy))?;
        tools::check_servers(&config.tools, &config.mcp_servers, Unreferenced::Refused)?;
        Ok(config)
    }
}

fn check_name(name: String) -> Result<String> {
    match name.chars().count() {
        1..=NAME_CHARS_MAX => Ok(name),
        _ => Err(ApiError::field("name", format!("must be 1 to {NAME_CHARS_MAX} characters"))),
    }
}

/// An empty text is none.
fn check_text(field: &str, text: Option<String>, chars_max: usize) -> Result<Option<String>> {
    let text = text.filter(|text| !text.is_empty());
    match text.as_ref().map_or(0, |text| text.chars().count()) {
        chars if chars > chars_max => {
            Err(ApiError::field(field, format!("{chars} characters, at most {chars_max} are allowed")))
        }
        _ => Ok(text),
    }
}

pub(super) fn check_system(system: Option<String>) -> Result<Option<String>> {
    check_text("system", system, SYSTEM_CHARS_MAX)
}

pub(super) fn check_skills(skills: Vec<SkillParam>) -> Result<Vec<Skill>> {
    if skills.is_empty() { Ok(Vec::new()) } else { Err(ApiError::not_built("skills")) }
}

fn check_multiagent(multiagent: Option<serde_json::Value>) -> Result<()> {
    if multiagent.is_none() { Ok(()) } else { Err(ApiError::not_built("multiagent")) }
}

fn check_strategy(strategy: Option<StrategyRef>) -> Result<Option<StrategyRef>> {
    if let Some(strategy) = &strategy {
        harnesses::check_strategy(strategy)?;
    }
    Ok(strategy)
}

fn check_identity(identity: ExecutionIdentity) -> Result<ExecutionIdentity> {
    match identity {
        ExecutionIdentity::ServiceAccount => Ok(identity),
        ExecutionIdentity::AwsRole { .. } => Err(ApiError::not_built("execution_identity of type aws_role")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body::json;
    use crate::error::Kind;

    fn create(body: Value) -> Result<AgentConfig> {
        json::<CreateAgent>(body.to_string().as_bytes())?.resolve()
    }

    fn current() -> AgentConfig {
        create(json!({"name": "a", "model": {"id": "m", "effort": "low"}, "system": "be brief", "description": "d",
            "tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}],
            "mcp_servers": [{"type": "url", "name": "s", "url": "https://s.example.com"}],
            "metadata": {"a": "1", "b": "2"}}))
        .unwrap()
    }

    /// What an update changes: the fields that differ from before.
    fn update(body: Value) -> Result<Value> {
        let before = serde_json::to_value(current()).unwrap();
        let after = json::<UpdateAgent>(body.to_string().as_bytes())?.resolve(&current())?;
        let mut after = serde_json::to_value(after).unwrap();
        after.as_object_mut().unwrap().retain(|field, value| *value != before[field.as_str()]);
        Ok(after)
    }

    #[test]
    fn omitted_fields_are_empty() {
        let config = serde_json::to_value(create(json!({"name": "a", "model": "m"})).unwrap()).unwrap();
        let expected = json!({"name": "a", "description": null, "system": null, "tools": [], "mcp_servers": [],
            "skills": [], "multiagent": null, "metadata": {}, "execution_identity": {"type": "service_account"},
            "model": {"id": "m", "effort": {"type": "high"}, "speed": "standard"}});
        assert_eq!(config, expected);
        let nulls = json!({"name": "a", "model": "m", "description": null, "system": "", "tools": null,
            "mcp_servers": null, "skills": null, "multiagent": null, "metadata": null, "execution_identity": null});
        assert_eq!(serde_json::to_value(create(nulls).unwrap()).unwrap(), expected);
    }

    #[test]
    fn creation_is_refused_where_a_limit_or_rule_is_broken() {
        for (field, value, kind) in [
            ("name", json!(""), Kind::InvalidRequest),
            ("name", json!("n".repeat(257)), Kind::InvalidRequest),
            ("name", json!(null), Kind::InvalidRequest),
            ("name", json!(7), Kind::InvalidRequest),
            ("model", json!(null), Kind::InvalidRequest),
            ("description", json!("d".repeat(2049)), Kind::InvalidRequest),
            ("system", json!("s".repeat(100_001)), Kind::InvalidRequest),
            ("tools", json!([{"type": "mcp_toolset", "mcp_server_name": "no"}]), Kind::InvalidRequest),
            ("mcp_servers", json!([{"type": "url", "name": "s", "url": "https://a.com"}]), Kind::InvalidRequest),
            ("unknown", json!(1), Kind::InvalidRequest),
            ("skills", json!([{"type": "anthropic", "skill_id": "xlsx"}]), Kind::NotBuilt),
            ("multiagent", json!({"type": "coordinator", "agents": []}), Kind::NotBuilt),
            ("execution_identity", json!({"type": "aws_role", "role_arn": "arn"}), Kind::NotBuilt),
        ] {
            let mut body = json!({"name": "a", "model": "m"});
            body[field] = value;
            assert_eq!(create(body).unwrap_err().kind(), kind, "{field}");
        }
    }

    #[test]
    fn an_update_changes_what_it_names() {
        for (body, expected) in [
            (json!({}), json!({})),
            (json!({"name": "b"}), json!({"name": "b"})),
            (json!({"system": null}), json!({"system": null})),
            (json!({"description": ""}), json!({"description": null})),
            (json!({"tools": [], "mcp_servers": null}), json!({"tools": [], "mcp_servers": []})),
            (json!({"model": "m"}), json!({})),
            (json!({"model": "n"}), json!({"model": {"id": "n", "effort": {"type": "high"}, "speed": "standard"}})),
            (json!({"metadata": {"a": null, "b": "3", "c": "4"}}), json!({"metadata": {"b": "3", "c": "4"}})),
            (json!({"metadata": {}}), json!({})),
            (json!({"skills": [], "multiagent": null, "execution_identity": null}), json!({})),
        ] {
            assert_eq!(update(body.clone()).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn an_update_is_refused_as_a_whole() {
        let many: Value = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
        for body in [
            json!({"name": null}),
            json!({"model": null}),
            json!({"mcp_servers": []}),
            json!({"tools": []}),
            json!({"metadata": many}),
            json!({"metadata": {"k": "v".repeat(513)}}),
            json!({"metadata": {"k": 1}}),
            json!({"multiagent": {"type": "coordinator", "agents": []}}),
        ] {
            assert!(update(body.clone()).is_err(), "{body}");
        }
    }
}
