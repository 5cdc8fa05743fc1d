//! MCP servers of an agent and the toolsets that open them to it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::stdio::StdioServer;
use super::{DefaultConfig, DefaultConfigParam, PermissionPolicy};
use crate::error::{ApiError, Result};

const SERVERS_MAX: usize = 20;
const SERVER_NAME_CHARS_MAX: usize = 255;
const URL_CHARS_MAX: usize = 2048;
const TOOL_NAME_CHARS_MAX: usize = 128;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "McpServer")]
pub enum McpServer {
    Url(UrlServer),
    Stdio(StdioServer),
}

/// One that is reached over the network.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlServer {
    name: String,
    pub url: String,
}

impl McpServer {
    pub fn name(&self) -> &str {
        match self {
            McpServer::Url(server) => &server.name,
            McpServer::Stdio(server) => &server.name,
        }
    }

    /// The hand that it lives in, where that is not the one that every session has.
    pub(super) fn named_hand(&self) -> Option<&str> {
        match self {
            McpServer::Url(_) => None,
            McpServer::Stdio(server) => server.named_hand(),
        }
    }

    /// Checks servers as clients send them; they are kept as they are.
    pub fn check_all(servers: Vec<McpServer>) -> Result<Vec<McpServer>> {
        if servers.len() > SERVERS_MAX {
            let problem = format!("{} servers, at most {SERVERS_MAX} are allowed", servers.len());
            return Err(ApiError::field("mcp_servers", problem));
        }
        let mut names = BTreeSet::new();
        for (n, server) in servers.iter().enumerate() {
            let wrong =
                |field: &str, problem: String| Err(ApiError::field(format!("mcp_servers[{n}].{field}"), problem));
            if !(1..=SERVER_NAME_CHARS_MAX).contains(&server.name().chars().count()) {
                return wrong("name", format!("must be 1 to {SERVER_NAME_CHARS_MAX} characters"));
            }
            if !names.insert(server.name()) {
                return wrong("name", "another server has this name".to_owned());
            }
            match server {
                McpServer::Url(UrlServer { url, .. }) if url.chars().count() > URL_CHARS_MAX || !is_url(url) => {
                    return wrong("url", format!("must be an http or https URL of at most {URL_CHARS_MAX} characters"));
                }
                McpServer::Url(_) => {}
                McpServer::Stdio(server) => server.check(&format!("mcp_servers[{n}]"))?,
            }
        }
        Ok(servers)
    }
}

fn is_url(text: &str) -> bool {
    let Ok(url) = text.parse::<http::Uri>() else { return false };
    matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct McpToolset {
    pub mcp_server_name: String,
    pub default_config: DefaultConfig,
    pub configs: Vec<McpToolConfig>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct McpToolConfig {
    pub name: String,
    pub enabled: bool,
    pub permission_policy: PermissionPolicy,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct McpToolsetParam {
    mcp_server_name: String,
    #[serde(default)]
    default_config: Option<DefaultConfigParam>,
    #[serde(default)]
    configs: Option<Vec<McpToolConfigParam>>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct McpToolConfigParam {
    name: String,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    permission_policy: Option<PermissionPolicy>,
}

impl McpToolset {
    pub(super) fn resolve(param: McpToolsetParam, at: &str) -> Result<Self> {
        let default_config = DefaultConfig::resolve(param.default_config, PermissionPolicy::AlwaysAsk);
        let mut names = BTreeSet::new();
        let mut configs = Vec::new();
        for (n, config) in param.configs.unwrap_or_default().into_iter().enumerate() {
            let at = format!("{at}.configs[{n}]");
            if !(1..=TOOL_NAME_CHARS_MAX).contains(&config.name.chars().count()) {
                let problem = format!("must be 1 to {TOOL_NAME_CHARS_MAX} characters");
                return Err(ApiError::field(format!("{at}.name"), problem));
            }
            if !names.insert(config.name.clone()) {
                return Err(ApiError::field(format!("{at}.name"), "configured twice"));
            }
            configs.push(McpToolConfig {
                name: config.name,
                enabled: config.enabled.unwrap_or(default_config.enabled),
                permission_policy: config.permission_policy.unwrap_or(default_config.permission_policy),
            });
        }
        Ok(Self { mcp_server_name: param.mcp_server_name, default_config, configs })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn servers_have_unique_names_and_real_urls() {
        let server = |name: &str, url: &str| json!({"type": "url", "name": name, "url": url});
        let long = format!("https://a.com/{}", "x".repeat(URL_CHARS_MAX));
        let many: Vec<Value> = (0..21).map(|n| server(&n.to_string(), "https://a.com")).collect();
        for (servers, sound) in [
            (json!([]), true),
            (json!([server("a", "https://a.com/mcp"), server("b", "http://127.0.0.1:8000/mcp?x=1")]), true),
            (json!([server("a", "https://a.com"), server("a", "https://b.com")]), false),
            (json!([server("", "https://a.com")]), false),
            (json!([server(&"n".repeat(256), "https://a.com")]), false),
            (json!([server("a", "ftp://a.com")]), false),
            (json!([server("a", "a.com/mcp")]), false),
            (json!([server("a", "/mcp")]), false),
            (json!([server("a", &long)]), false),
            (json!(many), false),
            (json!([{"type": "stdio", "name": "a", "url": "https://a.com"}]), false),
            (json!([{"type": "stdio", "name": "a", "command": "true"}]), true),
            (json!([server("a", "https://a.com"), {"type": "stdio", "name": "a", "command": "true"}]), false),
            (json!([{"type": "stdio", "name": "a", "command": ""}]), false),
            (json!([{"type": "url", "name": "a", "url": "https://a.com", "command": "true"}]), false),
            (json!([{"type": "sse", "name": "a", "url": "https://a.com"}]), false),
        ] {
            let parsed = serde_json::from_value(servers.clone()).ok();
            assert_eq!(parsed.is_some_and(|parsed| McpServer::check_all(parsed).is_ok()), sound, "{servers}");
        }
    }
}
