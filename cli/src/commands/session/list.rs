//! `steadyhand session list`.

use crate::{
    args,
    client::{Client, Query},
    output,
    render::{moment, one_line},
    table::table,
};
use clap::{Args, ValueEnum};

/// List sessions, newest first
#[derive(Debug, Args)]
pub struct List {
    /// Only sessions in this state; may be given more than once
    #[arg(long, value_enum)]
    status: Vec<Status>,
    /// Only sessions of this agent
    #[arg(long, value_name = "ID", value_parser = args::id)]
    agent: Option<String>,
    /// Archived sessions too
    #[arg(long)]
    archived: bool,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Idle,
    Running,
    Rescheduling,
    Terminated,
}

impl List {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let mut query = Query::from([("limit", self.limit.clamp(1, 100).to_string())]);
        for status in &self.status {
            let name = status.to_possible_value().expect("no state is hidden").get_name().to_owned();
            query.push(("statuses[]", name));
        }
        query.extend(self.agent.map(|id| ("agent_id", id)));
        if self.archived {
            query.push(("include_archived", "true".to_owned()));
        }
        let sessions = client.list(&["v1", "sessions"], &query, self.limit).await?;
        if self.json {
            sessions.iter().for_each(output::json);
            return Ok(());
        }
        let rows = sessions.iter().map(|session| {
            let text = |pointer: &str, columns| {
                let value = session.pointer(pointer).and_then(|value| value.as_str());
                one_line(value.unwrap_or_default(), columns)
            };
            let created = moment(&session["created_at"]);
            [text("/id", 80), text("/status", 20), created, text("/agent/name", 24), text("/title", 60)]
        });
        output::line(&table(["ID", "STATUS", "CREATED", "AGENT", "TITLE"], &rows.collect::<Vec<_>>()));
        Ok(())
    }
}
