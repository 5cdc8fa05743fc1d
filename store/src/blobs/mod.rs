//! Blobs: immutable bytes of any size, named by their sha-256. The same bytes are stored once.
//!
//! Who refers to a blob is not known here: a sweeper outside lists, decides and deletes. So that a delete cannot take
//! away what someone is just putting again, it names the time of the last put that it knows of.

mod digest;
mod folder;
mod memory;
#[cfg(test)]
mod suite;

use std::ops::Range;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::stream::BoxStream;

pub use self::digest::{Digest, ParseDigestError};
pub use self::folder::{FolderBlobs, Hold};
pub use self::memory::MemoryBlobs;

/// How many bytes a read or a buffered write moves at a time.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// What a finished put stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// One line of [`Blobs::list`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlobInfo {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// When these bytes were last put, whether or not they were there already.
    pub put_at: SystemTime,
}

/// An open blob. The stream gives `range` of it, a chunk at a time.
pub struct Reader {
    /// The whole blob's size in bytes.
    pub size: u64,
    pub stream: BoxStream<'static, Result<Bytes, Error>>,
}

impl Reader {
    /// Everything that the stream gives, in one piece.
    pub async fn bytes(self) -> Result<Bytes, Error> {
        let gathered = BytesMut::new();
        let add = |mut gathered: BytesMut, chunk: Bytes| async move {
            gathered.extend_from_slice(&chunk);
            Ok(gathered)
        };
        self.stream.try_fold(gathered, add).await.map(BytesMut::freeze)
    }
}

/// A blob being written. Dropping it before `finish` leaves nothing behind.
#[async_trait]
pub trait BlobWriter: Send {
    async fn write(&mut self, chunk: Bytes) -> Result<(), Error>;
    /// Answers once the blob is on disk under its name.
    async fn finish(self: Box<Self>) -> Result<Stored, Error>;
}

#[async_trait]
pub trait Blobs: Send + Sync + 'static {
    /// Answers once the bytes are on disk.
    async fn put(&self, bytes: Bytes) -> Result<Digest, Error>;

    /// Starts a put of bytes that are not all there yet. Never holds more than a chunk of them in memory.
    async fn writer(&self) -> Result<Box<dyn BlobWriter>, Error>;

    /// Opens a blob for reading in chunks. A read of the whole blob ends in [`Error::Corrupt`], before its last chunk,
    /// if the bytes are not those of the digest; a range shows only that no bytes are missing.
    async fn open(&self, digest: Digest, range: Option<Range<u64>>) -> Result<Reader, Error>;

    /// The size in bytes, if the blob is there.
    async fn has(&self, digest: Digest) -> Result<Option<u64>, Error>;

    /// Deletes the blob if it was last put before `put_before`. True if it is gone, by this call or an earlier one.
    async fn delete(&self, digest: Digest, put_before: SystemTime) -> Result<bool, Error>;

    /// At most `limit` blobs in the order of their digests, from the first one after `after`.
    async fn list(&self, after: Option<Digest>, limit: usize) -> Result<Vec<BlobInfo>, Error>;

    /// The whole blob, checked against its digest.
    async fn get(&self, digest: Digest) -> Result<Bytes, Error> {
        self.open(digest, None).await?.bytes().await
    }

    /// Reads every blob.
    async fn verify(&self) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut after = None;
        loop {
            let page = self.list(after, 1000).await?;
            let Some(last) = page.last() else { return Ok(report) };
            after = Some(last.digest);
            for blob in page {
                match read_through(self.open(blob.digest, None).await).await {
                    Ok(size) => {
                        report.blobs += 1;
                        report.bytes += size;
                    }
                    // Deleted since it was listed.
                    Err(Error::Missing { .. }) => {}
                    Err(error @ (Error::Corrupt { .. } | Error::Io { .. })) => {
                        report.problems.push(format!("blob {}: {error}", blob.digest));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

async fn read_through(opened: Result<Reader, Error>) -> Result<u64, Error> {
    opened?.stream.try_fold(0, |size, chunk| async move { Ok(size + chunk.len() as u64) }).await
}

/// What [`Blobs::verify`] read.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Report {
    /// Sound blobs.
    pub blobs: u64,
    /// Bytes of the sound blobs.
    pub bytes: u64,
    /// What is wrong, one a line, for an operator.
    pub problems: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open the blobs in {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("find blob {digest}")]
    Missing { digest: Digest },
    #[error("read blob {digest}: its bytes are not what was stored")]
    Corrupt { digest: Digest },
    #[error("read bytes {start}..{end} of blob {digest}: it has {size}")]
    Range { digest: Digest, start: u64, end: u64, size: u64 },
    #[error("{operation} a blob")]
    Io {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// Holds until the blobs are opened again: after a failed fsync nobody knows what is on disk.
    #[error("write a blob: an earlier fsync failed, and no more are taken until a restart")]
    Poisoned,
}

/// The range of a blob of `size` bytes that a read asks for.
fn within(digest: Digest, size: u64, range: Option<Range<u64>>) -> Result<Range<u64>, Error> {
    let Range { start, end } = range.unwrap_or(0..size);
    if start > end || end > size {
        return Err(Error::Range { digest, start, end, size });
    }
    Ok(start..end)
}
