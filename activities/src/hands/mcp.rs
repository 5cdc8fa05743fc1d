//! MCP servers: asked which tools they have, and called. Over the socket of egress, which alone has their credentials and
//! says which URL of which session may be reached.
//!
//! Those that live in a hand are [`inside`]. A connection is made for each listing and each call and ends with it: what a server remembers of a session it remembers
//! of its own accord.

pub mod inside;
mod offered;
mod result;

use super::{Executed, knock};
use domain::{
    agent::{AgentSnapshot, McpToolset},
    egress::{CALLS_SOCKET, mcp_path},
    event::{ErrorBody, ErrorKind, RetryStatus},
    limits::MCP_CALL_TIMEOUT_MS,
    outcome::ListOutcome,
    session::ListInput,
};
use futures::future::join_all;
use rmcp::{
    RoleClient, ServiceError,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams,
        ProtocolVersion, Tool,
    },
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
const CALL_WITHIN: Duration = Duration::from_millis(MCP_CALL_TIMEOUT_MS);
/// Before a connection that is of no use any more is dropped.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
const SAID_CHARS: usize = 300;

/// How MCP servers are reached from this machine.
#[derive(Clone)]
pub struct McpServers {
    /// The folder of egress's sockets; none where there is no egress.
    sockets: Option<PathBuf>,
}

/// To one server; it reaches it by way of the folder's descriptor.
struct Connection {
    service: RunningService<RoleClient, ClientConfig>,
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
        let snapshot: AgentSnapshot = log::blobs::get_json(blobs, &input.snapshot).await?;
        let asked: Vec<McpToolset> =
            snapshot.mcp.iter().filter(|toolset| input.servers.contains(&toolset.server)).cloned().collect();
        let answers = join_all(asked.iter().map(|toolset| self.tools(&input.session_id, toolset))).await;
        let answers = asked.into_iter().zip(answers).map(|(toolset, answer)| {
            let answer = answer.map_err(|error| error.problem(&toolset.server));
            (toolset, answer)
        });
        offered::outcome(blobs, snapshot, answers).await
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
            Ok(result) => result::executed(&json!(result)),
            Err(Error::Service(ServiceError::McpError(error))) => {
                Executed::error(format!("The MCP server refused the call: {}", cut(&error, SAID_CHARS)))
            }
            Err(error) if error.is_authentication() => {
                Executed::error("The MCP server does not accept the session's credential for this call.")
            }
            Err(error) => lost(&cut(&error, SAID_CHARS)),
        }
    }

    async fn tools(&self, session_id: &str, toolset: &McpToolset) -> Result<Vec<Tool>, Error> {
        let listing = async {
            let connection = self.connect(session_id, &toolset.server).await?;
            let page =
                |cursor| connection.service.list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor)));
            let tools = offered::list(toolset, page).await.map_err(Error::Service);
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
        knock::connect(&socket).await.map_err(Error::Socket)?;
        let uri = format!("http://egress{}", mcp_path(session_id, server));
        let client = UnixSocketHttpClient::new(&socket, &uri);
        let mut config = StreamableHttpClientTransportConfig::with_uri(uri);
        // A call that a server has forgotten about is not made again behind the log's back.
        config.reinit_on_expired_session = false;
        let transport = StreamableHttpClientTransport::with_client(client, config);
        let service = us().serve(transport).await.map_err(|error| Error::Connect(Box::new(error)))?;
        Ok(Connection { service, _dir: dir })
    }
}

/// Who calls, and the newest version that a connection which begins with `initialize` can have. Nobody is there whom a server
/// could ask anything, so none of what it may ask clients for is offered.
fn us() -> ClientConfig {
    ClientConfig::new(ClientCapabilities::default(), Implementation::new("steadyhand", env!("CARGO_PKG_VERSION")))
        .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
}

async fn within<T>(time: Duration, done: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(time, done).await.unwrap_or(Err(Error::Late(time)))
}

/// Politely, and not at any price.
async fn close(mut connection: Connection) {
    // How it ends changes nothing any more.
    connection.service.close_with_timeout(CLOSE_WITHIN).await.ok();
}

fn cut(error: &dyn std::error::Error, chars: usize) -> String {
    error.to_string().chars().take(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_is_asked_for_has_the_handshake_that_asks_for_it() {
        let asked = us().protocol_version;
        assert!(asked.has_initialize() && asked == ProtocolVersion::V_2025_11_25, "{asked}");
    }
}
