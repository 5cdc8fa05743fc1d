//! What of a session goes into the audit log, and when: a destination before the first byte goes there, and no more lines
//! than a disk can hold, whatever the sandbox does.
//!
//! A crash may hide how often something happened, and never that it did.

use crate::audit::{Audit, Entry};
use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// For so long the bounds below hold.
const WINDOW: Duration = Duration::from_secs(60);
/// Lines about what was denied and what has ended.
const LINES_MAX: u32 = 600;
/// Hosts and ports that are reached for.
pub const DESTINATIONS_MAX: usize = 600;

pub struct Noted {
    session_id: String,
    window: Mutex<Window>,
}

struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
    /// Connections to each, the first of which is written down.
    opened: HashMap<(String, u16), u64>,
}

/// Why a connection is not made.
#[derive(thiserror::Error, Debug)]
pub enum Unnoted {
    #[error("{DESTINATIONS_MAX} hosts and ports within {} s are enough", WINDOW.as_secs())]
    TooMany,
    #[error("write the audit log")]
    Audit(#[source] io::Error),
}

impl Noted {
    pub fn new(session_id: &str) -> Self {
        Self { session_id: session_id.to_owned(), window: Mutex::new(Window::new()) }
    }

    /// A connection is about to be made. What cannot be written down is not done.
    pub fn opening(&self, audit: &Audit, host: &str, port: u16) -> Result<(), Unnoted> {
        let mut window = self.current(audit);
        let key = (host.to_owned(), port);
        if let Some(count) = window.opened.get_mut(&key) {
            *count += 1;
            return Ok(());
        }
        if window.opened.len() >= DESTINATIONS_MAX {
            return Err(Unnoted::TooMany);
        }
        let entry = Entry::Opened { session_id: self.session_id.clone(), host: key.0.clone(), port };
        audit.append(entry).map_err(Unnoted::Audit)?;
        window.opened.insert(key, 1);
        Ok(())
    }

    /// Write an entry down, or count it among those that are left out.
    pub fn note(&self, audit: &Audit, entry: Entry) {
        let mut window = self.current(audit);
        window.lines += 1;
        if window.lines <= LINES_MAX {
            audit.note(entry);
            return;
        }
        if window.left_out == 0 {
            // At once: the count comes later, or never.
            audit.note(Entry::LeavingOut { session_id: self.session_id.clone() });
        }
        window.left_out += 1;
    }

    /// Nothing more comes.
    pub fn end(&self, audit: &Audit) {
        let mut window = self.window.lock().expect("no holder panics");
        std::mem::replace(&mut *window, Window::new()).tell(&self.session_id, audit);
    }

    fn current(&self, audit: &Audit) -> std::sync::MutexGuard<'_, Window> {
        let mut window = self.window.lock().expect("no holder panics");
        if window.since.elapsed() >= WINDOW {
            std::mem::replace(&mut *window, Window::new()).tell(&self.session_id, audit);
        }
        window
    }
}

impl Window {
    fn new() -> Self {
        Self { since: Instant::now(), lines: 0, left_out: 0, opened: HashMap::new() }
    }

    fn tell(self, session_id: &str, audit: &Audit) {
        let session_id = session_id.to_owned();
        for ((host, port), count) in self.opened.into_iter().filter(|(_, count)| *count > 1) {
            audit.note(Entry::OpenedAgain { session_id: session_id.clone(), host, port, count: count - 1 });
        }
        if self.left_out > 0 {
            audit.note(Entry::LeftOut { session_id, count: self.left_out });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(audit: &std::path::Path) -> Vec<serde_json::Value> {
        crate::audit::verify(audit).unwrap();
        std::fs::read_to_string(audit).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_destination_is_on_disk_before_it_is_reached_and_repeats_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let (audit, noted) = (Audit::open(&path).unwrap(), Noted::new("s"));
        for port in [443, 443, 80, 443] {
            noted.opening(&audit, "a.test", port).unwrap();
        }
        // As a crash would leave it.
        let found: Vec<_> = lines(&path).iter().map(|line| (line["event"].clone(), line["port"].clone())).collect();
        assert_eq!(found, [("opened".into(), 443.into()), ("opened".into(), 80.into())]);
        noted.end(&audit);
        let last = lines(&path).pop().unwrap();
        assert_eq!((last["event"].as_str(), last["count"].as_u64()), (Some("opened_again"), Some(2)));
    }

    #[test]
    fn no_flood_of_denials_hides_a_destination_and_none_hides_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        let (audit, noted) = (Audit::open(&path).unwrap(), Noted::new("s"));
        for n in 0..LINES_MAX * 2 {
            let host = format!("h{n}.test");
            noted.note(&audit, Entry::Denied { session_id: "s".into(), host, port: 80, why: String::new() });
        }
        noted.opening(&audit, "after.test", 443).unwrap();
        let found = lines(&path);
        assert_eq!(found.len() as u32, LINES_MAX + 2);
        let ends: Vec<_> = found[found.len() - 2..].iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(ends, ["leaving_out", "opened"]);
        let refused = (0..DESTINATIONS_MAX).filter(|n| noted.opening(&audit, &format!("{n}.test"), 443).is_err());
        assert_eq!(refused.count(), 1);
    }
}
