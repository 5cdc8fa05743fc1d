//! The Catalog of one machine, on fjall. All tables share one keyspace: a row's key is its table's name, a zero byte
//! and its own key, so that a batch over many tables is one journal entry and opening stays cheap.
//!
//! fjall opens a folder that lost files as an empty one. So there is a row that says that there were rows, and a file
//! beside the database that says that there is this row.

use std::fs::File;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use parking_lot::RwLock;

use super::commit::{Committer, Journal};
use super::{Batch, Catalog, Cause, Direction, Durability, Error, KEY_BYTES_MAX, KeyRange, Report, Row, Table};

const KEYSPACE: &str = "rows";
const SEPARATOR: u8 = 0;
/// The folder of the database, within that of the catalog.
const DATABASE: &str = "fjall";
/// The file that says that the row is there.
const MARKED: &str = "marked";
/// The row: its table has no name.
const MARK: &[u8] = &[SEPARATOR];
/// Reopening after a kill replays the journal, at about 11 ms a MB; fjall takes no smaller value.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

pub struct FjallCatalog {
    // Before the database: its drop finishes the writes and lets go of the thread's own handles.
    committer: Committer,
    rows: Keyspace,
    published: Arc<RwLock<Snapshot>>,
}

impl FjallCatalog {
    /// Opens the catalog in a folder of its own, creating it. Only one handle at a time can have it open.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let failed = |source: Cause| Error::Open { path: folder.to_owned(), source };
        let database = folder.join(DATABASE);
        let opened = Database::builder(&database).max_journaling_size(JOURNAL_BYTES_MAX).worker_threads(1).open();
        let db = opened.map_err(|error| match error {
            fjall::Error::Locked => Error::Locked { path: folder.to_owned() },
            error => failed(Arc::new(error)),
        })?;
        let rows = db.keyspace(KEYSPACE, KeyspaceCreateOptions::default).map_err(|error| failed(Arc::new(error)))?;
        // What a killed process left in the journal may not be on disk yet, and is about to be shown.
        db.persist(PersistMode::SyncAll).map_err(|error| failed(Arc::new(error)))?;
        if !mark(&db, &rows, &folder.join(MARKED)).map_err(failed)? {
            return Err(Error::Damaged { path: folder.to_owned() });
        }
        let published = Arc::new(RwLock::new(db.snapshot()));
        let journal = FjallJournal { db, rows: rows.clone(), published: published.clone() };
        let committer = Committer::start(journal).map_err(|error| failed(Arc::new(error)))?;
        Ok(Self { committer, rows, published })
    }

    /// Runs a read that may touch the disk for long away from the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(Snapshot, &Keyspace) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (snapshot, rows) = (self.published.read().clone(), self.rows.clone());
        tokio::task::spawn_blocking(move || read(snapshot, &rows)).await.map_err(|_| Error::Closed)?
    }
}

impl FjallCatalog {
    /// The rows as readers see them at this moment.
    pub fn snapshot(&self) -> CatalogSnapshot {
        CatalogSnapshot { snapshot: self.published.read().clone(), rows: self.rows.clone() }
    }
}

/// All rows of a catalog at one moment, whatever is written from then on.
pub struct CatalogSnapshot {
    snapshot: Snapshot,
    rows: Keyspace,
}

impl CatalogSnapshot {
    /// Writes the rows into a catalog of their own in a folder that has none; they are on disk when this returns. Takes
    /// as long as there are rows: not for async threads.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let failed = |error: fjall::Error| Error::Open { path: folder.to_owned(), source: Arc::new(error) };
        let database = folder.join(DATABASE);
        let db = Database::builder(&database).worker_threads(1).open().map_err(failed)?;
        let rows = db.keyspace(KEYSPACE, KeyspaceCreateOptions::default).map_err(failed)?;
        for guard in self.snapshot.iter(&self.rows) {
            let (key, value) = guard.into_inner().map_err(failed)?;
            rows.insert(key, value).map_err(failed)?;
        }
        db.persist(PersistMode::SyncAll).map_err(failed)?;
        // Last: it says that the rows are there.
        match mark(&db, &rows, &folder.join(MARKED)) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Open { path: folder.to_owned(), source }),
        }
    }
}

