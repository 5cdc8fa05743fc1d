//! Asking the person at the terminal whether a tool call may run.

use crate::{output, render};
use serde_json::Value;
use std::io::{self, IsTerminal as _};
use tokio::sync::mpsc;

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny { reason: Option<String> },
}

/// Whether there is somebody to ask.
pub fn is_possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The lines that a person types. Read by a thread of its own, which ends with the program: a read from a terminal
/// cannot be given up.
pub struct Answers {
    lines: mpsc::Receiver<String>,
}

impl Answers {
    pub fn listen() -> Self {
        let (typed, lines) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in io::stdin().lines() {
                let Ok(line) = line else { return };
                if typed.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Answers { lines }
    }

    /// Asks until there is an answer; `None` when standard input has ended.
    pub async fn ask(&mut self, call: &Value) -> Option<Verdict> {
        output::note(&format!("the agent wants to run {}", render::call_in_full(call)));
        loop {
            output::raw("allow? [y, n, or n and why] ");
            if let Some(verdict) = verdict(&self.lines.recv().await?) {
                return Some(verdict);
            }
        }
    }
}

fn verdict(line: &str) -> Option<Verdict> {
    let (word, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    match word.to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(Verdict::Allow),
        "n" | "no" => Some(Verdict::Deny { reason: Some(rest.trim().to_owned()).filter(|reason| !reason.is_empty()) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_clear_answers_count() {
        let deny = |reason: Option<&str>| Some(Verdict::Deny { reason: reason.map(str::to_owned) });
        for (line, expect) in [
            ("y", Some(Verdict::Allow)),
            (" YES ", Some(Verdict::Allow)),
            ("n", deny(None)),
            ("no", deny(None)),
            ("n  use the other file ", deny(Some("use the other file"))),
            ("", None),
            ("maybe", None),
            ("yn", None),
        ] {
            assert_eq!(verdict(line), expect, "{line:?}");
        }
    }
}
