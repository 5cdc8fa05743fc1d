//! `steadyhand session events`: a slice of the log by position.

use crate::{
    args,
    client::{Client, Query},
    output, render,
};
use clap::Args;

/// Print what happened in a session, by position
///
/// Events that wait to be taken up have no position yet and come last.
#[derive(Debug, Args)]
pub struct Events {
    #[arg(value_parser = args::id)]
    id: String,
    /// The first position
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// The position to stop before
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// Only events of these types, as in user.message,agent.message
    #[arg(long, value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Events {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut query = Query::from([("from_position", self.from.to_string())]);
        query.extend(self.to.map(|to| ("to_position", to.to_string())));
        // Positions are counted, so everything in the range has to be there to count.
        let events = client.list(&["v1", "sessions", &self.id, "events"], &query, usize::MAX).await?;
        for (position, event) in (self.from..).zip(&events) {
            let is_wanted = self.types.is_empty() || self.types.iter().any(|kind| event["type"] == kind.as_str());
            if !is_wanted {
                continue;
            }
            if self.json {
                output::json(event);
            } else {
                let is_committed = !event["processed_at"].is_null();
                output::line(&render::row(is_committed.then_some(position), event));
            }
        }
        Ok(())
    }
}
