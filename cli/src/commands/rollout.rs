//! `steadyhand rollout`: gives sessions another version of a harness, step by step.

use crate::{
    args,
    client::{Client, Query},
    document, output,
    render::{moment, one_line},
    service::Service,
    table::{fields, table},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Roll out a harness: gate, stages, watch, rollback
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand rollout create --from loop@1 --to loop@2 --percent 10,50,100 --gate 50")]
pub struct Rollout {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    /// Show how a rollout stands
    #[command(after_help = "Example:\n  steadyhand rollout status rollout_01aB")]
    Status(One),
    /// List rollouts, newest first
    #[command(after_help = "Example:\n  steadyhand rollout list --json")]
    List {
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Keep a rollout at its stage; it is still watched
    #[command(after_help = "Example:\n  steadyhand rollout pause rollout_01aB")]
    Pause(One),
    /// Let a paused rollout go on
    #[command(after_help = "Example:\n  steadyhand rollout resume rollout_01aB")]
    Resume(One),
    /// Give the new version to every new session, now
    #[command(after_help = "Example:\n  steadyhand rollout promote rollout_01aB")]
    Promote(One),
    /// Give the new version to nobody, and sessions that have it the old one
    #[command(after_help = "Example:\n  steadyhand rollout rollback rollout_01aB")]
    Rollback(One),
}

#[derive(Debug, Args)]
struct One {
    #[arg(value_name = "ROLLOUT", value_parser = args::id)]
    id: String,
    /// Print the rollout as JSON
    #[arg(long)]
    json: bool,
}

/// Begin a rollout
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand rollout create --from loop@1 --to loop@2 --percent 10,50,100 --gate 50")]
struct Create {
    /// What sessions have now: NAME@VERSION, NAME or a hash
    #[arg(long, value_name = "HARNESS")]
    from: String,
    /// What they are to get
    #[arg(long, value_name = "HARNESS")]
    to: String,
    /// Percent of sessions, stage by stage [default: 10,50,100]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    percent: Vec<u8>,
    /// Recorded sessions that the new version is shown first [default: 50]
    #[arg(long, value_name = "N")]
    gate: Option<u32>,
    /// Only sessions that were made within this time are shown: 90s, 15m, 6h, 7d
    #[arg(long, value_name = "TIME", value_parser = args::seconds)]
    gate_age: Option<u64>,
    /// Any other decision than the recorded one stops the rollout
    #[arg(long)]
    strict: bool,
    /// Only sessions of this agent
    #[arg(long, value_name = "AGENT", value_parser = args::id)]
    agent: Option<String>,
    /// Swap live sessions too, at their turn boundary
    #[arg(long)]
    live: bool,
    /// Sessions of either version before they are compared, and of the new one in each stage [default: 20]
    #[arg(long, value_name = "N")]
    sessions_min: Option<u64>,
    /// How long a stage lasts at least: 90s, 15m, 6h, 7d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = args::seconds)]
    stage: Option<u64>,
    /// A file with the whole `watch` object, for prices and thresholds: JSON or TOML
    #[arg(long, value_name = "FILE")]
    watch: Option<PathBuf>,
    /// Print the rollout as JSON
    #[arg(long)]
    json: bool,
}

impl Rollout {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        match self.command {
            Command::Create(create) => create.run(&client).await,
            Command::Status(One { id, json }) => {
                let shown = client.get(&["v1", "harness_rollouts", &id], &Query::new()).await?;
                output::said(&shown, json, &described(&shown));
                Ok(())
            }
            Command::List { limit, json } => list(&client, limit, json).await,
            Command::Pause(one) => one.order(&client, "pause").await,
            Command::Resume(one) => one.order(&client, "resume").await,
            Command::Promote(one) => one.order(&client, "promote").await,
            Command::Rollback(one) => one.order(&client, "rollback").await,
        }
    }
}

impl One {
    async fn order(self, client: &Client, order: &str) -> anyhow::Result<()> {
        let shown = client.post(&["v1", "harness_rollouts", &self.id, order], &json!({})).await?;
        let told = match shown["order"]["is_followed"].as_bool() {
            Some(true) => described(&shown),
            _ => format!("asked; no brain worker has followed yet\n{}", described(&shown)),
        };
        output::said(&shown, self.json, &told);
        Ok(())
    }
}

impl Create {
    async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut watch = match &self.watch {
            Some(file) => document::read(file)?,
            None => json!({}),
        };
        for (name, value) in [("sessions_min", self.sessions_min), ("stage_s", self.stage)] {
            if let Some(value) = value {
                watch[name] = json!(value);
            }
        }
        let mut gate = json!({"strict": self.strict});
        if let Some(sessions) = self.gate {
            gate["sessions"] = json!(sessions);
        }
        if let Some(age) = self.gate_age {
            gate["age_s"] = json!(age);
        }
        let mut body = json!({"from": self.from, "to": self.to, "live": self.live, "gate": gate, "watch": watch});
        if !self.percent.is_empty() {
            body["stages"] = json!(self.percent);
        }
        if let Some(agent) = &self.agent {
            body["agent"] = json!(agent);
        }
        let made = client.post(&["v1", "harness_rollouts"], &body).await?;
        output::said(&made, self.json, &described(&made));
        Ok(())
    }
}

