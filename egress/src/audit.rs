//! What was denied and which credential was used for what: one JSON line each, each bound to the one before by its hash.
//!
//! Never a value, a path or a body: who, which credential, which host, with what result. Whoever changes or removes a
//! line in the middle breaks the chain from there; [`verify`] says where.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("open the audit log {0}")]
    Open(PathBuf, #[source] io::Error),
    #[error("read the audit log")]
    Read(#[source] io::Error),
    #[error("trust the audit log from line {0} on: its chain is broken there")]
    Broken(u64),
}

/// What happened.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Entry {
    Denied {
        session_id: String,
        host: String,
        port: u16,
        why: String,
    },
    /// A connection to a destination that is allowed is about to be made, the first in a while.
    Opened {
        session_id: String,
        host: String,
        port: u16,
    },
    /// Connections that followed the one written down.
    OpenedAgain {
        session_id: String,
        host: String,
        port: u16,
        count: u64,
    },
    /// Bytes that went each way through a tunnel that has ended.
    Connected {
        session_id: String,
        host: String,
        port: u16,
        sent: u64,
        received: u64,
    },
    CredentialUsed {
        session_id: String,
        vault: String,
        credential: String,
        host: String,
        purpose: String,
        status: u16,
    },
    CredentialPut {
        vault: String,
        credential: String,
        version: u64,
    },
    CredentialDeleted {
        vault: String,
        credential: String,
    },
    /// All that was in it is gone.
    VaultRemoved {
        vault: String,
    },
    KeyRotated {
        vaults: u64,
    },
    /// Entries of a session become too many to write down from here on, for a while.
    LeavingOut {
        session_id: String,
    },
    /// How many were left out.
    LeftOut {
        session_id: String,
        count: u64,
    },
    PolicySet {
        session_id: String,
    },
    SessionDropped {
        session_id: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Line {
    n: u64,
    at: String,
    #[serde(flatten)]
    entry: Entry,
    /// Of the line before.
    prev: String,
}

/// The log, open for appending.
pub struct Audit(Mutex<State>);

struct State {
    file: File,
    next: u64,
    prev: String,
}

impl Audit {
    /// Open the log and check its chain. A last line that a crash has cut short is cut off.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let open = |e| Error::Open(path.to_owned(), e);
        let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(path).map_err(open)?;
        let checked = check(&file)?;
        if checked.bytes < file.metadata().map_err(open)?.len() {
            file.set_len(checked.bytes).map_err(open)?;
        }
        file.seek(SeekFrom::End(0)).map_err(open)?;
        Ok(Self(Mutex::new(State { file, next: checked.lines, prev: checked.last })))
    }

    /// Note something that need not survive a power loss.
    pub fn note(&self, entry: Entry) {
        if let Err(error) = self.append(entry) {
            tracing::error!(error = &error as &dyn std::error::Error, "audit log not written");
        }
    }

    /// Write something down before it counts.
    pub fn record(&self, entry: Entry) -> io::Result<()> {
        self.append(entry)?;
        self.0.lock().expect("no holder panics").file.sync_data()
    }

    /// Write something down that must not happen unwritten. It need not survive a power loss.
    pub fn append(&self, entry: Entry) -> io::Result<()> {
        let mut state = self.0.lock().expect("no holder panics");
        let line = Line { n: state.next, at: jiff::Timestamp::now().to_string(), entry, prev: state.prev.clone() };
        let mut text = serde_json::to_vec(&line)?;
        let hash = hex::encode(Sha256::digest(&text));
        text.push(b'\n');
        // In one write: a line is there or it is not.
        state.file.write_all(&text)?;
        state.next += 1;
        state.prev = hash;
        Ok(())
    }
}

struct Checked {
    lines: u64,
    last: String,
    /// Up to the end of the last whole line.
    bytes: u64,
}

/// How many lines hang together; an error says from which on they do not.
pub fn verify(path: &Path) -> Result<u64, Error> {
    let file = File::open(path).map_err(|e| Error::Open(path.to_owned(), e))?;
    Ok(check(&file)?.lines)
}

fn check(file: &File) -> Result<Checked, Error> {
    let mut checked = Checked { lines: 0, last: String::new(), bytes: 0 };
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = reader.read_until(b'\n', &mut text).map_err(Error::Read)?;
        if text.pop() != Some(b'\n') {
            return Ok(checked);
        }
        let broken = Error::Broken(checked.lines);
        match serde_json::from_slice::<Line>(&text) {
            Ok(line) if line.n == checked.lines && line.prev == checked.last => {}
            _ => return Err(broken),
        }
        checked.lines += 1;
        checked.bytes += read as u64;
        checked.last = hex::encode(Sha256::digest(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> Entry {
        Entry::CredentialPut { vault: "v".into(), credential: "c".into(), version: n }
    }

    #[test]
    fn a_changed_or_missing_line_breaks_the_chain_and_a_torn_one_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit");
        for round in 0..2 {
            let audit = Audit::open(&path).unwrap();
            (0..3).for_each(|n| audit.record(entry(round * 3 + n)).unwrap());
        }
        let good = std::fs::read_to_string(&path).unwrap();
        assert_eq!(verify(&path).unwrap(), 6);

        std::fs::write(&path, format!("{good}{{\"n\":6,")).unwrap();
        Audit::open(&path).unwrap().record(entry(6)).unwrap();
        assert_eq!(verify(&path).unwrap(), 7);

        std::fs::write(&path, good.replace("\"version\":2", "\"version\":9")).unwrap();
        assert!(matches!(verify(&path), Err(Error::Broken(3))));
        assert!(Audit::open(&path).is_err(), "nothing is appended to what cannot be trusted");
        let without: Vec<_> = good.lines().enumerate().filter(|(n, _)| *n != 4).map(|(_, line)| line).collect();
        std::fs::write(&path, without.join("\n") + "\n").unwrap();
        assert!(matches!(verify(&path), Err(Error::Broken(4))));
    }
}
