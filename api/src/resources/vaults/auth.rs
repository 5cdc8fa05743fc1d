//! What a credential is for, without its secrets: kept and shown as it is here. What a client sends is taken apart into
//! this and the secrets, which go to egress.

use std::collections::BTreeSet;

use domain::egress::Secret;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::secrets::{Part, Secrets};
use crate::body::Patch;
use crate::error::{ApiError, Result};
use crate::resources::agents::tools::is_host;
use crate::time;

const URL_CHARS_MAX: usize = 2048;
const TEXT_CHARS_MAX: usize = 2048;
const SECRET_CHARS_MAX: usize = 16_384;
const HOSTS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 128;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    McpOauth {
        mcp_server_url: String,
        #[serde(default, with = "expiry", skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refresh: Option<Refresh>,
    },
    StaticBearer {
        mcp_server_url: String,
    },
    EnvironmentVariable {
        secret_name: String,
        networking: Networking,
        injection_location: InjectionLocation,
    },
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Refresh {
    client_id: String,
    token_endpoint: String,
    token_endpoint_auth: EndpointAuth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum EndpointAuth {
    None {},
    ClientSecretBasic {},
    ClientSecretPost {},
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Networking {
    Unrestricted {},
    Limited { allowed_hosts: Vec<String> },
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct InjectionLocation {
    header: bool,
    body: bool,
}

/// Times are shown as everywhere.
mod expiry {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        super::time::wire_option(time, serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Option::deserialize(deserializer)
    }
}

#[derive(Clone, Deserialize)]
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

#[derive(Clone, Deserialize)]
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

#[derive(Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum EndpointAuthParam {
    None {},
    ClientSecretBasic { client_secret: Secret },
    ClientSecretPost { client_secret: Secret },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocationParam {
    #[serde(default)]
    header: Option<bool>,
    #[serde(default)]
    body: Option<bool>,
}

#[derive(Clone, Deserialize)]
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

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRefresh {
    #[serde(default)]
    refresh_token: Option<Secret>,
    #[serde(default)]
    scope: Patch<String>,
    #[serde(default)]
    token_endpoint_auth: Option<UpdateEndpointAuth>,
}

#[derive(Clone, Deserialize)]
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

impl Auth {
    /// What no two active credentials of a vault may have in common.
    pub fn key(&self) -> String {
        match self {
            Auth::McpOauth { mcp_server_url, .. } | Auth::StaticBearer { mcp_server_url } => {
                format!("url/{}", normal(mcp_server_url))
            }
            Auth::EnvironmentVariable { secret_name, .. } => format!("name/{secret_name}"),
        }
    }

    /// What it is called in messages.
    pub fn key_field(&self) -> &'static str {
        match self {
            Auth::McpOauth { .. } | Auth::StaticBearer { .. } => "mcp_server_url",
            Auth::EnvironmentVariable { .. } => "secret_name",
        }
    }

    /// The environment variable that it is, and the host that is sent its value; none where it is no variable.
    pub fn variable(&self) -> Option<Result<(&str, &str)>> {
        let Auth::EnvironmentVariable { secret_name, networking, injection_location } = self else { return None };
        let host = match networking {
            Networking::Limited { allowed_hosts } if injection_location.header => match &allowed_hosts[..] {
                [host] => Some(host),
                _ => None,
            },
            _ => None,
        };
        let what = "variables that are sent to more than one host, or in the body of requests alone";
        Some(host.map(|host| (secret_name.as_str(), host.as_str())).ok_or_else(|| ApiError::not_built(what)))
    }

    pub fn has_refresh(&self) -> bool {
        matches!(self, Auth::McpOauth { refresh: Some(_), .. })
    }
}

/// A URL as it is compared: scheme and host in lower case, without a default port and without a slash at the end.
fn normal(url: &str) -> String {
    let Ok(uri) = url.parse::<http::Uri>() else { return url.to_owned() };
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let default = if scheme == "https" { 443 } else { 80 };
    let port = uri.port_u16().filter(|port| *port != default).map_or(String::new(), |port| format!(":{port}"));
    let path = uri.path_and_query().map_or("", |path| path.as_str()).trim_end_matches('/');
    format!("{scheme}://{host}{port}{path}")
}

fn keep(secrets: &mut Secrets, part: Part, secret: Secret, field: &str) -> Result<()> {
    let chars = secret.0.chars().count();
    if !(1..=SECRET_CHARS_MAX).contains(&chars) {
        return Err(ApiError::field(field, format!("must be 1 to {SECRET_CHARS_MAX} characters")));
    }
    // It becomes part of a header.
    if secret.0.chars().any(char::is_control) {
        return Err(ApiError::field(field, "must have no control characters"));
    }
    secrets.push((part, secret));
    Ok(())
}

fn check_url(url: String, field: &str) -> Result<String> {
    let is_url = url.chars().count() <= URL_CHARS_MAX
        && url.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
    if is_url {
        return Ok(url);
    }
    let problem = format!("must be an http or https URL of at most {URL_CHARS_MAX} characters, without a user");
    Err(ApiError::field(field, problem))
}

fn check_text(text: String, field: &str) -> Result<String> {
    match text.chars().count() {
        1..=TEXT_CHARS_MAX => Ok(text),
        _ => Err(ApiError::field(field, format!("must be 1 to {TEXT_CHARS_MAX} characters"))),
    }
}

/// The name of an environment variable.
fn check_name(name: String) -> Result<String> {
    let mut chars = name.chars();
    let begins = chars.next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_');
    if begins && name.len() <= NAME_CHARS_MAX && chars.all(|char| char.is_ascii_alphanumeric() || char == '_') {
        return Ok(name);
    }
    let problem = format!("must be the name of an environment variable of at most {NAME_CHARS_MAX} characters");
    Err(ApiError::field("auth.secret_name", problem))
}

fn check_expiry(at: Timestamp, now: Timestamp) -> Result<Timestamp> {
    if at > now { Ok(at) } else { Err(ApiError::field("auth.expires_at", "must be in the future")) }
}

impl Networking {
    fn check(self) -> Result<Self> {
        let at = "auth.networking.allowed_hosts";
        if let Networking::Limited { allowed_hosts } = &self {
            if !(1..=HOSTS_MAX).contains(&allowed_hosts.len()) {
                return Err(ApiError::field(at, format!("must be 1 to {HOSTS_MAX} hosts")));
            }
            let known: BTreeSet<_> = allowed_hosts.iter().collect();
            if known.len() < allowed_hosts.len() {
                return Err(ApiError::field(at, "names a host twice"));
            }
            if let Some(n) = allowed_hosts.iter().position(|host| !is_host(host.strip_prefix("*.").unwrap_or(host))) {
                let problem = "must be a host name like example.com or *.example.com";
                return Err(ApiError::field(format!("{at}[{n}]"), problem));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn create(auth: Value) -> Result<(Auth, Secrets)> {
        body::json::<CreateAuth>(auth.to_string().as_bytes())?.take_apart(NOW)
    }

    fn update(current: &Auth, auth: Value) -> Result<(Auth, Secrets)> {
        body::json::<UpdateAuth>(auth.to_string().as_bytes())?.over(current, NOW)
    }

    fn oauth() -> Value {
        json!({"type": "mcp_oauth", "mcp_server_url": "https://mcp.example.com/sse", "access_token": "CANARY-1",
            "expires_at": "2030-01-01T00:00:00Z", "refresh": {"client_id": "c", "token_endpoint": "https://id.example.com/t",
            "token_endpoint_auth": {"type": "client_secret_basic", "client_secret": "CANARY-2"},
            "refresh_token": "CANARY-3", "scope": "a b"}})
    }

    fn variable() -> Value {
        json!({"type": "environment_variable", "secret_name": "TOKEN", "secret_value": "CANARY",
            "networking": {"type": "limited", "allowed_hosts": ["api.example.com"]}})
    }

    #[test]
    fn secrets_are_taken_out_and_the_rest_is_shown() {
        let (auth, secrets) = create(oauth()).unwrap();
        let shown = json!(auth);
        assert_eq!(
            shown,
            json!({"type": "mcp_oauth", "mcp_server_url": "https://mcp.example.com/sse",
                "expires_at": "2030-01-01T00:00:00.000Z", "refresh": {"client_id": "c",
                "token_endpoint": "https://id.example.com/t", "token_endpoint_auth": {"type": "client_secret_basic"},
                "scope": "a b"}})
        );
        let kept: Vec<_> = secrets.into_iter().map(|(part, secret)| (part, secret.0)).collect();
        let expected = [(Part::Value, "CANARY-1"), (Part::RefreshToken, "CANARY-3"), (Part::ClientSecret, "CANARY-2")];
        assert_eq!(kept, expected.map(|(part, secret)| (part, secret.to_owned())));
        assert_eq!(serde_json::from_value::<Auth>(shown).unwrap(), auth);
        let (auth, _) = create(variable()).unwrap();
        assert_eq!(json!(auth)["injection_location"], json!({"header": true, "body": true}));
    }

    #[test]
    fn wrong_ones_are_refused_and_no_secret_is_in_the_message() {
        let with = |base: Value, at: &str, value: Value| {
            let mut auth = base;
            *auth.pointer_mut(at).unwrap_or_else(|| panic!("{at}")) = value;
            auth
        };
        let located = |location: Value| {
            let mut auth = variable();
            auth["injection_location"] = location;
            auth
        };
        for auth in [
            with(oauth(), "/mcp_server_url", json!("ftp://mcp.example.com")),
            with(oauth(), "/mcp_server_url", json!("https://user@mcp.example.com")),
            with(oauth(), "/expires_at", json!("1960-01-01T00:00:00Z")),
            with(oauth(), "/access_token", json!("")),
            with(oauth(), "/access_token", json!("CANARY\nx: y")),
            with(oauth(), "/refresh/token_endpoint_auth", json!({"type": "none", "client_secret": "CANARY"})),
            with(variable(), "/secret_name", json!("1TOKEN")),
            with(variable(), "/networking/allowed_hosts", json!([])),
            with(variable(), "/networking/allowed_hosts", json!(["a.com", "a.com"])),
            with(variable(), "/networking/allowed_hosts", json!(["https://a.com"])),
            located(json!(null)),
            located(json!({})),
            located(json!({"header": false, "body": false})),
            json!({"type": "static_bearer", "token": "CANARY"}),
            json!({"type": "static_bearer", "token": ["CANARY"], "mcp_server_url": "https://a.com"}),
        ] {
            let error = create(auth.clone()).err().unwrap_or_else(|| panic!("{auth}"));
            assert!(!error.message().contains("CANARY"), "{}", error.message());
        }
        assert!(create(located(json!({"header": true}))).is_ok());
    }

    #[test]
    fn an_update_merges() {
        let (oauth, _) = create(oauth()).unwrap();
        let (same, secrets) = update(&oauth, json!({"type": "mcp_oauth", "access_token": "new"})).unwrap();
        assert_eq!((&same, secrets.len()), (&oauth, 1));
        let (changed, _) = update(&oauth, json!({"type": "mcp_oauth", "refresh": {"scope": ""}})).unwrap();
        assert_eq!(json!(changed)["refresh"].get("scope"), None);
        let (variable, _) = create(variable()).unwrap();
        let body_only = json!({"type": "environment_variable", "injection_location": {"header": false}});
        let (changed, secrets) = update(&variable, body_only).unwrap();
        assert_eq!(json!(changed)["injection_location"], json!({"header": false, "body": true}));
        assert!(secrets.is_empty());
        let neither = json!({"type": "environment_variable", "injection_location": {"body": false}});
        assert!(update(&changed, neither).is_err());
        for wrong in [
            json!({"type": "static_bearer", "token": "x"}),
            json!({"type": "environment_variable", "secret_name": "OTHER"}),
            json!({"type": "environment_variable", "injection_location": null}),
        ] {
            assert!(update(&variable, wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn urls_are_compared_normalised() {
        for (url, expected) in [
            ("HTTPS://MCP.Example.com:443/Sse/", "https://mcp.example.com/Sse"),
            ("http://a.com:80", "http://a.com"),
            ("http://a.com:8080/?q=1", "http://a.com:8080/?q=1"),
        ] {
            assert_eq!(normal(url), expected);
        }
    }
}
