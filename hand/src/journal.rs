//! What a hand was asked to do and what came of it, so that no call is ever run twice.
//!
//! One pair of files a call, named by the hash of its id: `.req` is durable before the call may start, `.res` before
//! its result is told. A `.req` without a `.res` and without a running call is lost: it is never run again. A write
//! that failed stops all later ones, as nobody can say any more what is on disk.

use crate::folder::{self, Folder};
use crate::protocol::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("write to a journal whose last write failed")]
    Poisoned,
    #[error("write the journal")]
    Write(#[source] io::Error),
    #[error("read the journal")]
    Read(#[source] io::Error),
    #[error("understand the journal")]
    Corrupt(#[source] serde_json::Error),
    #[error("move the lease epoch, which is {0}")]
    Epoch(u64),
}

/// A call's name in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    pub fn of(call_id: &str) -> Self {
        Self(hex::encode(&Sha256::digest(call_id)[..16]))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What tells one call from another under the same id: its name and input.
pub fn input_hash(name: &str, input: &Value) -> String {
    let mut hash = Sha256::new();
    hash.update(name);
    hash.update([0]);
    let mut text = String::new();
    canonical(input, &mut text);
    hash.update(text);
    hex::encode(hash.finalize())
}

/// JSON with ordered keys, whatever order a build keeps them in.
fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in fields {
                write!(out, "{}:", Value::from(name.as_str())).expect("a string takes all");
                canonical(value, out);
                out.push(',');
            }
            out.push('}');
        }
        plain => write!(out, "{plain}").expect("a string takes all"),
    }
}

#[derive(Serialize, Deserialize, Debug)]
struct Begun {
    id: String,
    hash: String,
    epoch: u64,
}

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub state: State,
    pub result: String,
}

/// What the journal knows of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Known {
    Nothing,
    Begun { hash: String },
    Ended { hash: String, ended: Ended },
}

pub struct Journal {
    dir: PathBuf,
    poisoned: AtomicBool,
    epoch: Mutex<u64>,
}

