//! `steadyhand replay`: a session decided again from its record.

use crate::{
    args,
    client::Query,
    error::{Code, failed},
    output,
    render::one_line,
    service::Service,
    table::fields,
};
use anyhow::Context as _;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

/// Decide a recorded session again and show the first difference
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand replay sesn_01aB --harness loop@2")]
pub struct Replay {
    #[arg(value_name = "SESSION", value_parser = args::id)]
    id: String,
    /// Another harness than the session's own: NAME@VERSION, NAME or a hash
    #[arg(long, value_name = "HARNESS")]
    harness: Option<String>,
    /// Write the record itself to a file, for a kept history
    #[arg(long, value_name = "FILE", conflicts_with = "harness")]
    save: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Replay {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        if let Some(file) = self.save {
            let recording = client.get(&["v1", "sessions", &self.id, "recording"], &Query::new()).await?;
            let bytes = serde_json::to_vec(&recording)?;
            return tokio::fs::write(&file, bytes).await.with_context(|| format!("write {}", file.display()));
        }
        let query: Query = self.harness.map(|harness| ("harness", harness)).into_iter().collect();
        let report = client.get(&["v1", "sessions", &self.id, "replay"], &query).await?;
        if self.json {
            output::json(&report);
        } else {
            output::line(&told(&report));
        }
        match report["identical"].as_bool() {
            Some(true) => Ok(()),
            _ => Err(failed(Code::Unfinished, "the replay parts from the record", "look at both sides above")),
        }
    }
}

fn told(report: &Value) -> String {
    let mut pairs = vec![("commits", report["commits"].to_string()), ("decisions", report["decisions"].to_string())];
    if report["other_context"].as_u64().is_some_and(|count| count > 0) {
        pairs.push(("other context", format!("{} requests would have been made otherwise", report["other_context"])));
    }
    let divergence = &report["divergence"];
    if divergence.is_null() {
        pairs.push(("result", "identical".to_owned()));
        return fields(&pairs);
    }
    let kind = divergence["kind"].as_str().unwrap_or_default();
    let at = format!("{kind} at commit {}, position {}", divergence["commit"], divergence["position"]);
    pairs.push(("result", format!("parts: {at}, turn {}", divergence["turn"])));
    for side in ["recorded", "replayed"] {
        pairs.push((side, one_line(&divergence[side]["step"].to_string(), 400)));
        let takes = divergence[side]["takes"].as_array().into_iter().flatten();
        let takes: Vec<&str> = takes.filter_map(Value::as_str).collect();
        pairs.push(("", one_line(&takes.join(", "), 400)));
        if let Some(hash) = divergence[side]["view_hash"].as_str() {
            pairs.push(("", format!("view {hash}")));
        }
    }
    fields(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_sides_of_a_difference_are_told() {
        let same = json!({"commits": 9, "decisions": 4, "other_context": 0, "divergence": null});
        assert_eq!(told(&same), "commits    9\ndecisions  4\nresult     identical");
        let side = |step: &str| json!({"step": {"step": step}, "takes": ["a", "b"]});
        let divergence = json!({"kind": "decision", "commit": 3, "position": 7, "turn": 1,
            "recorded": side("idle"), "replayed": side("call_model")});
        let parts = told(&json!({"commits": 3, "decisions": 1, "other_context": 2, "divergence": divergence}));
        assert!(parts.contains("parts: decision at commit 3, position 7, turn 1"), "{parts}");
        assert!(parts.contains("2 requests would have been made otherwise"), "{parts}");
        assert!(parts.contains(r#"recorded       {"step":"idle"}"#) && parts.contains("a, b"), "{parts}");
    }
}
