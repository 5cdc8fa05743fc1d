//! Which URLs `web_fetch` may be given: those that stood in the context, in a place that the agent's settings name. A URL that
//! the model made up could carry away what it has read.

use domain::{
    Block, Content, EventBody,
    agent::{AgentSnapshot, Source, ToolKind, WebFetch},
    content::Json,
    outcome::{ModelDigest, ModelOutcome},
    session::LogEntry,
};
use std::collections::HashMap;

/// The same answer, with calls for other URLs refused.
pub fn checked(mut outcome: ModelOutcome, entries: &[LogEntry], agent: &AgentSnapshot) -> ModelOutcome {
    let ModelDigest::Answer { calls, .. } = &mut outcome.digest else { return outcome };
    let settings = agent.web_fetch.clone().unwrap_or_default();
    for call in calls.iter_mut().filter(|call| call.kind == ToolKind::Web && call.refused.is_none()) {
        let url = match &call.input {
            Json::Inline { value } => value["url"].as_str(),
            // Longer than any URL.
            Json::Blob(_) => None,
        };
        if !url.is_some_and(|url| stood(url, &texts(entries, agent, &settings))) {
            call.refused = Some(
                "url_not_allowed: only URLs are fetched that a user has named, or that a result of a tool held from which \
                 they may be taken."
                    .to_owned(),
            );
        }
    }
    outcome
}

/// Every text in which a URL may stand.
fn texts<'a>(entries: &'a [LogEntry], agent: &'a AgentSnapshot, settings: &WebFetch) -> Vec<&'a str> {
    let mut named: HashMap<&str, (&str, &Source)> = HashMap::new();
    for entry in entries {
        let (name, source) = match &entry.event.body {
            EventBody::AgentToolUse { name, .. } => (name, &settings.server_tool_results),
            EventBody::AgentCustomToolUse { name, .. } => (name, &settings.client_tool_results),
            _ => continue,
        };
        named.insert(&entry.event.id, (name, source));
    }
    let mut texts = Vec::new();
    // What the agent's owner wrote is as good as what its user says.
    if settings.user_input.holds("") {
        texts.extend(agent.system.as_deref());
    }
    for entry in entries {
        let (content, holds) = match &entry.event.body {
            EventBody::UserMessage { content } => (content, settings.user_input.holds("")),
            EventBody::UserCustomToolResult { custom_tool_use_id: id, content, .. } => {
                (content, named.get(id.as_str()).is_some_and(|(name, source)| source.holds(name)))
            }
            // Of the built-in tools only pages: what sandboxes say is anybody's.
            EventBody::AgentToolResult { tool_use_id: id, content, .. } => (
                content,
                named.get(id.as_str()).is_some_and(|(name, source)| *name == "web_fetch" && source.holds(name)),
            ),
            _ => continue,
        };
        if let Content::Inline(blocks) = content
            && holds
        {
            texts.extend(blocks.iter().filter_map(|block| match block {
                Block::Text { text } => Some(text.as_str()),
                _ => None,
            }));
        }
    }
    texts
}

/// Whether the URL stands in one of them, with or without its scheme, and not as a part of another host's name.
fn stood(url: &str, texts: &[&str]) -> bool {
    let url = url.split('#').next().unwrap_or_default();
    let bare = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
    let part = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || matches!(char, '-' | '_'));
    let stands = |text: &str| {
        text.match_indices(bare).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let mut after = text[at + bare.len()..].chars();
            let next = after.next();
            let goes_on = part(next) || (next == Some('.') && part(after.next()));
            !part(before) && !matches!(before, Some('.' | '@')) && !goes_on
        })
    };
    !bare.is_empty() && texts.iter().any(|text| stands(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{Event, agent::ModelParams};
    use serde_json::Value;

    fn entry(position: u64, id: &str, body: EventBody) -> LogEntry {
        let event = Event { id: id.to_owned(), body, processed_at: None };
        LogEntry { position, commit: 0, event, private: None, ignored: false }
    }

    fn json() -> Json {
        Json::Inline { value: Value::Null }
    }

    #[test]
    fn a_url_stands_whole_in_a_text() {
        for (url, text, expect) in [
            ("https://a.test/x", "see https://a.test/x.", true),
            ("https://a.test/x", "see a.test/x, please", true),
            ("https://a.test/x#part", "(https://a.test/x)", true),
            ("https://a.test", "https://a.test/", true),
            ("https://a.test/x?q=secret", "https://a.test/x", false),
            ("https://a.test/x", "https://a.test/xyz", false),
            ("https://a.test", "https://data.test", false),
            ("https://a.test", "https://b.a.test", false),
            ("https://a.test", "https://a.test.evil.test", false),
            ("https://", "https://", false),
        ] {
            assert_eq!(stood(url, &[text]), expect, "{url} in {text}");
        }
    }

    #[test]
    fn each_source_counts_as_the_settings_say() {
        let result = |id: &str, url: &str| EventBody::AgentToolResult {
            tool_use_id: id.to_owned(),
            content: Content::text(url),
            is_error: None,
        };
        let used = |name: &str| EventBody::AgentToolUse {
            name: name.to_owned(),
            input: json(),
            evaluated_permission: None,
            evaluation: None,
        };
        let custom = |id: &str, url: &str| EventBody::UserCustomToolResult {
            custom_tool_use_id: id.to_owned(),
            content: Content::text(url),
            is_error: None,
        };
        let entries = [
            entry(0, "u", EventBody::UserMessage { content: Content::text("https://user.test") }),
            entry(1, "f", used("web_fetch")),
            entry(2, "fr", result("f", "https://page.test")),
            entry(3, "b", used("bash")),
            entry(4, "br", result("b", "https://bash.test")),
            entry(5, "c", EventBody::AgentCustomToolUse { name: "lookup".into(), input: json() }),
            entry(6, "cr", custom("c", "https://custom.test")),
        ];
        let agent = AgentSnapshot {
            public: Value::Null,
            model: ModelParams { id: "m".into(), effort: None, speed: None, max_tokens: 1 },
            system: Some("https://system.test".into()),
            tools: Vec::new(),
            mcp: Vec::new(),
            web_fetch: None,
        };
        let may = |settings: &WebFetch| {
            let texts = texts(&entries, &agent, settings);
            ["user", "system", "page", "bash", "custom"].map(|name| stood(&format!("https://{name}.test"), &texts))
        };
        assert_eq!(may(&WebFetch::default()), [true, true, true, false, true]);
        let settings = WebFetch { user_input: Source::None, ..WebFetch::default() };
        assert_eq!(may(&settings), [false, false, true, false, true]);
        let settings = WebFetch { server_tool_results: Source::None, ..WebFetch::default() };
        assert_eq!(may(&settings), [true, true, false, false, true]);
        for (source, expect) in [
            (Source::Only(vec!["lookup".into()]), true),
            (Source::Only(vec!["other".into()]), false),
            (Source::Except(vec!["lookup".into()]), false),
        ] {
            let settings = WebFetch { client_tool_results: source, ..WebFetch::default() };
            assert_eq!(may(&settings), [true, true, true, false, expect]);
        }
    }
}