async fn list(client: &Client, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let rollouts = client.list(&["v1", "harness_rollouts"], &Query::new(), limit).await?;
    if as_json {
        rollouts.iter().for_each(output::json);
        return Ok(());
    }
    let rows = rollouts.iter().map(|rollout| {
        let way = format!("{} -> {}", name(&rollout["from"]), name(&rollout["to"]));
        let percent = format!("{}%", rollout["percent"]);
        [text(&rollout["id"]), way, status(rollout), percent, moment(&rollout["created_at"])]
    });
    output::line(&table(["ROLLOUT", "", "STATUS", "SHARE", "CREATED"], &rows.collect::<Vec<_>>()));
    Ok(())
}

fn described(rollout: &Value) -> String {
    let stages = rollout["stages"].as_array().into_iter().flatten().map(|percent| format!("{percent}%"));
    let gate = &rollout["gate"];
    let mut pairs = vec![
        ("rollout", text(&rollout["id"])),
        ("harness", format!("{} -> {}", name(&rollout["from"]), name(&rollout["to"]))),
        ("status", status(rollout)),
        ("reason", text(&rollout["reason"])),
        ("share", format!("{}% of {}", rollout["percent"], stages.collect::<Vec<_>>().join(", "))),
        (
            "gate",
            format!(
                "{} of {} sessions, {} decisions, {} other ones",
                gate["shown"], gate["sessions"], gate["decisions"], gate["differing"]
            ),
        ),
    ];
    if let Some(at) = gate["failure"]["at"].as_object() {
        let parts = &at["divergence"];
        pairs.push(("", format!("session {}, commit {}", text(&at["session_id"]), parts["commit"])));
        for side in ["recorded", "replayed"] {
            pairs.push((side, one_line(&parts[side]["step"].to_string(), 400)));
        }
    }
    for (side, what) in [("old", "from"), ("new", "to")] {
        let figures = &rollout[side];
        let told = format!("{} sessions, {} with errors", figures["sessions"], figures["failed"]);
        pairs.push((side, format!("{}: {told}", name(&rollout[what]))));
    }
    for verdict in rollout["verdicts"].as_array().into_iter().flatten() {
        let number = |side: &str| verdict[side].as_f64().unwrap_or_default();
        let p = verdict["p"].as_f64().map_or_else(|| "too few sessions".to_owned(), |p| format!("p = {p:.3}"));
        let metric = text(&verdict["metric"]).replace('_', " ");
        pairs.push(("compared", format!("{metric}: {:.4} -> {:.4} ({p})", number("old"), number("new"))));
    }
    for note in rollout["notes"].as_array().into_iter().flatten() {
        pairs.push(("", format!("{} {}", moment(&note["at"]), text(&note["what"]))));
    }
    fields(&pairs)
}

fn status(rollout: &Value) -> String {
    let status = text(&rollout["status"]).replace('_', " ");
    if rollout["paused"] == true { format!("{status}, paused") } else { status }
}

fn name(harness: &Value) -> String {
    format!("{}@{}", harness["name"].as_str().unwrap_or_default(), harness["version"])
}

fn text(value: &Value) -> String {
    one_line(value.as_str().unwrap_or_default(), 400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_told_with_its_reason_and_both_sides() {
        let side = |step: &str| json!({"step": {"step": step}});
        let at = json!({"session_id": "sesn_1", "divergence": {"commit": 4, "recorded": side("idle"), "replayed": side("fail")}});
        let rollout = json!({"id": "rollout_1", "from": {"name": "a", "version": 1}, "to": {"name": "a", "version": 2},
            "status": "stopped", "reason": "the gate was not passed: no", "percent": 0, "stages": [10, 100], "paused": false,
            "gate": {"shown": 1, "sessions": 9, "decisions": 3, "differing": 1, "failure": {"why": "no", "at": at}},
            "old": {"sessions": 0, "failed": 0}, "new": {"sessions": 0, "failed": 0},
            "verdicts": [{"metric": "error_rate", "old": 0.1, "new": 0.2, "p": null}], "notes": []});
        let told = described(&rollout);
        for line in [
            "harness   a@1 -> a@2",
            "reason    the gate was not passed: no",
            "share     0% of 10%, 100%",
            "gate      1 of 9 sessions, 3 decisions, 1 other ones",
            "          session sesn_1, commit 4",
            r#"replayed  {"step":"fail"}"#,
            "compared  error rate: 0.1000 -> 0.2000 (too few sessions)",
        ] {
            assert!(told.lines().any(|told| told == line), "{line:?} is not in\n{told}");
        }
    }
}