impl Journal {
    /// Open the journal of a hand; `epoch` holds only for a new one.
    pub fn open(folder: &Folder, epoch: u64) -> Result<Self, Error> {
        let dir = folder.journal();
        let path = dir.join("epoch");
        let epoch = match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map_err(Error::Corrupt)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                folder::replace(&path, epoch.to_string().as_bytes()).map_err(Error::Write)?;
                epoch
            }
            Err(e) => return Err(Error::Read(e)),
        };
        Ok(Self { dir, poisoned: AtomicBool::new(false), epoch: Mutex::new(epoch) })
    }

    pub fn epoch(&self) -> u64 {
        *self.hold_epoch()
    }

    /// Hold the epoch still: while the guard lives no fence can come between a check and what follows from it.
    pub fn hold_epoch(&self) -> MutexGuard<'_, u64> {
        self.epoch.lock().expect("no holder panics")
    }

    /// Compare and set.
    pub fn fence(&self, from: u64, to: u64) -> Result<u64, Error> {
        let mut epoch = self.hold_epoch();
        if *epoch != from || to <= from {
            return Err(Error::Epoch(*epoch));
        }
        self.write("epoch".into(), to.to_string().as_bytes())?;
        *epoch = to;
        Ok(to)
    }

    pub fn known(&self, key: &Key) -> Result<Known, Error> {
        let Some(begun) = self.read::<Begun>(&format!("{}.req", key.0))? else { return Ok(Known::Nothing) };
        Ok(match self.read::<Ended>(&format!("{}.res", key.0))? {
            None => Known::Begun { hash: begun.hash },
            Some(ended) => Known::Ended { hash: begun.hash, ended },
        })
    }

    /// After this the call may start, once.
    pub fn begin(&self, key: &Key, id: &str, hash: &str, epoch: u64) -> Result<(), Error> {
        let begun = Begun { id: id.to_owned(), hash: hash.to_owned(), epoch };
        self.write(format!("{}.req", key.0), &to_json(&begun))
    }

    /// After this the result may be told.
    pub fn end(&self, key: &Key, ended: &Ended) -> Result<(), Error> {
        self.write(format!("{}.res", key.0), &to_json(ended))
    }

    /// A fact about the hand, kept beside its calls.
    pub fn note(&self, name: &str, value: &impl Serialize) -> Result<(), Error> {
        self.write(format!("{name}.json"), &to_json(value))
    }

    pub fn noted<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Error> {
        self.read(&format!("{name}.json"))
    }

    fn write(&self, name: String, bytes: &[u8]) -> Result<(), Error> {
        if self.poisoned.load(Ordering::SeqCst) {
            return Err(Error::Poisoned);
        }
        folder::replace(&self.dir.join(name), bytes).map_err(|e| {
            self.poisoned.store(true, Ordering::SeqCst);
            Error::Write(e)
        })
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Error> {
        match std::fs::read(self.dir.join(name)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(Error::Corrupt),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::Read(e)),
        }
    }
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("journal entries have only string keys")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn journal() -> (tempfile::TempDir, Folder, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        std::fs::create_dir(folder.journal()).unwrap();
        let journal = Journal::open(&folder, 1).unwrap();
        (dir, folder, journal)
    }

    #[test]
    fn a_call_is_known_from_its_beginning_also_to_the_next_shim() {
        let (_dir, folder, journal) = journal();
        let (a, b) = (Key::of("a"), Key::of("b"));
        assert_eq!(journal.known(&a).unwrap(), Known::Nothing);
        journal.begin(&a, "a", "h", 1).unwrap();
        journal.begin(&b, "b", "h", 1).unwrap();
        let ended = Ended { state: State::Finished, result: "r".into() };
        journal.end(&b, &ended).unwrap();
        let journal = Journal::open(&folder, 7).unwrap();
        assert_eq!(journal.known(&a).unwrap(), Known::Begun { hash: "h".into() });
        assert_eq!(journal.known(&b).unwrap(), Known::Ended { hash: "h".into(), ended });
        assert_eq!(journal.epoch(), 1, "an existing hand keeps its epoch");
    }

    #[test]
    fn the_epoch_is_compared_and_set() {
        let (_dir, folder, journal) = journal();
        assert!(matches!(journal.fence(2, 3), Err(Error::Epoch(1))));
        assert!(matches!(journal.fence(1, 1), Err(Error::Epoch(1))));
        assert_eq!(journal.fence(1, 5).unwrap(), 5);
        assert!(matches!(journal.fence(1, 6), Err(Error::Epoch(5))));
        assert_eq!(Journal::open(&folder, 1).unwrap().epoch(), 5);
    }

    #[test]
    fn a_failed_write_stops_the_journal() {
        let (_dir, folder, journal) = journal();
        let key = Key::of("a");
        std::fs::rename(folder.journal(), folder.path().join("away")).unwrap();
        assert!(matches!(journal.begin(&key, "a", "h", 1), Err(Error::Write(_))));
        std::fs::rename(folder.path().join("away"), folder.journal()).unwrap();
        assert!(matches!(journal.begin(&key, "a", "h", 1), Err(Error::Poisoned)));
        assert_eq!(journal.known(&key).unwrap(), Known::Nothing);
    }

    #[test]
    fn the_hash_is_of_the_meaning_not_the_order() {
        let of = |text: &str| input_hash("bash", &serde_json::from_str(text).unwrap());
        assert_eq!(of(r#"{"a":1,"b":{"c":2,"d":3}}"#), of(r#"{"b":{"d":3,"c":2},"a":1}"#));
        assert_ne!(of(r#"{"a":1}"#), of(r#"{"a":"1"}"#));
        assert_ne!(of(r#"["a","b"]"#), of(r#"["a,b"]"#));
        assert_ne!(input_hash("bash", &json!({})), input_hash("read", &json!({})));
    }
}
