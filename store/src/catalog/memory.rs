//! The Catalog in memory: for tests, and the second implementation that keeps the trait honest. Nothing survives it.

use std::collections::BTreeMap;
use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Catalog, Direction, Durability, Error, KeyRange, Report, Row, Table};

#[derive(Default)]
pub struct MemoryCatalog {
    tables: RwLock<BTreeMap<Table, BTreeMap<Vec<u8>, Bytes>>>,
}

impl MemoryCatalog {
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.tables.read().get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    async fn scan(&self, table: Table, range: KeyRange, direction: Direction, limit: usize) -> Result<Vec<Row>, Error> {
        range.check(table)?;
        let tables = self.tables.read();
        let Some(rows) = tables.get(&table).filter(|_| !range.is_void()) else { return Ok(Vec::new()) };
        let bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>) = (range.from, range.to);
        let row = |(key, value): (&Vec<u8>, &Bytes)| Row { key: Bytes::copy_from_slice(key), value: value.clone() };
        let rows = rows.range(bounds);
        Ok(match direction {
            Direction::Forward => rows.take(limit).map(row).collect(),
            Direction::Reverse => rows.rev().take(limit).map(row).collect(),
        })
    }

    async fn write(&self, batch: Batch, _: Durability) -> Result<(), Error> {
        batch.check()?;
        let mut tables = self.tables.write();
        for (table, key, condition) in &batch.conditions {
            let current = tables.get(table).and_then(|rows| rows.get(key));
            if !condition.holds(current.map(AsRef::as_ref)) {
                return Err(Error::Conflict { table: table.name() });
            }
        }
        for (table, key) in batch.deletes {
            tables.entry(table).or_default().remove(&key);
        }
        for (table, key, value) in batch.puts {
            tables.entry(table).or_default().insert(key, value);
        }
        Ok(())
    }

    async fn verify(&self) -> Result<Report, Error> {
        let mut report = Report::default();
        for (table, rows) in self.tables.read().iter().filter(|(_, rows)| !rows.is_empty()) {
            report.tables.insert(table.name().to_owned(), rows.len() as u64);
            report.bytes += rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        }
        Ok(report)
    }
}
