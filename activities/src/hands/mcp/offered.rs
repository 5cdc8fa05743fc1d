//! Which of a server's tools a session's agent is given: asked for page by page, and as much of them as a session can carry
//! in its state, in a View and in every model request.
//!
//! Nothing here trusts a server: neither with the number of its pages nor with the length of anything.

use domain::{
    agent::{AgentSnapshot, McpToolset, ToolFact, ToolKind, ToolSpec},
    event::ErrorBody,
    ids,
    limits::VIEW_BYTES_MAX,
    outcome::{ListOutcome, Listed},
};
use rmcp::{
    ServiceError,
    model::{ListToolsResult, Tool},
};
use serde::Serialize;
use serde_json::Value;
use store::Blobs;

/// Of an agent, the built-in ones included.
const TOOLS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 8 * 1024;
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// All of an agent's tools, as they stand in every model request: more than any window has room for.
const SPECS_BYTES_MAX: usize = 1024 * 1024;
/// What of them stands in the session's state and in every View, which holds more than tools.
const FACTS_BYTES_MAX: usize = VIEW_BYTES_MAX / 2;
/// What is read of one server's list, used or not.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What the model is called with, and what a server may call its tool: as long as an agent may name one.
const NAME_BYTES_MAX: usize = 128;
const HASH_CHARS: usize = 8;

/// The tools that the toolset lets the agent use. `page` asks for the one behind a cursor.
pub async fn list<F>(toolset: &McpToolset, mut page: impl FnMut(Option<String>) -> F) -> Result<Vec<Tool>, ServiceError>
where
    F: Future<Output = Result<ListToolsResult, ServiceError>>,
{
    let (mut tools, mut bytes, mut cursor) = (Vec::new(), 0, None);
    loop {
        let ListToolsResult { tools: listed, next_cursor, .. } = page(cursor).await?;
        for tool in listed {
            bytes += json_bytes(&tool);
            if tools.len() >= TOOLS_MAX || bytes > LIST_BYTES_MAX {
                tracing::warn!(server = toolset.server, bytes, "an MCP server's list of tools is not read to its end");
                return Ok(tools);
            }
            if toolset.config(&tool.name).enabled {
                tools.push(tool);
            }
        }
        let Some(next) = next_cursor else { return Ok(tools) };
        cursor = Some(next);
    }
}

