//! `steadyhand session show` and `diff`: what a session is, what it decided, and what it changed.

use crate::{
    args,
    client::{Client, Query, is_not_found},
    error::{Code, Hint as _},
    output, render,
    table::fields,
};
use clap::Args;
use serde_json::{Value, json};
use std::time::Duration;

/// Show a session: attributes, status, usage, and every decision with what it did beside the events
#[derive(Debug, Args)]
pub struct Show {
    #[arg(value_parser = args::id)]
    id: String,
    /// Leave out the decisions
    #[arg(long)]
    brief: bool,
    /// Print one JSON object: `session`, and `log` with the decisions
    #[arg(long)]
    json: bool,
}

/// Print what a session changed in the repository it was given
#[derive(Debug, Args)]
pub struct Diff {
    #[arg(value_parser = args::id)]
    id: String,
    /// In which of its hands
    #[arg(long, default_value = "main", value_name = "NAME")]
    hand: String,
}

impl Show {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let session = client.get(&["v1", "sessions", &self.id], &Query::new()).await?;
        let log = if self.brief {
            None
        } else {
            Some(client.list(&["v1", "sessions", &self.id, "log"], &Query::new(), usize::MAX).await?)
        };
        if self.json {
            let mut shown = json!({"session": session});
            if let Some(log) = log {
                shown["log"] = log.into();
            }
            output::json(&shown);
            return Ok(());
        }
        output::line(&attributes(&session));
        if let Some(log) = log {
            output::line("\ndecisions");
            log.iter().for_each(|committed| output::line(&decision(committed)));
        }
        Ok(())
    }
}

impl Diff {
    pub async fn run(self, client: &Client) -> anyhow::Result<()> {
        let query = [("hand", self.hand)].into_iter().collect();
        match client.open(&["v1", "sessions", &self.id, "diff"], &query).await {
            Ok(mut response) => {
                while let Some(chunk) = client.chunk(&mut response).await? {
                    output::bytes(&chunk);
                }
                Ok(())
            }
            Err(error) if is_not_found(&error) => Err(error).hint(
                Code::Refused,
                format!("there is no diff of session {}", self.id),
                "it is made when a session with --repo comes to rest",
            ),
            Err(error) => Err(error),
        }
    }
}

