//! `steadyhand session swap`.

use crate::{args, client::Client, output};
use clap::Args;

/// Give a session another harness, from its next turn on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand session swap sesn_01aB --harness loop@2")]
pub struct Swap {
    #[arg(value_parser = args::id)]
    id: String,
    /// NAME@VERSION, NAME (its newest version) or a hash
    #[arg(long, value_name = "HARNESS")]
    harness: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Swap {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let body = serde_json::json!({"harness": self.harness});
        let swap = client.post(&["v1", "sessions", &self.id, "harness"], &body).await?;
        let name = |side: &str| {
            let reference = &swap[side];
            format!("{}@{}", reference["name"].as_str().unwrap_or_default(), reference["version"])
        };
        let told = format!("{} has {} and gets {} at its next turn boundary", self.id, name("from"), name("to"));
        output::said(&swap, self.json, &told);
        Ok(())
    }
}
