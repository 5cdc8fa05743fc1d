//! `steadyhand session strategy`.

use crate::{args, client::Client, output};
use clap::Args;

/// Give a session another context strategy, from its next model request on
///
/// A harness that keeps the context by a strategy of its own goes on to do so: `harness show` says which one that is.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  steadyhand session strategy sesn_01aB --strategy window --params '{\"rounds\": 5}' --turn"
)]
pub struct Strategy {
    #[arg(value_parser = args::id)]
    id: String,
    /// NAME or NAME@VERSION
    #[arg(long, value_name = "STRATEGY")]
    strategy: String,
    /// Its parameters, as JSON
    #[arg(long, value_name = "JSON")]
    params: Option<String>,
    /// For the turn that is on, or the next one, and no longer
    #[arg(long)]
    turn: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

impl Strategy {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let strategy = args::strategy(&self.strategy, self.params.as_deref())?;
        let body = serde_json::json!({"strategy": strategy, "turn": self.turn});
        let answer = client.post(&["v1", "sessions", &self.id, "strategy"], &body).await?;
        let name = |side: &str| {
            let strategy = &answer[side];
            format!("{}@{}", strategy["name"].as_str().unwrap_or_default(), strategy["version"])
        };
        let long = if self.turn { "for one turn" } else { "from its next request on" };
        output::said(&answer, self.json, &format!("{} has {} and gets {} {long}", self.id, name("from"), name("to")));
        Ok(())
    }
}
