//! `steadyhand key`: keys for clients.

use crate::{
    data_dir::{self, DataDir},
    error::{Code, Hint as _, failed},
    launch, output,
    service::Service,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use store::FjallCatalog;

/// Make keys for clients of the service
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
        /// Print id, name and key as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Key {
    pub async fn run(self) -> anyhow::Result<()> {
        let Command::Create { name, json } = self.command;
        let client = match self.service.url() {
            Some(_) => Some(self.service.client()?),
            None => launch::answering(&self.service).await?,
        };
        let key = match client {
            Some(client) => client.post(&["v1", "steadyhand", "api_keys"], &json!({"name": name})).await?,
            None => create_here(&self.service.data(), &name).await?,
        };
        if json {
            output::json(&key);
        } else {
            output::line(key["key"].as_str().unwrap_or_default());
        }
        Ok(())
    }
}

async fn create_here(root: &Path, name: &str) -> anyhow::Result<Value> {
    if !data_dir::catalog(root).is_dir() {
        let hint = "start a service there first (`steadyhand serve`), or name another folder with --data";
        return Err(failed(Code::Unreachable, format!("no service ever ran from {}", root.display()), hint));
    }
    let data = DataDir::open(root)?;
    let hint = "`steadyhand verify` says whether the folder is damaged";
    let catalog = FjallCatalog::open(&data_dir::catalog(data.root())).hint(Code::Data, "open the catalog", hint)?;
    let keys = api::auth::Keys::new(Arc::new(catalog), None);
    let key = keys.create(name, jiff::Timestamp::now()).await.hint(Code::Data, "keep the key", hint)?;
    Ok(json!({"id": key.id, "type": "api_key", "name": name, "key": key.token}))
}
