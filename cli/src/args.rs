//! The command line. One file a command holds its arguments; this one lists them.

use crate::{
    commands,
    error::{Code, Hint as _},
};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

/// Run long agent tasks in durable sessions
#[derive(Debug, Parser)]
#[command(name = "steadyhand", version, max_term_width = 100, after_long_help = EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something failed that no other code names
  2  the command line or the configuration is wrong
  3  no service answers, or the engine or the model cannot be reached
  4  the service refused: the key, the id or the request
  5  the task ended without success
  6  data on disk is in use by another process, or damaged
  7  this machine lacks something that is needed";

#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(Box<commands::serve::Serve>),
    Run(commands::run::Run),
    Session(commands::session::Session),
    Agent(commands::agent::Agent),
    Env(commands::env::Env),
    File(commands::file::File),
    Key(commands::key::Key),
    Hand(commands::hand::Hand),
    Workspace(commands::workspace::Workspace),
    Audit(commands::audit::Audit),
    Harness(commands::harness::Harness),
    Replay(commands::replay::Replay),
    Rollout(commands::rollout::Rollout),
    Whatif(commands::whatif::Whatif),
    Ablate(commands::ablate::Ablate),
    Context(commands::context::Context),
    Why(commands::why::Why),
    Doctor(commands::doctor::Doctor),
    Canary(commands::canary::Canary),
    Verify(commands::verify::Verify),
    Backup(commands::backup::Backup),
    Restore(commands::restore::Restore),
    Worker(commands::worker::Worker),
    Completions(commands::completions::Completions),
}

/// An id as the API makes them: it becomes part of a path.
pub fn id(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("an id has letters, digits, _ and - only".to_owned());
    }
    Ok(text.to_owned())
}

/// A context strategy as people write it, `NAME` or `NAME@VERSION`, as the API takes it.
pub fn strategy(text: &str, params: Option<&str>) -> anyhow::Result<Value> {
    let (name, version) = text.split_once('@').unwrap_or((text, "1"));
    let hint = "give NAME or NAME@VERSION, and parameters as JSON: --strategy window --params '{\"rounds\": 5}'";
    let version: u32 = version.parse().hint(Code::Usage, format!("understand the strategy {text}"), hint)?;
    let params: Value = match params {
        Some(params) => serde_json::from_str(params).hint(Code::Usage, format!("understand {params}"), hint)?,
        None => Value::Null,
    };
    Ok(json!({"name": name, "version": version, "params": params}))
}

/// A time as people write it, in seconds: `90`, `90s`, `15m`, `6h`, `7d`.
pub fn seconds(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    seconds.ok_or_else(|| format!("{text:?}: a time is a number with s, m, h or d behind it: 90s, 15m, 6h, 7d"))
}

/// What a million tokens cost, as the API takes it.
pub fn price(text: &str) -> Result<Value, String> {
    let dollars: Option<Vec<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    let dollars = dollars.filter(|dollars| dollars.iter().all(|dollars| dollars.is_finite() && *dollars >= 0.0));
    match dollars.as_deref() {
        Some([input, output]) => Ok(json!({"input": input, "output": output})),
        Some([input, output, read, write]) => {
            Ok(json!({"input": input, "output": output, "cache_read": read, "cache_write": write}))
        }
        _ => Err("a price is INPUT,OUTPUT or INPUT,OUTPUT,CACHE_READ,CACHE_WRITE in dollars: 3,15,0.3,3.75".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn first_help_lines_are_imperative_and_have_no_full_stop() {
        fn check(command: &clap::Command) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(
                about.starts_with(char::is_uppercase) && !about.ends_with('.'),
                "{}: {about:?}",
                command.get_name()
            );
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }

    #[test]
    fn prices_have_two_parts_or_four() {
        assert_eq!(price("3,15").unwrap(), json!({"input": 3.0, "output": 15.0}));
        assert_eq!(price("3, 15, 0.3, 3.75").unwrap()["cache_write"], 3.75);
        for text in ["", "3", "3,x", "1,2,3", "-1,2", "NaN,1"] {
            assert!(price(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        for (text, expected) in [("90", 90), ("90s", 90), ("15m", 900), ("6h", 21_600), ("7d", 604_800), ("0d", 0)] {
            assert_eq!(seconds(text).unwrap(), expected, "{text:?}");
        }
        for text in ["", "d", "-1d", "1.5h", "1w", "7 d", "1é", "99999999999999999d"] {
            assert!(seconds(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ids_are_plain() {
        for (text, is_id) in [("sesn_01aB-9", true), ("", false), ("..", false), ("a/b", false), ("a b", false)] {
            assert_eq!(id(text).is_ok(), is_id, "{text:?}");
        }
    }
}
