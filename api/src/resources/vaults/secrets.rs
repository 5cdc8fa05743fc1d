//! The way of a secret: out of a request, over the socket of egress, and nowhere else. Nothing here comes back.

use domain::egress::{CredentialId, Reply, Request, Secret};

use crate::app::App;
use crate::egress::Egress;
use crate::error::{ApiError, Result};

/// What a credential has of secrets. Their names in the vault are derived from the credential's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The token or value that requests are sent with.
    Value,
    RefreshToken,
    ClientSecret,
}

impl Part {
    pub const ALL: [Part; 3] = [Part::Value, Part::RefreshToken, Part::ClientSecret];

    pub fn of(self, vault_id: &str, credential_id: &str) -> CredentialId {
        let end = match self {
            Part::Value => "",
            Part::RefreshToken => "-refresh",
            Part::ClientSecret => "-client",
        };
        CredentialId { vault: vault_id.to_owned(), credential: format!("{credential_id}{end}") }
    }
}

/// Secrets of one request, by what they are.
pub type Secrets = Vec<(Part, Secret)>;

fn egress(app: &App) -> Result<&dyn Egress> {
    app.egress.as_deref().ok_or_else(|| {
        ApiError::unavailable("this service runs without egress, which alone keeps secrets").should_retry(false)
    })
}

async fn ask(app: &App, request: Request) -> Result<Reply> {
    egress(app)?.ask(request).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "egress not reached");
        ApiError::unavailable("secrets cannot be kept or removed right now: try again")
    })
}

/// A service without egress keeps no vaults: said before anything is written.
pub fn require(app: &App) -> Result<()> {
    egress(app).map(drop)
}

pub async fn put(app: &App, vault_id: &str, credential_id: &str, secrets: Secrets) -> Result<()> {
    for (part, secret) in secrets {
        let id = part.of(vault_id, credential_id);
        match ask(app, Request::PutCredential { id, secret }).await? {
            Reply::Done => {}
            reply => {
                tracing::error!(credential_id, ?reply, "secret not kept");
                return Err(ApiError::unavailable("the secret could not be kept"));
            }
        }
    }
    Ok(())
}

/// Removes every secret of a credential. What is gone already is as good as removed.
pub async fn purge(app: &App, vault_id: &str, credential_id: &str) -> Result<()> {
    for part in Part::ALL {
        let id = part.of(vault_id, credential_id);
        match ask(app, Request::DeleteCredential { id }).await? {
            Reply::Done => {}
            reply => {
                tracing::error!(credential_id, ?reply, "secret not removed");
                return Err(ApiError::unavailable("the secret could not be removed: try again"));
            }
        }
    }
    Ok(())
}

/// Whether the secret is there and can be opened by those who use it.
pub async fn holds(app: &App, vault_id: &str, credential_id: &str, part: Part) -> Result<bool> {
    let id = part.of(vault_id, credential_id);
    match ask(app, Request::ValidateCredential { id }).await? {
        Reply::Valid { valid } => Ok(valid),
        Reply::Done | Reply::Refused { .. } => Ok(false),
    }
}
