//! What egress has to know of the MCP servers of a session's agent (which URLs, and which credentials of the session's vaults
//! belong to them), and of the pages that it may fetch.

use domain::agent::{AgentFacts, AgentSnapshot, ToolKind};
use domain::egress::{Domains, McpServer, Reply, Request};
use domain::session::Attributes;
use http::Uri;
use log::blobs;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::resources::vaults;

/// The part of a policy that is about them.
#[derive(Default)]
pub struct McpPolicy {
    pub mcp_servers: Vec<McpServer>,
    pub mcp_hosts: Vec<String>,
    /// Where pages may be fetched from; none where the agent does not fetch any.
    pub web: Option<Domains>,
}

/// Whether egress has to know anything of this agent.
fn reaches_out(agent: &AgentFacts) -> bool {
    !agent.mcp.is_empty() || agent.tools.iter().any(|tool| tool.kind == ToolKind::Web)
}

/// The first vault with a credential for exactly a server's URL wins; without one it is asked as anybody could ask it.
pub async fn policy(app: &App, agent: &AgentFacts, vault_ids: &[String]) -> Result<McpPolicy> {
    if !reaches_out(agent) {
        return Ok(McpPolicy::default());
    }
    let snapshot: AgentSnapshot = blobs::get_json(&*app.blobs, &agent.snapshot).await?;
    let credentials = vaults::for_servers(app, vault_ids).await?;
    let web = snapshot.web_fetch.map(|settings| settings.domains);
    let mut policy = McpPolicy { web, ..McpPolicy::default() };
    for toolset in snapshot.mcp {
        let found = credentials.iter().find(|credential| credential.is_for(&toolset.url));
        policy.mcp_hosts.extend(authority(&toolset.url));
        policy.mcp_servers.push(McpServer {
            name: toolset.server,
            url: toolset.url,
            credential: found.map(|found| found.token.clone()),
            refresh: found.and_then(|found| found.refresh.clone()),
        });
    }
    Ok(policy)
}

/// The session's agent becomes another one.
pub async fn change(app: &App, session_id: &str, agent: &AgentFacts, before: &Attributes) -> Result<()> {
    let Some(egress) = app.egress.as_deref().filter(|_| reaches_out(agent) || reaches_out(&before.agent)) else {
        return Ok(());
    };
    let McpPolicy { mcp_servers, mcp_hosts, web } = policy(app, agent, &before.vault_ids).await?;
    let request = Request::SetMcpServers { session_id: session_id.to_owned(), mcp_servers, mcp_hosts, web };
    match egress.ask(request).await {
        Ok(Reply::Done) => Ok(()),
        Ok(reply) => {
            tracing::error!(session_id, ?reply, "MCP servers not taken");
            Err(ApiError::unavailable("the session's MCP servers could not be set up"))
        }
        Err(error) => {
            tracing::warn!(session_id, error = &error as &dyn std::error::Error, "egress not reached");
            Err(ApiError::unavailable("the session's MCP servers cannot be set up right now: try again"))
        }
    }
}

/// As the list of hosts has it.
fn authority(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    Some(format!("{}:{port}", uri.host()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_listed_with_their_port() {
        for (url, expected) in [
            ("https://mcp.example.com/v1?x=1", "mcp.example.com:443"),
            ("http://mcp.example.com", "mcp.example.com:80"),
            ("https://[::1]:8000/mcp", "[::1]:8000"),
        ] {
            assert_eq!(authority(url).as_deref(), Some(expected));
        }
    }
}
