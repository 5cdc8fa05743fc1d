//! MCP servers that live in a hand: asked and called by way of its shim, as any tool of the hand. So the journal knows each
//! call, and a server has what the sandbox has: no credential, and no network but its way out.
//!
//! How a server is started stands in the agent's snapshot alone. What a server says is read here as that of any other.

use super::{offered, result};
use crate::hands::{Executed, Provider, ToolCall};
use domain::{
    agent::{AgentSnapshot, McpAt, McpToolset},
    content::Block,
    event::{ErrorBody, ErrorKind, RetryStatus},
    ids,
    outcome::ListOutcome,
    session::{HandRef, ListInput},
};
use futures::future::join_all;
use hand::mcp::{Answer, Asked, NAME, Program, Request};
use rmcp::model::{ListToolsResult, Tool};
use serde_json::{Value, json};
use std::future::ready;
use store::Blobs;

/// What of an error is said to users; its end, as that is where a server's last words are.
const SAID_CHARS: usize = 1_000;

/// Asks each of the servers in the hand, all at once. Another attempt of the same activity gets what the first one was told.
pub async fn list(
    provider: &dyn Provider,
    blobs: &dyn Blobs,
    input: &ListInput,
    hand: &HandRef,
    activity: &str,
) -> Result<ListOutcome, log::blobs::Error> {
    let snapshot: AgentSnapshot = log::blobs::get_json(blobs, &input.snapshot).await?;
    let asked = snapshot.mcp.iter().filter(|toolset| input.servers.contains(&toolset.server)).cloned();
    let answers = asked.map(async |toolset: McpToolset| {
        let id = ids::derive(ids::prefix::EVENT, &[&input.session_id, activity, &toolset.server]);
        let executed = match call(id, &toolset, Request::List {}) {
            Some(call) => provider.execute(hand, call).await,
            None => Executed::error("it does not live in a hand"),
        };
        let hand_lost = executed.hand_lost;
        let answer = match tools(&toolset, executed).await {
            Ok(tools) => Ok(tools),
            Err(why) => Err(problem(&toolset.server, &why)),
        };
        ((toolset, answer), hand_lost)
    });
    let (answers, lost): (Vec<_>, Vec<bool>) = join_all(answers).await.into_iter().unzip();
    let outcome = offered::outcome(blobs, snapshot, answers).await?;
    Ok(ListOutcome { hand_lost: lost.contains(&true), ..outcome })
}

/// A call of a tool, as the hand is given it; none where the agent knows no such server in a hand.
pub fn tool_call(snapshot: &AgentSnapshot, id: &str, server: &str, tool: &str, arguments: Value) -> Option<ToolCall> {
    let toolset = snapshot.mcp.iter().find(|toolset| toolset.server == server)?;
    call(id.to_owned(), toolset, Request::Call { tool: tool.to_owned(), arguments })
}

/// What the hand says of such a call, as the log takes it.
pub fn executed(said: Executed) -> Executed {
    if said.is_error {
        return said;
    }
    match read(&said) {
        Some(Answer::Result(answer)) => result::executed(&answer),
        Some(Answer::Refused { message, .. }) => {
            Executed::error(format!("The MCP server refused the call: {}", first(&message)))
        }
        Some(Answer::Tools(_)) | None => Executed::error("The sandbox gave an answer that cannot be read."),
    }
}

fn call(id: String, toolset: &McpToolset, request: Request) -> Option<ToolCall> {
    let McpAt::Inside { inside } = &toolset.at else { return None };
    let (command, args, env) = (inside.command.clone(), inside.args.clone(), inside.env.clone());
    let asked = Asked { server: toolset.server.clone(), program: Program { command, args, env }, request };
    Some(ToolCall { id, name: NAME.to_owned(), input: json!(asked) })
}

/// As much of a server's list as the agent can carry.
async fn tools(toolset: &McpToolset, said: Executed) -> Result<Vec<Tool>, String> {
    if said.is_error {
        return Err(text(&said));
    }
    match read(&said) {
        Some(Answer::Tools(tools)) => {
            let page: ListToolsResult = serde_json::from_value(json!({"tools": tools}))
                .map_err(|error| format!("its list of tools is none: {error}"))?;
            offered::list(toolset, |_| ready(Ok(page.clone()))).await.map_err(|error| error.to_string())
        }
        Some(Answer::Refused { message, .. }) => Err(first(&message)),
        Some(Answer::Result(_)) | None => Err("the sandbox gave an answer that cannot be read".to_owned()),
    }
}

fn problem(server: &str, why: &str) -> ErrorBody {
    let skip = why.chars().count().saturating_sub(SAID_CHARS);
    let why: String = why.chars().skip(skip).collect();
    ErrorBody {
        kind: ErrorKind::McpConnectionFailed { mcp_server_name: server.to_owned() },
        message: format!("the MCP server could not be asked which tools it has: {why}"),
        retry_status: RetryStatus::Retrying,
    }
}

fn read(said: &Executed) -> Option<Answer> {
    serde_json::from_str(&text(said)).ok()
}

fn text(said: &Executed) -> String {
    let texts = said.content.iter().filter_map(|block| match block {
        Block::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn first(message: &str) -> String {
    message.chars().take(SAID_CHARS).collect()
}

#[cfg(test)]
mod tests;
