//! One tenant's part of the catalog: every key begins with the tenant's, so that nothing of another is found, listed or
//! written, by whatever code.
//!
//! The first tenant's keys have no prefix; those of the others begin with a byte that no id begins with, and lie before
//! its own in every table. Only [`SHARED`] tables are the same for all.

use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use store::catalog::{Error, Report, Row};
use store::{Batch, Catalog, Direction, KeyRange, Record as _, Table};

use super::Tenant;
use crate::auth::audit::{self, AuditRow};
use crate::auth::keys::{KeyRow, UseRow};
use crate::references::REFERENCES;
use crate::resources::environments::work::token::TokenRow;

/// Who may call is asked before anybody knows whose request it is, and the same bytes are one blob for all.
pub const SHARED: &[Table] =
    &[Tenant::TABLE, KeyRow::TABLE, UseRow::TABLE, TokenRow::TABLE, AuditRow::TABLE, audit::BY_TIME, REFERENCES];

/// The first byte of another tenant's keys, and the byte behind it.
const OTHERS: u8 = 0x01;
const OWN: u8 = 0x02;

pub struct Scoped {
    inner: Arc<dyn Catalog>,
    /// Empty for the first tenant.
    prefix: Vec<u8>,
}

impl Scoped {
    /// The part of the first tenant: of a catalog without others, all of it.
    pub fn first(inner: Arc<dyn Catalog>) -> Self {
        Self { inner, prefix: Vec::new() }
    }

    pub fn of(inner: Arc<dyn Catalog>, workspace_id: &str) -> Self {
        let prefix = [&[OTHERS], workspace_id.as_bytes(), b"/"].concat();
        Self { inner, prefix }
    }

    fn key(&self, table: Table, key: &[u8]) -> Vec<u8> {
        if SHARED.contains(&table) { key.to_vec() } else { [&self.prefix, key].concat() }
    }

    fn range(&self, table: Table, range: KeyRange) -> KeyRange {
        if SHARED.contains(&table) {
            return range;
        }
        let KeyRange { from, to } =
            if self.prefix.is_empty() { KeyRange::all() } else { KeyRange::prefix(&self.prefix) };
        let least = if self.prefix.is_empty() { Bound::Included(vec![OWN]) } else { from };
        let moved = |key: Vec<u8>| [&self.prefix[..], &key].concat();
        KeyRange {
            from: match range.from {
                Bound::Included(key) if key.is_empty() => least,
                Bound::Included(key) => Bound::Included(moved(key)),
                Bound::Excluded(key) => Bound::Excluded(moved(key)),
                Bound::Unbounded => least,
            },
            to: match range.to {
                Bound::Included(key) => Bound::Included(moved(key)),
                Bound::Excluded(key) => Bound::Excluded(moved(key)),
                Bound::Unbounded => to,
            },
        }
    }
}

#[async_trait]
impl Catalog for Scoped {
    async fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.inner.get(table, &self.key(table, key)).await
    }

    async fn scan(&self, table: Table, range: KeyRange, direction: Direction, limit: usize) -> Result<Vec<Row>, Error> {
        let mut rows = self.inner.scan(table, self.range(table, range), direction, limit).await?;
        if !SHARED.contains(&table) {
            rows.iter_mut().for_each(|row| row.key = row.key.slice(self.prefix.len()..));
        }
        Ok(rows)
    }

    async fn write(&self, batch: Batch, durability: store::Durability) -> Result<(), Error> {
        let Batch { mut puts, mut deletes, mut conditions } = batch;
        puts.iter_mut().for_each(|(table, key, _)| *key = self.key(*table, key));
        deletes.iter_mut().for_each(|(table, key)| *key = self.key(*table, key));
        conditions.iter_mut().for_each(|(table, key, _)| *key = self.key(*table, key));
        self.inner.write(Batch { puts, deletes, conditions }, durability).await
    }

    async fn verify(&self) -> Result<Report, Error> {
        self.inner.verify().await
    }
}

#[cfg(test)]
mod tests {
    use store::{Durability, MemoryCatalog};

    use super::*;

    const PETS: Table = Table::new("pets");

    fn three() -> [Arc<dyn Catalog>; 3] {
        let inner: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        [
            Arc::new(Scoped::first(inner.clone())),
            Arc::new(Scoped::of(inner.clone(), "wrkspc_1")),
            Arc::new(Scoped::of(inner, "wrkspc_2")),
        ]
    }

    #[tokio::test]
    async fn nobody_finds_lists_or_overwrites_what_is_anothers() {
        let scopes = three();
        for (n, scope) in scopes.iter().enumerate() {
            let batch = ["ada", "bob", "cy"].into_iter().fold(Batch::new(), |batch, key| {
                batch.require(PETS, key, store::catalog::Condition::Absent).put(PETS, key, format!("{key} of {n}"))
            });
            scope.write(batch, Durability::Synced).await.unwrap();
        }
        let keys =
            |rows: Vec<Row>| rows.iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect::<Vec<_>>();
        let between =
            |from: &str, to: &str| KeyRange { from: Bound::Excluded(from.into()), to: Bound::Included(to.into()) };
        for (n, scope) in scopes.iter().enumerate() {
            assert_eq!(scope.get(PETS, b"bob").await.unwrap().unwrap(), format!("bob of {n}"));
            for (range, direction, expected) in [
                (KeyRange::all(), Direction::Forward, vec!["ada", "bob", "cy"]),
                (KeyRange::prefix(""), Direction::Reverse, vec!["cy", "bob", "ada"]),
                (KeyRange::prefix("b"), Direction::Forward, vec!["bob"]),
                (between("ada", "cy"), Direction::Forward, vec!["bob", "cy"]),
                (KeyRange::all().after("ada", Direction::Forward), Direction::Forward, vec!["bob", "cy"]),
                (KeyRange::all().after("cy", Direction::Reverse), Direction::Reverse, vec!["bob", "ada"]),
            ] {
                assert_eq!(
                    keys(scope.scan(PETS, range.clone(), direction, 9).await.unwrap()),
                    expected,
                    "{n} {range:?}"
                );
            }
        }
        scopes[0].write(Batch::new().delete(PETS, "bob"), Durability::Synced).await.unwrap();
        assert!(scopes[1].get(PETS, b"bob").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn shared_tables_are_the_same_for_all() {
        let scopes = three();
        scopes[1].write(Batch::new().put(REFERENCES, "digest/sesn_1", ""), Durability::Synced).await.unwrap();
        for scope in scopes {
            let rows = scope.scan(REFERENCES, KeyRange::all(), Direction::Forward, 9).await.unwrap();
            assert_eq!(rows[0].key, "digest/sesn_1");
        }
    }
}
