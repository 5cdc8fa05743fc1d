//! `steadyhand env key`: keys for the workers of a self-hosted environment.

use super::key::{print_list, print_new};
use crate::{
    args,
    client::{Client, Query},
    output,
};
use clap::Subcommand;
use serde_json::json;

#[derive(Debug, Subcommand)]
pub enum EnvKey {
    /// Create a key for workers and print it: it is shown this once
    Create {
        #[arg(value_parser = args::id)]
        environment: String,
        /// Whose key it is, as in build-machine
        #[arg(default_value = "worker")]
        name: String,
        /// Print id, name and key as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the keys of an environment with their last use, oldest first
    List {
        #[arg(value_parser = args::id)]
        environment: String,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key of an environment, for good
    Revoke {
        #[arg(value_parser = args::id)]
        environment: String,
        #[arg(value_parser = args::id)]
        id: String,
        /// Print the key's entry as JSON
        #[arg(long)]
        json: bool,
    },
}

impl EnvKey {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        match self {
            EnvKey::Create { environment, name, json } => {
                print_new(&client.post(&path(&environment), &json!({"name": name})).await?, json);
            }
            EnvKey::List { environment, json } => {
                print_list(&client.get(&path(&environment), &Query::new()).await?, json);
            }
            EnvKey::Revoke { environment, id, json } => {
                let path = [&path(&environment)[..], &[&id, "revoke"]].concat();
                output::said(&client.post(&path, &json!({})).await?, json, &format!("revoked {id}"));
            }
        }
        Ok(())
    }
}

fn path(environment: &str) -> [&str; 5] {
    ["v1", "steadyhand", "environments", environment, "keys"]
}
