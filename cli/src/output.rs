//! The only place that prints: data on stdout, everything else on stderr.

use crate::{error::Failed, render};
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write as _};

/// One line of data. A reader that went away ends the program quietly.
pub fn line(text: &str) {
    bytes(format!("{text}\n").as_bytes());
}

/// Data as it is.
pub fn bytes(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// `--json`: one value a line.
pub fn json(value: &Value) {
    line(&value.to_string());
}

/// Whether a person reads stderr as it is written.
pub fn is_live() -> bool {
    io::stderr().is_terminal()
}

/// Writes to stderr without ending the line: for the live display and for questions.
pub fn raw(text: &str) {
    let mut stderr = io::stderr().lock();
    // Nobody can be told that stderr is gone.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Something to know, beside the data. It may quote what somebody else wrote.
pub fn note(text: &str) {
    // Nobody can be told that stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{}", render::printable(text));
}

pub fn error(error: &Failed) {
    note(&format!("error: {}", error.chain.join(": ")));
    if let Some(hint) = &error.hint {
        note(&format!("hint: {hint}"));
    }
}

/// What became of a request: the answer as JSON, or a note.
pub fn said(answer: &Value, as_json: bool, text: &str) {
    if as_json { json(answer) } else { note(text) }
}

/// What an agent said. A terminal gets nothing that it would act on, a file gets what was said.
pub fn message(text: &str) {
    if io::stdout().is_terminal() { line(&render::printable(text)) } else { line(text) }
}
