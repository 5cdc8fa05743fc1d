//! The tools of an agent: the built-in toolset, MCP toolsets, custom tools, the one that reads the session's own log, and the hands
//! beside the main one, as clients send them and as they are kept, with every default filled in.

mod custom;
mod hand;
mod mcp;
mod own_log;
mod stdio;
mod toolset;
mod web;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::custom::CustomTool;
pub use self::hand::NamedHand;
pub use self::mcp::{McpServer, McpToolset};
pub use self::own_log::LogTool;
pub use self::toolset::{AgentToolset, BUILT_IN, ToolConfig};
pub(crate) use self::web::{WEB_FETCH, is_host};
use crate::app::App;
use crate::error::{ApiError, Result};

/// The most tools of one agent, over all of its toolsets.
const TOOLS_MAX: usize = 256;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Tool {
    #[serde(rename = "agent_toolset_20260401")]
    AgentToolset(AgentToolset),
    McpToolset(McpToolset),
    Custom(CustomTool),
    SessionLog(LogTool),
    Hand(NamedHand),
}

/// As clients send it.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolParam {
    #[serde(rename = "agent_toolset_20260401")]
    AgentToolset(toolset::AgentToolsetParam),
    McpToolset(mcp::McpToolsetParam),
    Custom(custom::CustomToolParam),
    SessionLog(own_log::LogToolParam),
    Hand(hand::NamedHandParam),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum PermissionPolicy {
    AlwaysAllow,
    AlwaysAsk,
    /// Of a service in which a model judges calls.
    Auto,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "ToolDefaults")]
pub struct DefaultConfig {
    pub enabled: bool,
    pub permission_policy: PermissionPolicy,
}

#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ToolDefaultsParam")]
pub struct DefaultConfigParam {
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    permission_policy: Option<PermissionPolicy>,
}

impl DefaultConfig {
    fn resolve(param: Option<DefaultConfigParam>, policy: PermissionPolicy) -> Self {
        let DefaultConfigParam { enabled, permission_policy } = param.unwrap_or_default();
        Self { enabled: enabled.unwrap_or(true), permission_policy: permission_policy.unwrap_or(policy) }
    }
}

/// Who judges calls under the policy `auto`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judge {
    Model,
    Nobody,
}

impl Judge {
    pub fn of(app: &App) -> Self {
        if app.judges { Judge::Model } else { Judge::Nobody }
    }

    /// Refuses `auto` where nobody judges.
    pub fn check(self, tools: &[Tool]) -> Result<()> {
        let is_auto = |policy: PermissionPolicy| policy == PermissionPolicy::Auto && self == Judge::Nobody;
        for (n, tool) in tools.iter().enumerate() {
            let (default, configs): (_, Vec<PermissionPolicy>) = match tool {
                Tool::AgentToolset(AgentToolset { default_config, configs }) => {
                    (default_config.permission_policy, configs.iter().map(|config| config.permission_policy).collect())
                }
                Tool::McpToolset(McpToolset { default_config, configs, .. }) => {
                    (default_config.permission_policy, configs.iter().map(|config| config.permission_policy).collect())
                }
                Tool::SessionLog(LogTool { permission_policy }) => (*permission_policy, Vec::new()),
                Tool::Custom(_) | Tool::Hand(_) => continue,
            };
            let at = match configs.into_iter().position(is_auto) {
                _ if is_auto(default) && matches!(tool, Tool::SessionLog(_)) => String::new(),
                _ if is_auto(default) => "default_config.".to_owned(),
                Some(config) => format!("configs[{config}]."),
                None => continue,
            };
            let problem = "auto needs a model that judges calls, and this service has none";
            return Err(ApiError::field(format!("tools[{n}].{at}permission_policy"), problem));
        }
        Ok(())
    }
}

/// Checks each tool and fills in its defaults. Whether toolsets and MCP servers fit is another check, of both.
pub fn resolve(params: Vec<ToolParam>) -> Result<Vec<Tool>> {
    let mut tools = Vec::with_capacity(params.len());
    for (n, param) in params.into_iter().enumerate() {
        let at = format!("tools[{n}]");
        tools.push(match param {
            ToolParam::AgentToolset(param) => Tool::AgentToolset(AgentToolset::resolve(param, &at)?),
            ToolParam::McpToolset(param) => Tool::McpToolset(McpToolset::resolve(param, &at)?),
            ToolParam::Custom(param) => Tool::Custom(CustomTool::resolve(param, &at)?),
            ToolParam::SessionLog(param) => Tool::SessionLog(LogTool::resolve(param)),
            ToolParam::Hand(param) => Tool::Hand(NamedHand::resolve(param, &at)?),
        });
    }
    let count: usize = tools.iter().map(Tool::count).sum();
    if count > TOOLS_MAX {
        return Err(ApiError::field("tools", format!("{count} tools, at most {TOOLS_MAX} are allowed")));
    }
    if tools.iter().filter(|tool| matches!(tool, Tool::AgentToolset(_))).count() > 1 {
        return Err(ApiError::field("tools", "more than one agent toolset"));
    }
    if tools.iter().filter(|tool| matches!(tool, Tool::SessionLog(_))).count() > 1 {
        return Err(ApiError::field("tools", "more than one session_log"));
    }
    check_hands(&tools)?;
    let mut custom = BTreeSet::new();
    for (n, tool) in tools.iter().enumerate() {
        if let Tool::Custom(tool) = tool
            && !custom.insert(tool.name.as_str())
        {
            return Err(ApiError::field(format!("tools[{n}].name"), "another custom tool has this name"));
        }
    }
    for (n, tool) in tools.iter().enumerate() {
        if let Tool::AgentToolset(toolset) = tool {
            toolset.check_references(&custom, &format!("tools[{n}]"))?;
        }
    }
    Ok(tools)
}

