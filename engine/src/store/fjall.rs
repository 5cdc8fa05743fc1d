//! The durable store: one fjall database, one keyspace a space. Fjall's own lock keeps a second process out.

use super::{Batch, Durability, Entry, Error, Order, Range, Reads, Space, Storage};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use parking_lot::RwLock;
use std::path::Path;

/// The journal is read whenever a store is opened; this bounds how much of it there can be, unless somebody chooses.
pub const JOURNAL_BYTES: u64 = 128 * 1024 * 1024;
/// Fjall allows no lower bound, as its journal has files of this size.
const JOURNAL_BYTES_MIN: u64 = 64 * 1024 * 1024;
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

pub struct FjallStore(RwLock<Option<Open>>);

struct Open {
    database: Database,
    spaces: Vec<Keyspace>,
}

/// The database at one moment.
struct At {
    snapshot: Snapshot,
    spaces: Vec<Keyspace>,
}

impl FjallStore {
    /// Opens or creates the database in `path`.
    pub fn open(path: &Path) -> Result<FjallStore, Error> {
        FjallStore::open_with(path, JOURNAL_BYTES)
    }

    /// The same, with a journal of at most `journal_bytes` beside what is open at the moment.
    pub fn open_with(path: &Path, journal_bytes: u64) -> Result<FjallStore, Error> {
        let failed = |source| match source {
            fjall::Error::Locked => Error::Locked { path: path.to_owned() },
            source => Error::Open { path: path.to_owned(), source },
        };
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(journal_bytes.max(JOURNAL_BYTES_MIN))
            .manual_journal_persist(true)
            .open()
            .map_err(failed)?;
        let open = |space: Space| database.keyspace(space.name(), KeyspaceCreateOptions::default).map_err(failed);
        let spaces = Space::ALL.into_iter().map(open).collect::<Result<_, _>>()?;
        Ok(FjallStore(RwLock::new(Some(Open { database, spaces }))))
    }

    /// Opens the database in `path`, which must be there. It is locked as always, and fjall cuts off what a crash left
    /// unfinished at the end of its journal, which nothing ever showed.
    pub fn open_existing(path: &Path) -> Result<FjallStore, Error> {
        // What fjall itself takes for the sign of a database.
        match path.join("version").try_exists() {
            Ok(true) => FjallStore::open(path),
            Ok(false) => Err(Error::Missing { path: path.to_owned() }),
            Err(source) => Err(Error::Open { path: path.to_owned(), source: source.into() }),
        }
    }
}

impl FjallStore {
    fn open_part<T>(&self, work: impl FnOnce(&Open) -> Result<T, Error>) -> Result<T, Error> {
        self.0.read().as_ref().map_or(Err(Error::Closed), work)
    }
}

impl Storage for FjallStore {
    fn write(&self, batches: Vec<Batch>, durability: Durability) -> Result<(), Error> {
        self.open_part(|open| {
            for batch in batches {
                let mut writes = open.database.batch();
                for ((space, key), value) in batch.0 {
                    let keyspace = &open.spaces[space as usize];
                    match value {
                        Some(value) => writes.insert(keyspace, key, value),
                        None => writes.remove(keyspace, key),
                    }
                }
                writes.commit().map_err(write_error)?;
            }
            let mode = match durability {
                Durability::Journaled => PersistMode::Buffer,
                Durability::Synced => PersistMode::SyncData,
            };
            open.database.persist(mode).map_err(write_error)
        })
    }

    fn snapshot(&self) -> Result<Box<dyn Reads>, Error> {
        self.open_part(|open| {
            let at = At { snapshot: open.database.snapshot(), spaces: open.spaces.clone() };
            Ok(Box::new(at) as Box<dyn Reads>)
        })
    }

    /// Closes the database: another handle may open the folder then.
    fn close(&self) {
        *self.0.write() = None;
    }
}

impl Reads for FjallStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.open_part(|open| open.spaces[space as usize].get(key).map_err(Error::Read))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error> {
        if range.from >= range.to {
            return Ok(Vec::new());
        }
        self.open_part(|open| {
            let found = open.spaces[space as usize].range(range.from..range.to);
            take(found, range.order, range.limit)
        })
    }
}

impl Reads for At {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let value = self.snapshot.get(&self.spaces[space as usize], key).map_err(Error::Read)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error> {
        if range.from >= range.to {
            return Ok(Vec::new());
        }
        take(self.snapshot.range(&self.spaces[space as usize], range.from..range.to), range.order, range.limit)
    }
}

/// The first entries of what was found, from the end that is asked for.
fn take(found: fjall::Iter, order: Order, limit: usize) -> Result<Vec<Entry>, Error> {
    let copy = |guard: fjall::Guard| {
        let (key, value) = guard.into_inner().map_err(Error::Read)?;
        Ok((key.to_vec(), value.to_vec()))
    };
    match order {
        Order::Ascending => found.take(limit).map(copy).collect(),
        Order::Descending => found.rev().take(limit).map(copy).collect(),
    }
}

fn write_error(error: fjall::Error) -> Error {
    match error {
        fjall::Error::Poisoned => Error::Poisoned,
        other => Error::Write(other),
    }
}
