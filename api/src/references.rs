//! Who needs a blob: one row for each pair of blob and owner. A blob without a row is the sweeper's.

use bytes::Bytes;
use store::{Batch, Blobs, Catalog, Condition, Digest, Direction, KeyRange, Table};

use crate::error::Result;

pub const REFERENCES: Table = Table::new("blob_references");
/// How many rows are checked in one go.
const STRIDE: usize = 500;

/// Adds the row; in the same batch as the row that names the blob.
pub fn insert(batch: Batch, digest: Digest, owner: &str) -> Batch {
    batch.put(REFERENCES, key(digest, owner), "")
}

/// Makes the batch depend on the owner still having its row: who takes a blob over has found it there.
pub fn require(batch: Batch, digest: Digest, owner: &str) -> Batch {
    batch.require(REFERENCES, key(digest, owner), Condition::Equals(Bytes::new()))
}

pub fn remove(batch: Batch, digest: Digest, owner: &str) -> Batch {
    batch.delete(REFERENCES, key(digest, owner))
}

/// Whether anyone needs the blob.
pub async fn any(catalog: &dyn Catalog, digest: Digest) -> Result<bool> {
    let range = KeyRange::prefix(format!("{digest}/"));
    Ok(!catalog.scan(REFERENCES, range, Direction::Forward, 1).await?.is_empty())
}

/// Whether the owner has its row.
pub async fn has(catalog: &dyn Catalog, digest: Digest, owner: &str) -> Result<bool> {
    Ok(catalog.get(REFERENCES, key(digest, owner).as_bytes()).await?.is_some())
}

/// Every blob that is needed is there.
pub(crate) async fn verify(catalog: &dyn Catalog, blobs: &dyn Blobs, problems: &mut Vec<String>) -> Result<()> {
    let mut range = KeyRange::all();
    loop {
        let rows = catalog.scan(REFERENCES, range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for row in rows {
            let key = String::from_utf8_lossy(&row.key);
            match key.split_once('/').and_then(|(digest, owner)| Some((digest.parse::<Digest>().ok()?, owner))) {
                None => problems.push(format!("{} {key}: is no digest and owner", REFERENCES.name())),
                Some((digest, owner)) if blobs.has(digest).await?.is_none() => {
                    problems
                        .push(format!("{} leads to blob {digest} of {owner}, which is not there", REFERENCES.name()));
                }
                Some(_) => {}
            }
        }
    }
}

fn key(digest: Digest, owner: &str) -> String {
    format!("{digest}/{owner}")
}
