//! The settings of `web_fetch` and `web_search`: which hosts, which sources of URLs, how much text.

use std::collections::BTreeSet;

use domain::agent;
use domain::egress::Domains;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Result};
use crate::shorthand::TextOr;

pub(crate) const WEB_FETCH: &str = "web_fetch";
const WEB_SEARCH: &str = "web_search";
const DOMAINS_MAX: usize = 64;
const REFERENCES_MAX: usize = 128;

/// What is set, and nothing where the tool has no such setting.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "WebSettings")]
pub struct Settings {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_domains: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_domains: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_content_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_sources: Option<UrlSources>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_location: Option<UserLocation>,
}

// Flattened into a tool's config, which refuses the fields that neither knows.
#[derive(Clone, PartialEq, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "WebSettingsParam")]
pub(super) struct SettingsParam {
    #[serde(default)]
    allowed_domains: Option<Vec<String>>,
    #[serde(default)]
    blocked_domains: Option<Vec<String>>,
    #[serde(default)]
    max_content_tokens: Option<u32>,
    #[serde(default)]
    url_sources: Option<UrlSourcesParam>,
    #[serde(default)]
    user_location: Option<UserLocation>,
}

/// Where the URLs that may be fetched come from. Null allows every URL of that source.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct UrlSources {
    pub user_input: Option<Source>,
    pub client_tool_results: Option<Source>,
    pub server_tool_results: Option<Source>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    All,
    None,
    Only { tools: Vec<ToolReference> },
    Except { tools: Vec<ToolReference> },
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ToolReference {
    ToolReference { name: String },
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UrlSourcesParam {
    #[serde(default)]
    user_input: Option<TextOr<Source>>,
    #[serde(default)]
    client_tool_results: Option<TextOr<Source>>,
    #[serde(default)]
    server_tool_results: Option<TextOr<Source>>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum UserLocation {
    Approximate {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        city: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        country: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timezone: Option<String>,
    },
}

impl Settings {
    pub(super) fn resolve(param: SettingsParam, tool: &str, at: &str) -> Result<Self> {
        let web = [WEB_FETCH, WEB_SEARCH];
        for (field, given, tools) in [
            ("allowed_domains", param.allowed_domains.is_some(), &web[..]),
            ("blocked_domains", param.blocked_domains.is_some(), &web[..]),
            ("max_content_tokens", param.max_content_tokens.is_some(), &[WEB_FETCH]),
            ("url_sources", param.url_sources.is_some(), &[WEB_FETCH]),
            ("user_location", param.user_location.is_some(), &[WEB_SEARCH]),
        ] {
            if given && !tools.contains(&tool) {
                return Err(ApiError::field(format!("{at}.{field}"), format!("is not a setting of {tool}")));
            }
        }
        if param.allowed_domains.is_some() && param.blocked_domains.is_some() {
            return Err(ApiError::field(at, "Only one of allowed_domains or blocked_domains may be set."));
        }
        let paths = if tool == WEB_SEARCH { Paths::Allowed } else { Paths::Refused };
        let domains = [("allowed_domains", &param.allowed_domains), ("blocked_domains", &param.blocked_domains)];
        for (field, domains) in domains {
            if let Some(domains) = domains {
                check_domains(domains, paths, &format!("{at}.{field}"))?;
            }
        }
        if param.max_content_tokens == Some(0) {
            return Err(ApiError::field(format!("{at}.max_content_tokens"), "must be greater than 0"));
        }
        let sources = param.url_sources.map(|param| UrlSources::resolve(param, &format!("{at}.url_sources")));
        Ok(Self {
            allowed_domains: param.allowed_domains,
            blocked_domains: param.blocked_domains,
            max_content_tokens: param.max_content_tokens,
            url_sources: sources.transpose()?,
            user_location: param.user_location,
        })
    }

    /// As sessions keep it.
    pub(super) fn for_fetching(&self) -> agent::WebFetch {
        let domains = match (&self.allowed_domains, &self.blocked_domains) {
            (Some(allowed), _) => Domains::Only(allowed.clone()),
            (None, Some(blocked)) => Domains::Except(blocked.clone()),
            (None, None) => Domains::Any,
        };
        let source = |of: fn(&UrlSources) -> &Option<Source>| {
            self.url_sources.as_ref().and_then(|sources| of(sources).as_ref()).map(Source::kept).unwrap_or_default()
        };
        agent::WebFetch {
            domains,
            max_content_tokens: self.max_content_tokens,
            user_input: source(|sources| &sources.user_input),
            client_tool_results: source(|sources| &sources.client_tool_results),
            server_tool_results: source(|sources| &sources.server_tool_results),
        }
    }

    pub(super) fn check_references(&self, custom: &BTreeSet<&str>, at: &str) -> Result<()> {
        let Some(sources) = &self.url_sources else { return Ok(()) };
        for name in sources.client_tool_results.iter().flat_map(Source::names) {
            if !custom.contains(name) {
                let at = format!("{at}.url_sources.client_tool_results");
                return Err(ApiError::field(at, format!("{name} is not a custom tool of the agent")));
            }
        }
        Ok(())
    }
}

impl UrlSources {
    fn resolve(param: UrlSourcesParam, at: &str) -> Result<Self> {
        let source = |param: Option<TextOr<Source>>, field: &str| {
            param.map(|param| Source::resolve(param, &format!("{at}.{field}"))).transpose()
        };
        let sources = Self {
            user_input: source(param.user_input, "user_input")?,
            client_tool_results: source(param.client_tool_results, "client_tool_results")?,
            server_tool_results: source(param.server_tool_results, "server_tool_results")?,
        };
        if sources.user_input.iter().any(|source| source.names().next().is_some()) {
            return Err(ApiError::field(format!("{at}.user_input"), "must be all or none"));
        }
        let is_server_tool = |name| name == WEB_FETCH || name == WEB_SEARCH;
        if !sources.server_tool_results.iter().flat_map(Source::names).all(is_server_tool) {
            return Err(ApiError::field(format!("{at}.server_tool_results"), "names web_search and web_fetch alone"));
        }
        let all = [&sources.user_input, &sources.client_tool_results, &sources.server_tool_results];
        if all.into_iter().all(|source| *source == Some(Source::None)) {
            return Err(ApiError::field(at, "all three sources are none"));
        }
        Ok(sources)
    }
}

impl Source {
    fn resolve(param: TextOr<Source>, at: &str) -> Result<Self> {
        let source = match param {
            TextOr::Text(text) if text == "all" => Source::All,
            TextOr::Text(text) if text == "none" => Source::None,
            TextOr::Text(_) => return Err(ApiError::field(at, "must be all, none or a list of tools")),
            TextOr::Object(source) => source,
        };
        if let Source::Only { tools } | Source::Except { tools } = &source
            && !(1..=REFERENCES_MAX).contains(&tools.len())
        {
            return Err(ApiError::field(format!("{at}.tools"), format!("must be 1 to {REFERENCES_MAX} tools")));
        }
        Ok(source)
    }

    fn kept(&self) -> agent::Source {
        let names = || self.names().map(str::to_owned).collect();
        match self {
            Source::All => agent::Source::All,
            Source::None => agent::Source::None,
            Source::Only { .. } => agent::Source::Only(names()),
            Source::Except { .. } => agent::Source::Except(names()),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let tools = match self {
            Source::Only { tools } | Source::Except { tools } => tools.as_slice(),
            Source::All | Source::None => &[],
        };
        tools.iter().map(|ToolReference::ToolReference { name }| name.as_str())
    }
}

/// Whether a domain may be followed by a path.
#[derive(Clone, Copy, PartialEq)]
enum Paths {
    Allowed,
    Refused,
}

fn check_domains(domains: &[String], paths: Paths, at: &str) -> Result<()> {
    if !(1..=DOMAINS_MAX).contains(&domains.len()) {
        let problem = format!("must be 1 to {DOMAINS_MAX} domains; to allow every domain, leave the list out");
        return Err(ApiError::field(at, problem));
    }
    let mut seen = BTreeSet::new();
    for (n, domain) in domains.iter().enumerate() {
        let at = format!("{at}[{n}]");
        let (host, path) = domain.split_once('/').map_or((domain.as_str(), None), |(host, path)| (host, Some(path)));
        let path_fits = match path {
            None => true,
            Some(path) => paths == Paths::Allowed && path.bytes().all(|byte| byte.is_ascii_graphic()),
        };
        if !path_fits || !is_host(host) {
            return Err(ApiError::field(at, "must be a plain host name like docs.example.com"));
        }
        if !seen.insert(domain.to_ascii_lowercase()) {
            return Err(ApiError::field(at, "given twice"));
        }
    }
    Ok(())
}

/// A host name of at least two labels, in ascii: no scheme, port, address or wildcard, nothing under `.local`.
pub(crate) fn is_host(host: &str) -> bool {
    let labels: Vec<&str> = host.split('.').collect();
    let sound = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = labels.last().copied().unwrap_or_default();
    // An address's last label is a number; no top-level domain is.
    host.len() <= 253
        && labels.len() >= 2
        && labels.iter().all(sound)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
        && !last.eq_ignore_ascii_case("local")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolve(tool: &str, settings: Value) -> Result<Value> {
        let param = crate::body::json(settings.to_string().as_bytes())?;
        let settings = Settings::resolve(param, tool, "at")?;
        settings.check_references(&BTreeSet::from(["lookup"]), "at")?;
        Ok(serde_json::to_value(settings).unwrap())
    }

    #[test]
    fn domains_are_plain_host_names() {
        for (domain, fetch, search) in [
            ("example.com", true, true),
            ("xn--bcher-kva.example", true, true),
            ("a.b.c.example.com", true, true),
            ("example.com/docs", false, true),
            ("https://example.com", false, false),
            ("example.com:443", false, false),
            ("*.example.com", false, false),
            ("127.0.0.1", false, false),
            ("com", false, false),
            ("printer.local", false, false),
            ("bücher.example", false, false),
            ("-a.example", false, false),
            ("a..example", false, false),
            ("", false, false),
        ] {
            let settings = json!({"allowed_domains": [domain]});
            assert_eq!(resolve("web_fetch", settings.clone()).is_ok(), fetch, "fetch {domain}");
            assert_eq!(resolve("web_search", settings).is_ok(), search, "search {domain}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("h{n}.com")).collect();
        for bad in [json!([]), json!(many), json!(["a.com", "A.com"])] {
            assert!(resolve("web_fetch", json!({"blocked_domains": bad})).is_err(), "{bad}");
        }
        let both = json!({"allowed_domains": ["a.com"], "blocked_domains": ["b.com"]});
        assert!(resolve("web_fetch", both).is_err());
    }

    #[test]
    fn url_sources_come_back_as_objects() {
        let only = |name: &str| json!({"type": "only", "tools": [{"type": "tool_reference", "name": name}]});
        let sent = json!({"url_sources": {"user_input": "none", "client_tool_results": only("lookup")}});
        let kept = json!({"url_sources": {"user_input": {"type": "none"}, "client_tool_results": only("lookup"),
            "server_tool_results": null}});
        assert_eq!(resolve("web_fetch", sent).unwrap(), kept);
        assert_eq!(resolve("web_fetch", kept.clone()).unwrap(), kept);
        let none = json!("none");
        let empty = json!({"type": "except", "tools": []});
        for bad in [
            json!({"user_input": none, "client_tool_results": none, "server_tool_results": {"type": "none"}}),
            json!({"user_input": only("lookup")}),
            json!({"client_tool_results": only("other")}),
            json!({"client_tool_results": empty}),
            json!({"server_tool_results": only("lookup")}),
            json!({"user_input": "some"}),
        ] {
            assert!(resolve("web_fetch", json!({"url_sources": bad})).is_err(), "{bad}");
        }
    }

    #[test]
    fn settings_belong_to_their_tool() {
        let location = json!({"user_location": {"type": "approximate", "city": "Bern"}});
        assert_eq!(resolve("web_search", location.clone()).unwrap(), location);
        assert!(resolve("web_fetch", location).is_err());
        assert!(resolve("web_search", json!({"max_content_tokens": 5})).is_err());
        assert!(resolve("web_fetch", json!({"max_content_tokens": 0})).is_err());
        assert!(resolve("web_fetch", json!({"max_content_tokens": 1})).is_ok());
    }
}
