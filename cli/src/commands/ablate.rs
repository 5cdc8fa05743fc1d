//! `steadyhand ablate`: which workarounds of a harness still do something.

use crate::{args, client::Query, commands::whatif, output, render::one_line, service::Service, table::table};
use clap::Args;
use serde_json::{Value, json};

/// Switch the shims of a harness off one at a time over recorded sessions
///
/// Says what each changes at the moments of the record, and names those that change nothing. What would have become of a session
/// without a shim, a record cannot say: with --live the model is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  steadyhand ablate loop@2 --model claude-opus-4-8 --sessions 100\n  \
        steadyhand ablate loop@2 --model claude-opus-4-8 --live --sessions 10 --expect 'tests pass' --price 5,25")]
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
    ///
    /// [default: 50, with --live 10]
    #[arg(long, value_name = "N")]
    sessions: Option<u32>,
    /// Go through the sessions again with each shim and without it, and really ask the model where the record has no answer
    #[arg(long, requires = "model")]
    live: bool,
    /// The first turns of each session [default: all]
    #[arg(long, value_name = "N", requires = "live")]
    turns: Option<u64>,
    /// How often the model may be asked for one session and shim
    #[arg(long, value_name = "N", requires = "live")]
    requests_max: Option<u32>,
    /// What the last message of a session contains if all went well
    #[arg(long, value_name = "TEXT", requires = "live")]
    expect: Option<String>,
    /// Dollars for a million tokens: INPUT,OUTPUT or INPUT,OUTPUT,CACHE_READ,CACHE_WRITE
    #[arg(long, value_name = "PRICE", value_parser = args::price, requires = "live")]
    price: Option<Value>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Ablate {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        let path = ["v1", "harnesses", &self.harness, "ablation"];
        if self.live {
            let given = [
                ("model", self.model.map(Value::from)),
                ("agent", self.agent.map(Value::from)),
                ("sessions", self.sessions.map(|sessions| json!(sessions))),
                ("turns", self.turns.map(|turns| json!(turns))),
                ("requests_max", self.requests_max.map(|requests| json!(requests))),
                ("expect", self.expect.map(Value::from)),
                ("price", self.price),
            ];
            let body: Value = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let report = whatif::over(&client, &path, &body).await?;
            output::said(&report, self.json, &told_live(&report));
            return Ok(());
        }
        let mut query: Query = Vec::new();
        query.extend(self.sessions.map(|sessions| ("sessions", sessions.to_string())));
        query.extend(self.model.map(|model| ("model", model)));
        query.extend(self.agent.map(|agent| ("agent", agent)));
        let report = client.get(&path, &query).await?;
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
            mean(requests, 2),
        ]
    });
    let head = ["SHIM", "", "SESSIONS", "95%", "OTHER STEPS", "OTHER CONTEXTS", "REQUESTS A SESSION"];
    table(head, &rows.collect::<Vec<_>>())
}

/// A mean with its interval, where more than one session makes one.
fn mean(of: &Value, digits: usize) -> String {
    let [mean, low, high] = ["mean", "low", "high"].map(|side| of[side].as_f64());
    let interval = low.zip(high).map(|(low, high)| format!(" ({low:+.digits$} to {high:+.digits$})"));
    mean.map_or_else(String::new, |mean| format!("{mean:+.digits$}{}", interval.unwrap_or_default()))
}

fn told_live(report: &Value) -> String {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let rows = report["shims"].as_array().into_iter().flatten().map(|shim| {
        let percent = |side: &str| 100.0 * number(&shim["share_worse"][side]);
        [
            one_line(shim["name"].as_str().unwrap_or_default(), 60),
            shim["verdict"].as_str().unwrap_or_default().replace('_', " "),
            shim["sessions"].to_string(),
            shim["unfinished"].to_string(),
            shim["changed"].to_string(),
            shim["worse"].to_string(),
            format!("{:.0}-{:.0}%", percent("low"), percent("high")),
            shim["better"].to_string(),
            mean(&shim["requests"], 2),
            mean(&shim["tokens"], 0),
            mean(&shim["cost"], 4),
        ]
    });
    let head =
        ["WITHOUT", "", "SESSIONS", "UNFINISHED", "CHANGED", "WORSE", "95%", "BETTER", "REQUESTS", "TOKENS", "DOLLARS"];
    let mut told = table(head, &rows.collect::<Vec<_>>());
    for (why, count) in report["failed"].as_object().into_iter().flatten() {
        told.push_str(&format!("\nnot gone through, {count} times: {}", one_line(why, 200)));
    }
    told
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

    #[test]
    fn what_sessions_are_without_a_shim_is_told() {
        let mean = json!({"mean": -1.0, "low": -1.5, "high": -0.5});
        let one = json!({"mean": 2.0, "low": null, "high": null});
        let shim = json!({"name": "reset", "verdict": "needed", "sessions": 6, "unfinished": 1, "changed": 6, "worse": 6,
            "better": 0, "share_worse": {"low": 0.61, "high": 1.0}, "requests": mean, "tokens": mean, "cost": one});
        let told = told_live(&json!({"shims": [shim], "failed": {"harness gone@1 is not in this build": 2}}));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[1].starts_with("reset    needed  6         1           6        6      61-100%  0"), "{told}");
        assert!(lines[1].ends_with("-1.00 (-1.50 to -0.50)  -1 (-2 to -0)  +2.0000"), "{told}");
        assert_eq!(lines[2], "not gone through, 2 times: harness gone@1 is not in this build");
    }
}