impl Tool {
    fn count(&self) -> usize {
        match self {
            Tool::AgentToolset(_) => BUILT_IN.len(),
            // What the server offers is not known yet; what is configured counts.
            Tool::McpToolset(toolset) => toolset.configs.len(),
            Tool::Custom(_) | Tool::SessionLog(_) => 1,
            // It is where tools run.
            Tool::Hand(_) => 0,
        }
    }
}

/// Each has a name of its own, and there are tools that run there.
fn check_hands(tools: &[Tool]) -> Result<()> {
    let mut names = BTreeSet::new();
    for (n, tool) in tools.iter().enumerate() {
        let Tool::Hand(hand) = tool else { continue };
        if !names.insert(hand.name.as_str()) {
            return Err(ApiError::field(format!("tools[{n}].name"), "another hand has this name"));
        }
    }
    if names.len() > hand::HANDS_MAX {
        return Err(ApiError::field(
            "tools",
            format!("{} hands, at most {} are allowed", names.len(), hand::HANDS_MAX),
        ));
    }
    if !names.is_empty() && !tools.iter().any(|tool| matches!(tool, Tool::AgentToolset(_))) {
        return Err(ApiError::field("tools", "hands without the agent toolset, whose tools run there"));
    }
    Ok(())
}

/// Whether an MCP server without a toolset is an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreferenced {
    Refused,
    /// A session may drop a toolset of its agent and still inherit the server.
    Allowed,
}

/// Each MCP toolset names a declared server, and no two the same one; each server in a hand names one that there can be.
pub fn check_servers(tools: &[Tool], servers: &[McpServer], unreferenced: Unreferenced) -> Result<()> {
    let mut named = BTreeSet::new();
    for (n, tool) in tools.iter().enumerate() {
        let Tool::McpToolset(toolset) = tool else { continue };
        let at = format!("tools[{n}].mcp_server_name");
        if servers.iter().all(|server| server.name() != toolset.mcp_server_name) {
            return Err(ApiError::field(at, format!("no MCP server is called {}", toolset.mcp_server_name)));
        }
        if !named.insert(toolset.mcp_server_name.as_str()) {
            return Err(ApiError::field(at, "another mcp_toolset names the same server"));
        }
    }
    let has_hand = |name: &str| tools.iter().any(|tool| matches!(tool, Tool::Hand(hand) if hand.name == name));
    for (n, server) in servers.iter().enumerate() {
        if let Some(name) = server.named_hand()
            && !has_hand(name)
        {
            let problem = format!("the agent has no hand called {name}");
            return Err(ApiError::field(format!("mcp_servers[{n}].hand"), problem));
        }
    }
    let orphan = servers.iter().position(|server| !named.contains(server.name()));
    match orphan.filter(|_| unreferenced == Unreferenced::Refused) {
        Some(n) => Err(ApiError::field(format!("mcp_servers[{n}]"), "no mcp_toolset refers to it")),
        None => Ok(()),
    }
}

