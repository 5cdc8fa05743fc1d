//! What a credential is for, without its secrets: kept and shown as it is here.

mod check;
mod param;

use domain::egress::{self, ClientAuth, CredentialId};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::param::{CreateAuth, UpdateAuth};
use crate::error::{ApiError, Result};
use crate::time;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    McpOauth {
        mcp_server_url: String,
        #[serde(default, with = "expiry", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<Timestamp>")]
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

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Refresh {
    client_id: String,
    token_endpoint: String,
    token_endpoint_auth: EndpointAuth,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
enum EndpointAuth {
    None {},
    ClientSecretBasic {},
    ClientSecretPost {},
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
#[schemars(rename = "CredentialNetworking")]
pub enum Networking {
    Unrestricted {},
    Limited { allowed_hosts: Vec<String> },
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
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

    /// The MCP server that it is for.
    pub fn server_url(&self) -> Option<&str> {
        match self {
            Auth::McpOauth { mcp_server_url, .. } | Auth::StaticBearer { mcp_server_url } => Some(mcp_server_url),
            Auth::EnvironmentVariable { .. } => None,
        }
    }

    /// How egress gets another access token, where there is a way.
    pub fn refreshed_by(&self, refresh_token: CredentialId, secret: CredentialId) -> Option<egress::Refresh> {
        let Auth::McpOauth { refresh: Some(refresh), .. } = self else { return None };
        Some(egress::Refresh {
            token_endpoint: refresh.token_endpoint.clone(),
            client_id: refresh.client_id.clone(),
            client: match refresh.token_endpoint_auth {
                EndpointAuth::None {} => ClientAuth::None {},
                EndpointAuth::ClientSecretBasic {} => ClientAuth::Basic { secret },
                EndpointAuth::ClientSecretPost {} => ClientAuth::Post { secret },
            },
            refresh_token,
            resource: refresh.resource.clone(),
            scope: refresh.scope.clone(),
        })
    }

    pub fn has_refresh(&self) -> bool {
        matches!(self, Auth::McpOauth { refresh: Some(_), .. })
    }
}

/// A URL as it is compared: scheme and host in lower case, without a default port and without a slash at the end.
pub fn normal(url: &str) -> String {
    let Ok(uri) = url.parse::<http::Uri>() else { return url.to_owned() };
    let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let default = if scheme == "https" { 443 } else { 80 };
    let port = uri.port_u16().filter(|port| *port != default).map_or(String::new(), |port| format!(":{port}"));
    let path = uri.path_and_query().map_or("", |path| path.as_str()).trim_end_matches('/');
    format!("{scheme}://{host}{port}{path}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body;
    use crate::resources::vaults::secrets::{Part, Secrets};

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
