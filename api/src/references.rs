//! Who needs a blob: one row for each pair of blob and owner. A blob without a row is the sweeper's.

use store::{Batch, Digest, Table};

const REFERENCES: Table = Table::new("blob_references");

/// Adds the row; in the same batch as the row that names the blob.
pub fn insert(batch: Batch, digest: Digest, owner: &str) -> Batch {
    batch.put(REFERENCES, key(digest, owner), "")
}

pub fn remove(batch: Batch, digest: Digest, owner: &str) -> Batch {
    batch.delete(REFERENCES, key(digest, owner))
}

fn key(digest: Digest, owner: &str) -> String {
    format!("{digest}/{owner}")
}
