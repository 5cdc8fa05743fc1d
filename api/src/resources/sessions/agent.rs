//! From an agent as clients see it to what a session keeps of it: the snapshot that model requests are built from, and
//! the facts that decisions need.

use domain::HandName;
use domain::agent::{
    self, AgentFacts, McpAt, McpFact, McpToolset, ModelParams, Policy, ToolConfig, ToolFact, ToolKind, ToolSpec,
};
use domain::content::BlobRef;
use harness::whatif::OtherModel;
use harness::{context, own_log};
use log::blobs;
use serde::Serialize;
use serde_json::{Value, json};
use store::Blobs;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::resources::agents::model::{Effort, Speed};
use crate::resources::agents::snapshot::AgentSnapshot;
use crate::resources::agents::tools::{Judge, McpServer, NamedHand, PermissionPolicy, Tool, WEB_FETCH};

/// A tool of `agent_toolset_20260401`, as the model is told of it.
#[derive(Clone, PartialEq, Debug)]
pub struct BuiltinTool {
    pub name: String,
    pub description: String,
    /// JSON schema of the input.
    pub input_schema: Value,
}

/// Tokens that a model takes in, and that one answer of it may have.
struct Size {
    window_tokens: u64,
    max_tokens: u32,
}

/// What a model has that is not in [`SIZES`].
const USUAL: Size = Size { window_tokens: 200_000, max_tokens: 32_000 };

/// By the start of the model's id, so that dated forms count too.
const SIZES: &[(&str, Size)] = &[
    ("claude-haiku-4-5", Size { window_tokens: 200_000, max_tokens: 64_000 }),
    ("claude-opus-4-5", Size { window_tokens: 200_000, max_tokens: 64_000 }),
    ("claude-sonnet-4-5", Size { window_tokens: 200_000, max_tokens: 64_000 }),
    ("claude-sonnet-4-6", Size { window_tokens: 200_000, max_tokens: 64_000 }),
];

fn size(model: &str) -> &'static Size {
    SIZES.iter().find(|(start, _)| model.starts_with(start)).map_or(&USUAL, |(_, size)| size)
}

/// A model by its id alone, as large as it is known to be.
pub fn other_model(id: &str) -> OtherModel {
    let Size { window_tokens, max_tokens } = *size(id);
    OtherModel { id: id.to_owned(), window_tokens, max_tokens }
}

/// Stores the snapshot and says what decisions need to know of it.
pub async fn keep(app: &App, agent: &AgentSnapshot) -> Result<AgentFacts> {
    if !agent.skills.is_empty() {
        return Err(ApiError::not_built("sessions of agents with skills"));
    }
    Judge::of(app).check(&agent.tools)?;
    let size = size(&agent.model.id);
    let tools = specs(agent, &app.builtin_tools);
    let facts: Vec<ToolFact> = tools.iter().map(fact).collect();
    let snapshot = agent::AgentSnapshot {
        public: serde_json::to_value(agent).map_err(ApiError::internal)?,
        model: model_params(agent, size.max_tokens),
        system: agent.system.clone(),
        tools,
        mcp: toolsets(agent),
        web_fetch: web_fetch(agent).filter(|_| facts.iter().any(|tool| tool.kind == ToolKind::Web)),
    };
    let fact_of = |toolset: &McpToolset| McpFact {
        server: toolset.server.clone(),
        listed: false,
        inside: toolset.hand().cloned(),
    };
    let mcp = snapshot.mcp.iter().map(fact_of).collect();
    Ok(AgentFacts {
        agent_id: agent.id.clone(),
        version: agent.version,
        name: agent.name.clone(),
        model: agent.model.id.clone(),
        window_tokens: size.window_tokens,
        max_tokens: size.max_tokens,
        tools: facts,
        mcp,
        hands: hands(agent).filter_map(|hand| HandName::other(&hand.name)).collect(),
        strategy: agent.strategy.clone().unwrap_or_else(context::default_strategy),
        shims_off: Vec::new(),
        snapshot: blobs::put_json(&*app.blobs, &snapshot).await?,
    })
}

/// Whoever works in a self-hosted environment has one sandbox, and knows of no other, nor of servers in it.
pub fn check_hands(agent: &AgentFacts, self_hosted: bool) -> Result<()> {
    let server = agent.mcp.iter().find(|server| server.inside.is_some());
    let what = match (agent.hands.first(), server) {
        (Some(name), _) => format!("the agent's hand {name}"),
        (None, Some(server)) => format!("the agent's MCP server {} of type stdio", server.server),
        (None, None) => return Ok(()),
    };
    if !self_hosted {
        return Ok(());
    }
    let problem = format!("{what}: tools of a self-hosted environment run where its workers are");
    Err(ApiError::field("agent", problem))
}

/// The agent as clients see it, out of the stored snapshot.
pub async fn public(blobs: &dyn Blobs, snapshot: &BlobRef) -> Result<Value> {
    let snapshot: agent::AgentSnapshot = blobs::get_json(blobs, snapshot).await?;
    Ok(snapshot.public)
}

