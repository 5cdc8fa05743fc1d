//! What the service tells egress, and what a session may reach: the shapes on `egress.sock`.
//!
//! Nothing here gives a secret back: there is a request to put one, and none to get one.

use crate::packages::{Packages, Registries};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All that a session may reach. Whatever is not in it is denied.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    #[serde(default)]
    pub networking: Networking,
    /// Hosts of the agent's MCP servers, for `allow_mcp_servers`.
    #[serde(default)]
    pub mcp_hosts: Vec<String>,
    #[serde(default)]
    pub repositories: Vec<Repository>,
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// MCP servers that the service calls for the session; its sandboxes cannot.
    #[serde(default)]
    pub mcp_servers: Vec<McpServer>,
    /// Where pages are fetched from for the session; none: from nowhere.
    #[serde(default)]
    pub web: Option<Domains>,
    /// Installed for the session's sandboxes, over the socket of its [`installer`].
    #[serde(default)]
    pub packages: Packages,
    /// Where package managers find what they install, with `allow_package_managers`.
    #[serde(default)]
    pub registries: Registries,
}

/// As environments have it, and nothing at all.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Networking {
    #[default]
    None,
    /// Every public address.
    Unrestricted,
    Limited {
        /// `example.com`, `*.example.com`, either with `:port`; without one, 80 and 443.
        #[serde(default)]
        allowed_hosts: Vec<String>,
        #[serde(default)]
        allow_mcp_servers: bool,
        #[serde(default)]
        allow_package_managers: bool,
    },
}

/// A git repository that the session reaches through the proxy, which adds the authorization.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// As the agent knows it; without user, query and fragment.
    pub url: String,
    /// A credential in the vault; none for a public repository.
    #[serde(default)]
    pub credential: Option<CredentialId>,
    /// Refs that may be pushed to, `*` at the end for all below; none for a repository that is only read.
    #[serde(default)]
    pub push: Vec<String>,
}

/// An MCP server of the session's agent: this URL and no other.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct McpServer {
    /// As the agent calls it.
    pub name: String,
    pub url: String,
    /// Sent as a bearer token; none for a server that asks for nothing.
    #[serde(default)]
    pub credential: Option<CredentialId>,
    /// How an access token is replaced that the server takes no more.
    #[serde(default)]
    pub refresh: Option<Refresh>,
}

/// Hosts of pages. A domain stands for itself and all below it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Domains {
    #[default]
    Any,
    Only(Vec<String>),
    Except(Vec<String>),
}

impl Domains {
    /// `host` is in lower case.
    pub fn allow(&self, host: &str) -> bool {
        let below = |domain: &String| {
            let domain = domain.to_ascii_lowercase();
            host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match self {
            Domains::Any => true,
            Domains::Only(domains) => domains.iter().any(below),
            Domains::Except(domains) => !domains.iter().any(below),
        }
    }
}

/// OAuth's way to another access token.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Refresh {
    pub token_endpoint: String,
    pub client_id: String,
    pub client: ClientAuth,
    pub refresh_token: CredentialId,
    #[serde(default)]
    pub resource: Option<String>,
    #[serde(default)]
    pub scope: Option<String>,
}

/// How the client says to the token endpoint who it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientAuth {
    None {},
    Basic { secret: CredentialId },
    Post { secret: CredentialId },
}

/// A credential that the sandbox knows by a placeholder alone.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// The environment variable inside.
    pub name: String,
    /// Its value inside.
    pub placeholder: String,
    /// The one host that is sent the credential in its place.
    pub host: String,
    /// The headers in which it is sent, by name or as [`credential_headers`] has them; in any other it is refused.
    #[serde(default = "credential_headers")]
    pub headers: Vec<String>,
    pub credential: CredentialId,
}

/// Headers that are made for credentials, for those that name none of their own. A `*` at the beginning stands for anything.
pub fn credential_headers() -> Vec<String> {
    [
        "authorization",
        "*-authorization",
        "api-key",
        "*-api-key",
        "apikey",
        "*-access-key",
        "*-auth-key",
        "token",
        "*-token",
    ]
    .map(str::to_owned)
    .into()
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[serde(deny_unknown_fields)]
pub struct CredentialId {
    pub vault: String,
    pub credential: String,
}

/// Bytes that may be sent and stored, and never shown.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a repository's server did not let git in: what egress says then, which is all that is known of it inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// It wants a credential, and there is none.
    Anonymous,
    /// It does not know the credential.
    Unauthorized,
    /// The credential, or nobody at all, may do this.
    Forbidden,
    NotFound,
}

impl Barred {
    const ALL: [Barred; 4] = [Self::Anonymous, Self::Unauthorized, Self::Forbidden, Self::NotFound];

    pub fn words(self) -> &'static str {
        match self {
            Self::Anonymous => "the repository's server wants a credential, and the session has none for it",
            Self::Unauthorized => "the repository's server does not accept the session's credential for this",
            Self::Forbidden => "the repository's server forbids this",
            Self::NotFound => "the repository's server knows no such repository",
        }
    }

    /// Reads it in what git repeats of it.
    pub fn read(said: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|barred| said.contains(barred.words()))
    }
}

