//! MCP servers: asked which tools they have, and called. Over the socket of egress, which alone has their credentials and
//! says which URL of which session may be reached.
//!
//! A connection is made for each listing and each call and ends with it: what a server remembers of a session it remembers
//! of its own accord.

use super::Executed;
use domain::{
    agent::{AgentSnapshot, McpToolset, ToolFact, ToolKind, ToolSpec},
    content::Block,
    egress::{CALLS_SOCKET, mcp_path},
    event::{ErrorBody, ErrorKind, RetryStatus},
    ids,
    outcome::{ListOutcome, Listed},
    session::ListInput,
};
use futures::future::join_all;
use rmcp::{
    RoleClient, ServiceError,
    model::{CallToolRequestParams, Tool},
    service::{ClientInitializeError, RunningService, ServiceExt as _},
    transport::{
        StreamableHttpClientTransport, UnixSocketHttpClient,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};
use store::Blobs;

/// A server is connected to and says what it has within this time.
const LIST_WITHIN: Duration = Duration::from_secs(30);
/// As long as any tool may take.
const CALL_WITHIN: Duration = Duration::from_secs(600);
/// Before a connection that is of no use any more is dropped.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// Of an agent, the built-in ones included.
const TOOLS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 8 * 1024;
const SCHEMA_BYTES_MAX: usize = 64 * 1024;
/// What the model is called with.
const NAME_BYTES_MAX: usize = 128;
const HASH_CHARS: usize = 8;
/// Text of one result.
const TEXT_CHARS_MAX: usize = 100_000;
const SAID_CHARS: usize = 300;

/// How MCP servers are reached from this machine.
#[derive(Clone)]
pub struct McpServers {
    /// The folder of egress's sockets; none where there is no egress.
    sockets: Option<PathBuf>,
}

/// To one server; it reaches it by way of the folder's descriptor.
struct Connection {
    service: RunningService<RoleClient, ()>,
    _dir: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("this service runs without egress, through which alone MCP servers are reached")]
    NoEgress,
    #[error("reach egress")]
    Socket(#[source] std::io::Error),
    #[error("connect: {0}")]
    Connect(Box<ClientInitializeError>),
    #[error("{0}")]
    Service(ServiceError),
    #[error("nothing came within {} s", .0.as_secs())]
    Late(Duration),
}

impl Error {
    /// The server does not know who asks, or does not let him in.
    fn is_authentication(&self) -> bool {
        match self {
            Error::Connect(error) => error.auth_challenge().is_some(),
            Error::Service(error) => error.auth_challenge().is_some(),
            Error::NoEgress | Error::Socket(_) | Error::Late(_) => false,
        }
    }

    fn problem(&self, server: &str) -> ErrorBody {
        let mcp_server_name = server.to_owned();
        let (kind, message) = if self.is_authentication() {
            let message =
                "the MCP server does not accept the session's credential for it, or wants one and there is none";
            (ErrorKind::McpAuthenticationFailed { mcp_server_name }, message.to_owned())
        } else {
            let message = format!("the MCP server could not be asked which tools it has: {}", cut(self, SAID_CHARS));
            (ErrorKind::McpConnectionFailed { mcp_server_name }, message)
        };
        ErrorBody { kind, message, retry_status: RetryStatus::Retrying }
    }
}

/// It may have been called, and nobody knows what came of it.
pub fn lost(why: &str) -> Executed {
    let text = format!("lost: {why}. The call may or may not have taken effect; check before making it again.");
    Executed { lost: true, ..Executed::error(text) }
}

impl McpServers {
    pub fn new(sockets: Option<PathBuf>) -> Self {
        McpServers { sockets }
    }

    /// The folder of egress's sockets.
    pub fn sockets(&self) -> Option<&Path> {
        self.sockets.as_deref()
    }

    /// Asks each of the servers, all at once. Those that answer are in the agent that comes back.
    pub async fn list(&self, blobs: &dyn Blobs, input: &ListInput) -> Result<ListOutcome, log::blobs::Error> {
        let mut snapshot: AgentSnapshot = log::blobs::get_json(blobs, &input.snapshot).await?;
        let asked: Vec<McpToolset> =
            snapshot.mcp.iter().filter(|toolset| input.servers.contains(&toolset.server)).cloned().collect();
        let answers = join_all(asked.iter().map(|toolset| self.tools(&input.session_id, &toolset.server))).await;
        let (mut servers, mut problems) = (Vec::new(), Vec::new());
        for (toolset, answer) in asked.iter().zip(answers) {
            match answer {
                Ok(tools) => {
                    offer(&mut snapshot.tools, toolset, tools);
                    servers.push(toolset.server.clone());
                }
                Err(error) => problems.push(error.problem(&toolset.server)),
            }
        }
        if servers.is_empty() {
            return Ok(ListOutcome { listed: None, problems });
        }
        let tools = snapshot.tools.iter().map(fact).collect();
        let snapshot = log::blobs::put_json(blobs, &snapshot).await?;
        Ok(ListOutcome { listed: Some(Listed { servers, tools, snapshot }), problems })
    }

    /// Makes one call. What the server says of it is a result, whatever it is.
    pub async fn call(&self, session_id: &str, server: &str, tool: &str, arguments: Value) -> Executed {
        let Value::Object(arguments) = arguments else {
            return Executed::error("The input of a tool is an object.");
        };
        let connection = match within(LIST_WITHIN, self.connect(session_id, server)).await {
            Ok(connection) => connection,
            Err(error) => {
                let why = if error.is_authentication() {
                    "it does not accept the session's credential for it".to_owned()
                } else {
                    cut(&error, SAID_CHARS)
                };
                return Executed::error(format!(
                    "The MCP server {server} was not reached, and nothing was called: {why}"
                ));
            }
        };
        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let called = async { connection.service.call_tool(params).await.map_err(Error::Service) };
        let called = within(CALL_WITHIN, called).await;
        close(connection).await;
        match called {
            Ok(result) => executed(&json!(result)),
            Err(Error::Service(ServiceError::McpError(error))) => {
                Executed::error(format!("The MCP server refused the call: {}", cut(&error, SAID_CHARS)))
            }
            Err(error) if error.is_authentication() => {
                Executed::error("The MCP server does not accept the session's credential for this call.")
            }
            Err(error) => lost(&cut(&error, SAID_CHARS)),
        }
    }

    async fn tools(&self, session_id: &str, server: &str) -> Result<Vec<Tool>, Error> {
        let listing = async {
            let connection = self.connect(session_id, server).await?;
            let tools = connection.service.list_all_tools().await.map_err(Error::Service);
            close(connection).await;
            tools
        };
        within(LIST_WITHIN, listing).await
    }

    async fn connect(&self, session_id: &str, server: &str) -> Result<Connection, Error> {
        // By way of the folder's descriptor, as a socket's address holds 107 bytes and folders lie deeper. It may be passed
        // through and not be read.
        let folder = self.sockets.as_ref().ok_or(Error::NoEgress)?;
        let dir = rustix::fs::open(folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Error::Socket(error.into()))?;
        let socket = format!("/proc/self/fd/{}/{CALLS_SOCKET}", dir.as_raw_fd());
        let uri = format!("http://egress{}", mcp_path(session_id, server));
        let client = UnixSocketHttpClient::new(&socket, &uri);
        let mut config = StreamableHttpClientTransportConfig::with_uri(uri);
        // A call that a server has forgotten about is not made again behind the log's back.
        config.reinit_on_expired_session = false;
        let transport = StreamableHttpClientTransport::with_client(client, config);
        let service = ().serve(transport).await.map_err(|error| Error::Connect(Box::new(error)))?;
        Ok(Connection { service, _dir: dir })
    }
}

async fn within<T>(time: Duration, done: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(time, done).await.unwrap_or(Err(Error::Late(time)))
}

/// Politely, and not at any price.
async fn close(mut connection: Connection) {
    // How it ends changes nothing any more.
    connection.service.close_with_timeout(CLOSE_WITHIN).await.ok();
}

/// Puts a server's tools in the place of those that it had, as far as its toolset lets the agent use them.
fn offer(offered: &mut Vec<ToolSpec>, toolset: &McpToolset, tools: Vec<Tool>) {
    offered.retain(|spec| !matches!(&spec.kind, ToolKind::Mcp { server, .. } if *server == toolset.server));
    for tool in tools {
        let config = toolset.config(&tool.name);
        let name = tool.name.into_owned();
        let model_name = model_name(&toolset.server, &name);
        let input_schema = Value::Object((*tool.input_schema).clone());
        let is_sound = input_schema["type"] == "object" && input_schema.to_string().len() <= SCHEMA_BYTES_MAX;
        let is_new = offered.iter().all(|spec| spec.name != model_name);
        if !config.enabled {
            continue;
        }
        if !is_sound || !is_new || offered.len() >= TOOLS_MAX {
            tracing::warn!(server = toolset.server, tool = name, "tool of an MCP server not offered");
            continue;
        }
        let description = tool.description.unwrap_or_default().chars().take(DESCRIPTION_CHARS_MAX).collect();
        let kind = ToolKind::Mcp { server: toolset.server.clone(), tool: name };
        offered.push(ToolSpec { name: model_name, description, input_schema, kind, policy: config.policy });
    }
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

/// A result as the log and the model take it, read off the wire's JSON.
fn executed(result: &Value) -> Executed {
    let mut room = TEXT_CHARS_MAX;
    let blocks = result["content"].as_array().into_iter().flatten();
    let mut content: Vec<Block> = blocks.map(|block| taken(block, &mut room)).collect();
    if content.is_empty() {
        let structured = result.get("structuredContent").map(Value::to_string);
        content.push(text(structured.as_deref().unwrap_or("(no output)"), &mut room));
    }
    let is_error = result["isError"].as_bool().unwrap_or(false);
    Executed { content, is_error, lost: false, hand_lost: false }
}

fn taken(block: &Value, room: &mut usize) -> Block {
    const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match block["type"].as_str() {
        Some("text") => text(&string(&block["text"]), room),
        Some("image") if IMAGES.contains(&block["mimeType"].as_str().unwrap_or_default()) => {
            Block::Image { source: json!({"type": "base64", "media_type": block["mimeType"], "data": block["data"]}) }
        }
        Some("resource") if block["resource"]["text"].is_string() => text(&string(&block["resource"]["text"]), room),
        Some("resource_link") => text(&format!("{} ({})", string(&block["uri"]), string(&block["name"])), room),
        kind => {
            let kind = kind.unwrap_or("unknown").to_owned();
            text(&format!("[a block of type {kind} that cannot be shown here]"), room)
        }
    }
}

/// Texts of a result share one bound; an empty one is none that the model could be shown.
fn text(text: &str, room: &mut usize) -> Block {
    let shown: String = text.chars().take(*room).collect();
    *room -= shown.chars().count();
    Block::text(match (shown.len() < text.len(), shown.trim().is_empty()) {
        (true, _) => format!("{shown}\n[output truncated]"),
        (false, true) => "(no output)".to_owned(),
        (false, false) => shown,
    })
}

fn cut(error: &dyn std::error::Error, chars: usize) -> String {
    error.to_string().chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::agent::{Policy, ToolConfig};
    use std::collections::BTreeMap;

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
        let config = |enabled, policy| ToolConfig { enabled, policy };
        let toolset = McpToolset {
            server: "s".into(),
            url: "https://s.test".into(),
            default: config(true, Policy::AlwaysAsk),
            tools: BTreeMap::from([
                ("off".to_owned(), config(false, Policy::AlwaysAsk)),
                ("free".to_owned(), config(true, Policy::AlwaysAllow)),
            ]),
        };
        let tool = |name: &str, schema: Value| -> Tool {
            serde_json::from_value(json!({"name": name, "inputSchema": schema})).unwrap()
        };
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
    fn results_become_blocks_that_a_model_can_be_shown() {
        let one = |block: Value| executed(&json!({"content": [block]})).content.remove(0);
        for (block, expected) in [
            (json!({"type": "text", "text": "hello"}), Block::text("hello")),
            (json!({"type": "text", "text": " "}), Block::text("(no output)")),
            (
                json!({"type": "image", "data": "QQ==", "mimeType": "image/png"}),
                Block::Image { source: json!({"type": "base64", "media_type": "image/png", "data": "QQ=="}) },
            ),
            (
                json!({"type": "image", "data": "QQ==", "mimeType": "image/svg+xml"}),
                Block::text("[a block of type image that cannot be shown here]"),
            ),
            (json!({"type": "resource", "resource": {"uri": "a:b", "text": "inside"}}), Block::text("inside")),
            (json!({"type": "resource_link", "uri": "a:b", "name": "n"}), Block::text("a:b (n)")),
        ] {
            assert_eq!(one(block), expected);
        }
        assert_eq!(executed(&json!({"content": []})).content, [Block::text("(no output)")]);
        let structured = executed(&json!({"content": [], "structuredContent": {"a": 1}, "isError": true}));
        assert!(structured.is_error && structured.content == [Block::text("{\"a\":1}")]);
        let long = json!({"type": "text", "text": "ä".repeat(TEXT_CHARS_MAX)});
        let cut = executed(&json!({"content": [long, {"type": "text", "text": "more"}]}));
        assert_eq!(cut.content[1], Block::text("\n[output truncated]"));
    }
}
