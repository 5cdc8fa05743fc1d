//! `steadyhand session confirm`: answers for tool calls that wait to be allowed.

use super::send::print_accepted;
use crate::{
    args,
    client::{Client, Query},
    error::{Code, failed},
};
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

/// Allow or deny tool calls that wait for it
///
/// Without event ids: every call that the session waits for.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("verdict").required(true).args(["allow", "deny"])))]
pub struct Confirm {
    #[arg(value_parser = args::id)]
    id: String,
    /// Events of the calls, as `session events ID --types agent.tool_use` shows them
    #[arg(value_name = "EVENT_ID", value_parser = args::id)]
    events: Vec<String>,
    /// Let the calls run
    #[arg(long)]
    allow: bool,
    /// Tell the agent that it may not
    #[arg(long)]
    deny: bool,
    /// What the agent is told when it may not
    #[arg(long, value_name = "TEXT", conflicts_with = "allow")]
    reason: Option<String>,
    /// Print the accepted events as JSON
    #[arg(long)]
    json: bool,
}

impl Confirm {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let ids = if self.events.is_empty() { waiting(client, &self.id).await? } else { self.events };
        let answers: Vec<_> = ids.iter().map(|id| answer(id, self.allow, self.reason.as_deref())).collect();
        let accepted = client.send_events(&self.id, &answers).await?;
        print_accepted(&accepted, self.json);
        Ok(())
    }
}

/// The event that allows a call, or denies it.
pub fn answer(id: &str, is_allowed: bool, reason: Option<&str>) -> Value {
    let result = if is_allowed { "allow" } else { "deny" };
    let mut answer = json!({"type": "user.tool_confirmation", "tool_use_id": id, "result": result});
    if let Some(reason) = reason {
        answer["deny_message"] = reason.into();
    }
    answer
}

/// What the session said last that it waits for.
async fn waiting(client: &Client, session_id: &str) -> anyhow::Result<Vec<String>> {
    let nothing = || {
        let hint = format!("`steadyhand session watch {session_id}` shows what it does");
        failed(Code::Refused, format!("session {session_id} waits for no confirmation"), hint)
    };
    let query = Query::from([
        ("types[]", "session.status_idle".to_owned()),
        ("types[]", "session.status_running".to_owned()),
        ("order", "desc".to_owned()),
        ("limit", "1".to_owned()),
    ]);
    let last = client.list(&["v1", "sessions", session_id, "events"], &query, 1).await?;
    let reason = last.first().map(|event| &event["stop_reason"]).ok_or_else(nothing)?;
    let ids = reason["event_ids"].as_array().into_iter().flatten();
    let ids: Vec<_> = ids.filter_map(|id| id.as_str().map(str::to_owned)).collect();
    if ids.is_empty() { Err(nothing()) } else { Ok(ids) }
}
