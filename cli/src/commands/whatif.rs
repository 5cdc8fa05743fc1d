//! `steadyhand whatif`: what would have become of a session with something else about it.

use crate::{
    args,
    client::{Client, Query},
    error::{Code, failed},
    output,
    render::{count, one_line},
    service::Service,
    table::{fields, table},
};
use clap::Args;
use serde_json::{Value, json};

/// Go through a recorded session again with another harness, strategy or model
///
/// Model requests and tool calls that are the same are answered by the record. Where it has no answer, the model that --model names is
/// really asked; without one that is where it ends, and the report says so. The session itself is not touched, and no tool is run, unless
/// --live says that a fork is to go on where a call is new.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  steadyhand whatif sesn_01aB --from 2 --strategy window --params '{\"rounds\": 5}'\n  \
        steadyhand whatif sesn_01aB --from 1 --harness loop@2 --model claude-haiku-4-5 --price 1,5\n  \
        steadyhand whatif sesn_01aB --from 1 --model claude-haiku-4-5 --live"
)]
pub struct Whatif {
    #[arg(value_name = "SESSION", value_parser = args::id)]
    id: String,
    /// The turn to begin with, from 1
    #[arg(long, value_name = "TURN")]
    from: u64,
    /// How many turns [default: all that were recorded]
    #[arg(long, value_name = "N")]
    turns: Option<u64>,
    /// NAME@VERSION, NAME (its newest version) or a hash
    #[arg(long, value_name = "HARNESS")]
    harness: Option<String>,
    /// A context strategy: NAME or NAME@VERSION
    #[arg(long, value_name = "STRATEGY")]
    strategy: Option<String>,
    /// Parameters of the strategy, as JSON
    #[arg(long, value_name = "JSON", requires = "strategy")]
    params: Option<String>,
    /// A model to ask where the record has no answer; it costs what it costs
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// At the first tool call that the record cannot answer go on in a fork, with a sandbox of its own; that costs what it costs
    #[arg(long, requires = "model")]
    live: bool,
    /// Switch a shim of the harness off
    #[arg(long = "without", value_name = "SHIM")]
    shims_off: Vec<String>,
    /// How often the model may be asked
    #[arg(long, value_name = "N", requires = "model")]
    requests_max: Option<u32>,
    /// What the last message contains if all went well
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
    /// Dollars for a million tokens: INPUT,OUTPUT or INPUT,OUTPUT,CACHE_READ,CACHE_WRITE
    #[arg(long, value_name = "PRICE", value_parser = args::price)]
    price: Option<Value>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Whatif {
    pub async fn run(self) -> anyhow::Result<()> {
        let client = self.service.client()?;
        let mut body = json!({"turn": self.from, "shims_off": self.shims_off});
        if let Some(strategy) = &self.strategy {
            body["strategy"] = args::strategy(strategy, self.params.as_deref())?;
        }
        let given = [
            ("turns", self.turns.map(|turns| json!(turns))),
            ("harness", self.harness.map(Value::from)),
            ("model", self.model.map(Value::from)),
            ("requests_max", self.requests_max.map(|requests| json!(requests))),
            ("expect", self.expect.map(Value::from)),
            ("price", self.price),
        ];
        if self.live {
            body["live"] = json!(true);
        }
        for (name, value) in given {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        let shown = over(&client, &["v1", "sessions", &self.id, "whatif"], &body).await?;
        let told = told(&shown["report"]);
        output::said(&shown, self.json, &told);
        Ok(())
    }
}

/// Begins a trial and waits until it is over.
pub async fn over(client: &Client, path: &[&str], body: &Value) -> anyhow::Result<Value> {
    let mut shown = client.post(path, body).await?;
    let id = shown["id"].as_str().unwrap_or_default().to_owned();
    let path: Vec<&str> = path.iter().copied().chain([id.as_str()]).collect();
    while shown["status"] == "running" {
        // The answer comes when it is over, or after a while.
        shown = client.get(&path, &Query::new()).await?;
    }
    match shown["status"].as_str() {
        Some("done") => Ok(shown),
        _ => {
            let why = shown["error"].as_str().unwrap_or("nobody knows why");
            Err(failed(Code::Unfinished, format!("{id} came to no report: {why}"), "see the log of the brain worker"))
        }
    }
}

fn told(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = |value: &Value| format!("{}@{}", text(&value["name"]), value["version"]);
    let number = |value: &Value, what: &str| count(value.as_u64().unwrap_or_default(), what);
    let answered = &report["answered"];
    let mut pairs = vec![
        (
            "with",
            format!("{}, {}, {}", version(&report["harness"]), version(&report["strategy"]), text(&report["model"])),
        ),
        ("from", format!("turn {}, position {}", report["turn"], report["position"])),
        ("came", end(&report["end"])),
        (
            "answered",
            format!(
                "{} and {} by the record, {} by the model, {} in the fork",
                number(&answered["requests_recorded"], "request"),
                number(&answered["calls_recorded"], "call"),
                number(&answered["requests_live"], "request"),
                number(&answered["calls_live"], "call"),
            ),
        ),
        ("same", number(&report["same_steps"], "step")),
    ];
    // A harness may choose otherwise than its agent.
    let by = report["strategies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>();
    if by.len() > 1 || by.first().is_some_and(|by| *by != version(&report["strategy"])) {
        pairs.insert(1, ("requests by", by.join(", ")));
    }
    for (name, what) in [("other step", "first_step"), ("other bytes", "first_request")] {
        let parts = &report[what];
        if !parts.is_null() {
            pairs.push((name, format!("turn {}, round {}", parts["turn"], parts["round"])));
            pairs.push(("  recorded", one_line(&step(&parts["recorded"]), 200)));
            pairs.push(("  tried", one_line(&step(&parts["tried"]), 200)));
            // The first other step may be the first other request too.
            if what == "first_request" || parts["changes"] != report["first_request"]["changes"] {
                pairs.extend(changes(&parts["changes"]));
            }
        }
    }
    let mut told = fields(&pairs);
    let turns = report["turns"].as_array().into_iter().flatten().flat_map(|pair| {
        let turn = pair["turn"].to_string();
        [("recorded", &pair["recorded"]), ("tried", &pair["tried"])].map(|(side, sum)| row(&turn, side, sum))
    });
    let totals = &report["totals"];
    let compared = number(&totals["turns"], "turn");
    let totals =
        [("recorded", &totals["recorded"]), ("tried", &totals["tried"])].map(|(side, sum)| row(&compared, side, sum));
    let rows: Vec<[String; 9]> = turns.chain(totals).collect();
    let head = ["TURN", "", "REQUESTS", "INPUT", "CACHED", "OUTPUT", "CALLS", "COST", "ENDED"];
    told.push_str(&format!("\n\n{}", table(head, &rows)));
    for caveat in report["unknown"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        told.push_str(&format!("\nnot known: {}", one_line(caveat, 300)));
    }
    told
}

fn end(end: &Value) -> String {
    let at = format!("in turn {}", end["turn"]);
    match end["end"].as_str() {
        Some("complete") => "through every turn".to_owned(),
        Some("request") => format!("to a request {at}, round {}, that was never made", end["round"]),
        Some("went_on") => format!(
            "to a call {at}, round {}, that was not made then, {}, and on in {}{}",
            end["round"],
            end["name"],
            end["session_id"].as_str().unwrap_or_default(),
            if end["waits"] == true { ", which waits for an answer" } else { "" }
        ),
        Some("call") => format!("to a call {at}, round {}, that was not made then: {}", end["round"], end["name"]),
        _ => format!("to the limit of requests {at}"),
    }
}

/// A step without the place at which it stands, and without hashes: what they stand for is told by [`changes`].
fn step(step: &Value) -> String {
    let Value::Object(fields) = step else { return "nothing more".to_owned() };
    let said = fields.iter().filter(|(name, _)| !matches!(name.as_str(), "turn" | "round" | "step" | "sha256"));
    let said: Vec<String> = said
        .map(|(name, value)| match value.as_array() {
            Some(calls) if name == "calls" => {
                calls.iter().filter_map(|call| call[0].as_str()).collect::<Vec<_>>().join(", ")
            }
            _ => format!("{name} {value}"),
        })
        .collect();
    format!("{} {}", step["step"].as_str().unwrap_or_default(), said.join(", ")).trim_end().to_owned()
}

/// What is otherwise at one place, both sides of each below one another.
fn changes(changes: &Value) -> Vec<(&'static str, String)> {
    let mut pairs = Vec::new();
    for change in changes["shown"].as_array().into_iter().flatten() {
        pairs.push(("  at", one_line(change["at"].as_str().unwrap_or_default(), 200)));
        for (name, side) in [("    recorded", "recorded"), ("    tried", "tried")] {
            pairs.push((name, one_line(change[side].as_str().unwrap_or("nothing"), 300)));
        }
    }
    match changes["more"].as_u64() {
        Some(more) if more > 0 => pairs.push(("  at", format!("{more} other places"))),
        _ => {}
    }
    pairs
}

fn row(turn: &str, side: &str, sum: &Value) -> [String; 9] {
    if sum.is_null() {
        let mut row: [String; 9] = Default::default();
        (row[0], row[1], row[8]) = (turn.to_owned(), side.to_owned(), "not begun".to_owned());
        return row;
    }
    let usage = &sum["usage"];
    let cached = usage["cache_read_input_tokens"].as_u64().unwrap_or_default();
    let made =
        ["cache_creation_5m_tokens", "cache_creation_1h_tokens"].map(|name| usage[name].as_u64().unwrap_or_default());
    let input = usage["input_tokens"].as_u64().unwrap_or_default() + made.iter().sum::<u64>();
    let ended = match (sum["ended"].as_str(), sum["as_expected"].as_bool()) {
        (Some(ended), Some(true)) => format!("{ended}, as expected"),
        (Some(ended), Some(false)) => format!("{ended}, not as expected"),
        (Some(ended), _) => ended.to_owned(),
        (None, _) => String::new(),
    };
    [
        turn.to_owned(),
        side.to_owned(),
        sum["requests"].to_string(),
        input.to_string(),
        cached.to_string(),
        usage["output_tokens"].to_string(),
        sum["calls"].to_string(),
        sum["cost"].as_f64().map_or_else(String::new, |cost| format!("${cost:.4}")),
        ended,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_and_what_is_not_known_are_told() {
        let sum = |requests: u32, ended: Option<&str>| {
            json!({"requests": requests, "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 7,
                "cache_creation_5m_tokens": 1, "cache_creation_1h_tokens": 0}, "calls": 0, "ended": ended, "cost": 0.25})
        };
        let said = |as_expected: bool| {
            let mut sum = sum(1, Some("end_turn"));
            sum["as_expected"] = json!(as_expected);
            sum
        };
        let step = |kind: &str| json!({"turn": 2, "round": 1, "step": "request", "purpose": kind, "suffix": 0, "sha256": "ab"});
        let calls =
            |tool: &str| json!({"turn": 1, "round": 2, "step": "execute", "calls": [[tool, "cd"], ["read", "ef"]]});
        let one = json!({"at": "calls[0].input.command", "recorded": "make", "tried": "make test"});
        let other = json!({"at": "messages[2..4]", "recorded": "2 items", "tried": null});
        let report = json!({
            "harness": {"name": "loop", "version": 2}, "strategy": {"name": "full", "version": 1}, "model": "m",
            "turn": 2, "position": 7, "same_steps": 0, "end": {"end": "request", "turn": 2, "round": 1, "bytes": 9},
            "answered": {"requests_recorded": 1, "requests_live": 0, "calls_recorded": 0},
            "strategies": ["full@1", "compact@1"],
            "first_step": {"turn": 1, "round": 2, "recorded": calls("bash"), "tried": calls("bash"), "changes": {"shown": [one], "more": 0}},
            "first_request": {"turn": 2, "round": 1, "recorded": step("summary"), "tried": step("answer"),
                "changes": {"shown": [other], "more": 3}},
            "turns": [{"turn": 1, "recorded": said(true), "tried": said(false)},
                {"turn": 2, "recorded": sum(2, Some("end_turn")), "tried": sum(1, None)},
                {"turn": 3, "recorded": sum(1, Some("end_turn")), "tried": null}],
            "totals": {"turns": 0, "recorded": sum(0, None), "tried": sum(0, None)},
            "unknown": ["what a model says to it"],
        });
        let told = told(&report);
        for line in [
            "with          loop@2, full@1, m",
            "requests by   full@1, compact@1",
            "came          to a request in turn 2, round 1, that was never made",
            "other step    turn 1, round 2",
            "  recorded    execute bash, read",
            "  at          calls[0].input.command",
            "    recorded  make",
            "    tried     make test",
            "  recorded    request purpose \"summary\", suffix 0",
            "  at          messages[2..4]",
            "    recorded  2 items",
            "    tried     nothing",
            "  at          3 other places",
            "1        recorded  1         11     7       5       0      $0.2500  end_turn, as expected",
            "1        tried     1         11     7       5       0      $0.2500  end_turn, not as expected",
            "2        recorded  2         11     7       5       0      $0.2500  end_turn",
            "3        tried                                                      not begun",
            "not known: what a model says to it",
        ] {
            assert!(told.lines().any(|known| known == line), "{line}\n{told}");
        }
    }
}
