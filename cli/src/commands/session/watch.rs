//! `steadyhand session watch`: history, then whatever happens, until the session ends or nobody wants to know more.

use crate::{args, feed, output, render, service::Service};
use clap::Args;

/// Follow a session: what happened, then what happens
///
/// Goes on through restarts of the service. Ends when the session does, or with ctrl-c.
#[derive(Debug, Args)]
pub struct Watch {
    #[arg(value_parser = args::id)]
    id: String,
    /// The first position
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,
    /// End when the session comes to rest instead of waiting for more
    #[arg(long)]
    until_idle: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Watch {
    pub async fn run(self, service: Service) -> anyhow::Result<()> {
        let options = feed::Options { from: self.from, previews: false };
        let id = self.id.clone();
        let mut items = feed::open(service, self.id, options);
        while let Some(item) = items.recv().await {
            match item? {
                feed::Item::Event { position, event } => {
                    if self.json {
                        output::json(&event);
                    } else {
                        output::line(&render::row(Some(position), &event));
                    }
                    if self.until_idle && event["type"] == "session.status_idle" {
                        return Ok(());
                    }
                }
                feed::Item::Lost => output::note(&format!("the stream of {id} broke off, trying again")),
                feed::Item::Back => output::note("it is back"),
                feed::Item::Preview(_) => {}
            }
        }
        Ok(())
    }
}
