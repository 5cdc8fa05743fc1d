//! How much a worker reads and stores: blobs and pages of history, in bytes.

use async_trait::async_trait;
use bytes::Bytes;
use log::{
    HistoryReader,
    history::{self, Page, Run},
};
use prost::Message as _;
use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use store::{
    Blobs, Digest,
    blobs::{BlobInfo, BlobWriter, Error, Reader},
};

/// Bytes so far.
#[derive(Debug, Default)]
pub struct Counts {
    read: AtomicU64,
    stored: AtomicU64,
}

impl Counts {
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    pub fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }
}

/// Blobs whose readers and writers are counted.
pub struct CountingBlobs {
    pub blobs: Arc<dyn Blobs>,
    pub counts: Arc<Counts>,
}

#[async_trait]
impl Blobs for CountingBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, Error> {
        self.counts.stored.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.blobs.put(bytes).await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, Error> {
        self.blobs.writer().await
    }

    async fn open(&self, digest: Digest, range: Option<Range<u64>>) -> Result<Reader, Error> {
        let bytes = range.as_ref().map(|range| range.end - range.start);
        let reader = self.blobs.open(digest, range).await?;
        self.counts.read.fetch_add(bytes.unwrap_or(reader.size), Ordering::Relaxed);
        Ok(reader)
    }

    async fn has(&self, digest: Digest) -> Result<Option<u64>, Error> {
        self.blobs.has(digest).await
    }

    async fn delete(&self, digest: Digest, put_before: SystemTime) -> Result<bool, Error> {
        self.blobs.delete(digest, put_before).await
    }

    async fn list(&self, after: Option<Digest>, limit: usize) -> Result<Vec<BlobInfo>, Error> {
        self.blobs.list(after, limit).await
    }
}

/// Histories whose readers are counted.
pub struct CountingReader {
    pub reader: Arc<dyn HistoryReader>,
    pub counts: Arc<Counts>,
}

impl CountingReader {
    fn count(&self, page: Page) -> Page {
        let bytes = page.events.iter().map(|event| event.encoded_len() as u64).sum();
        self.counts.read.fetch_add(bytes, Ordering::Relaxed);
        page
    }
}

#[async_trait]
impl HistoryReader for CountingReader {
    async fn page(&self, run: &Run, next: Vec<u8>, wait: bool) -> Result<Page, history::Error> {
        self.reader.page(run, next, wait).await.map(|page| self.count(page))
    }

    async fn newer(&self, run: &Run, known: i64) -> Result<Page, history::Error> {
        self.reader.newer(run, known).await.map(|page| self.count(page))
    }

    async fn latest_run(&self, session_id: &str) -> Result<(Run, i64), history::Error> {
        self.reader.latest_run(session_id).await
    }
}
