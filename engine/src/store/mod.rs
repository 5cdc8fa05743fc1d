//! What the engine keeps: ordered byte keys in a few spaces, changed only by atomic batches. Knows nothing of workflows;
//! [`keys`] says what stands where. Two implementations under one suite.

pub mod committer;
mod fjall;
pub mod keys;
mod memory;
#[cfg(test)]
pub mod suite;

pub use self::fjall::{FjallStore, JOURNAL_BYTES};
pub use self::memory::MemoryStore;
#[cfg(test)]
pub use self::memory::Spaces;

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A part of the key space with its own ordering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Batches of history events.
    History,
    /// State of runs.
    Run,
    /// Request ids of signals that a run took.
    Signal,
    /// The newest run of each workflow id.
    Current,
    /// When runs are to be woken.
    Timer,
    /// Runs with something in a queue or with a worker.
    Busy,
    /// What runs owe to other runs.
    Errand,
    /// Runs as lists show them.
    Listed,
    /// Runs by workflow id.
    ByWorkflow,
    /// Namespaces that were registered.
    Namespace,
    /// Search attributes that namespaces registered.
    Attribute,
    /// Deployments of workers.
    Deployment,
    /// Open runs that belong to one version of their workers.
    Pinned,
    /// Closed runs by namespace and end.
    Closed,
    /// Closed runs whose history is not packed, by end.
    Loose,
    /// What the store says of itself.
    About,
}

impl Space {
    pub const ALL: [Space; 16] = [
        Space::History,
        Space::Run,
        Space::Signal,
        Space::Current,
        Space::Timer,
        Space::Busy,
        Space::Errand,
        Space::Listed,
        Space::ByWorkflow,
        Space::Namespace,
        Space::Attribute,
        Space::Deployment,
        Space::Pinned,
        Space::Closed,
        Space::Loose,
        Space::About,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Space::History => "history",
            Space::Run => "run",
            Space::Signal => "signal",
            Space::Current => "current",
            Space::Timer => "timer",
            Space::Busy => "busy",
            Space::Errand => "errand",
            Space::Listed => "listed",
            Space::ByWorkflow => "by_workflow",
            Space::Namespace => "namespace",
            Space::Attribute => "attribute",
            Space::Deployment => "deployment",
            Space::Pinned => "pinned",
            Space::Closed => "closed",
            Space::Loose => "loose",
            Space::About => "about",
        }
    }
}

/// Changes that happen together or not at all. Later changes of the same key win.
#[derive(Clone, Debug, Default)]
pub struct Batch(BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>);

impl Batch {
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        // A map, as one key must stand once: a store may give all changes of a batch the same sequence number.
        self.0.insert((space, key), Some(value));
    }

    pub fn remove(&mut self, space: Space, key: Vec<u8>) {
        self.0.insert((space, key), None);
    }

    /// The keys of a space that it changes, and whether a value is left of each.
    #[cfg(test)]
    pub fn changes(&self, space: Space) -> impl Iterator<Item = (&[u8], bool)> {
        self.0
            .iter()
            .filter(move |change| change.0.0 == space)
            .map(|((_, key), value)| (key.as_slice(), value.is_some()))
    }
}

/// Keys from `from` (inclusive) up to `to` (exclusive).
#[derive(Clone, Debug)]
pub struct Range {
    pub from: Vec<u8>,
    pub to: Vec<u8>,
    pub order: Order,
    pub limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
}

impl Range {
    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: Vec<u8>) -> Range {
        let mut to = prefix.clone();
        while let Some(last) = to.pop() {
            if last < u8::MAX {
                to.push(last + 1);
                break;
            }
        }
        if to.is_empty() {
            to = vec![u8::MAX; prefix.len() + 64];
        }
        Range { from: prefix, to, order: Order::Ascending, limit: usize::MAX }
    }
}

/// How far a write must have come before it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Handed to the operating system: survives the process.
    Journaled,
    /// On the device: survives power loss.
    Synced,
}

pub type Entry = (Vec<u8>, Vec<u8>);

/// What can be read of a store.
pub trait Reads: Send + Sync {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error>;
}

/// An ordered, atomic, durable map. Reads see every batch written before.
pub trait Storage: Reads + 'static {
    /// Writes the batches in order, each atomically, and brings all of them to `durability`.
    fn write(&self, batches: Vec<Batch>, durability: Durability) -> Result<(), Error>;

    /// The store as it is now, whatever is written from now on: every batch is in it whole or not at all.
    fn snapshot(&self) -> Result<Box<dyn Reads>, Error>;

    /// Gives up what it holds of the outside (files, locks). Everything after that fails with [`Error::Closed`].
    fn close(&self);
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open the database in {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: ::fjall::Error,
    },
    #[error("open the database in {path}: another process has it open")]
    Locked { path: PathBuf },
    #[error("open the database in {path}: there is none")]
    Missing { path: PathBuf },
    #[error("read from the database")]
    Read(#[source] ::fjall::Error),
    #[error("write to the database")]
    Write(#[source] ::fjall::Error),
    #[error("write to the database: an earlier write failed, and no more are accepted")]
    Poisoned,
    #[error("write to the database: it was opened to be read")]
    ReadOnly,
    #[error("use the database: it is closed")]
    Closed,
}
