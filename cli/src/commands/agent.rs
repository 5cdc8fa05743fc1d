//! `steadyhand agent`: stored definitions of agents.

use crate::{
    args,
    client::{Client, Query},
    document, output,
    presets::{self, DEFAULT_MODEL},
    render::{moment, one_line},
    service::Service,
    table::{fields, table},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Make and change agents: a model, a prompt and tools under a name
#[derive(Debug, Args)]
pub struct Agent {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create an agent, out of a file, flags, or both
    Create {
        #[command(flatten)]
        definition: Definition,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// List agents, newest first
    List {
        /// Archived agents too
        #[arg(long)]
        archived: bool,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show an agent
    Show {
        #[arg(value_parser = args::id)]
        id: String,
        /// An earlier version
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// Change an agent; sessions that run keep the version that they started with
    Update {
        #[arg(value_parser = args::id)]
        id: String,
        #[command(flatten)]
        definition: Definition,
        /// Refuse if this is not the newest version
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
    /// Archive an agent: no new sessions, for good
    Archive {
        #[arg(value_parser = args::id)]
        id: String,
        /// Print the agent as JSON
        #[arg(long)]
        json: bool,
    },
}

/// What an agent is. Flags win over the file.
#[derive(Debug, Args)]
struct Definition {
    /// The agent in the API's form, as JSON or TOML
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[arg(long)]
    name: Option<String>,
    /// Id of the model
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// The system prompt
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Ask before this tool runs, as in bash; may be given more than once
    #[arg(long, value_name = "TOOL")]
    ask: Vec<String>,
    /// No tools at all
    #[arg(long, conflicts_with = "ask")]
    no_tools: bool,
}

impl Definition {
    fn body(self) -> anyhow::Result<Value> {
        let mut body = self.file.as_deref().map_or_else(|| Ok(json!({})), document::read)?;
        let flags =
            [("name", self.name), ("model", self.model), ("system", self.system), ("description", self.description)];
        for (name, value) in flags {
            if let Some(value) = value {
                body[name] = value.into();
            }
        }
        if self.no_tools {
            body["tools"] = json!([]);
        } else if !self.ask.is_empty() {
            body["tools"] = presets::tools(&self.ask);
        }
        Ok(body)
    }

    /// What is needed and was not given has the defaults of `run`.
    fn complete_body(self) -> anyhow::Result<Value> {
        let mut body = self.body()?;
        for (name, default) in [("model", json!(DEFAULT_MODEL)), ("tools", presets::tools(&[]))] {
            if body.get(name).is_none() {
                body[name] = default;
            }
        }
        Ok(body)
    }
}

impl Agent {
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Create { definition, json } => {
                let body = definition.complete_body()?;
                print(&self.service.client()?.post(&["v1", "agents"], &body).await?, json);
            }
            Command::List { archived, limit, json } => list(&self.service.client()?, archived, limit, json).await?,
            Command::Show { id, version, json } => {
                let query = version.map(|version| ("version", version.to_string())).into_iter().collect();
                print(&self.service.client()?.get(&["v1", "agents", &id], &query).await?, json);
            }
            Command::Update { id, definition, version, json } => {
                let mut body = definition.body()?;
                if let Some(version) = version {
                    body["version"] = version.into();
                }
                print(&self.service.client()?.post(&["v1", "agents", &id], &body).await?, json);
            }
            Command::Archive { id, json } => {
                let answer = self.service.client()?.post(&["v1", "agents", &id, "archive"], &json!({})).await?;
                output::said(&answer, json, &format!("archived {id}"));
            }
        }
        Ok(())
    }
}

async fn list(client: &Client, archived: bool, limit: usize, as_json: bool) -> anyhow::Result<()> {
    let query = Query::from([("limit", limit.clamp(1, 100).to_string()), ("include_archived", archived.to_string())]);
    let agents = client.list(&["v1", "agents"], &query, limit).await?;
    if as_json {
        agents.iter().for_each(output::json);
        return Ok(());
    }
    let rows = agents.iter().map(|agent| {
        let text = |value: &Value, columns| one_line(value.as_str().unwrap_or_default(), columns);
        let (id, name, model) = (text(&agent["id"], 80), text(&agent["name"], 40), text(&agent["model"]["id"], 40));
        [id, agent["version"].to_string(), moment(&agent["updated_at"]), model, name]
    });
    output::line(&table(["ID", "VERSION", "UPDATED", "MODEL", "NAME"], &rows.collect::<Vec<_>>()));
    Ok(())
}

fn print(agent: &Value, as_json: bool) {
    if as_json {
        return output::json(agent);
    }
    let text = |value: &Value| one_line(value.as_str().unwrap_or_default(), 200);
    output::line(&fields(&[
        ("id", text(&agent["id"])),
        ("name", text(&agent["name"])),
        ("version", agent["version"].to_string()),
        ("model", text(&agent["model"]["id"])),
        ("description", text(&agent["description"])),
        ("system", text(&agent["system"])),
        ("tools", tools(&agent["tools"])),
        ("created", moment(&agent["created_at"])),
        ("updated", moment(&agent["updated_at"])),
        ("archived", moment(&agent["archived_at"])),
    ]));
}

/// A toolset by its type, with the tools that differ from its default; a custom tool by its name.
fn tools(tools: &Value) -> String {
    let described = tools.as_array().into_iter().flatten().map(|tool| {
        let part = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        if tool["type"] == "custom" {
            return part(&tool["name"]);
        }
        let configs = tool["configs"].as_array().into_iter().flatten().map(|config| {
            let policy = part(&config["permission_policy"]["type"]);
            let policy = if config["enabled"] == false { "off".to_owned() } else { policy };
            format!("{} {policy}", part(&config["name"]))
        });
        let configs = configs.collect::<Vec<_>>().join(", ");
        if configs.is_empty() { part(&tool["type"]) } else { format!("{} ({configs})", part(&tool["type"])) }
    });
    one_line(&described.collect::<Vec<_>>().join(", "), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toolsets_show_what_differs() {
        let shown = tools(&json!([
            {"type": "agent_toolset_20260401", "configs": [
                {"name": "bash", "enabled": true, "permission_policy": {"type": "always_ask"}},
                {"name": "write", "enabled": false, "permission_policy": {"type": "always_allow"}},
            ]},
            {"type": "custom", "name": "weather"},
        ]));
        assert_eq!(shown, "agent_toolset_20260401 (bash always_ask, write off), weather");
        assert_eq!(tools(&json!([])), "");
    }
}
