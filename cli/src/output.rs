//! The only place that prints: data on stdout, everything else on stderr.

use crate::error::Failed;
use std::io::{self, Write as _};

/// One line of data. A reader that went away ends the program quietly.
pub fn line(text: &str) {
    let mut stdout = io::stdout().lock();
    if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Something to know, beside the data.
pub fn note(text: &str) {
    // Nobody can be told that stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

pub fn error(error: &Failed) {
    note(&format!("error: {}", error.chain.join(": ")));
    if let Some(hint) = &error.hint {
        note(&format!("hint: {hint}"));
    }
}
