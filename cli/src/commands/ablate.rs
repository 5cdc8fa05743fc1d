//! `steadyhand ablate`: which workarounds of a harness still do something.

use crate::{
    args,
    client::Query,
    commands::whatif,
    error::{Code, failed},
    output,
    render::{count, one_line},
    service::Service,
    table::table,
};
use clap::Args;
use serde_json::{Value, json};

/// Switch the shims of a harness off one at a time over recorded sessions
///
/// Says what each changes at the moments of the record, and names those that change nothing. What would have become of a session
/// without a shim, a record cannot say: with --live the model is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  steadyhand ablate loop@2 --model claude-opus-4-8 --sessions 100\n  \
        steadyhand ablate loop@2 --sessions agent=agent_01aB,age=7d,n=200\n  \
        steadyhand ablate loop@2 --model claude-opus-4-8 --live --sessions 10 --expect 'tests pass' --price 5,25")]
pub struct Ablate {
    /// NAME@VERSION, NAME or a hash
    #[arg(value_name = "HARNESS")]
    harness: String,
    /// Only sessions of this model
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Only sessions of this agent
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Which recorded sessions are looked at: how many, or a query
    ///
    /// A query is a list of n=NUMBER, agent=ID, model=MODEL, age=TIME (90s, 15m, 6h, 7d: made within it) and id=SESSION, which may come more
    /// than once. [default: n=50, with --live n=10]
    #[arg(long, value_name = "QUERY", value_parser = Wanted::parse)]
    sessions: Option<Wanted>,
    /// Go through the sessions again with each shim and without it, and really ask the model, which has to be named, where the record
    /// has no answer
    #[arg(long)]
    live: bool,
    /// The first turns of each session [default: all]
    #[arg(long, value_name = "N", requires = "live")]
    turns: Option<u64>,
    /// How often the model may be asked for one session and shim
    #[arg(long, value_name = "N", requires = "live")]
    requests_max: Option<u32>,
    /// What the last message of a session contains if all went well
    #[arg(long, value_name = "TEXT", requires = "live")]
    expect: Option<String>,
    /// Dollars for a million tokens: INPUT,OUTPUT or INPUT,OUTPUT,CACHE_READ,CACHE_WRITE
    #[arg(long, value_name = "PRICE", value_parser = args::price, requires = "live")]
    price: Option<Value>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

impl Ablate {
    pub async fn run(self) -> anyhow::Result<()> {
        let Wanted { count, agent, model, age_s, ids } = self.sessions.unwrap_or_default();
        let agent = one("agent", self.agent, agent)?;
        let model = one("model", self.model, model)?;
        if self.live && model.is_none() {
            return Err(failed(
                Code::Usage,
                "ask no model",
                "--live asks one: name it with --model, or model= in --sessions",
            ));
        }
        let client = self.service.client()?;
        let path = ["v1", "harnesses", &self.harness, "ablation"];
        if self.live {
            let given = [
                ("model", model.map(Value::from)),
                ("agent", agent.map(Value::from)),
                ("sessions", count.map(Value::from)),
                ("age_s", age_s.map(Value::from)),
                ("session_ids", Some(json!(ids))),
                ("turns", self.turns.map(|turns| json!(turns))),
                ("requests_max", self.requests_max.map(|requests| json!(requests))),
                ("expect", self.expect.map(Value::from)),
                ("price", self.price),
            ];
            let body: Value = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
            let report = whatif::over(&client, &path, &body).await?;
            output::said(&report, self.json, &told_live(&report));
            return Ok(());
        }
        let mut query: Query = Vec::new();
        query.extend(count.map(|count| ("sessions", count.to_string())));
        query.extend(model.map(|model| ("model", model)));
        query.extend(agent.map(|agent| ("agent", agent)));
        query.extend(age_s.map(|age| ("age_s", age.to_string())));
        query.extend(ids.into_iter().map(|id| ("session_ids[]", id)));
        let report = client.get(&path, &query).await?;
        output::said(&report, self.json, &told(&report));
        Ok(())
    }
}

/// `--sessions`: which recorded sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wanted {
    count: Option<u32>,
    agent: Option<String>,
    model: Option<String>,
    age_s: Option<u64>,
    ids: Vec<String>,
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no number of sessions"));
        if text.chars().all(|c| c.is_ascii_digit()) {
            return Ok(Self { count: Some(number(text)?), ..Self::default() });
        }
        let mut wanted = Self::default();
        for part in text.split(',') {
            let (name, value) = part.trim().split_once('=').unwrap_or((part, ""));
            let is_second = match name {
                _ if value.is_empty() => return Err(format!("{part:?} is none of {TERMS}")),
                "n" => wanted.count.replace(number(value)?).is_some(),
                "agent" => wanted.agent.replace(args::id(value)?).is_some(),
                "model" => wanted.model.replace(value.to_owned()).is_some(),
                "age" => wanted.age_s.replace(args::seconds(value)?).is_some(),
                "id" => {
                    wanted.ids.push(args::id(value)?);
                    false
                }
                _ => return Err(format!("{part:?} is none of {TERMS}")),
            };
            if is_second {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(wanted)
    }
}

const TERMS: &str = "n=NUMBER, agent=ID, model=MODEL, age=TIME and id=SESSION";

/// What an option says, or the query.
fn one(name: &str, option: Option<String>, query: Option<String>) -> anyhow::Result<Option<String>> {
    match (option, query) {
        (Some(option), Some(query)) if option != query => Err(failed(
            Code::Usage,
            format!("look at sessions of {name} {option} and of {query} at once"),
            format!("name the {name} once: --{name}, or {name}= in --sessions"),
        )),
        (option, query) => Ok(option.or(query)),
    }
}

/// What was looked at; nothing but that where there is nothing to say of shims.
fn looked_at(report: &Value) -> (String, bool) {
    let number = |name: &str| report[name].as_u64().unwrap_or_default();
    let mut said = vec![match number("sessions") {
        0 => "no recorded session is among those that were asked for".to_owned(),
        sessions => count(sessions, "session"),
    }];
    for (name, what) in [("related", "left out, as they began as one of these"), ("unreadable", "cannot be read")] {
        if number(name) > 0 {
            said.push(format!("{} {what}", number(name)));
        }
    }
    let has_shims = report["shims"].as_array().is_some_and(|shims| !shims.is_empty());
    if !has_shims {
        let harness =
            format!("{}@{}", report["harness"]["name"].as_str().unwrap_or_default(), report["harness"]["version"]);
        return (format!("{harness} has no shims: there is nothing to switch off"), false);
    }
    (said.join(", "), number("sessions") > 0)
}

fn told(report: &Value) -> String {
    let (looked_at, is_something) = looked_at(report);
    if !is_something {
        return looked_at;
    }
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let rows = report["shims"].as_array().into_iter().flatten().map(|shim| {
        let percent = |side: &str| 100.0 * number(&shim["share"][side]);
        let requests = &shim["requests"];
        [
            one_line(shim["name"].as_str().unwrap_or_default(), 60),
            shim["verdict"].as_str().unwrap_or_default().replace('_', " "),
            format!("{} of {}", shim["sessions_changed"], report["sessions"]),
            format!("{:.0}-{:.0}%", percent("low"), percent("high")),
            shim["other_step"].to_string(),
            shim["other_context"].to_string(),
            mean(requests, 2),
        ]
    });
    let head = ["SHIM", "VERDICT", "SESSIONS", "95%", "OTHER STEPS", "OTHER CONTEXTS", "REQUESTS A SESSION"];
    format!("{looked_at}\n\n{}", table(head, &rows.collect::<Vec<_>>()))
}

/// A mean with its interval, where more than one session makes one.
fn mean(of: &Value, digits: usize) -> String {
    let [mean, low, high] = ["mean", "low", "high"].map(|side| of[side].as_f64());
    let interval = low.zip(high).map(|(low, high)| format!(" ({low:+.digits$} to {high:+.digits$})"));
    mean.map_or_else(String::new, |mean| format!("{mean:+.digits$}{}", interval.unwrap_or_default()))
}

fn told_live(report: &Value) -> String {
    let (looked_at, is_something) = looked_at(report);
    if !is_something {
        return looked_at;
    }
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let rows = report["shims"].as_array().into_iter().flatten().map(|shim| {
        let percent = |side: &str| 100.0 * number(&shim["share_worse"][side]);
        [
            one_line(shim["name"].as_str().unwrap_or_default(), 60),
            shim["verdict"].as_str().unwrap_or_default().replace('_', " "),
            shim["sessions"].to_string(),
            shim["unfinished"].to_string(),
            shim["changed"].to_string(),
            shim["worse"].to_string(),
            format!("{:.0}-{:.0}%", percent("low"), percent("high")),
            shim["better"].to_string(),
            mean(&shim["requests"], 2),
            mean(&shim["tokens"], 0),
            mean(&shim["cost"], 4),
        ]
    });
    let head = [
        "WITHOUT",
        "VERDICT",
        "SESSIONS",
        "UNFINISHED",
        "CHANGED",
        "WORSE",
        "95%",
        "BETTER",
        "REQUESTS",
        "TOKENS",
        "DOLLARS",
    ];
    let mut told = format!("{looked_at}\n\n{}", table(head, &rows.collect::<Vec<_>>()));
    for (why, count) in report["failed"].as_object().into_iter().flatten() {
        told.push_str(&format!("\nnot gone through, {count} times: {}", one_line(why, 200)));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dead_weight_is_named() {
        let shim = |name: &str, verdict: &str, changed: u32| {
            json!({"name": name, "verdict": verdict, "sessions_changed": changed, "share": {"low": 0.0, "high": 0.161},
                "other_step": changed, "other_context": 0, "requests": {"mean": 0.5, "low": 0.25, "high": 0.75}})
        };
        let shims = [shim("nudge", "acts", 1), shim("reset", "dead_weight", 0)];
        let told = told(&json!({"sessions": 20, "related": 2, "unreadable": 1, "shims": shims}));
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[0], "20 sessions, 2 left out, as they began as one of these, 1 cannot be read");
        assert_eq!(
            lines[3],
            "nudge  acts         1 of 20   0-16%  1            0               +0.50 (+0.25 to +0.75)"
        );
        assert!(lines[4].starts_with("reset  dead weight  0 of 20   0-16%"), "{told}");
    }

    #[test]
    fn what_sessions_are_without_a_shim_is_told() {
        let mean = json!({"mean": -1.0, "low": -1.5, "high": -0.5});
        let one = json!({"mean": 2.0, "low": null, "high": null});
        let shim = json!({"name": "reset", "verdict": "needed", "sessions": 6, "unfinished": 1, "changed": 6, "worse": 6,
            "better": 0, "share_worse": {"low": 0.61, "high": 1.0}, "requests": mean, "tokens": mean, "cost": one});
        let told =
            told_live(&json!({"sessions": 6, "shims": [shim], "failed": {"harness gone@1 is not in this build": 2}}));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[3].starts_with("reset    needed   6         1           6        6      61-100%  0"), "{told}");
        assert!(lines[3].ends_with("-1.00 (-1.50 to -0.50)  -1 (-2 to -0)  +2.0000"), "{told}");
        assert_eq!(lines[4], "not gone through, 2 times: harness gone@1 is not in this build");
    }