#[async_trait]
impl Catalog for FjallCatalog {
    // Mostly a look into memory, at worst one block from disk: cheaper in place than on another thread.
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        if key.len() > KEY_BYTES_MAX {
            return Ok(None);
        }
        let snapshot = self.published.read().clone();
        let value = snapshot.get(&self.rows, stored_key(table, key)).map_err(|error| read_error(table, error))?;
        Ok(value.map(Bytes::from_owner))
    }

    async fn scan(&self, table: Table, range: KeyRange, direction: Direction, limit: usize) -> Result<Vec<Row>, Error> {
        range.check(table)?;
        if range.is_void() || limit == 0 {
            return Ok(Vec::new());
        }
        self.blocking(move |snapshot, rows| {
            let found = snapshot.range(rows, stored_range(table, range));
            let row = |guard: fjall::Guard| {
                let (key, value) = guard.into_inner().map_err(|error| read_error(table, error))?;
                let key = Bytes::from_owner(key).slice(table.name().len() + 1..);
                Ok(Row { key, value: Bytes::from_owner(value) })
            };
            match direction {
                Direction::Forward => found.take(limit).map(row).collect(),
                Direction::Reverse => found.rev().take(limit).map(row).collect(),
            }
        })
        .await
    }

    async fn write(&self, batch: Batch, durability: Durability) -> Result<(), Error> {
        self.committer.write(batch, durability).await
    }

    async fn verify(&self) -> Result<Report, Error> {
        self.blocking(|snapshot, rows| {
            let mut report = Report::default();
            for guard in snapshot.iter(rows) {
                match guard.into_inner() {
                    Ok((key, _)) if *key == *MARK => {}
                    Ok((key, value)) => count(&mut report, &key, &value),
                    Err(error) => {
                        // The rest of the table cannot be reached past a broken block.
                        report.problems.push(format!("a row of the catalog cannot be read: {error}"));
                        break;
                    }
                }
            }
            Ok(report)
        })
        .await
    }
}

/// Sees that the mark is there, making it where the catalog is new. False if it is gone.
fn mark(db: &Database, rows: &Keyspace, marked: &Path) -> Result<bool, Cause> {
    let cause = |error: fjall::Error| Arc::new(error) as Cause;
    let there = rows.contains_key(MARK).map_err(cause)?;
    if marked.try_exists().map_err(|error| Arc::new(error) as Cause)? {
        return Ok(there);
    }
    // The row first: a crash before the file repeats this.
    rows.insert(MARK, b"").map_err(cause)?;
    db.persist(PersistMode::SyncAll).map_err(cause)?;
    let name = || {
        File::create(marked)?.sync_all()?;
        // The folder itself may be new, too.
        let folder = marked.parent().expect("the mark is in the folder").canonicalize()?;
        folder.ancestors().take(2).try_for_each(|folder| File::open(folder)?.sync_all())
    };
    name().map_err(|error| Arc::new(error) as Cause)?;
    Ok(true)
}

fn count(report: &mut Report, key: &[u8], value: &[u8]) {
    let table = key.iter().position(|byte| *byte == SEPARATOR).and_then(|at| std::str::from_utf8(&key[..at]).ok());
    match table {
        Some(table) => {
            *report.tables.entry(table.to_owned()).or_default() += 1;
            report.bytes += (key.len() - table.len() - 1 + value.len()) as u64;
        }
        None => report.problems.push("a row of the catalog belongs to no table".to_owned()),
    }
}

/// The writing side, owned by the committer's thread.
struct FjallJournal {
    db: Database,
    rows: Keyspace,
    published: Arc<RwLock<Snapshot>>,
}

impl Journal for FjallJournal {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.rows.get(stored_key(table, key)).map_err(|error| read_error(table, error))?;
        Ok(value.map(Bytes::from_owner))
    }

    fn apply(&mut self, batch: Batch) -> Result<(), Cause> {
        let mut write = self.db.batch();
        for (table, key) in batch.deletes {
            write.remove(&self.rows, stored_key(table, &key));
        }
        for (table, key, value) in batch.puts {
            write.insert(&self.rows, stored_key(table, &key), value.as_ref());
        }
        write.commit().map_err(|error| Arc::new(error) as Cause)
    }

    fn sync(&mut self) -> Result<(), Cause> {
        self.db.persist(PersistMode::SyncData).map_err(|error| Arc::new(error) as Cause)
    }

    fn publish(&mut self) {
        *self.published.write() = self.db.snapshot();
    }
}

