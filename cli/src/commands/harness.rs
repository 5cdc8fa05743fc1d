//! `steadyhand harness`: the harnesses that sessions can have.

use crate::{
    client::{Client, Query},
    output,
    render::{moment, one_line},
    service::Service,
    table::{fields, table},
};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;
use std::path::PathBuf;

/// List and add harnesses: what decides a session's next step
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand harness add patient.wasm && steadyhand harness show patient@1")]
pub struct Harness {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List harnesses, with the number of sessions that hold each
    #[command(after_help = "Example:\n  steadyhand harness list --json")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a harness: its shims, and the sessions that hold it
    #[command(after_help = "Example:\n  steadyhand harness show loop@2")]
    Show {
        /// NAME@VERSION, NAME or the hash
        harness: String,
        /// Print the harness as JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a harness that is a WebAssembly module
    #[command(after_help = "Example:\n  steadyhand harness add patient.wasm")]
    Add {
        /// The module
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        /// Print the harness as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a harness that was added and that no session holds
    #[command(after_help = "Example:\n  steadyhand harness remove patient@1")]
    Remove {
        /// The hash, or NAME@VERSION
        harness: String,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Harness {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        match self.command {
            Command::List { json } => list(&client, json).await,
            Command::Show { harness, json } => {
                let shown = client.get(&["v1", "harnesses", &harness], &Query::new()).await?;
                if json {
                    output::json(&shown);
                } else {
                    output::line(&described(&shown));
                }
                Ok(())
            }
            Command::Add { file, json } => {
                let bytes = tokio::fs::read(&file).await.with_context(|| format!("read {}", file.display()))?;
                let added = client.post_bytes(&["v1", "harnesses"], "application/wasm", bytes).await?;
                let (id, sha256) = (text(&added["id"]), text(&added["sha256"]));
                output::said(&added, json, &format!("added {id} {sha256}"));
                Ok(())
            }
            Command::Remove { harness, json } => {
                let answer = client.delete(&["v1", "harnesses", &harness]).await?;
                output::said(&answer, json, &format!("removed {}", text(&answer["id"])));
                Ok(())
            }
        }
    }
}

async fn list(client: &Client, as_json: bool) -> anyhow::Result<()> {
    let harnesses = client.list(&["v1", "harnesses"], &Query::new(), usize::MAX).await?;
    if as_json {
        harnesses.iter().for_each(output::json);
        return Ok(());
    }
    let rows = harnesses.iter().map(|harness| {
        let is_default = harness["is_default"].as_bool().unwrap_or_default();
        let note = if is_default { "default".to_owned() } else { text(&harness["form"]) };
        let hash = one_line(harness["sha256"].as_str().unwrap_or_default(), 12);
        [text(&harness["id"]), hash, harness["sessions"].to_string(), note]
    });
    output::line(&table(["HARNESS", "SHA-256", "SESSIONS", ""], &rows.collect::<Vec<_>>()));
    Ok(())
}

fn described(harness: &Value) -> String {
    let strategy = &harness["strategy"];
    let strategy = match strategy["name"].as_str() {
        Some(name) => format!("{name}@{} {}", strategy["version"], strategy["params"]),
        None => "the agent's".to_owned(),
    };
    let mut pairs = vec![
        ("harness", text(&harness["id"])),
        ("sha-256", text(&harness["sha256"])),
        ("form", text(&harness["form"])),
        ("view", harness["view_version"].to_string()),
        ("strategy", one_line(&strategy, 200)),
        ("added", if harness["added_at"].is_string() { moment(&harness["added_at"]) } else { String::new() }),
        ("sessions", harness["sessions"].to_string()),
    ];
    for shim in harness["shims"].as_array().into_iter().flatten() {
        let (name, model) = (text(&shim["name"]), text(&shim["model"]));
        pairs.push(("shim", format!("{name} (for {model}): {}", text(&shim["assumption"]))));
    }
    for id in harness["session_ids"].as_array().into_iter().flatten() {
        pairs.push(("held by", text(id)));
    }
    fields(&pairs)
}

fn text(value: &Value) -> String {
    one_line(value.as_str().unwrap_or_default(), 200)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_harness_is_described_with_its_shims_and_holders() {
        let shim = json!({"name": "nudge", "assumption": "it stops", "model": "m"});
        let harness = json!({"id": "x@1", "sha256": "ab", "form": "wasm", "view_version": 2, "strategy": null,
            "sessions": 1, "shims": [shim], "session_ids": ["sesn_1"]});
        let expect = "harness   x@1\nsha-256   ab\nform      wasm\nview      2\nstrategy  the agent's\nsessions  1\n\
            shim      nudge (for m): it stops\nheld by   sesn_1";
        assert_eq!(described(&harness), expect);
    }
}