    #[test]
    fn where_there_is_nothing_to_say_the_reason_is_told() {
        let shim = json!({"name": "nudge", "verdict": "unknown"});
        let nobody = json!({"sessions": 0, "related": 0, "unreadable": 0, "shims": [shim]});
        assert_eq!(told(&nobody), "no recorded session is among those that were asked for");
        assert_eq!(told_live(&nobody), told(&nobody));
        let plain = json!({"sessions": 3, "harness": {"name": "loop", "version": 1}, "shims": []});
        assert_eq!(told(&plain), "loop@1 has no shims: there is nothing to switch off");
    }

    #[test]
    fn a_query_is_a_number_or_says_which_sessions() {
        let number = Wanted { count: Some(100), ..Wanted::default() };
        assert_eq!(Wanted::parse("100").unwrap(), number);
        assert_eq!(Wanted::parse("n=100").unwrap(), number);
        let all = Wanted {
            count: Some(5),
            agent: Some("agent_1".to_owned()),
            model: Some("claude-opus-4-8".to_owned()),
            age_s: Some(7 * 86_400),
            ids: vec!["sesn_1".to_owned(), "sesn_2".to_owned()],
        };
        let text = "agent=agent_1, model=claude-opus-4-8,n=5,age=7d,id=sesn_1,id=sesn_2";
        assert_eq!(Wanted::parse(text).unwrap(), all);
        for (text, why) in [
            ("", "is no number"),
            ("99999999999", "is no number"),
            ("n=many", "is no number"),
            ("agent", "is none of n=NUMBER"),
            ("agent=", "is none of n=NUMBER"),
            ("status=idle", "is none of n=NUMBER"),
            ("age=soon", "a time is"),
            ("n=1,n=2", "n is there twice"),
            ("id=../x", "an id has letters"),
        ] {
            let refused = Wanted::parse(text).unwrap_err();
            assert!(refused.contains(why), "{text:?}: {refused}");
        }
    }

    #[test]
    fn what_is_said_twice_has_to_be_the_same() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(one("model", some("m"), None).unwrap(), some("m"));
        assert_eq!(one("model", some("m"), some("m")).unwrap(), some("m"));
        assert!(one("model", some("m"), some("n")).unwrap_err().to_string().contains("of model m and of n"));
    }
}
