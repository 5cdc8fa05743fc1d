//! The api's side of egress: sessions' policies go there before their workflow starts, and go away with them.

use async_trait::async_trait;
use domain::egress::{Networking, Policy, Reply, Request};
use domain::packages::Registries;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::resources::environments::config::{self, Config};

/// Whoever has the socket of egress. Nothing secret ever comes back over it.
#[async_trait]
pub trait Egress: Send + Sync {
    async fn ask(&self, request: Request) -> std::io::Result<Reply>;

    /// Whether the operator lists this `HOST:PORT` as one that is reached without TLS.
    fn may_go_unencrypted(&self, authority: &str) -> bool;

    /// Where package managers of sandboxes find what they install, as far as the operator says so.
    fn registries(&self) -> Registries;
}

/// What a session of this environment may reach, and what is installed for it; none where nothing is reached for it.
pub fn policy(app: &App, config: &Config) -> Result<Option<Policy>> {
    let Config::Cloud { networking, packages } = config else {
        // Its hands are elsewhere; what the service itself calls for it is not: that, and nothing else.
        let networking =
            Networking::Limited { allowed_hosts: vec![], allow_mcp_servers: true, allow_package_managers: false };
        return Ok(app.egress.as_ref().map(|_| Policy { networking, ..Policy::default() }));
    };
    let packages = packages.wanted();
    let Some(egress) = &app.egress else {
        return match packages.is_empty() {
            true => Ok(None),
            false => {
                Err(ApiError::not_built("packages of an environment where the service has no sandboxes of its own"))
            }
        };
    };
    let networking = match networking.clone() {
        config::Networking::Unrestricted => Networking::Unrestricted,
        config::Networking::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers } => {
            Networking::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers }
        }
    };
    Ok(Some(Policy { networking, packages, registries: egress.registries(), ..Policy::default() }))
}

/// Has the policy in force, or refuses: a session whose policy nobody enforces does not start.
pub async fn open(app: &App, session_id: &str, policy: Option<Policy>) -> Result<()> {
    let (Some(egress), Some(policy)) = (&app.egress, policy) else { return Ok(()) };
    match egress.ask(Request::SetPolicy { session_id: session_id.to_owned(), policy }).await {
        Ok(Reply::Done) => Ok(()),
        Ok(reply) => {
            tracing::error!(session_id, ?reply, "policy not taken");
            Err(ApiError::unavailable("the session's networking could not be set up"))
        }
        Err(error) => {
            tracing::warn!(session_id, error = &error as &dyn std::error::Error, "egress not reached");
            Err(ApiError::unavailable("the session's networking cannot be set up right now: try again"))
        }
    }
}

/// The session has ended: its policy goes, and with it the secrets that were its own. It has not ended for good before this
/// is done.
pub async fn close(app: &App, session_id: &str) -> Result<()> {
    let Some(egress) = &app.egress else { return Ok(()) };
    match egress.ask(Request::DropSession { session_id: session_id.to_owned() }).await {
        Ok(Reply::Done) => Ok(()),
        Ok(reply) => {
            tracing::error!(session_id, ?reply, "policy not dropped");
            Err(ApiError::unavailable("the session's secrets could not be removed: try again"))
        }
        Err(error) => {
            tracing::warn!(session_id, error = &error as &dyn std::error::Error, "egress not reached");
            Err(ApiError::unavailable("the session's secrets cannot be removed right now: try again"))
        }
    }
}
