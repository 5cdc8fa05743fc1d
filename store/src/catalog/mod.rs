//! The Catalog: ordered tables of small rows, written in atomic batches under conditions.
//!
//! The conditions are the only concurrency control: read, decide, and write on the condition that what was read still
//! stands. There are no transactions across calls and no locks, so that any store with compare-and-set fits behind it.

mod commit;
mod fjall;
mod memory;
mod rows;
#[cfg(test)]
mod suite;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use self::fjall::{CatalogSnapshot, FjallCatalog};
pub use self::memory::MemoryCatalog;
pub use self::rows::{Record, Versioned};

/// The longest key, in bytes. Keys are ids and times; this leaves room for what a table's own prefix adds.
pub const KEY_BYTES_MAX: usize = 4096;

/// The name of a table: a constant of the code that owns the rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Table(&'static str);

impl Table {
    /// `name` is lower case ascii and underscores. Checked at compile time when used in a constant.
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty(), "a table needs a name");
        let mut at = 0;
        while at < bytes.len() {
            assert!(bytes[at].is_ascii_lowercase() || bytes[at] == b'_', "a table name is a-z and _");
            at += 1;
        }
        Self(name)
    }

    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// Which keys of one table. Keys order bytewise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyRange {
    pub from: Bound<Vec<u8>>,
    pub to: Bound<Vec<u8>>,
}

impl KeyRange {
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// Every key that starts with `prefix`.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let prefix = prefix.as_ref();
        let mut end = prefix.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        let to = match end.last_mut() {
            Some(last) => {
                *last += 1;
                Bound::Excluded(end)
            }
            None => Bound::Unbounded,
        };
        Self { from: Bound::Included(prefix.to_vec()), to }
    }

    /// Narrows the range to keys after `key` in the order of `direction`.
    pub fn after(mut self, key: impl Into<Vec<u8>>, direction: Direction) -> Self {
        match direction {
            Direction::Forward => self.from = Bound::Excluded(key.into()),
            Direction::Reverse => self.to = Bound::Excluded(key.into()),
        }
        self
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        let from = match &self.from {
            Bound::Included(from) => key >= from.as_slice(),
            Bound::Excluded(from) => key > from.as_slice(),
            Bound::Unbounded => true,
        };
        let to = match &self.to {
            Bound::Included(to) => key <= to.as_slice(),
            Bound::Excluded(to) => key < to.as_slice(),
            Bound::Unbounded => true,
        };
        from && to
    }

    /// Stores need not cope with a key that none of them would take.
    fn check(&self, table: Table) -> Result<(), Error> {
        for bound in [&self.from, &self.to] {
            if let Bound::Included(key) | Bound::Excluded(key) = bound
                && key.len() > KEY_BYTES_MAX
            {
                return Err(Error::KeyLength { table: table.name(), bytes: key.len() });
            }
        }
        Ok(())
    }

    /// True where no key can be inside. The ordered maps below refuse such a range, so it is answered before them.
    fn is_void(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
            _ => false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    Forward,
    Reverse,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub key: Bytes,
    pub value: Bytes,
}

/// What must hold for a batch to be written. All conditions are checked against the state before the batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    Absent,
    Equals(Bytes),
}

impl Condition {
    pub(crate) fn holds(&self, current: Option<&[u8]>) -> bool {
        match self {
            Condition::Absent => current.is_none(),
            Condition::Equals(expected) => current == Some(expected.as_ref()),
        }
    }
}

/// Changes that become visible and durable together, or not at all.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    pub puts: Vec<(Table, Vec<u8>, Bytes)>,
    pub deletes: Vec<(Table, Vec<u8>)>,
    pub conditions: Vec<(Table, Vec<u8>, Condition)>,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put(mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) -> Self {
        self.puts.push((table, key.into(), value.into()));
        self
    }

    pub fn delete(mut self, table: Table, key: impl Into<Vec<u8>>) -> Self {
        self.deletes.push((table, key.into()));
        self
    }

    pub fn require(mut self, table: Table, key: impl Into<Vec<u8>>, condition: Condition) -> Self {
        self.conditions.push((table, key.into(), condition));
        self
    }

    /// A key is put or deleted at most once in a batch, and no key is longer than [`KEY_BYTES_MAX`].
    fn check(&self) -> Result<(), Error> {
        let keys = self.puts.iter().map(|(table, key, _)| (table, key));
        let keys = keys.chain(self.deletes.iter().map(|(table, key)| (table, key)));
        let mut seen = std::collections::HashSet::new();
        for (table, key) in keys {
            if key.is_empty() || key.len() > KEY_BYTES_MAX {
                return Err(Error::KeyLength { table: table.name(), bytes: key.len() });
            }
            assert!(seen.insert((table, key)), "a batch changes a key twice in table {}", table.name());
        }
        Ok(())
    }
}

/// When a write is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Once it is on disk.
    Synced,
    /// Once it is visible. Survives the death of the process but not of the machine; for rows that can be rebuilt.
    Lazy,
}

/// What [`Catalog::verify`] read.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Report {
    /// Rows in each table.
    pub tables: BTreeMap<String, u64>,
    /// Bytes of all keys and values.
    pub bytes: u64,
    /// What is wrong, one a line, for an operator.
    pub problems: Vec<String>,
}

/// Ordered tables of small rows. Reads see a consistent state and never what a crash could take back.
#[async_trait]
pub trait Catalog: Send + Sync + 'static {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// At most `limit` rows of the range, in key order or against it.
    async fn scan(&self, table: Table, range: KeyRange, direction: Direction, limit: usize) -> Result<Vec<Row>, Error>;

    /// Writes the whole batch or nothing. A failed condition is [`Error::Conflict`]. Once called, the write may happen
    /// even if the caller stops waiting for it.
    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), Error>;

    /// Reads everything that is stored.
    async fn verify(&self) -> Result<Report, Error>;
}

type Cause = Arc<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("open the catalog in {}: it is already open, in this process or another", path.display())]
    Locked { path: PathBuf },
    #[error("open the catalog in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Cause,
    },
    #[error("open the catalog in {}: its rows are gone; restore the folder from a backup", path.display())]
    Damaged { path: PathBuf },
    #[error("read from the catalog table {table}")]
    Read {
        table: &'static str,
        #[source]
        source: Cause,
    },
    #[error("read a row of the catalog table {table}")]
    Decode {
        table: &'static str,
        #[source]
        source: Cause,
    },
    #[error("read a row of the catalog table {table}: it has version {found}, this build knows {known}")]
    RowVersion { table: &'static str, found: u32, known: u32 },
    #[error("use a key of {bytes} bytes in the catalog table {table}")]
    KeyLength { table: &'static str, bytes: usize },
    #[error("write to the catalog table {table}: the row changed in between")]
    Conflict { table: &'static str },
    /// Holds until the catalog is opened again: after a failed write nobody knows what is on disk.
    #[error("write to the catalog: an earlier write failed, and no more are taken until a restart")]
    Poisoned {
        #[source]
        source: Cause,
    },
    #[error("write to the catalog: it is closed")]
    Closed,
}
