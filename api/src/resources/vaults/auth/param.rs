//! What clients send of a credential: taken apart into what is kept and the secrets, which go to egress.

use domain::egress::Secret;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{check_expiry, check_name, check_text, check_url, keep};
use super::{Auth, EndpointAuth, InjectionLocation, Networking, Refresh};
use crate::body::Patch;
use crate::error::{ApiError, Result};
use crate::resources::vaults::secrets::{Part, Secrets};

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CreateAuth {
    McpOauth {
        mcp_server_url: String,
        access_token: Secret,
        #[serde(default)]
        expires_at: Option<Timestamp>,
        #[serde(default)]
        refresh: Option<CreateRefresh>,
    },
    StaticBearer {
        mcp_server_url: String,
        token: Secret,
    },
    EnvironmentVariable {
        secret_name: String,
        secret_value: Secret,
        networking: Networking,
        #[serde(default)]
        injection_location: Patch<LocationParam>,
    },
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRefresh {
    client_id: String,
    token_endpoint: String,
    token_endpoint_auth: EndpointAuthParam,
    refresh_token: Secret,
    #[serde(default)]
    resource: Option<String>,
    #[serde(default)]
    scope: Option<String>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum EndpointAuthParam {
    None {},
    ClientSecretBasic { client_secret: Secret },
    ClientSecretPost { client_secret: Secret },
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocationParam {
    #[serde(default)]
    header: Option<bool>,
    #[serde(default)]
    body: Option<bool>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum UpdateAuth {
    McpOauth {
        #[serde(default)]
        access_token: Option<Secret>,
        #[serde(default)]
        expires_at: Patch<Timestamp>,
        #[serde(default)]
        refresh: Option<UpdateRefresh>,
    },
    StaticBearer {
        #[serde(default)]
        token: Option<Secret>,
    },
    EnvironmentVariable {
        #[serde(default)]
        secret_value: Option<Secret>,
        #[serde(default)]
        networking: Option<Networking>,
        #[serde(default)]
        injection_location: Patch<LocationParam>,
    },
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRefresh {
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    scope: Patch<String>,
    #[serde(default)]
    token_endpoint_auth: Option<UpdateEndpointAuth>,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum UpdateEndpointAuth {
    ClientSecretBasic {
        #[serde(default)]
        client_secret: Option<Secret>,
    },
    ClientSecretPost {
        #[serde(default)]
        client_secret: Option<Secret>,
    },
}

impl CreateAuth {
    pub fn take_apart(self, now: Timestamp) -> Result<(Auth, Secrets)> {
        let mut secrets = Secrets::new();
        let auth = match self {
            CreateAuth::McpOauth { mcp_server_url, access_token, expires_at, refresh } => {
                keep(&mut secrets, Part::Value, access_token, "auth.access_token")?;
                let refresh = refresh.map(|refresh| refresh.take_apart(&mut secrets)).transpose()?;
                let expires_at = expires_at.map(|at| check_expiry(at, now)).transpose()?;
                Auth::McpOauth {
                    mcp_server_url: check_url(mcp_server_url, "auth.mcp_server_url")?,
                    expires_at,
                    refresh,
                }
            }
            CreateAuth::StaticBearer { mcp_server_url, token } => {
                keep(&mut secrets, Part::Value, token, "auth.token")?;
                Auth::StaticBearer { mcp_server_url: check_url(mcp_server_url, "auth.mcp_server_url")? }
            }
            CreateAuth::EnvironmentVariable { secret_name, secret_value, networking, injection_location } => {
                keep(&mut secrets, Part::Value, secret_value, "auth.secret_value")?;
                let none = InjectionLocation { header: false, body: false };
                Auth::EnvironmentVariable {
                    secret_name: check_name(secret_name)?,
                    networking: networking.check()?,
                    injection_location: located(injection_location, none, BOTH)?,
                }
            }
        };
        Ok((auth, secrets))
    }
}

impl CreateRefresh {
    fn take_apart(self, secrets: &mut Secrets) -> Result<Refresh> {
        let Self { client_id, token_endpoint, token_endpoint_auth, refresh_token, resource, scope } = self;
        keep(secrets, Part::RefreshToken, refresh_token, "auth.refresh.refresh_token")?;
        let mut with = |client_secret, kind| {
            keep(secrets, Part::ClientSecret, client_secret, "auth.refresh.token_endpoint_auth.client_secret")?;
            Ok::<_, ApiError>(kind)
        };
        let token_endpoint_auth = match token_endpoint_auth {
            EndpointAuthParam::None {} => EndpointAuth::None {},
            EndpointAuthParam::ClientSecretBasic { client_secret } => {
                with(client_secret, EndpointAuth::ClientSecretBasic {})?
            }
            EndpointAuthParam::ClientSecretPost { client_secret } => {
                with(client_secret, EndpointAuth::ClientSecretPost {})?
            }
        };
        let text = |text: Option<String>, field| text.map(|text| check_text(text, field)).transpose();
        Ok(Refresh {
            client_id: check_text(client_id, "auth.refresh.client_id")?,
            token_endpoint: check_url(token_endpoint, "auth.refresh.token_endpoint")?,
            token_endpoint_auth,
            resource: text(resource, "auth.refresh.resource")?,
            scope: text(scope, "auth.refresh.scope")?,
        })
    }
}

const BOTH: InjectionLocation = InjectionLocation { header: true, body: true };

/// `current` is what an omitted side keeps, `omitted` what there is without the object.
fn located(
    param: Patch<LocationParam>,
    current: InjectionLocation,
    omitted: InjectionLocation,
) -> Result<InjectionLocation> {
    let Some(LocationParam { header, body }) = param.not_null("auth.injection_location")? else { return Ok(omitted) };
    let location = InjectionLocation { header: header.unwrap_or(current.header), body: body.unwrap_or(current.body) };
    if !location.header && !location.body {
        return Err(ApiError::field("auth.injection_location", "header or body must be true"));
    }
    Ok(location)
}

impl UpdateAuth {
    /// The auth after the update. What is omitted stays.
    pub fn over(self, current: &Auth, now: Timestamp) -> Result<(Auth, Secrets)> {
        let mut secrets = Secrets::new();
        let mut value = |secret: Option<Secret>, field| match secret {
            Some(secret) => keep(&mut secrets, Part::Value, secret, field),
            None => Ok(()),
        };
        let auth = match (self, current.clone()) {
            (
                UpdateAuth::McpOauth { access_token, expires_at, refresh },
                Auth::McpOauth { mcp_server_url, expires_at: known, refresh: kept },
            ) => {
                value(access_token, "auth.access_token")?;
                let expires_at = match expires_at {
                    Patch::Set(at) => Some(check_expiry(at, now)?),
                    other => other.or_keep(known),
                };
                let refresh = match (refresh, kept) {
                    (None, kept) => kept,
                    (Some(change), Some(kept)) => Some(change.over(kept, &mut secrets)?),
                    (Some(_), None) => {
                        return Err(ApiError::field("auth.refresh", "the credential was made without one"));
                    }
                };
                Auth::McpOauth { mcp_server_url, expires_at, refresh }
            }
            (UpdateAuth::StaticBearer { token }, same @ Auth::StaticBearer { .. }) => {
                value(token, "auth.token")?;
                same
            }
            (
                UpdateAuth::EnvironmentVariable { secret_value, networking: change, injection_location: location },
                Auth::EnvironmentVariable { secret_name, networking, injection_location },
            ) => {
                value(secret_value, "auth.secret_value")?;
                Auth::EnvironmentVariable {
                    secret_name,
                    networking: change.map(Networking::check).transpose()?.unwrap_or(networking),
                    injection_location: located(location, injection_location, injection_location)?,
                }
            }
            _ => return Err(ApiError::field("auth.type", "a credential cannot change its type")),
        };
        Ok((auth, secrets))
    }
}

impl UpdateRefresh {
    fn over(self, kept: Refresh, secrets: &mut Secrets) -> Result<Refresh> {
        if let Some(token) = self.refresh_token {
            keep(secrets, Part::RefreshToken, token, "auth.refresh.refresh_token")?;
        }
        let scope = match self.scope {
            Patch::Set(scope) if scope.is_empty() => None,
            Patch::Set(scope) => Some(check_text(scope, "auth.refresh.scope")?),
            Patch::Keep | Patch::Clear => kept.scope,
        };
        let (kind, client_secret) = match self.token_endpoint_auth {
            None => (kept.token_endpoint_auth, None),
            Some(UpdateEndpointAuth::ClientSecretBasic { client_secret }) => {
                (EndpointAuth::ClientSecretBasic {}, client_secret)
            }
            Some(UpdateEndpointAuth::ClientSecretPost { client_secret }) => {
                (EndpointAuth::ClientSecretPost {}, client_secret)
            }
        };
        let at = "auth.refresh.token_endpoint_auth.client_secret";
        match client_secret {
            Some(secret) => keep(secrets, Part::ClientSecret, secret, at)?,
            None if kept.token_endpoint_auth == (EndpointAuth::None {}) && kind != kept.token_endpoint_auth => {
                return Err(ApiError::field(at, "there is none yet"));
            }
            None => {}
        }
        Ok(Refresh { token_endpoint_auth: kind, scope, ..kept })
    }
}
