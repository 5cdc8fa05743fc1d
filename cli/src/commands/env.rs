//! `steadyhand env`: environments, in which sessions run their tools.

use super::env_key::EnvKey;
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

/// Make and look at environments: where sessions run their tools
#[derive(Debug, Args)]
pub struct Env {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an environment, out of a file, flags, or both
    Create {
        /// The environment in the API's form, as JSON or TOML
        file: Option<PathBuf>,
        #[arg(long)]
        name: Option<String>,
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Tools run in a worker of yours, not in a sandbox of this service
        #[arg(long)]
        self_hosted: bool,
        /// Print the environment as JSON
        #[arg(long)]
        json: bool,
    },
    /// List environments, newest first
    List {
        /// Archived environments too
        #[arg(long)]
        archived: bool,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show an environment
    Show {
        #[arg(value_parser = args::id)]
        id: String,
        /// Print the environment as JSON
        #[arg(long)]
        json: bool,
    },
    /// Archive an environment: no new sessions, for good
    Archive {
        #[arg(value_parser = args::id)]
        id: String,
        /// Print the environment as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make, list and revoke keys for the workers of a self-hosted environment
    #[command(subcommand)]
    Key(EnvKey),
    /// Delete an environment
    Delete {
        #[arg(value_parser = args::id)]
        id: String,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Env {
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Create { file, name, description, self_hosted, json } => {
                let mut body = file.as_deref().map_or_else(|| Ok(json!({})), document::read)?;
                for (field, value) in [("name", name), ("description", description)] {
                    if let Some(value) = value {
                        body[field] = value.into();
                    }
                }
                if self_hosted {
                    body["config"] = json!({"type": "self_hosted"});
                }
                print(&self.service.client()?.post(&["v1", "environments"], &body).await?, json);
            }
            Command::List { archived, limit, json } => list(&self.service.client()?, archived, limit, json).await?,
            Command::Show { id, json } => {
                print(&self.service.client()?.get(&["v1", "environments", &id], &Query::new()).await?, json);
            }
            Command::Archive { id, json } => {
                let path = ["v1", "environments", &id, "archive"];
                let answer = self.service.client()?.post(&path, &json!({})).await?;
                output::said(&answer, json, &format!("archived {id}"));
            }
            Command::Key(key) => key.run(&self.service.client()?).await?,
            Command::Delete { id, json } => {
                let answer = self.service.client()?.delete(&["v1", "environments", &id]).await?;
                output::said(&answer, json, &format!("deleted {id}"));
            }
        }
        Ok(())
    }
}

async fn list(client: &Client, archived: bool, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let query = Query::from([("limit", limit.clamp(1, 100).to_string()), ("include_archived", archived.to_string())]);
    let environments = client.list(&["v1", "environments"], &query, limit).await?;
    if as_json {
        environments.iter().for_each(output::json);
        return Ok(());
    }
    let rows = environments.iter().map(|environment| {
        let text = |value: &Value, columns| one_line(value.as_str().unwrap_or_default(), columns);
        let (id, name) = (text(&environment["id"], 80), text(&environment["name"], 60));
        [id, text(&environment["config"]["type"], 20), moment(&environment["created_at"]), name]
    });
    output::line(&table(["ID", "TYPE", "CREATED", "NAME"], &rows.collect::<Vec<_>>()));
    Ok(())
}

fn print(environment: &Value, as_json: bool) {
    if as_json {
        return output::json(environment);
    }
    let text = |value: &Value| one_line(value.as_str().unwrap_or_default(), 200);
    output::line(&fields(&[
        ("id", text(&environment["id"])),
        ("name", text(&environment["name"])),
        ("type", text(&environment["config"]["type"])),
        ("networking", text(&environment["config"]["networking"]["type"])),
        ("description", text(&environment["description"])),
        ("created", moment(&environment["created_at"])),
        ("archived", moment(&environment["archived_at"])),
    ]));
}
