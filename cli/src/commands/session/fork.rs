//! `steadyhand session fork`.

use crate::{args, client::Client, output};
use clap::Args;
use serde_json::json;

/// Go on from any place of a session in a new one
///
/// The log up to there is shared, not copied; calls that are under way there are closed as not run. The new session rests until it
/// is sent a message.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand session fork sesn_01aB --at 120 --harness loop@2")]
pub struct Fork {
    #[arg(value_parser = args::id)]
    id: String,
    /// A position: the fork has everything before it [default: the end]
    #[arg(long, value_name = "POSITION")]
    at: Option<u64>,
    /// NAME@VERSION, NAME (its newest version) or a hash
    #[arg(long, value_name = "HARNESS")]
    harness: Option<String>,
    /// A context strategy: NAME or NAME@VERSION
    #[arg(long, value_name = "STRATEGY")]
    strategy: Option<String>,
    /// Parameters of the strategy, as JSON
    #[arg(long, value_name = "JSON", requires = "strategy")]
    params: Option<String>,
    /// Another agent
    #[arg(long, value_name = "AGENT", value_parser = args::id)]
    agent: Option<String>,
    /// Another environment
    #[arg(long, value_name = "ENV", value_parser = args::id)]
    env: Option<String>,
    /// A title
    #[arg(long)]
    title: Option<String>,
    /// Print the session as JSON
    #[arg(long)]
    json: bool,
}

impl Fork {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut body = json!({});
        for (name, value) in
            [("harness", self.harness), ("agent", self.agent), ("environment_id", self.env), ("title", self.title)]
        {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        if let Some(at) = self.at {
            body["at"] = json!(at);
        }
        if let Some(strategy) = self.strategy {
            body["strategy"] = args::strategy(&strategy, self.params.as_deref())?;
        }
        let made = client.post(&["v1", "sessions", &self.id, "fork"], &body).await?;
        let told = format!("forked {} from {}", made["id"].as_str().unwrap_or_default(), self.id);
        output::said(&made, self.json, &told);
        Ok(())
    }
}
