//! Taking away what nobody needs any more: the bytes of expired files, and blobs without a reference.
//!
//! It runs only once every reference is written that a log calls for; who starts it knows when that is.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use store::catalog::Error as CatalogError;
use store::{Batch, Blobs, Catalog, Direction, Durability};

use crate::error::Result;
use crate::references;
use crate::resources::files;

/// How long a blob may be without a reference: whoever puts one writes the row that names it soon after.
pub const GRACE: Duration = Duration::from_secs(3600);

/// How many rows or blobs are looked at in one go.
const STRIDE: usize = 500;

/// What a sweep took away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    pub files_expired: u64,
    pub blobs: u64,
    /// In bytes.
    pub freed: u64,
}

/// Takes blobs away that nobody needs, of whatever tenant; `swept` is what was taken away before.
pub async fn sweep(catalog: &dyn Catalog, blobs: &dyn Blobs, now: Timestamp, mut swept: Swept) -> Result<Swept> {
    let put_before = SystemTime::from(now) - GRACE;
    let mut after = None;
    loop {
        let page = blobs.list(after, STRIDE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.digest);
        for blob in page.into_iter().filter(|blob| blob.put_at < put_before) {
            if !references::any(catalog, blob.digest).await? && blobs.delete(blob.digest, put_before).await? {
                swept.blobs += 1;
                swept.freed += blob.size;
            }
        }
    }
    tracing::info!(swept.files_expired, swept.blobs, swept.freed, "swept");
    Ok(swept)
}

/// Lets go of the bytes of a tenant's files whose time has come. What they were stays known.
pub async fn expire(catalog: &dyn Catalog, now: Timestamp) -> Result<u64> {
    let (mut expired, mut range) = (0, files::expired_by(now));
    loop {
        let entries = catalog.scan(files::BY_EXPIRY, range.clone(), Direction::Forward, STRIDE).await?;
        let Some(last) = entries.last() else { return Ok(expired) };
        range = range.after(last.key.to_vec(), Direction::Forward);
        for entry in entries {
            let Some(file) = catalog.row::<files::FileRow>(&entry.value).await? else { continue };
            match catalog.write(files::expire(Batch::new(), &file), Durability::Synced).await {
                Ok(()) => expired += 1,
                // Deleted in between, and its reference with it.
                Err(CatalogError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::{SignedDuration, Timestamp};
    use store::{Digest, MemoryBlobs, MemoryCatalog};

    use super::*;

    async fn taken(catalog: &dyn Catalog, blobs: &dyn Blobs, now: Timestamp) -> Result<Swept> {
        let files_expired = expire(catalog, now).await?;
        sweep(catalog, blobs, now, Swept { files_expired, ..Swept::default() }).await
    }

    #[tokio::test]
    async fn only_what_is_old_and_unreferenced_goes() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        let blobs: Arc<dyn Blobs> = Arc::new(MemoryBlobs::new());
        let needed = blobs.put("needed".into()).await.unwrap();
        let shared = blobs.put("shared".into()).await.unwrap();
        let orphan = blobs.put("orphan".into()).await.unwrap();
        let mut batch = references::insert(Batch::new(), needed, "sesn_1");
        batch = references::insert(batch, shared, "sesn_1");
        batch = references::insert(batch, shared, "sesn_2");
        catalog.write(batch, Durability::Synced).await.unwrap();
        let batch = references::remove(Batch::new(), shared, "sesn_1");
        catalog.write(batch, Durability::Synced).await.unwrap();

        let now = Timestamp::now();
        assert_eq!(taken(&*catalog, &*blobs, now).await.unwrap(), Swept::default());
        let later = now + SignedDuration::from_hours(2);
        let swept = taken(&*catalog, &*blobs, later).await.unwrap();
        assert_eq!(swept, Swept { files_expired: 0, blobs: 1, freed: 6 });
        assert_eq!(blobs.has(orphan).await.unwrap(), None);
        assert!(blobs.has(needed).await.unwrap().is_some() && blobs.has(shared).await.unwrap().is_some());
        assert_eq!(taken(&*catalog, &*blobs, later).await.unwrap(), Swept::default());
    }

    #[tokio::test]
    async fn an_expired_file_loses_its_bytes_and_keeps_its_name() {
        let catalog: Arc<dyn Catalog> = Arc::new(MemoryCatalog::new());
        let blobs: Arc<dyn Blobs> = Arc::new(MemoryBlobs::new());
        let now = Timestamp::now();
        let file = files::FileRow {
            id: "file_1".to_owned(),
            filename: "a.txt".to_owned(),
            mime_type: "text/plain".to_owned(),
            size_bytes: 5,
            digest: blobs.put("hello".into()).await.unwrap(),
            created_at: now,
            expires_at: Some(now + SignedDuration::from_hours(3)),
            session_id: None,
            downloadable: false,
        };
        catalog.write(files::insert(Batch::new(), &file), Durability::Synced).await.unwrap();
        let before = taken(&*catalog, &*blobs, now + SignedDuration::from_hours(2)).await.unwrap();
        assert_eq!(before, Swept::default());
        let after = taken(&*catalog, &*blobs, now + SignedDuration::from_hours(3)).await.unwrap();
        assert_eq!(after, Swept { files_expired: 1, blobs: 1, freed: 5 });
        assert_eq!(blobs.has(Digest::of(b"hello")).await.unwrap(), None);
        assert_eq!(catalog.row::<files::FileRow>("file_1").await.unwrap().unwrap().row, file);
    }
}
