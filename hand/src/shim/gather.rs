//! Collections and snapshots: parts that come out of the sandbox become blobs, named by what the shim itself hashed.

use super::{Shim, calls};
use crate::limits;
use crate::link::{Part, ToInit};
use crate::protocol::{Collected, Diff, OutputFile, Refusal, Snapshot};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc;

type Refused = (Refusal, String);

/// One collection or snapshot on its way.
pub struct Gathering {
    kind: Kind,
    incoming: PathBuf,
    /// None between parts.
    part: Option<Incoming>,
    found: Found,
    failed: Option<String>,
    done: mpsc::Sender<Result<Found, String>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Collection,
    Snapshot,
}

#[derive(Default)]
struct Found {
    collected: Collected,
    snapshot: Option<Snapshot>,
}

struct Incoming {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Gathering {
    pub fn is_exclusive(&self) -> bool {
        self.kind == Kind::Snapshot
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_none()
            && let Err(e) = self.write(bytes)
        {
            self.failed = Some(format!("keep the bytes: {e}"));
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let part = match &mut self.part {
            Some(part) => part,
            none => none.insert(Incoming { file: File::create(&self.incoming)?, hash: Sha256::new(), bytes: 0 }),
        };
        part.bytes += bytes.len() as u64;
        let max = if self.kind == Kind::Snapshot { limits::SNAPSHOT_BYTES } else { limits::OUTPUT_TOTAL_BYTES };
        if part.bytes > max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        part.hash.update(bytes);
        part.file.write_all(bytes)
    }

    /// The chunks so far are a whole: its hash and size, once it is durable.
    fn seal(&mut self, shim: &Shim) -> io::Result<(String, u64)> {
        self.write(&[])?;
        let part = self.part.take().expect("made by the write");
        part.file.sync_all()?;
        let name = hex::encode(part.hash.finalize());
        let path = shim.folder.blobs().join(&name);
        std::fs::rename(&self.incoming, &path)?;
        crate::folder::sync_parent(&path)?;
        Ok((name, part.bytes))
    }

    fn part(&mut self, shim: &Shim, part: Part) {
        let sealed = match &part {
            Part::File { sent: false, .. } | Part::Diff { error: Some(_), .. } => {
                // Half a file may have come before it could not be read.
                self.part = None;
                None
            }
            _ => match self.seal(shim) {
                Ok(sealed) => Some(sealed),
                Err(e) => {
                    self.failed.get_or_insert(format!("keep the bytes: {e}"));
                    return;
                }
            },
        };
        match (part, self.kind) {
            (Part::File { path, bytes, .. }, Kind::Collection) => {
                // Init stops at its own limit; a liar does not grow the shim.
                if self.found.collected.files.len() < limits::OUTPUT_FILES {
                    let (sha256, bytes) = sealed.map_or((None, bytes), |(name, bytes)| (Some(name), bytes));
                    self.found.collected.files.push(OutputFile { path, bytes, sha256 });
                }
            }
            (Part::Diff { truncated, error }, Kind::Collection) => {
                let (sha256, bytes) = sealed.map_or((None, 0), |(name, bytes)| (Some(name), bytes));
                self.found.collected.diff = Some(Diff { bytes, sha256, truncated, error });
            }
            (Part::Snapshot { start }, Kind::Snapshot) => {
                self.found.snapshot = sealed.map(|(sha256, bytes)| Snapshot { sha256, bytes, start });
            }
            _ => self.failed = Some("the sandbox broke the protocol".to_owned()),
        }
    }

    /// Tell who waits that nothing will come.
    pub fn fail(self, why: String) {
        // Who asked may have gone; then nobody needs to know.
        self.done.send(Err(why)).ok();
    }
}

pub fn part(shim: &Shim, number: u64, part: Part) {
    calls::with_gathering(shim, number, |gathering| gathering.part(shim, part));
}

pub fn end(shim: &Shim, number: u64, error: Option<String>, more: bool) {
    let Some(mut gathering) = calls::end_gathering(shim, number) else { return };
    // Nothing is there unless a part was begun and not sealed.
    std::fs::remove_file(&gathering.incoming).ok();
    gathering.found.collected.files_truncated = more;
    calls::prune(shim);
    match gathering.failed.take().or(error) {
        Some(why) => gathering.fail(why),
        None => {
            // As in `fail`.
            gathering.done.send(Ok(gathering.found)).ok();
        }
    }
}

pub fn collect(shim: &Shim, known: BTreeMap<String, String>, epoch: u64) -> Result<Collected, Refused> {
    gather(shim, Kind::Collection, ToInit::Collect { known }, epoch).map(|found| found.collected)
}

pub fn snapshot(shim: &Shim, epoch: u64) -> Result<Snapshot, Refused> {
    let found = gather(shim, Kind::Snapshot, ToInit::Snapshot, epoch)?;
    found.snapshot.ok_or_else(|| (Refusal::Failed, "the sandbox gave no snapshot".to_owned()))
}

fn gather(shim: &Shim, kind: Kind, ask: ToInit, epoch: u64) -> Result<Found, Refused> {
    drop(calls::check_epoch(shim, epoch)?);
    let (done, result) = mpsc::channel();
    let incoming = shim.folder.blobs().join(format!("incoming-{:?}", std::thread::current().id()));
    let gathering = Gathering { kind, incoming, part: None, found: Found::default(), failed: None, done };
    let number = calls::begin_gathering(shim, gathering, kind == Kind::Snapshot)?;
    // If nobody hears it the sandbox is gone, and its reader fails every gathering.
    shim.sandbox.say(number, &ask).ok();
    match result.recv() {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(why)) => Err((Refusal::Failed, why)),
        Err(_) => Err((Refusal::Failed, "the sandbox broke the protocol".to_owned())),
    }
}