fn attributes(session: &Value) -> String {
    let text = |pointer: &str| {
        let value = session.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        render::one_line(value, 200)
    };
    let agent = &session["agent"];
    let seconds = |name: &str| {
        let seconds = session["stats"][name].as_f64().unwrap_or(0.0);
        render::duration(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    };
    let resources = session["resources"].as_array().into_iter().flatten();
    let resources = resources.map(|resource| {
        let part = |name: &str| resource[name].as_str().unwrap_or_default();
        format!("{} at {}", part("type"), part("mount_path"))
    });
    let metadata = session["metadata"].as_object().into_iter().flatten();
    let metadata = metadata.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    fields(&[
        ("id", text("/id")),
        ("title", text("/title")),
        ("status", text("/status")),
        ("agent", format!("{} ({}, version {})", text("/agent/name"), text("/agent/id"), agent["version"])),
        ("model", text("/agent/model/id")),
        ("environment", text("/environment_id")),
        ("resources", render::one_line(&resources.collect::<Vec<_>>().join(", "), 200)),
        ("metadata", render::one_line(&metadata.collect::<Vec<_>>().join(" "), 200)),
        ("created", render::moment(&session["created_at"])),
        ("updated", render::moment(&session["updated_at"])),
        ("archived", render::moment(&session["archived_at"])),
        ("active", format!("{} of {}", seconds("active_seconds"), seconds("duration_seconds"))),
        ("tokens", render::tokens(&session["usage"])),
    ])
}

/// A decision on one line: number, time, positions, the next step, and the private entries.
fn decision(committed: &Value) -> String {
    let commit = &committed["commit"];
    let takes = commit["takes"].as_array().map_or(&[][..], Vec::as_slice);
    let (private, public): (Vec<_>, Vec<_>) = takes.iter().partition(|take| take["take"] == "private");
    let first = committed["position"].as_u64().unwrap_or(0);
    let positions = match public.len() as u64 {
        0 => "-".to_owned(),
        1 => first.to_string(),
        count => format!("{first}-{}", first + count - 1),
    };
    let time = commit["now"].as_str().and_then(|now| now.get(11..23)).unwrap_or_default();
    let step = commit["step"]["step"].as_str().unwrap_or("?");
    let entries = private.into_iter().map(|take| entry(&take["entry"])).collect::<Vec<_>>().join("; ");
    let n = commit["n"].to_string();
    let line = format!("{n:>5}  {time}  {positions:<11}  {step:<10}  {}", render::one_line(&entries, 160));
    line.trim_end().to_owned()
}

/// `hand_provisioned hand=hand_1 host=h epoch=1`.
fn entry(entry: &Value) -> String {
    let mut words = vec![entry["entry"].as_str().unwrap_or("?").to_owned()];
    flatten(entry, "", &mut words);
    words.join(" ")
}

fn flatten(value: &Value, name: &str, words: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(field, _)| *field != "entry");
            fields.for_each(|(field, value)| flatten(value, field, words));
        }
        Value::Null => {}
        Value::String(text) => words.push(format!("{name}={text}")),
        value => words.push(format!("{name}={value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_show_their_private_entries() {
        let committed = |n: u64, position: u64, takes: Value, step: &str| {
            let commit = json!({"n": n, "now": "2026-11-22T15:04:05.678Z", "takes": takes, "step": {"step": step}});
            json!({"commit": commit, "position": position, "mail": [], "results": []})
        };
        let hand = json!({"hand": "hand_1", "host": "h", "epoch": 2});
        let cases = [
            (
                committed(
                    0,
                    0,
                    json!([{"take": "private", "entry": {"entry": "turn_begun"}}, {"take": "accepted", "id": "e"}]),
                    "call_model",
                ),
                "    0  15:04:05.678  0            call_model  turn_begun",
            ),
            (
                committed(
                    12,
                    7,
                    json!([{"take": "inline"}, {"take": "result"}, {"take": "private", "entry": {"entry": "hand_provisioned", "hand": hand}}]),
                    "continue",
                ),
                "   12  15:04:05.678  7-8          continue    hand_provisioned epoch=2 hand=hand_1 host=h",
            ),
            (
                committed(
                    13,
                    9,
                    json!([{"take": "private", "entry": {"entry": "activity_closed", "activity": "1", "how": {"how": "finished"}}}]),
                    "continue",
                ),
                "   13  15:04:05.678  -            continue    activity_closed activity=1 how=finished",
            ),
        ];
        for (committed, expect) in cases {
            assert_eq!(decision(&committed), expect);
        }
    }

    #[test]
    fn attributes_leave_out_what_is_not_there() {
        let session = json!({
            "id": "sesn_1", "status": "idle", "title": null, "agent": {"id": "agent_1", "name": "a", "version": 3, "model": {"id": "m"}},
            "environment_id": "env_1", "resources": [{"type": "git_bundle", "mount_path": "/workspace"}], "metadata": {"k": "v"},
            "stats": {"active_seconds": 1.5, "duration_seconds": 75.0}, "usage": {"input_tokens": 10, "output_tokens": 2},
            "created_at": "2026-11-22T15:04:05Z", "updated_at": "2026-11-22T15:05:20Z", "archived_at": null,
        });
        assert_eq!(
            attributes(&session),
            "id           sesn_1\nstatus       idle\nagent        a (agent_1, version 3)\nmodel        m\n\
             environment  env_1\nresources    git_bundle at /workspace\nmetadata     k=v\n\
             created      2026-11-22 15:04:05\nupdated      2026-11-22 15:05:20\n\
             active       1 s of 1 min 15 s\ntokens       10 in, 2 out"
        );
    }
}
