//! `steadyhand hand`: the sandboxes of the service's machine.

use crate::{
    args,
    client::{Client, Query},
    output,
    render::one_line,
    service::Service,
    table::{fields, table},
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Look at hands, the sandboxes in which tools run, and end them
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand hand list")]
pub struct Hand {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List hands, with the session of each
    List {
        /// Only those of a session, those that are parked too
        #[arg(long, value_parser = args::id, value_name = "SESSION")]
        session: Option<String>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a hand: its mode, the walls that it does without, and what runs in it
    Show {
        #[arg(value_parser = args::id)]
        hand: String,
        /// Print the hand as JSON
        #[arg(long)]
        json: bool,
    },
    /// Hand what is in a session's hand to another session, as soon as the first one rests
    Give {
        #[arg(value_parser = args::id, value_name = "FROM_SESSION")]
        from: String,
        #[arg(value_parser = args::id, value_name = "TO_SESSION")]
        to: String,
        /// Which of the session's hands
        #[arg(long, default_value = "main", value_name = "NAME")]
        hand: String,
        /// Which of the other session's hands it becomes, if not the one of the same name
        #[arg(long = "as", value_name = "NAME")]
        to_hand: Option<String>,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// End a hand and remove everything in it; its session gets a new one when it needs one
    End {
        #[arg(value_parser = args::id)]
        hand: String,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

impl Hand {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        match self.command {
            Command::List { session, json } => list(&client, session, json).await,
            Command::Show { hand, json } => {
                let shown = client.get(&["v1", "hands", &hand], &Query::new()).await?;
                if json {
                    output::json(&shown);
                } else {
                    output::line(&described(&shown));
                }
                Ok(())
            }
            Command::Give { from, to, hand, to_hand, json } => {
                let mut body = json!({"from_session_id": from, "to_session_id": to, "hand": hand});
                if let Some(to_hand) = to_hand {
                    body["to_hand"] = to_hand.into();
                }
                let answer = client.post(&["v1", "hands", "transfer"], &body).await?;
                let said = format!("{from} hands its sandbox {hand} to {to} when it rests");
                output::said(&answer, json, &said);
                Ok(())
            }
            Command::End { hand, json } => {
                let answer = client.delete(&["v1", "hands", &hand]).await?;
                output::said(&answer, json, &format!("ended {}", text(&answer["id"])));
                Ok(())
            }
        }
    }
}

async fn list(client: &Client, session: Option<String>, as_json: bool) -> anyhow::Result<()> {
    let query: Query = session.map(|session| ("session_id", session)).into_iter().collect();
    let hands = client.list(&["v1", "hands"], &query, usize::MAX).await?;
    if as_json {
        hands.iter().for_each(output::json);
        return Ok(());
    }
    let rows = hands.iter().map(|hand| {
        let calls = hand["running_calls"].as_array().map_or(0, Vec::len);
        let state = if calls > 0 { "busy".to_owned() } else { text(&hand["state"]) };
        [text(&hand["id"]), text(&hand["session_id"]), text(&hand["name"]), mode(hand), state, idle(hand)]
    });
    output::line(&table(["HAND", "SESSION", "NAME", "MODE", "STATE", "IDLE"], &rows.collect::<Vec<_>>()));
    Ok(())
}

fn described(hand: &Value) -> String {
    let mut pairs = vec![
        ("hand", text(&hand["id"])),
        ("session", text(&hand["session_id"])),
        ("name", text(&hand["name"])),
        ("state", text(&hand["state"])),
        ("mode", mode(hand)),
        ("epoch", hand["epoch"].as_u64().map(|epoch| epoch.to_string()).unwrap_or_default()),
        ("idle", idle(hand)),
        ("lease", hand["lease_seconds"].as_u64().map(|seconds| format!("{seconds} s left")).unwrap_or_default()),
    ];
    for call in hand["running_calls"].as_array().into_iter().flatten() {
        pairs.push(("runs", text(call)));
    }
    for layer in hand["layers_off"].as_array().into_iter().flatten() {
        pairs.push(("without", format!("{}: {}", text(&layer["name"]), text(&layer["why"]))));
    }
    fields(&pairs)
}

/// Nobody should have to know which of the two is the weaker one.
fn mode(hand: &Value) -> String {
    match hand["mode"].as_str() {
        Some("dev") => "dev (weaker)".to_owned(),
        _ => text(&hand["mode"]),
    }
}

fn idle(hand: &Value) -> String {
    format!("{} s", hand["idle_seconds"].as_u64().unwrap_or_default())
}

fn text(value: &Value) -> String {
    one_line(value.as_str().unwrap_or_default(), 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weaker_hand_is_called_weaker_and_says_what_it_does_without() {
        let hand = json!({"id": "hand_1", "session_id": "sesn_1", "name": "build", "state": "running", "mode": "dev", "epoch": 1,
            "idle_seconds": 5, "lease_seconds": 60, "running_calls": ["toolu_1"],
            "layers_off": [{"name": "own_uid", "why": "not root"}]});
        let expect = "hand     hand_1\nsession  sesn_1\nname     build\nstate    running\nmode     dev (weaker)\nepoch    1\nidle     5 s\n\
            lease    60 s left\nruns     toolu_1\nwithout  own_uid: not root";
        assert_eq!(described(&hand), expect);
    }
}
