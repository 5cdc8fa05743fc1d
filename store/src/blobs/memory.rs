//! Blobs in memory: for tests, and the second implementation that keeps the trait honest.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream;
use parking_lot::RwLock;

use super::{BlobInfo, BlobWriter, Blobs, CHUNK_BYTES, Digest, Error, Reader, Stored, within};

#[derive(Clone, Default)]
pub struct MemoryBlobs {
    blobs: Arc<RwLock<BTreeMap<Digest, Held>>>,
}

struct Held {
    bytes: Bytes,
    put_at: SystemTime,
}

impl MemoryBlobs {
    pub fn new() -> Self {
        Self::default()
    }

    fn store(&self, bytes: Bytes) -> Stored {
        let stored = Stored { digest: Digest::of(&bytes), size: bytes.len() as u64 };
        self.blobs.write().insert(stored.digest, Held { bytes, put_at: SystemTime::now() });
        stored
    }
}

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, Error> {
        Ok(self.store(bytes).digest)
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, Error> {
        Ok(Box::new(Writer { blobs: self.clone(), bytes: BytesMut::new() }))
    }

    async fn open(&self, digest: Digest, range: Option<Range<u64>>) -> Result<Reader, Error> {
        let blobs = self.blobs.read();
        let bytes = blobs.get(&digest).map(|held| held.bytes.clone()).ok_or(Error::Missing { digest })?;
        let size = bytes.len() as u64;
        let range = within(digest, size, range)?;
        let wanted = bytes.slice(range.start as usize..range.end as usize);
        let chunks = (0..wanted.len()).step_by(CHUNK_BYTES);
        let chunks: Vec<_> = chunks.map(|at| Ok(wanted.slice(at..wanted.len().min(at + CHUNK_BYTES)))).collect();
        Ok(Reader { size, stream: stream::iter(chunks).boxed() })
    }

    async fn has(&self, digest: Digest) -> Result<Option<u64>, Error> {
        Ok(self.blobs.read().get(&digest).map(|held| held.bytes.len() as u64))
    }

    async fn delete(&self, digest: Digest, put_before: SystemTime) -> Result<bool, Error> {
        let mut blobs = self.blobs.write();
        if blobs.get(&digest).is_some_and(|held| held.put_at >= put_before) {
            return Ok(false);
        }
        blobs.remove(&digest);
        Ok(true)
    }

    async fn list(&self, after: Option<Digest>, limit: usize) -> Result<Vec<BlobInfo>, Error> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let blobs = self.blobs.read();
        let info = |(digest, held): (&Digest, &Held)| BlobInfo {
            digest: *digest,
            size: held.bytes.len() as u64,
            put_at: held.put_at,
        };
        Ok(blobs.range((from, Bound::Unbounded)).take(limit).map(info).collect())
    }
}

struct Writer {
    blobs: MemoryBlobs,
    bytes: BytesMut,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Stored, Error> {
        Ok(self.blobs.store(self.bytes.freeze()))
    }
}
