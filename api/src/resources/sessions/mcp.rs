//! What egress has to know of the MCP servers of a session's agent (which URLs, and which credentials of the session's vaults
//! belong to them), and of the pages that it may fetch.
//!
//! Whether a session takes a change of its agent is seen in its log alone. Until then egress knows the servers of both agents,
//! so that neither the change nor its loss leaves a session with servers that cannot be called.

use domain::agent::{AgentFacts, AgentSnapshot, McpAt, ToolKind};
use domain::egress::{Domains, McpServer, Reply, Request};
use domain::session::{Attributes, Mail};
use http::Uri;
use log::follow::Followed;
use log::{SessionLog, blobs};
use tokio::sync::broadcast::error::RecvError;

use super::current::Current;
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::resources::vaults;

/// The part of a policy that is about them.
#[derive(Clone, Default)]
pub struct McpPolicy {
    pub mcp_servers: Vec<McpServer>,
    pub mcp_hosts: Vec<String>,
    /// Where pages may be fetched from; none where the agent does not fetch any.
    pub web: Option<Domains>,
}

/// Whether egress has to know anything of this agent.
fn reaches_out(agent: &AgentFacts) -> bool {
    agent.mcp.iter().any(|server| server.inside.is_none()) || agent.tools.iter().any(|tool| tool.kind == ToolKind::Web)
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
        // One in a hand has the way out of the hand.
        let McpAt::Url { url } = toolset.at else { continue };
        let found = credentials.iter().find(|credential| credential.is_for(&url));
        policy.mcp_hosts.extend(authority(&url));
        policy.mcp_servers.push(McpServer {
            name: toolset.server,
            url,
            credential: found.map(|found| found.token.clone()),
            refresh: found.and_then(|found| found.refresh.clone()),
        });
    }
    Ok(policy)
}

impl McpPolicy {
    /// These, and those of `others` that are called by no name of these.
    fn before(mut self, others: Self) -> Self {
        let is_new = |server: &McpServer| self.mcp_servers.iter().all(|known| known.name != server.name);
        let more: Vec<_> = others.mcp_servers.into_iter().filter(is_new).collect();
        self.mcp_servers.extend(more);
        for host in others.mcp_hosts {
            if !self.mcp_hosts.contains(&host) {
                self.mcp_hosts.push(host);
            }
        }
        self.web = self.web.or(others.web);
        self
    }

    /// Whether each of `others` is called as it should be, and the pages fetched.
    fn serves(&self, others: &Self) -> bool {
        others.mcp_servers.iter().all(|server| self.mcp_servers.contains(server))
            && (others.web.is_none() || others.web == self.web)
    }
}

/// A change of a session's agent of which egress knows.
pub struct Announced {
    before: McpPolicy,
    next: McpPolicy,
}

/// The session's agent is about to become another one; `None` where neither has servers. To be called with the session's log
/// held, as all that is told of its servers here.
pub async fn announce(
    app: &App,
    session_id: &str,
    next: &AgentFacts,
    before: &Attributes,
) -> Result<Option<Announced>> {
    if app.egress.is_none() || !(reaches_out(next) || reaches_out(&before.agent)) {
        return Ok(None);
    }
    let next = policy(app, next, &before.vault_ids).await?;
    let before = policy(app, &before.agent, &before.vault_ids).await?;
    tell(app, session_id, next.clone().before(before.clone())).await?;
    Ok(Some(Announced { before, next }))
}

impl Announced {
    /// Nobody knows whether the change was sent: the servers of before come first again.
    pub async fn withdraw(self, app: &App, session_id: &str) {
        let Announced { before, next } = self;
        if !next.clone().before(before.clone()).serves(&before)
            && let Err(error) = tell(app, session_id, before.before(next)).await
        {
            tracing::warn!(session_id, error = error.message(), "MCP servers of a session not put back");
        }
    }

    /// The change was sent: once it is seen what became of it, egress knows exactly the servers that the session has then.
    pub fn settle(self, app: &App, session_id: &str) {
        let Announced { before, next } = self;
        let told = next.before(before.clone());
        settle(app, session_id, (!told.serves(&before)).then_some(told));
    }
}

/// A service that was started anew knows of no change that was announced before: as if nothing were told to egress.
pub fn settle_again(app: &App, session_id: &str, log: &SessionLog) {
    let reaches_out = log.summary().is_some_and(|summary| reaches_out(&summary.attributes.agent));
    if app.egress.is_some() && !log.is_closed() && (reaches_out || changes_agent(log)) {
        settle(app, session_id, Some(McpPolicy::default()));
    }
}

/// `told` is what egress knows, where that may be too little.
fn settle(app: &App, session_id: &str, told: Option<McpPolicy>) {
    let (app, session_id) = (app.clone(), session_id.to_owned());
    tokio::spawn(async move {
        let followed = app.session(&session_id);
        let mut updates = followed.subscribe();
        followed.follow();
        loop {
            match is_settled(&app, &session_id, &followed, told.as_ref()).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    // They know too many, which does no harm; the next change or start brings it in order.
                    tracing::warn!(session_id, error = error.message(), "MCP servers of a session not settled");
                    return;
                }
            }
            if let Err(RecvError::Closed) = updates.recv().await {
                return;
            }
        }
    });
}

async fn is_settled(app: &App, session_id: &str, followed: &Followed, told: Option<&McpPolicy>) -> Result<bool> {
    // Held until egress has heard it, so that no other change is announced in between and no turn begins.
    let log = followed.fresh().await?;
    let Some(current) = Current::of(&log).filter(|current| !current.is_over()) else { return Ok(true) };
    if changes_agent(&log) {
        return Ok(false);
    }
    // Whatever is told cuts calls that are under way: while the session works and can call all that it has, it waits.
    let works = !current.status.is_idle();
    if works && told.is_none() {
        return Ok(false);
    }
    let attributes = &current.summary.attributes;
    let exact = policy(app, &attributes.agent, &attributes.vault_ids).await?;
    if works && told.is_some_and(|told| told.serves(&exact)) {
        return Ok(false);
    }
    tell(app, session_id, exact).await.map(|()| true)
}

/// Whether a change of the agent waits to be taken.
fn changes_agent(log: &SessionLog) -> bool {
    log.uncommitted().any(|mail| matches!(mail, Mail::Change { change } if change.agent.is_some()))
}

async fn tell(app: &App, session_id: &str, policy: McpPolicy) -> Result<()> {
    let Some(egress) = app.egress.as_deref() else { return Ok(()) };
    let McpPolicy { mcp_servers, mcp_hosts, web } = policy;
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