/// Names in a session's folder, which a sandbox sees.
pub const SOCKET: &str = "proxy.sock";
pub const CLIENT: &str = "client.json";
/// Beside the folders of sessions: where the service calls what sandboxes must not. No session has a name with a dot.
pub const CALLS_SOCKET: &str = ".calls.sock";

/// Who reaches the network while a session's packages are installed: what its environment allows, and nothing that is the
/// session's own. What is installed is seen by other sessions, so the code of packages must not have been near it.
pub fn installer(session_id: &str) -> String {
    format!("{session_id}-install")
}

/// Where on [`CALLS_SOCKET`] a session's MCP server is called; its name may hold anything.
pub fn mcp_path(session_id: &str, server: &str) -> String {
    path_of(MCP_PREFIX, session_id, server)
}

/// Session and server of such a path.
pub fn read_mcp_path(path: &str) -> Option<(&str, String)> {
    read_path(MCP_PREFIX, path)
}

/// Where on [`CALLS_SOCKET`] a page is fetched for a session.
pub fn web_path(session_id: &str, url: &str) -> String {
    path_of(WEB_PREFIX, session_id, url)
}

/// Session and URL of such a path.
pub fn read_web_path(path: &str) -> Option<(&str, String)> {
    read_path(WEB_PREFIX, path)
}

/// In an answer of egress: why it did not fetch the page, where that was for egress to say.
pub const WEB_REFUSED: &str = "steadyhand-refused";
/// In an answer of egress: where the page was in the end, after redirects.
pub const WEB_URL: &str = "steadyhand-url";

fn path_of(prefix: &str, session_id: &str, name: &str) -> String {
    let name: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}{session_id}/{name}")
}

fn read_path<'a>(prefix: &str, path: &'a str) -> Option<(&'a str, String)> {
    let (session_id, name) = path.strip_prefix(prefix)?.split_once('/')?;
    let digits = name.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    let bytes = (name.len().is_multiple_of(2) && name.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| digits.collect::<Option<Vec<u8>>>())??;
    Some((session_id, String::from_utf8(bytes).ok()?))
}

const MCP_PREFIX: &str = "/mcp/";
const WEB_PREFIX: &str = "/web/";

/// What a sandbox has to be set up with to use its socket: [`CLIENT`]. Holds nothing that is secret.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Environment variables with the placeholders of their credentials.
    pub variables: BTreeMap<String, String>,
    /// Repositories: the URL that the agent knows, and the proxy's path for it.
    pub repositories: Vec<(String, String)>,
    #[serde(default)]
    pub packages: Packages,
    #[serde(default)]
    pub registries: Registries,
}

/// One JSON line to egress.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// From now on this and nothing else; connections under the policy before are cut.
    SetPolicy {
        session_id: String,
        policy: Policy,
    },
    /// The session's agent has other MCP servers, or other pages; all else stays in force.
    SetMcpServers {
        session_id: String,
        mcp_servers: Vec<McpServer>,
        mcp_hosts: Vec<String>,
        #[serde(default)]
        web: Option<Domains>,
    },
    /// The session has ended: its policy goes, and the secrets that were its own.
    DropSession {
        session_id: String,
    },
    PutCredential {
        id: CredentialId,
        secret: Secret,
    },
    DeleteCredential {
        id: CredentialId,
    },
    /// Another session goes on with what this one was given.
    CopyCredential {
        from: CredentialId,
        to: CredentialId,
    },
    /// Whether there is such a credential and it can be opened.
    ValidateCredential {
        id: CredentialId,
    },
    /// Wrap every vault's key with the key that is configured now.
    RotateKey,
}

/// One JSON line back.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Done,
    Valid { valid: bool },
    Refused { message: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_that_is_not_said() {
        assert_eq!(serde_json::from_str::<Policy>("{}").unwrap().networking, Networking::None);
        assert!(serde_json::from_str::<Policy>(r#"{"networking": {"type": "limited", "allow_all": true}}"#).is_err());
    }

    #[test]
    fn a_server_is_found_by_its_path_whatever_it_is_called() {
        for name in ["docs", "a/b ../ü", ""] {
            let path = mcp_path("sesn_1", name);
            assert!(path.bytes().all(|b| b.is_ascii_graphic()), "{path}");
            assert_eq!(read_mcp_path(&path), Some(("sesn_1", name.to_owned())));
        }
        for path in ["/mcp/sesn_1", "/mcp/sesn_1/+f", "/mcp/sesn_1/f", "/mcp/sesn_1/zz", "/mcp/sesn_1/ff", "/x"] {
            assert_eq!(read_mcp_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_domain_stands_for_all_below_it() {
        let domains = || vec!["Example.com".to_owned(), "docs.test".to_owned()];
        for (host, named) in [
            ("example.com", true),
            ("a.b.example.com", true),
            ("notexample.com", false),
            ("example.com.evil.test", false),
            ("docs.test", true),
            ("test", false),
        ] {
            assert_eq!(Domains::Only(domains()).allow(host), named, "{host}");
            assert_eq!(Domains::Except(domains()).allow(host), !named, "{host}");
            assert!(Domains::Any.allow(host));
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let id = CredentialId { vault: "v".into(), credential: "c".into() };
        let request = Request::PutCredential { id, secret: Secret("CANARY".into()) };
        assert!(!format!("{request:?}").contains("CANARY"));
    }
}
