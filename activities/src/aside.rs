//! Blobs of something that never happened: what is put stays in memory, over a store that is only read. Of the store nothing
//! can be swept that somebody else still refers to, and what is put here nobody else refers to.

use async_trait::async_trait;
use bytes::Bytes;
use domain::content::BlobRef;
use std::{ops::Range, sync::Arc, time::SystemTime};
use store::{BlobInfo, BlobWriter, Blobs, Digest, MemoryBlobs, Reader, blobs::Error};

/// Blobs that are listed in one go.
const STRIDE: usize = 500;

pub struct Aside {
    below: Arc<dyn Blobs>,
    put: MemoryBlobs,
}

impl Aside {
    pub fn over(below: Arc<dyn Blobs>) -> Self {
        Aside { below, put: MemoryBlobs::new() }
    }

    /// Puts into the store what was put here: it is to happen after all. Gives what there is.
    pub async fn keep(&self) -> Result<Vec<BlobRef>, Error> {
        let (mut kept, mut after) = (Vec::new(), None);
        loop {
            let page = self.put.list(after, STRIDE).await?;
            let Some(last) = page.last() else { return Ok(kept) };
            after = Some(last.digest);
            for BlobInfo { digest, size, .. } in page {
                self.below.put(self.put.get(digest).await?).await?;
                kept.push(BlobRef { blob: digest.to_string(), bytes: size });
            }
        }
    }
}

#[async_trait]
impl Blobs for Aside {
    async fn put(&self, bytes: Bytes) -> Result<Digest, Error> {
        self.put.put(bytes).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, Error> {
        self.put.writer().await
    }

    async fn open(&self, digest: Digest, range: Option<Range<u64>>) -> Result<Reader, Error> {
        match self.put.open(digest, range.clone()).await {
            Err(Error::Missing { .. }) => self.below.open(digest, range).await,
            opened => opened,
        }
    }

    async fn has(&self, digest: Digest) -> Result<Option<u64>, Error> {
        match self.put.has(digest).await? {
            None => self.below.has(digest).await,
            known => Ok(known),
        }
    }

    /// Of what was put here.
    async fn delete(&self, digest: Digest, put_before: SystemTime) -> Result<bool, Error> {
        self.put.delete(digest, put_before).await
    }

    /// What was put here.
    async fn list(&self, after: Option<Digest>, limit: usize) -> Result<Vec<BlobInfo>, Error> {
        self.put.list(after, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_put_aside_is_read_there_and_is_nowhere_else() {
        let below = MemoryBlobs::new();
        let old = below.put("old".into()).await.unwrap();
        let aside = Aside::over(Arc::new(below.clone()));
        let new = aside.put("new".into()).await.unwrap();
        assert_eq!((aside.get(old).await.unwrap(), aside.get(new).await.unwrap()), ("old".into(), "new".into()));
        assert_eq!((aside.has(old).await.unwrap(), aside.has(new).await.unwrap()), (Some(3), Some(3)));
        assert_eq!(below.has(new).await.unwrap(), None);
        let mut writer = aside.writer().await.unwrap();
        writer.write("in pieces".into()).await.unwrap();
        let written = writer.finish().await.unwrap().digest;
        assert_eq!((aside.list(None, 9).await.unwrap().len(), below.list(None, 9).await.unwrap().len()), (2, 1));
        assert!(aside.delete(old, SystemTime::now()).await.unwrap(), "it is not here");
        assert!(below.has(old).await.unwrap().is_some() && below.has(written).await.unwrap().is_none());
        assert!(matches!(aside.get(Digest::of(b"none")).await, Err(Error::Missing { .. })));
        let kept = aside.keep().await.unwrap();
        assert_eq!(kept.iter().map(|kept| kept.bytes).collect::<std::collections::BTreeSet<_>>(), [3, 9].into());
        assert_eq!(
            (below.get(new).await.unwrap(), below.get(written).await.unwrap()),
            ("new".into(), "in pieces".into())
        );
    }
}
