//! Lists by time of creation: an index row beside each row, and pages read through it.

use jiff::Timestamp;
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Direction, KeyRange, Record, Table};

use crate::error::Result;
use crate::page::{Page, PageRequest};
use crate::query::TimeRange;

/// How many index rows are read at a time where some of their rows may be filtered out.
const SCAN_ROWS: usize = 200;
/// Characters of a time in an index key.
const TIME_CHARS: usize = 16;

/// An index: under `scope`, the ids of rows in the order in which they were made.
#[derive(Clone, Debug)]
pub struct Index {
    table: Table,
    scope: String,
}

impl Index {
    /// The whole table.
    pub fn new(table: Table) -> Self {
        Self { table, scope: String::new() }
    }

    /// The part of the table that belongs to `scope`, an id.
    pub fn within(table: Table, scope: &str) -> Self {
        Self { table, scope: format!("{scope}/") }
    }

    /// Adds a row to the index; in the same batch as the row itself.
    pub fn insert(&self, batch: Batch, created_at: Timestamp, id: &str) -> Batch {
        batch.put(self.table, self.key(created_at, id), id.to_owned())
    }

    pub fn remove(&self, batch: Batch, created_at: Timestamp, id: &str) -> Batch {
        batch.delete(self.table, self.key(created_at, id))
    }

    pub fn table(&self) -> Table {
        self.table
    }

    /// Every entry.
    pub fn all(&self) -> KeyRange {
        self.range(TimeRange::default())
    }

    /// Every entry that is at most as late as `time`.
    pub fn until(&self, time: Timestamp) -> KeyRange {
        self.range(TimeRange { from_ms: None, to_ms: Some(time.as_millisecond()) })
    }

    /// Notes if the row is not in the index.
    pub(crate) async fn verify<R: Record>(
        &self,
        catalog: &dyn Catalog,
        created_at: Timestamp,
        id: &str,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        if catalog.get(self.table, self.key(created_at, id).as_bytes()).await?.is_none() {
            problems.push(format!("{} {id}: is not in the index {}", R::TABLE.name(), self.table.name()));
        }
        Ok(())
    }

    fn key(&self, created_at: Timestamp, id: &str) -> String {
        format!("{}{}{id}", self.scope, micros(created_at.as_microsecond()))
    }

    fn range(&self, times: TimeRange) -> KeyRange {
        let mut range = KeyRange::prefix(&self.scope);
        if let Some(from) = times.from_ms {
            let from = format!("{}{}", self.scope, micros(from.saturating_mul(1000)));
            range.from = std::ops::Bound::Included(from.into());
        }
        if let Some(to) = times.to_ms {
            let behind = format!("{}{}", self.scope, micros(to.saturating_add(1).saturating_mul(1000)));
            range.to = std::ops::Bound::Excluded(behind.into());
        }
        range
    }
}

/// As text of one width, so that keys order by time.
fn micros(micros: i64) -> String {
    format!("{:0TIME_CHARS$x}", micros.max(0))
}

/// Notes every entry of an index table that leads to no row.
pub(crate) async fn verify<R: Record>(catalog: &dyn Catalog, index: Table, problems: &mut Vec<String>) -> Result<()> {
    let mut range = KeyRange::all();
    loop {
        let entries = catalog.scan(index, range.clone(), Direction::Forward, SCAN_ROWS).await?;
        let Some(last) = entries.last() else { return Ok(()) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for entry in entries {
            if catalog.get(R::TABLE, &entry.value).await?.is_none() {
                let id = String::from_utf8_lossy(&entry.value);
                problems.push(format!("{} leads to {id}, which is not there", index.name()));
            }
        }
    }
}

/// One page of the rows that the index names and `keep` keeps.
pub async fn page<R: Record>(
    catalog: &dyn Catalog,
    index: &Index,
    request: &PageRequest,
    times: TimeRange,
    keep: impl Fn(&R) -> bool,
) -> Result<Page<R>> {
    let (mut range, direction) = request.window(index.range(times))?;
    let mut found: Vec<(String, R)> = Vec::new();
    loop {
        let entries = catalog.scan(index.table, range.clone(), direction, SCAN_ROWS).await?;
        let last = entries.last().map(|entry| entry.key.to_vec());
        for entry in entries {
            // Deleted since the index was read.
            let Some(row) = catalog.row::<R>(&entry.value).await? else { continue };
            if keep(&row.row) {
                let key = String::from_utf8(entry.key.to_vec()).map_err(|error| CatalogError::Decode {
                    table: index.table.name(),
                    source: std::sync::Arc::new(error),
                })?;
                found.push((key, row.row));
            }
            if found.len() > request.limit {
                break;
            }
        }
        match last {
            Some(last) if found.len() <= request.limit => range = range.after(last, direction),
            _ => break,
        }
    }
    Ok(request.page(found, |(key, _)| key.clone()).map(|(_, row)| row))
}