fn stored_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(table.name().len() + 1 + key.len());
    stored.extend_from_slice(table.name().as_bytes());
    stored.push(SEPARATOR);
    stored.extend_from_slice(key);
    stored
}

fn stored_range(table: Table, range: KeyRange) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let stored = |key: Vec<u8>| stored_key(table, &key);
    let from = match range.from {
        Bound::Unbounded => Bound::Included(stored_key(table, b"")),
        bound => bound.map(stored),
    };
    let to = match range.to {
        Bound::Unbounded => {
            let mut end = table.name().as_bytes().to_vec();
            end.push(SEPARATOR + 1);
            Bound::Excluded(end)
        }
        bound => bound.map(stored),
    };
    (from, to)
}

fn read_error(table: Table, error: fjall::Error) -> Error {
    Error::Read { table: table.name(), source: Arc::new(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Table = Table::new("rows");

    #[tokio::test]
    async fn a_second_open_is_refused_and_a_reopen_finds_everything() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = FjallCatalog::open(folder.path()).unwrap();
        for n in 0..100u32 {
            let durability = if n % 2 == 0 { Durability::Synced } else { Durability::Lazy };
            let batch = Batch::new().put(ROWS, n.to_be_bytes(), vec![7; n as usize]);
            catalog.write(batch, durability).await.unwrap();
        }
        assert!(matches!(FjallCatalog::open(folder.path()), Err(Error::Locked { .. })));
        let before = catalog.verify().await.unwrap();
        assert_eq!(before.tables["rows"], 100);
        drop(catalog);
        let catalog = FjallCatalog::open(folder.path()).unwrap();
        assert_eq!(catalog.verify().await.unwrap(), before);
        let row = catalog.get(ROWS, &99u32.to_be_bytes()).await.unwrap().unwrap();
        assert_eq!(row.len(), 99);
    }

    #[tokio::test]
    async fn a_snapshot_is_written_as_it_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = FjallCatalog::open(&folder.path().join("a")).unwrap();
        for n in 0..100u32 {
            catalog.write(Batch::new().put(ROWS, n.to_be_bytes(), vec![7; 50]), Durability::Synced).await.unwrap();
        }
        let (snapshot, before) = (catalog.snapshot(), catalog.verify().await.unwrap());
        catalog.write(Batch::new().put(ROWS, "later", "x"), Durability::Synced).await.unwrap();
        catalog.write(Batch::new().delete(ROWS, 7u32.to_be_bytes()), Durability::Synced).await.unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        snapshot.write(&folder.path().join("b")).unwrap();
        let copy = FjallCatalog::open(&folder.path().join("b")).unwrap();
        assert_eq!(copy.verify().await.unwrap(), before);
        assert_eq!(copy.get(ROWS, &7u32.to_be_bytes()).await.unwrap().unwrap().len(), 50);
    }

    /// The files under a folder.
    fn files(folder: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    async fn filled(folder: &Path) {
        let catalog = FjallCatalog::open(folder).unwrap();
        catalog.write(Batch::new().put(ROWS, "a", "b"), Durability::Synced).await.unwrap();
    }

    /// Whatever file goes missing or is overwritten: the rows are all there, or opening says that they are not.
    #[tokio::test]
    async fn damage_never_reads_as_an_empty_catalog() {
        let names = {
            let folder = tempfile::tempdir().unwrap();
            filled(folder.path()).await;
            let paths = files(&folder.path().join(DATABASE)).into_iter();
            paths.map(|path| path.strip_prefix(folder.path()).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert!(names.len() > 3);
        let mut refused = 0;
        for name in names {
            for garbage in [None, Some("garbage")] {
                let folder = tempfile::tempdir().unwrap();
                filled(folder.path()).await;
                match garbage {
                    None => std::fs::remove_file(folder.path().join(&name)).unwrap(),
                    Some(garbage) => std::fs::write(folder.path().join(&name), garbage).unwrap(),
                }
                match FjallCatalog::open(folder.path()) {
                    Ok(catalog) => assert_eq!(catalog.get(ROWS, b"a").await.unwrap().unwrap(), "b", "{name:?}"),
                    Err(Error::Damaged { .. } | Error::Open { .. }) => refused += 1,
                    Err(error) => panic!("{name:?}: {error}"),
                }
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn a_folder_that_is_none_is_a_clear_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(FjallCatalog::open(&path), Err(Error::Open { .. })));
    }
}
