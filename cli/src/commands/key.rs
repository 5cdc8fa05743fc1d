//! `steadyhand key`: keys for clients.

use crate::{
    args,
    client::Query,
    data_dir::{self, DataDir},
    error::{Code, Hint as _, failed},
    launch, output,
    render::{moment, one_line},
    service::Service,
    table::table,
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use store::{Catalog, FjallCatalog};

/// Make, list and revoke keys for clients of the service
#[derive(Debug, Args)]
pub struct Key {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a key and print it: it is shown this once
    ///
    /// Asks the running service with its admin key. While no service runs, the key is written into the data folder.
    Create {
        /// What the key is for, as in laptop
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value_t = Scope::All)]
        scope: Scope,
        /// The workspace that it opens [default: the one that the service began with]
        #[arg(long, value_name = "ID", value_parser = args::id)]
        workspace: Option<String>,
        /// Print id, name and key as JSON
        #[arg(long)]
        json: bool,
    },
    /// List keys with their last use, oldest first
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key, for good
    Revoke {
        #[arg(value_parser = args::id)]
        id: String,
        /// Print the key's entry as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// Everything of the workspace
    All,
    /// Look, and change nothing
    Read,
}

const PATH: [&str; 3] = ["v1", "steadyhand", "api_keys"];

impl Key {
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Create { name, scope, workspace, json } => {
                let client = match self.service.url() {
                    Some(_) => Some(self.service.client()?),
                    None => launch::answering(&self.service).await?,
                };
                let key = match client {
                    Some(client) => client.post(&PATH, &body(&name, scope, workspace.as_deref())).await?,
                    None => create_here(&self.service.data(), &name, scope, workspace).await?,
                };
                print_new(&key, json);
            }
            Command::List { json } => print_list(&self.service.client()?.get(&PATH, &Query::new()).await?, json),
            Command::Revoke { id, json } => {
                let [v1, ours, keys] = PATH;
                let answer = self.service.client()?.post(&[v1, ours, keys, &id, "revoke"], &json!({})).await?;
                output::said(&answer, json, &format!("revoked {id}"));
            }
        }
        Ok(())
    }
}

fn body(name: &str, scope: Scope, workspace: Option<&str>) -> Value {
    let scope = match scope {
        Scope::All => "all",
        Scope::Read => "read",
    };
    json!({"name": name, "scope": scope, "workspace_id": workspace})
}

pub fn print_new(key: &Value, as_json: bool) {
    if as_json {
        output::json(key);
    } else {
        output::line(key["key"].as_str().unwrap_or_default());
    }
}

pub fn print_list(answer: &Value, as_json: bool) {
    let keys = answer["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    if as_json {
        return keys.iter().for_each(output::json);
    }
    let rows = keys.iter().map(|key| {
        let text = |value: &Value, columns| one_line(value.as_str().unwrap_or_default(), columns);
        [
            text(&key["id"], 80),
            text(&key["scope"]["type"], 20),
            moment(&key["created_at"]),
            moment(&key["last_used_at"]),
            moment(&key["revoked_at"]),
            text(&key["name"], 60),
        ]
    });
    let head = ["ID", "SCOPE", "CREATED", "LAST USED", "REVOKED", "NAME"];
    output::line(&table(head, &rows.collect::<Vec<_>>()));
}

async fn create_here(root: &Path, name: &str, scope: Scope, workspace: Option<String>) -> anyhow::Result<Value> {
    if !data_dir::catalog(root).is_dir() {
        let hint = "start a service there first (`steadyhand serve`), or name another folder with --data";
        return Err(failed(Code::Unreachable, format!("no service ever ran from {}", root.display()), hint));
    }
    let data = DataDir::open(root)?;
    let hint = "`steadyhand verify` says whether the folder is damaged";
    let catalog = FjallCatalog::open(&data_dir::catalog(data.root())).hint(Code::Data, "open the catalog", hint)?;
    let catalog: Arc<dyn Catalog> = Arc::new(catalog);
    if let Some(id) = &workspace {
        let known = api::tenants::all(&*catalog).await.hint(Code::Data, "read the workspaces", hint)?;
        if !known.iter().any(|tenant| tenant.workspace_id == *id) {
            let hint = "`steadyhand workspace list` says which there are";
            return Err(failed(Code::Refused, format!("there is no workspace {id}"), hint));
        }
    }
    let scope = match scope {
        Scope::All => api::auth::Scope::All,
        Scope::Read => api::auth::Scope::Read,
    };
    let keys = api::auth::Keys::new(catalog, None);
    let made = keys.create(name, scope, workspace, jiff::Timestamp::now()).await;
    let made = made.hint(Code::Data, "keep the key", hint)?;
    Ok(json!(api::resources::api_keys::NewApiKey::from(made)))
}