/// A tool's name in the model's request, where the built-in ones and the prefix of MCP tools are taken.
fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What comes of tools: their kept form, or the message.
    fn check(tools: Value) -> Result<Value, String> {
        let params = crate::body::json(tools.to_string().as_bytes()).map_err(|error| error.message().to_owned())?;
        let tools = resolve(params).map_err(|error| error.message().to_owned())?;
        Ok(serde_json::to_value(tools).unwrap())
    }

    fn custom(name: &str) -> Value {
        json!({"type": "custom", "name": name, "description": "d", "input_schema": {"type": "object"}})
    }

    fn toolset(configs: Value) -> Value {
        json!([{"type": "agent_toolset_20260401", "configs": configs}])
    }

    #[test]
    fn defaults_are_filled_in() {
        let allow = json!({"type": "always_allow"});
        let ask = json!({"type": "always_ask"});
        assert_eq!(
            check(json!([{"type": "agent_toolset_20260401"}])).unwrap(),
            json!([{"type": "agent_toolset_20260401",
                "default_config": {"enabled": true, "permission_policy": allow}, "configs": []}])
        );
        assert_eq!(
            check(
                json!([{"type": "mcp_toolset", "mcp_server_name": "s", "configs": [{"name": "t", "enabled": false}]}])
            )
            .unwrap(),
            json!([{"type": "mcp_toolset", "mcp_server_name": "s",
                "default_config": {"enabled": true, "permission_policy": ask},
                "configs": [{"name": "t", "enabled": false, "permission_policy": ask}]}])
        );
        assert_eq!(
            check(json!([{"type": "agent_toolset_20260401",
                "default_config": {"enabled": false, "permission_policy": ask}, "configs": [{"name": "bash"},
                    {"name": "read", "type": "read", "enabled": true, "permission_policy": allow}]}]))
            .unwrap(),
            json!([{"type": "agent_toolset_20260401",
                "default_config": {"enabled": false, "permission_policy": ask},
                "configs": [{"type": "bash", "name": "bash", "enabled": false, "permission_policy": ask},
                    {"type": "read", "name": "read", "enabled": true, "permission_policy": allow}]}])
        );
    }

    #[test]
    fn hands_have_names_of_their_own_and_tools_that_run_there() {
        let hand = |name: &str| json!({"type": "hand", "name": name});
        let toolset = json!({"type": "agent_toolset_20260401"});
        let build = json!({"type": "hand", "name": "build", "description": "where things are compiled"});
        let kept = check(json!([toolset, build, hand("test")])).unwrap();
        assert_eq!((&kept[1], &kept[2]), (&build, &hand("test")));
        let many = (0..9).map(|n| hand(&format!("h{n}"))).chain([toolset.clone()]).collect::<Vec<_>>();
        for (tools, problem) in [
            (json!([toolset, hand("main")]), "tools[1].name"),
            (json!([toolset, hand("Build")]), "tools[1].name"),
            (json!([toolset, hand("../up")]), "tools[1].name"),
            (json!([toolset, hand("a"), hand("a")]), "another hand has this name"),
            (json!([hand("a")]), "without the agent toolset"),
            (json!(many), "9 hands"),
            (json!([toolset, {"type": "hand", "name": "a", "description": "x".repeat(501)}]), "tools[1].description"),
            (json!([toolset, {"type": "hand", "name": "a", "image": "debian"}]), "image"),
        ] {
            let said = check(tools.clone()).unwrap_err();
            assert!(said.contains(problem), "{tools}: {said}");
        }
    }

    #[test]
    fn the_own_log_is_read_without_being_asked_for_unless_that_is_wanted() {
        let kept = |policy: &str| json!([{"type": "session_log", "permission_policy": {"type": policy}}]);
        assert_eq!(check(json!([{"type": "session_log"}])).unwrap(), kept("always_allow"));
        for policy in ["always_ask", "auto"] {
            assert_eq!(check(kept(policy)).unwrap(), kept(policy));
        }
    }

    #[test]
    fn what_is_kept_can_be_sent_again() {
        let web = json!([{"name": "web_fetch", "blocked_domains": ["ads.example.com"],
            "url_sources": {"user_input": "none", "client_tool_results": {"type": "only",
                "tools": [{"type": "tool_reference", "name": "lookup"}]}}}]);
        let mut tools = toolset(web);
        tools.as_array_mut().unwrap().push(custom("lookup"));
        let kept = check(tools).unwrap();
        assert_eq!(check(kept.clone()).unwrap(), kept);
    }

    #[test]
    fn wrong_tools_are_refused_with_the_place() {
        let deep = json!({"type": "object", "properties": {"a": {"items": {"$ref": "#/x"}}}});
        let many: Vec<Value> = (0..257).map(|n| custom(&format!("t{n}"))).collect();
        let with_schema =
            |schema: Value| json!([{"type": "custom", "name": "t", "description": "d", "input_schema": schema}]);
        for (tools, expected) in [
            (json!([{"type": "browser"}]), "[0].type: unknown variant `browser`"),
            (json!([{"type": "agent_toolset_20260401", "extra": 1}]), "[0]: unknown field `extra`"),
            (json!([{"type": "mcp_toolset"}]), "[0]: missing field `mcp_server_name`"),
            (json!(many), "tools: 257 tools"),
            (json!([{"type": "agent_toolset_20260401"}, {"type": "agent_toolset_20260401"}]), "tools: more than one"),
            (json!([custom("a"), custom("a")]), "tools[1].name: another custom tool"),
            (json!([{"type": "session_log"}, {"type": "session_log"}]), "tools: more than one session_log"),
            (json!([{"type": "session_log", "name": "log"}]), "[0]: unknown field `name`"),
            (json!([custom("get_events")]), "tools[0].name: is the name of a built-in tool"),
            (json!([custom("bash")]), "tools[0].name: is the name of a built-in tool"),
            (json!([custom("mcp__x")]), "tools[0].name: must not start with mcp__"),
            (json!([custom("a b")]), "tools[0].name: must be 1 to 128"),
            (with_schema(json!({"type": "string"})), "tools[0].input_schema.type: must be object"),
            (with_schema(json!({})), "tools[0].input_schema.type: must be object"),
            (with_schema(json!({"type": "object", "oneOf": []})), "tools[0].input_schema.oneOf: is not supported"),
            (with_schema(deep), "tools[0].input_schema.properties.a.items.$ref: is not supported"),
            (with_schema(json!({"type": "object", "properties": {"a b": {}}})), "tools[0].input_schema.properties"),
            (with_schema(json!({"type": "object", "required": "a"})), "tools[0].input_schema.required: must be"),
            (toolset(json!([{"name": "ls"}])), "tools[0].configs[0].name: must be one of bash"),
            (toolset(json!([{"name": "web_fetch", "max_tokens": 1}])), "[0]: unknown field `max_tokens`"),
            (toolset(json!([{"name": "bash"}, {"name": "bash"}])), "tools[0].configs[1].name: configured twice"),
            (toolset(json!([{"name": "bash", "type": "read"}])), "tools[0].configs[0].type: must be bash"),
            (
                toolset(json!([{"name": "bash", "allowed_domains": ["a.com"]}])),
                "tools[0].configs[0].allowed_domains: is not a setting of bash",
            ),
        ] {
            let message = check(tools.clone()).unwrap_err();
            assert!(message.starts_with(expected), "{tools}\n{message}");
        }
    }

    #[test]
    fn auto_needs_somebody_who_judges() {
        let auto = json!({"type": "auto"});
        for (tools, at) in [
            (toolset(json!([{"name": "read"}, {"name": "bash", "permission_policy": auto}])), "configs[1]"),
            (
                json!([{"type": "mcp_toolset", "mcp_server_name": "s", "configs": [{"name": "t", "permission_policy": auto}]}]),
                "configs[0]",
            ),
            (
                json!([{"type": "agent_toolset_20260401", "default_config": {"permission_policy": auto}}]),
                "default_config",
            ),
        ] {
            let tools = resolve(serde_json::from_value(tools).unwrap()).unwrap();
            assert!(Judge::Model.check(&tools).is_ok());
            let refused = Judge::Nobody.check(&tools).unwrap_err();
            assert!(
                refused.message().starts_with(&format!("tools[0].{at}.permission_policy: auto")),
                "{}",
                refused.message()
            );
        }
    }

    #[test]
    fn schemas_of_the_ordinary_kind_pass() {
        for schema in [
            json!({"type": "object"}),
            json!({"type": "object", "properties": null, "required": null}),
            json!({"type": "object", "properties": {"a.b-c_1": {"oneOf": [{"type": "string"}, {"type": "null"}]}},
                "required": ["a.b-c_1"], "additionalProperties": false}),
            json!({"type": "object", "properties": {"a": {"enum": [{"$ref": "data, not a schema"}]}}}),
        ] {
            let tools = json!([{"type": "custom", "name": "t", "description": "d", "input_schema": schema}]);
            assert_eq!(check(tools.clone()).unwrap(), tools);
        }
    }

    #[test]
    fn toolsets_and_servers_fit() {
        let servers = |names: &[&str]| -> Vec<McpServer> {
            let server = |name: &&str| json!({"type": "url", "name": name, "url": "https://mcp.example.com/"});
            let servers: Vec<Value> = names.iter().map(server).collect();
            serde_json::from_value(json!(servers)).unwrap()
        };
        let tools = |names: &[&str]| -> Vec<Tool> {
            let toolset = |name: &&str| json!({"type": "mcp_toolset", "mcp_server_name": name});
            let params: Vec<Value> = names.iter().map(toolset).collect();
            resolve(serde_json::from_value(json!(params)).unwrap()).unwrap()
        };
        for (toolsets, declared, strict, lenient) in [
            (&[][..], &[][..], true, true),
            (&["a", "b"], &["b", "a"], true, true),
            (&["a"], &[], false, false),
            (&["a", "a"], &["a"], false, false),
            (&["a"], &["a", "b"], false, true),
        ] {
            let (tools, servers) = (tools(toolsets), servers(declared));
            assert_eq!(check_servers(&tools, &servers, Unreferenced::Refused).is_ok(), strict);
            assert_eq!(check_servers(&tools, &servers, Unreferenced::Allowed).is_ok(), lenient);
        }
    }
}
