//! `steadyhand audit`: who changed what.

use crate::{
    client::Query,
    output,
    render::{moment, one_line},
    service::Service,
    table::table,
};
use clap::Args;

/// List what was changed and with which key, newest first
#[derive(Debug, Args)]
pub struct Audit {
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Audit {
    pub async fn run(self) -> anyhow::Result<()> {
        let query = Query::from([("limit", self.limit.clamp(1, 1000).to_string())]);
        let entries = self.service.client()?.list(&["v1", "steadyhand", "audit"], &query, self.limit).await?;
        if self.json {
            entries.iter().for_each(output::json);
            return Ok(());
        }
        let rows = entries.iter().map(|entry| {
            let text = |name: &str, columns| one_line(entry[name].as_str().unwrap_or_default(), columns);
            let call = format!("{} {}", text("method", 10), text("path", 100));
            let status = entry["status"].as_u64().unwrap_or_default().to_string();
            [moment(&entry["at"]), text("key_id", 40), status, text("object_id", 40), call]
        });
        output::line(&table(["AT", "KEY", "STATUS", "OBJECT", "CALL"], &rows.collect::<Vec<[String; 5]>>()));
        Ok(())
    }
}
