//! `steadyhand session send` and `interrupt`: words to the agent.

use crate::{
    args,
    client::Client,
    error::{Code, Hint as _, failed},
    output,
};
use clap::Args;
use serde_json::{Value, json};
use std::io::Read as _;

/// Send a message to a session
///
/// The answer comes as events: see `steadyhand session watch ID`.
#[derive(Debug, Args)]
pub struct Send {
    #[arg(value_parser = args::id)]
    id: String,
    /// The message; `-` reads it from standard input
    text: String,
    /// Print the accepted event as JSON
    #[arg(long)]
    json: bool,
}

/// Stop what a session is doing
#[derive(Debug, Args)]
pub struct Interrupt {
    #[arg(value_parser = args::id)]
    id: String,
    /// Print the accepted event as JSON
    #[arg(long)]
    json: bool,
}

impl Send {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let text = if self.text == "-" { read_stdin()? } else { self.text };
        if text.trim().is_empty() {
            return Err(failed(Code::Usage, "the message is empty", "give some text"));
        }
        let answer = client.send_events(&self.id, &[user_message(&text)]).await?;
        print_accepted(&answer, self.json);
        Ok(())
    }
}

impl Interrupt {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let answer = client.send_events(&self.id, &[json!({"type": "user.interrupt"})]).await?;
        print_accepted(&answer, self.json);
        Ok(())
    }
}

pub fn user_message(text: &str) -> Value {
    json!({"type": "user.message", "content": [{"type": "text", "text": text}]})
}

fn read_stdin() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).hint(
        Code::Usage,
        "read the message from standard input",
        "it must be text in UTF-8",
    )?;
    Ok(text)
}

/// The events as the service took them: their ids, or all of them as JSON.
pub fn print_accepted(answer: &Value, as_json: bool) {
    for event in answer["data"].as_array().into_iter().flatten() {
        if as_json {
            output::json(event);
        } else if let Some(id) = event["id"].as_str() {
            output::line(id);
        }
    }
}