/// Effort and speed only where they differ from what a model does anyway: not every model knows them.
fn model_params(agent: &AgentSnapshot, max_tokens: u32) -> ModelParams {
    let model = &agent.model;
    ModelParams {
        id: model.id.clone(),
        effort: (model.effort != Effort::default()).then(|| word(&model.effort, "/type")),
        speed: (model.speed != Speed::default()).then(|| word(&model.speed, "")),
        max_tokens,
    }
}

/// The API's word for a value, at a place in its JSON.
fn word(value: &impl Serialize, at: &str) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Every tool that the model is offered: those of the toolset that hands have, then the client's own.
fn specs(agent: &AgentSnapshot, builtin: &[BuiltinTool]) -> Vec<ToolSpec> {
    let mut specs = Vec::new();
    let which = which_hand(agent);
    for tool in &agent.tools {
        match tool {
            Tool::AgentToolset(toolset) => specs.extend(builtin.iter().filter_map(|tool| {
                let config = toolset.config(&tool.name);
                let kind = if tool.name == WEB_FETCH { ToolKind::Web } else { ToolKind::Builtin };
                let mut input_schema = tool.input_schema.clone();
                if let Some(which) = which.as_ref().filter(|_| kind == ToolKind::Builtin) {
                    input_schema["properties"]["hand"] = which.clone();
                }
                config.enabled.then(|| ToolSpec {
                    name: tool.name.clone(),
                    description: tool.description.clone(),
                    input_schema,
                    kind,
                    policy: policy(config.permission_policy),
                })
            })),
            Tool::Custom(tool) => specs.push(ToolSpec {
                name: tool.name.clone(),
                description: tool.description.clone(),
                input_schema: Value::Object(tool.input_schema.clone()),
                kind: ToolKind::Custom,
                policy: Policy::AlwaysAllow,
            }),
            Tool::SessionLog(tool) => specs.push(ToolSpec {
                name: own_log::NAME.to_owned(),
                description: own_log::DESCRIPTION.to_owned(),
                input_schema: own_log::schema(),
                kind: ToolKind::Log,
                policy: policy(tool.permission_policy),
            }),
            // What a server offers is known only once it was asked.
            Tool::McpToolset(_) => {}
            // Said by the tools that run there.
            Tool::Hand(_) => {}
        }
    }
    specs
}

fn hands(agent: &AgentSnapshot) -> impl Iterator<Item = &NamedHand> {
    agent.tools.iter().filter_map(|tool| match tool {
        Tool::Hand(hand) => Some(hand),
        _ => None,
    })
}

/// What built-in tools take beside their own input where there is more than one hand.
fn which_hand(agent: &AgentSnapshot) -> Option<Value> {
    let names: Vec<&str> = hands(agent).map(|hand| hand.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    let described = hands(agent).filter_map(|hand| Some(format!(" {}: {}", hand.name, hand.description.as_ref()?)));
    let description = format!(
        "The sandbox in which this runs. Each has files and processes of its own. {} unless said.{}",
        HandName::MAIN,
        described.collect::<String>()
    );
    let names: Vec<&str> = std::iter::once(HandName::MAIN).chain(names).collect();
    Some(json!({"type": "string", "enum": names, "description": description}))
}

/// The settings of `web_fetch`, where the agent has the toolset that it is in.
fn web_fetch(agent: &AgentSnapshot) -> Option<agent::WebFetch> {
    agent.tools.iter().find_map(|tool| match tool {
        Tool::AgentToolset(toolset) => Some(toolset.web_fetch()),
        _ => None,
    })
}

/// Toolsets with the servers that they open. A server without a toolset is never asked.
fn toolsets(agent: &AgentSnapshot) -> Vec<McpToolset> {
    let toolset = |tool: &Tool| {
        let Tool::McpToolset(toolset) = tool else { return None };
        let server = agent.mcp_servers.iter().find(|server| server.name() == toolset.mcp_server_name)?;
        let at = match server {
            McpServer::Url(server) => McpAt::Url { url: server.url.clone() },
            McpServer::Stdio(server) => McpAt::Inside { inside: server.program()? },
        };
        let default = &toolset.default_config;
        let tools = toolset.configs.iter().map(|config| {
            let (enabled, policy) = (config.enabled, policy(config.permission_policy));
            (config.name.clone(), ToolConfig { enabled, policy })
        });
        Some(McpToolset {
            server: server.name().to_owned(),
            at,
            default: ToolConfig { enabled: default.enabled, policy: policy(default.permission_policy) },
            tools: tools.collect(),
        })
    };
    agent.tools.iter().filter_map(toolset).collect()
}

fn policy(policy: PermissionPolicy) -> Policy {
    match policy {
        PermissionPolicy::AlwaysAllow => Policy::AlwaysAllow,
        PermissionPolicy::AlwaysAsk => Policy::AlwaysAsk,
        PermissionPolicy::Auto => Policy::Auto,
    }
}

fn fact(spec: &ToolSpec) -> ToolFact {
    ToolFact { name: spec.name.clone(), kind: spec.kind.clone(), policy: spec.policy }
}
