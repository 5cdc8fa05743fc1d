//! The built-in toolset: which of its tools an agent has, under which policy and with which settings.

use std::collections::BTreeSet;

use domain::agent::WebFetch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::web::{Settings, SettingsParam, WEB_FETCH};
use super::{DefaultConfig, DefaultConfigParam, PermissionPolicy};
use crate::error::{ApiError, Result};

/// The names of the tools of `agent_toolset_20260401`.
pub const BUILT_IN: [&str; 8] = ["bash", "read", "write", "edit", "glob", "grep", "web_fetch", "web_search"];

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AgentToolset {
    pub default_config: DefaultConfig,
    /// The tools that differ from the default.
    pub configs: Vec<ToolConfig>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ToolConfig {
    /// The same as the name.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub enabled: bool,
    pub permission_policy: PermissionPolicy,
    #[serde(flatten)]
    pub settings: Settings,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentToolsetParam {
    #[serde(default)]
    default_config: Option<DefaultConfigParam>,
    #[serde(default)]
    configs: Option<Vec<ToolConfigParam>>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ToolConfigParam {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    name: String,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    permission_policy: Option<PermissionPolicy>,
    #[serde(flatten)]
    settings: SettingsParam,
}

impl AgentToolset {
    pub(super) fn resolve(param: AgentToolsetParam, at: &str) -> Result<Self> {
        let default_config = DefaultConfig::resolve(param.default_config, PermissionPolicy::AlwaysAllow);
        let mut configs: Vec<ToolConfig> = Vec::new();
        for (n, config) in param.configs.unwrap_or_default().into_iter().enumerate() {
            let at = format!("{at}.configs[{n}]");
            let name = config.name;
            if !BUILT_IN.contains(&name.as_str()) {
                let problem = format!("must be one of {}", BUILT_IN.join(", "));
                return Err(ApiError::field(format!("{at}.name"), problem));
            }
            if configs.iter().any(|earlier| earlier.name == name) {
                return Err(ApiError::field(format!("{at}.name"), "configured twice"));
            }
            if config.kind.is_some_and(|kind| kind != name) {
                return Err(ApiError::field(format!("{at}.type"), format!("must be {name}, as the name is")));
            }
            configs.push(ToolConfig {
                kind: name.clone(),
                enabled: config.enabled.unwrap_or(default_config.enabled),
                permission_policy: config.permission_policy.unwrap_or(default_config.permission_policy),
                settings: Settings::resolve(config.settings, &name, &at)?,
                name,
            });
        }
        Ok(Self { default_config, configs })
    }

    /// Settings that name tools of the agent name tools that it has.
    pub(super) fn check_references(&self, custom: &BTreeSet<&str>, at: &str) -> Result<()> {
        let mut configs = self.configs.iter().enumerate();
        configs.try_for_each(|(n, config)| config.settings.check_references(custom, &format!("{at}.configs[{n}]")))
    }

    pub fn web_fetch(&self) -> WebFetch {
        let own = self.configs.iter().find(|config| config.name == WEB_FETCH);
        own.map_or_else(WebFetch::default, |config| config.settings.for_fetching())
    }

    /// Whether the tool is offered, and under which policy.
    pub fn config(&self, name: &str) -> DefaultConfig {
        let own = self.configs.iter().find(|config| config.name == name);
        own.map_or(self.default_config, |config| DefaultConfig {
            enabled: config.enabled,
            permission_policy: config.permission_policy,
        })
    }
}
