//! `steadyhand context`: what the model saw.

use crate::{args, client::Query, output, render::one_line, service::Service, table::fields};
use clap::Args;
use serde_json::Value;

/// Show what the model saw in a turn, or would see by another strategy
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  steadyhand context sesn_01aB --at 3 --strategy window@1 --params '{\"rounds\": 5}'"
)]
pub struct Context {
    #[arg(value_name = "SESSION", value_parser = args::id)]
    id: String,
    /// The turn, from 1; the last one if left out
    #[arg(long, value_name = "TURN")]
    at: Option<u64>,
    /// The request within the turn, from 1; the last one if left out
    #[arg(long, value_name = "N")]
    round: Option<u32>,
    /// Another strategy: NAME or NAME@VERSION
    #[arg(long, value_name = "STRATEGY")]
    strategy: Option<String>,
    /// Its parameters, as JSON
    #[arg(long, value_name = "JSON", requires = "strategy")]
    params: Option<String>,
    /// Print everything as JSON, the request too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Context {
    pub async fn run(self) -> anyhow::Result<()> {
        let given = [
            ("turn", self.at.map(|turn| turn.to_string())),
            ("round", self.round.map(|round| round.to_string())),
            ("strategy", self.strategy),
            ("params", self.params),
        ];
        let query: Query = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let context = self.service.client()?.get(&["v1", "sessions", &self.id, "context"], &query).await?;
        if self.json {
            output::json(&context);
        } else {
            output::line(&told(&context));
        }
        Ok(())
    }
}

fn told(context: &Value) -> String {
    let strategy = &context["strategy"];
    let name = strategy["name"].as_str().unwrap_or_default();
    let mut pairs = vec![
        ("request", format!("turn {}, round {}", context["turn"], context["round"])),
        ("strategy", one_line(&format!("{name}@{} {}", strategy["version"], strategy["params"]), 200)),
        ("positions", format!("{} to {}", context["from"], context["to"])),
        ("messages", context["messages"].to_string()),
        ("tokens", format!("about {}", context["tokens_estimated"])),
        ("bytes", format!("{}, {} as in the request before", context["bytes"], context["cache_prefix_bytes"])),
    ];
    match context["is_as_sent"].as_bool() {
        Some(true) => pairs.push(("recorded", "the same bytes".to_owned())),
        Some(false) => pairs.push(("recorded", "other bytes".to_owned())),
        None => pairs.push(("recorded", "nothing: the request was not answered".to_owned())),
    }
    for gap in context["dropped"].as_array().into_iter().flatten() {
        let why = one_line(gap["why"].as_str().unwrap_or_default(), 100);
        pairs.push(("left out", format!("{} to {}: {why}", gap["from"], gap["to"])));
    }
    let mut text = fields(&pairs);
    for message in context["request"]["messages"].as_array().into_iter().flatten() {
        let role = message["role"].as_str().unwrap_or_default();
        for block in message["content"].as_array().into_iter().flatten() {
            let shown = match block["type"].as_str() {
                Some("text") => block["text"].as_str().unwrap_or_default().to_owned(),
                Some("tool_result") => format!("= {}", block["content"][0]["text"].as_str().unwrap_or_default()),
                Some("tool_use") => format!("! {} {}", block["name"].as_str().unwrap_or_default(), block["input"]),
                other => format!("({})", other.unwrap_or_default()),
            };
            text.push_str(&format!("\n{role:<9}  {}", one_line(&shown, 160)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_left_out_is_told() {
        let context = json!({"turn": 2, "round": 1, "strategy": {"name": "window", "version": 1, "params": {"rounds": 2}},
            "from": 9, "to": 20, "messages": 3, "tokens_estimated": 70, "bytes": 280, "cache_prefix_bytes": 100,
            "is_as_sent": false, "dropped": [{"from": 3, "to": 9, "why": "before the window"}],
            "request": {"messages": [{"role": "user", "content": [{"type": "text", "text": "go"}]}]}});
        let text = told(&context);
        assert!(text.contains("left out   3 to 9: before the window"), "{text}");
        assert!(text.contains("recorded   other bytes"), "{text}");
        assert!(text.ends_with("user       go"), "{text}");
    }
}
