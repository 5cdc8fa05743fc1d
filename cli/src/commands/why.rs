//! `steadyhand why`: which part a session waits for.

use crate::{args, client::Query, output, render::one_line, service::Service, table::fields};
use clap::Args;
use serde_json::Value;

/// Say what a session waits for: the model, a hand, a brain worker, or you
#[derive(Debug, Args)]
pub struct Why {
    #[arg(value_name = "SESSION", value_parser = args::id)]
    id: String,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Why {
    pub async fn run(self) -> anyhow::Result<()> {
        let why = self.service.client()?.get(&["v1", "sessions", &self.id, "why"], &Query::new()).await?;
        if self.json {
            output::json(&why);
        } else {
            output::line(&explanation(&why));
        }
        Ok(())
    }
}

fn explanation(why: &Value) -> String {
    let text = |value: &Value| one_line(value.as_str().unwrap_or_default(), 400);
    let mut pairs = vec![("waiting for", text(&why["waiting_for"]).replace('_', " "))];
    for (n, evidence) in why["evidence"].as_array().into_iter().flatten().enumerate() {
        pairs.push((if n == 0 { "because" } else { "" }, text(evidence)));
    }
    pairs.push(("next", text(&why["next"])));
    fields(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_evidence_stands_under_itself() {
        let why = json!({"waiting_for": "brain_worker", "evidence": ["a", "b"], "next": "start a brain worker"});
        let expect = "waiting for  brain worker\nbecause      a\n             b\nnext         start a brain worker";
        assert_eq!(explanation(&why), expect);
    }
}
