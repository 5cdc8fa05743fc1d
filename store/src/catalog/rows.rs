//! Typed rows over the bytes of a [`Catalog`]: a row is JSON in an envelope that says which version of its shape it is.
//!
//! `{"v":1,"row":{...}}`. A build refuses a version that it does not know rather than guess at it.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Batch, Catalog, Condition, Direction, Error, KeyRange, Row, Table};

/// A shape of row and the table where it lives.
pub trait Record: Serialize + DeserializeOwned + Send {
    const TABLE: Table;
    /// Raised with every change that an older build could not read.
    const VERSION: u32;
}

/// A row as it was read, with the bytes that a later write can be made conditional on.
#[derive(Clone, Debug)]
pub struct Versioned<R> {
    pub key: Bytes,
    pub row: R,
    bytes: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    row: T,
}

fn encode<R: Record>(row: &R) -> Bytes {
    let bytes = serde_json::to_vec(&Envelope { v: R::VERSION, row });
    bytes.expect("rows are structs of plain values, which always serialize").into()
}

impl<R: Record> Versioned<R> {
    /// Whether the row is as it was when the other was read.
    pub fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }

    /// Reads a row of the record's table.
    pub fn read(row: Row) -> Result<Self, Error> {
        let table = R::TABLE.name();
        let wrong = |error: serde_json::Error| Error::Decode { table, source: Arc::new(error) };
        let envelope: Envelope<&RawValue> = serde_json::from_slice(&row.value).map_err(wrong)?;
        if envelope.v != R::VERSION {
            return Err(Error::RowVersion { table, found: envelope.v, known: R::VERSION });
        }
        let typed = serde_json::from_str(envelope.row.get()).map_err(wrong)?;
        Ok(Self { key: row.key, row: typed, bytes: row.value })
    }
}

impl dyn Catalog {
    /// The row under `key`, if there is one.
    pub async fn row<R: Record>(&self, key: impl AsRef<[u8]>) -> Result<Option<Versioned<R>>, Error> {
        let key = key.as_ref();
        match self.get(R::TABLE, key).await? {
            Some(value) => Versioned::read(Row { key: Bytes::copy_from_slice(key), value }).map(Some),
            None => Ok(None),
        }
    }

    /// At most `limit` rows of the range, in key order or against it.
    pub async fn rows<R: Record>(
        &self,
        range: KeyRange,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Versioned<R>>, Error> {
        self.scan(R::TABLE, range, direction, limit).await?.into_iter().map(Versioned::read).collect()
    }
}

impl Batch {
    /// Adds a row that must not exist yet.
    pub fn insert<R: Record>(self, key: impl AsRef<[u8]>, row: &R) -> Self {
        let key = key.as_ref();
        self.require(R::TABLE, key, Condition::Absent).put(R::TABLE, key, encode(row))
    }

    /// Replaces a row that must still be what was read.
    pub fn replace<R: Record>(self, read: &Versioned<R>, row: &R) -> Self {
        self.unchanged(read).put(R::TABLE, read.key.as_ref(), encode(row))
    }

    /// Removes a row that must still be what was read.
    pub fn remove<R: Record>(self, read: &Versioned<R>) -> Self {
        self.unchanged(read).delete(R::TABLE, read.key.as_ref())
    }

    /// Writes a row whatever was there before.
    pub fn upsert<R: Record>(self, key: impl AsRef<[u8]>, row: &R) -> Self {
        self.put(R::TABLE, key.as_ref(), encode(row))
    }

    /// Makes the batch depend on a row that it does not change.
    pub fn unchanged<R: Record>(self, read: &Versioned<R>) -> Self {
        self.require(R::TABLE, read.key.as_ref(), Condition::Equals(read.bytes.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, MemoryCatalog};

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Pet {
        name: String,
    }

    impl Record for Pet {
        const TABLE: Table = Table::new("pets");
        const VERSION: u32 = 2;
    }

    fn pet(name: &str) -> Pet {
        Pet { name: name.into() }
    }

    #[tokio::test]
    async fn a_row_comes_back_and_a_second_insert_conflicts() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        catalog.write(Batch::new().insert("a", &pet("ada")), Durability::Synced).await.unwrap();
        let read = catalog.row::<Pet>("a").await.unwrap().unwrap();
        assert_eq!(read.row, pet("ada"));
        let again = catalog.write(Batch::new().insert("a", &pet("bob")), Durability::Synced).await;
        assert!(matches!(again, Err(Error::Conflict { table: "pets" })));
    }

    #[tokio::test]
    async fn replace_and_remove_want_the_row_that_was_read() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        catalog.write(Batch::new().insert("a", &pet("ada")), Durability::Synced).await.unwrap();
        let read = catalog.row::<Pet>("a").await.unwrap().unwrap();
        catalog.write(Batch::new().replace(&read, &pet("bob")), Durability::Synced).await.unwrap();
        for late in [Batch::new().replace(&read, &pet("cy")), Batch::new().remove(&read)] {
            assert!(matches!(catalog.write(late, Durability::Synced).await, Err(Error::Conflict { .. })));
        }
        let read = catalog.row::<Pet>("a").await.unwrap().unwrap();
        assert_eq!(read.row, pet("bob"));
        catalog.write(Batch::new().remove(&read), Durability::Synced).await.unwrap();
        assert!(catalog.row::<Pet>("a").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn another_version_and_other_bytes_are_refused() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        let old = Batch::new().put(Pet::TABLE, "old", r#"{"v":1,"row":{"name":"eve"}}"#);
        let bad = Batch::new().put(Pet::TABLE, "bad", "not json");
        catalog.write(old, Durability::Synced).await.unwrap();
        catalog.write(bad, Durability::Synced).await.unwrap();
        let old = catalog.row::<Pet>("old").await.unwrap_err();
        assert!(matches!(old, Error::RowVersion { found: 1, known: 2, .. }));
        assert!(matches!(catalog.row::<Pet>("bad").await.unwrap_err(), Error::Decode { .. }));
    }
}
