//! `steadyhand workspace`: the tenants of a service.

use crate::{
    args,
    client::Query,
    output,
    render::{moment, one_line},
    service::Service,
    table::table,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Make and list workspaces: tenants that know nothing of each other
#[derive(Debug, Args)]
pub struct Workspace {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a workspace; `key create --workspace ID` makes keys of it
    Create {
        name: String,
        /// An organization that is there already [default: a new one]
        #[arg(long, value_name = "ID", value_parser = args::id)]
        organization: Option<String>,
        /// Print the workspace as JSON
        #[arg(long)]
        json: bool,
    },
    /// List workspaces, oldest first
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

const PATH: [&str; 3] = ["v1", "steadyhand", "workspaces"];

impl Workspace {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        match self.command {
            Command::Create { name, organization, json } => {
                let body = json!({"name": name, "organization_id": organization});
                let workspace = client.post(&PATH, &body).await?;
                if json {
                    output::json(&workspace);
                } else {
                    output::line(workspace["id"].as_str().unwrap_or_default());
                }
            }
            Command::List { json } => {
                let answer = client.get(&PATH, &Query::new()).await?;
                let workspaces = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
                if json {
                    workspaces.iter().for_each(output::json);
                } else {
                    let rows: Vec<_> = workspaces.iter().map(row).collect();
                    output::line(&table(["ID", "ORGANIZATION", "CREATED", "NAME"], &rows));
                }
            }
        }
        Ok(())
    }
}

fn row(workspace: &Value) -> [String; 4] {
    let text = |value: &Value| one_line(value.as_str().unwrap_or_default(), 80);
    let created = moment(&workspace["created_at"]);
    [text(&workspace["id"]), text(&workspace["organization_id"]), created, text(&workspace["name"])]
}
