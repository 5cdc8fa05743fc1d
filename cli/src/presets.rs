//! The agent and the environment that `run` makes once and finds again by name.

use crate::{
    client::{Client, Query},
    document,
    error::{Code, failed},
};
use serde_json::{Value, json};
use std::path::Path;

pub const DEFAULT_MODEL: &str = "claude-sonnet-5-5";
const DEFAULT_NAME: &str = "default";
const SYSTEM: &str = "You work on tasks on your own, with the tools that you have. Look before you change something, \
                      check what you did, and say in the end what was done and what was not.";
const TOOLSET: &str = "agent_toolset_20260401";
/// Agents and environments of one name are few; more than this are not looked through.
const LOOKED_THROUGH_MAX: usize = 10_000;

/// The toolset of hands, where `ask` names tools that wait to be allowed.
pub fn tools(ask: &[String]) -> Value {
    let configs: Vec<_> =
        ask.iter().map(|name| json!({"name": name, "permission_policy": {"type": "always_ask"}})).collect();
    json!([{"type": TOOLSET, "configs": configs}])
}

/// What a session is created with as its `agent`: an id, a file, or the default; with another model if one is named.
pub async fn agent(client: &Client, named: Option<&str>, model: Option<&str>) -> anyhow::Result<Value> {
    let id = match named {
        None => return default_agent(client, model).await.map(Value::String),
        Some(named) if Path::new(named).is_file() => of_file(client, Path::new(named)).await?,
        Some(id) if crate::args::id(id).is_ok() => id.to_owned(),
        Some(other) => {
            let hint = "give the id of an agent (`steadyhand agent list`), or a JSON or TOML file";
            return Err(failed(Code::Usage, format!("{other} is neither a file nor an id"), hint));
        }
    };
    Ok(match model {
        Some(model) => json!({"type": "agent_with_overrides", "id": id, "model": model}),
        None => json!(id),
    })
}

pub async fn environment(client: &Client) -> anyhow::Result<String> {
    let body = json!({"name": DEFAULT_NAME, "config": {"type": "cloud", "networking": {"type": "unrestricted"}}});
    match find(client, "environments", DEFAULT_NAME).await? {
        Some(id) => Ok(id),
        None => id_of(&client.post(&["v1", "environments"], &body).await?),
    }
}

/// Each model has a default agent of its own, so that naming one changes nothing for the other.
async fn default_agent(client: &Client, model: Option<&str>) -> anyhow::Result<String> {
    let name = model.map_or_else(|| DEFAULT_NAME.to_owned(), |model| format!("{DEFAULT_NAME} {model}"));
    if let Some(id) = find(client, "agents", &name).await? {
        return Ok(id);
    }
    let model = model.unwrap_or(DEFAULT_MODEL);
    let body = json!({"name": name, "model": model, "system": SYSTEM, "tools": tools(&[])});
    id_of(&client.post(&["v1", "agents"], &body).await?)
}

/// The agent that a file describes: found by its name and brought up to date, or made.
async fn of_file(client: &Client, path: &Path) -> anyhow::Result<String> {
    let body = document::read(path)?;
    let name = body["name"].as_str().ok_or_else(|| {
        failed(Code::Usage, format!("{} gives the agent no name", path.display()), "add `name`: it is found by that")
    })?;
    match find(client, "agents", name).await? {
        Some(id) => client.post(&["v1", "agents", &id], &body).await.and_then(|agent| id_of(&agent)),
        None => id_of(&client.post(&["v1", "agents"], &body).await?),
    }
}

async fn find(client: &Client, what: &str, name: &str) -> anyhow::Result<Option<String>> {
    let query = Query::from([("limit", "100".to_owned())]);
    let known = client.list(&["v1", what], &query, LOOKED_THROUGH_MAX).await?;
    known.iter().find(|item| item["name"] == name).map(id_of).transpose()
}

pub fn id_of(value: &Value) -> anyhow::Result<String> {
    value["id"].as_str().map(str::to_owned).ok_or_else(|| {
        failed(Code::Unreachable, "the answer has no id", "is there a Steadyhand service at this address?")
    })
}
