//! `steadyhand ablate`: which workarounds of a harness still do something.

use crate::{client::Query, output, render::one_line, service::Service, table::table};
use clap::Args;
use serde_json::Value;

/// Switch the shims of a harness off one at a time over recorded sessions
///
/// Says what each changes at the moments of the record, and names those that change nothing. What would have become of a session
/// without a shim, a record cannot say.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand ablate loop@2 --model claude-opus-4-8 --sessions 100")]
pub struct Ablate {
    /// NAME@VERSION, NAME or a hash
    #[arg(value_name = "HARNESS")]
    harness: String,
    /// Only sessions of this model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Only sessions of this agent
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// How many recorded sessions are looked at
    #[arg(long, value_name = "N", default_value_t = 50)]
    sessions: u32,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Ablate {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        let mut query: Query = vec![("sessions", self.sessions.to_string())];
        query.extend(self.model.map(|model| ("model", model)));
        query.extend(self.agent.map(|agent| ("agent", agent)));
        let report = client.get(&["v1", "harnesses", &self.harness, "ablation"], &query).await?;
        output::said(&report, self.json, &told(&report));
        Ok(())
    }
}

fn told(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let rows = report["shims"].as_array().into_iter().flatten().map(|shim| {
        let percent = |side: &str| 100.0 * number(&shim["share"][side]);
        let requests = &shim["requests"];
        [
            one_line(shim["name"].as_str().unwrap_or_default(), 60),
            shim["verdict"].as_str().unwrap_or_default().replace('_', " "),
            format!("{} of {}", shim["sessions_changed"], report["sessions"]),
            format!("{:.0}-{:.0}%", percent("low"), percent("high")),
            shim["other_step"].to_string(),
            shim["other_context"].to_string(),
            format!(
                "{:+.2} ({:+.2} to {:+.2})",
                number(&requests["mean"]),
                number(&requests["low"]),
                number(&requests["high"])
            ),
        ]
    });
    let head = ["SHIM", "", "SESSIONS", "95%", "OTHER STEPS", "OTHER CONTEXTS", "REQUESTS A SESSION"];
    table(head, &rows.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dead_weight_is_named() {
        let shim = |name: &str, verdict: &str, changed: u32| {
            json!({"name": name, "verdict": verdict, "sessions_changed": changed, "share": {"low": 0.0, "high": 0.161},
                "other_step": changed, "other_context": 0, "requests": {"mean": 0.5, "low": 0.25, "high": 0.75}})
        };
        let told = told(&json!({"sessions": 20, "shims": [shim("nudge", "acts", 1), shim("reset", "dead_weight", 0)]}));
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[1],
            "nudge  acts         1 of 20   0-16%  1            0               +0.50 (+0.25 to +0.75)"
        );
        assert!(lines[2].starts_with("reset  dead weight  0 of 20   0-16%"), "{told}");
    }
}
