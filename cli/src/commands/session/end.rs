//! `steadyhand session archive` and `delete`.

use crate::{args, client::Client, output};
use clap::Args;

/// End a session and keep what happened in it
#[derive(Debug, Args)]
pub struct Archive {
    #[arg(value_parser = args::id)]
    id: String,
    /// Print the session as JSON
    #[arg(long)]
    json: bool,
}

/// Delete a session with its events, files and sandbox
#[derive(Debug, Args)]
pub struct Delete {
    #[arg(value_parser = args::id)]
    id: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Archive {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let session = client.post(&["v1", "sessions", &self.id, "archive"], &serde_json::json!({})).await?;
        output::said(&session, self.json, &format!("archived {}", self.id));
        Ok(())
    }
}

impl Delete {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let answer = client.delete(&["v1", "sessions", &self.id]).await?;
        output::said(&answer, self.json, &format!("deleted {}", self.id));
        Ok(())
    }
}