/// The agent with the tools of the servers that answered, and what is said of the others.
pub async fn outcome(
    blobs: &dyn Blobs,
    mut snapshot: AgentSnapshot,
    answers: impl IntoIterator<Item = (McpToolset, Result<Vec<Tool>, ErrorBody>)>,
) -> Result<ListOutcome, log::blobs::Error> {
    let (mut servers, mut problems) = (Vec::new(), Vec::new());
    for (toolset, answer) in answers {
        match answer {
            Ok(tools) => {
                offer(&mut snapshot.tools, &toolset, tools);
                servers.push(toolset.server);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if servers.is_empty() {
        return Ok(ListOutcome { listed: None, problems, hand_lost: false });
    }
    let tools = snapshot.tools.iter().map(fact).collect();
    let snapshot = log::blobs::put_json(blobs, &snapshot).await?;
    Ok(ListOutcome { listed: Some(Listed { servers, tools, snapshot }), problems, hand_lost: false })
}

/// Puts a server's tools in the place of those that it had, as far as its toolset lets the agent use them.
pub fn offer(offered: &mut Vec<ToolSpec>, toolset: &McpToolset, tools: Vec<Tool>) {
    offered.retain(|spec| !matches!(&spec.kind, ToolKind::Mcp { server, .. } if *server == toolset.server));
    let mut specs_bytes: usize = offered.iter().map(json_bytes).sum();
    let mut facts_bytes: usize = offered.iter().map(|spec| json_bytes(&fact(spec))).sum();
    let mut left_out = 0;
    for tool in tools {
        let config = toolset.config(&tool.name);
        if !config.enabled {
            continue;
        }
        let Some(spec) = spec(toolset, tool) else {
            left_out += 1;
            continue;
        };
        let (as_spec, as_fact) = (json_bytes(&spec), json_bytes(&fact(&spec)));
        let is_new = offered.iter().all(|known| known.name != spec.name);
        let fits = offered.len() < TOOLS_MAX
            && specs_bytes + as_spec <= SPECS_BYTES_MAX
            && facts_bytes + as_fact <= FACTS_BYTES_MAX;
        if !is_new || !fits {
            left_out += 1;
            continue;
        }
        (specs_bytes, facts_bytes) = (specs_bytes + as_spec, facts_bytes + as_fact);
        offered.push(spec);
    }
    if left_out > 0 {
        tracing::warn!(server = toolset.server, left_out, "tools of an MCP server not offered");
    }
}

/// As the model is offered it; none where nothing of that length or shape is.
fn spec(toolset: &McpToolset, tool: Tool) -> Option<ToolSpec> {
    let policy = toolset.config(&tool.name).policy;
    let input_schema = Value::Object((*tool.input_schema).clone());
    let is_sound = (1..=NAME_BYTES_MAX).contains(&tool.name.len())
        && input_schema["type"] == "object"
        && json_bytes(&input_schema) <= SCHEMA_BYTES_MAX;
    is_sound.then(|| ToolSpec {
        name: model_name(&toolset.server, &tool.name),
        description: tool.description.unwrap_or_default().chars().take(DESCRIPTION_CHARS_MAX).collect(),
        input_schema,
        kind: ToolKind::Mcp {
            server: toolset.server.clone(),
            tool: tool.name.into_owned(),
            inside: toolset.hand().cloned(),
        },
        policy,
    })
}

fn json_bytes(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |json| json.len())
}

fn fact(spec: &ToolSpec) -> ToolFact {
    ToolFact { name: spec.name.clone(), kind: spec.kind.clone(), policy: spec.policy }
}

/// `mcp__SERVER__TOOL`, of the letters that models take. What had to be changed for that ends with a hash of what it was.
fn model_name(server: &str, tool: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let whole = format!("mcp__{server}__{tool}");
    // Where a name holds the mark itself, two pairs of names could come out as one.
    if whole.bytes().all(plain) && whole.len() <= NAME_BYTES_MAX && !server.contains("__") && !tool.starts_with('_') {
        return whole;
    }
    let hash = ids::content_hash(format!("{server}\0{tool}").as_bytes());
    let mut name: String = whole.bytes().map(|b| if plain(b) { char::from(b) } else { '_' }).collect();
    name.truncate(NAME_BYTES_MAX - HASH_CHARS - 1);
    format!("{name}_{}", &hash[..HASH_CHARS])
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::agent::{McpAt, Policy, ToolConfig};
    use serde_json::json;
    use std::collections::BTreeMap;
    use std::future::ready;

    fn toolset() -> McpToolset {
        let config = |enabled, policy| ToolConfig { enabled, policy };
        McpToolset {
            server: "s".into(),
            at: McpAt::Url { url: "https://s.test".into() },
            default: config(true, Policy::AlwaysAsk),
            tools: BTreeMap::from([
                ("off".to_owned(), config(false, Policy::AlwaysAsk)),
                ("free".to_owned(), config(true, Policy::AlwaysAllow)),
            ]),
        }
    }

    fn tool(name: &str, schema: Value) -> Tool {
        serde_json::from_value(json!({"name": name, "inputSchema": schema})).unwrap()
    }

    /// A toolset's list from pages that `page` makes, and how many were asked for.
    async fn listed(page: impl Fn(usize) -> (Vec<Value>, bool)) -> (Vec<Tool>, usize) {
        let mut asked = 0;
        let toolset = toolset();
        let tools = list(&toolset, |cursor| {
            assert_eq!(cursor, (asked > 0).then(|| format!("after {asked}")));
            asked += 1;
            let (tools, more) = page(asked);
            let next = more.then(|| format!("after {asked}"));
            ready(Ok(serde_json::from_value(json!({"tools": tools, "nextCursor": next})).unwrap()))
        });
        let tools = tools.await.unwrap();
        (tools, asked)
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_or_to_its_limit() {
        let plain = |name: String| json!({"name": name, "inputSchema": {"type": "object"}});
        let (tools, asked) = listed(|n| (vec![plain(format!("t{n}")), plain("off".into())], n < 3)).await;
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!((names, asked), (vec!["t1", "t2", "t3"], 3));
        // One that never ends, with tools that are used,
        let (tools, asked) = listed(|n| ((0..100).map(|i| plain(format!("t{n}x{i}"))).collect(), true)).await;
        assert_eq!((tools.len(), asked), (TOOLS_MAX, 3));
        // with tools that are not,
        let long = "x".repeat(1024 * 1024);
        let off = |_| (vec![json!({"name": "off", "description": long, "inputSchema": {"type": "object"}})], true);
        assert_eq!(listed(off).await.1, LIST_BYTES_MAX / (1024 * 1024));
        // and with long ones.
        let on = |_| (vec![json!({"name": "on", "description": long, "inputSchema": {"type": "object"}})], true);
        assert_eq!(listed(on).await.0.len(), LIST_BYTES_MAX / (1024 * 1024) - 1);
    }

    #[test]
    fn tools_have_names_of_their_own_that_models_take() {
        assert_eq!(model_name("docs", "search"), "mcp__docs__search");
        let names = [
            ("docs", "search"),
            ("my docs", "search"),
            ("my.docs", "search"),
            ("a__b", "c"),
            ("a", "b__c"),
            ("a", "_b"),
            ("a_", "b"),
            ("docs", &"x".repeat(200)),
            ("docs", &"x".repeat(201)),
        ]
        .map(|(server, tool)| model_name(server, tool));
        for (n, name) in names.iter().enumerate() {
            assert!(name.len() <= NAME_BYTES_MAX && name.starts_with("mcp__"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{name}");
            assert!(!names[..n].contains(name), "{name}");
        }
    }

    #[test]
    fn a_toolset_says_which_tools_are_offered_and_under_which_policy() {
        let toolset = toolset();
        let object = json!({"type": "object"});
        let builtin = ToolSpec {
            name: "bash".into(),
            description: String::new(),
            input_schema: object.clone(),
            kind: ToolKind::Builtin,
            policy: Policy::AlwaysAllow,
        };
        let mut offered = vec![builtin];
        offer(&mut offered, &toolset, vec![tool("gone", object.clone())]);
        let long = json!({"type": "object", "description": "x".repeat(SCHEMA_BYTES_MAX)});
        let tools = [("off", &object), ("free", &object), ("asks", &object), ("asks", &object), ("long", &long)];
        offer(&mut offered, &toolset, tools.map(|(name, schema)| tool(name, schema.clone())).into());
        let names: Vec<_> = offered.iter().map(|spec| (spec.name.as_str(), spec.policy)).collect();
        assert_eq!(
            names,
            [("bash", Policy::AlwaysAllow), ("mcp__s__free", Policy::AlwaysAllow), ("mcp__s__asks", Policy::AlwaysAsk)]
        );
        offer(&mut offered, &toolset, (0..300).map(|n| tool(&format!("t{n}"), object.clone())).collect());
        assert_eq!(offered.len(), TOOLS_MAX);
    }

    #[test]
    fn tools_are_bounded_each_and_together() {
        let toolset = toolset();
        let object = json!({"type": "object"});
        let mut offered = Vec::new();
        let names = ["x".repeat(NAME_BYTES_MAX + 1), "x".repeat(NAME_BYTES_MAX), String::new()];
        offer(&mut offered, &toolset, names.iter().map(|name| tool(name, object.clone())).collect());
        assert_eq!(offered.iter().map(|spec| spec.name.len()).collect::<Vec<_>>(), [NAME_BYTES_MAX]);

        // Names alone are more than a View can hold.
        let long = |n: usize| format!("{n:0>width$}", width = NAME_BYTES_MAX);
        offer(&mut offered, &toolset, (0..TOOLS_MAX).map(|n| tool(&long(n), object.clone())).collect());
        let facts: usize = offered.iter().map(|spec| json_bytes(&fact(spec))).sum();
        assert!(facts <= FACTS_BYTES_MAX && facts > FACTS_BYTES_MAX / 2 && offered.len() < TOOLS_MAX);

        let wide = json!({"type": "object", "description": "x".repeat(SCHEMA_BYTES_MAX / 2)});
        offer(&mut offered, &toolset, (0..TOOLS_MAX).map(|n| tool(&format!("t{n}"), wide.clone())).collect());
        let specs: usize = offered.iter().map(json_bytes).sum();
        assert!(specs <= SPECS_BYTES_MAX && specs > SPECS_BYTES_MAX / 2 && offered.len() < TOOLS_MAX);
        // A small one that comes later has room.
        let next = [tool("t0", wide.clone()), tool("small", object)];
        let other = McpToolset { server: "other".into(), ..toolset };
        offer(&mut offered, &other, next.into());
        assert!(offered.iter().any(|spec| spec.name == "mcp__other__small"));
        assert!(offered.iter().all(|spec| spec.name != "mcp__other__t0"));
    }
}
