//! Blobs of another process: what a worker uses that has no folder of its own. Both ends of the protocol are here;
//! how a message travels is somebody else's business.
//!
//! | rpc | request | answer |
//! |---|---|---|
//! | `PutBlob` | the bytes | the digest's 64 hex digits |
//! | `GetBlob` | digest, from and to (8 bytes each, big-endian; `to` = all ones: the end) | size (8 bytes), then the bytes |
//! | `HasBlob` | digest | size (8 bytes), or nothing |

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream;

use crate::blobs::{BlobInfo, BlobWriter, Blobs, CHUNK_BYTES, Digest, Error, Reader, Stored};

pub const PUT: &str = "PutBlob";
pub const GET: &str = "GetBlob";
pub const HAS: &str = "HasBlob";

/// One answer carries at most this many bytes of a blob; a reader asks again for the rest.
const PIECE_BYTES: u64 = 4 << 20;
const TO_THE_END: u64 = u64::MAX;

/// How often a blob is put before it is given up, and the first pause between two times; each is double the one before.
const PUTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// Carries one message there and its answer back.
#[async_trait]
pub trait Call: Send + Sync + 'static {
    /// # Errors
    /// [`ErrorKind::ResourceBusy`]: it was not taken, and may be later.
    async fn call(&self, rpc: &'static str, message: Bytes) -> std::io::Result<Bytes>;
}

/// The near end.
#[derive(Clone)]
pub struct RemoteBlobs {
    call: Arc<dyn Call>,
    pause: Duration,
}

impl RemoteBlobs {
    pub fn new(call: Arc<dyn Call>) -> Self {
        Self { call, pause: PAUSE }
    }

    async fn ask(&self, rpc: &'static str, message: Bytes) -> Result<Bytes, Error> {
        let answer = self.call.call(rpc, message).await;
        answer.map_err(|source| Error::Io { operation: "ask the service for", source })
    }

    /// Asks again where the service had no room for the message.
    async fn ask_in_time(&self, rpc: &'static str, message: Bytes) -> Result<Bytes, Error> {
        let mut pause = self.pause;
        for _ in 1..PUTS {
            match self.ask(rpc, message.clone()).await {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::ResourceBusy => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                answered => return answered,
            }
        }
        self.ask(rpc, message).await
    }

    async fn piece(&self, digest: Digest, range: Range<u64>) -> Result<(u64, Bytes), Error> {
        let mut message = BytesMut::with_capacity(48);
        message.put_slice(digest.as_bytes());
        message.put_u64(range.start);
        message.put_u64(range.end);
        let mut answer = self.ask(GET, message.freeze()).await?;
        if answer.len() < 8 {
            return Err(Error::Missing { digest });
        }
        let size = answer.get_u64();
        Ok((size, answer))
    }
}

#[async_trait]
impl Blobs for RemoteBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, Error> {
        let digest = Digest::of(&bytes);
        let answer = self.ask_in_time(PUT, bytes).await?;
        let stored = std::str::from_utf8(&answer).ok().and_then(|text| text.parse::<Digest>().ok());
        if stored == Some(digest) { Ok(digest) } else { Err(Error::Corrupt { digest }) }
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, Error> {
        Ok(Box::new(Writer { blobs: self.clone(), bytes: BytesMut::new() }))
    }

    async fn open(&self, digest: Digest, range: Option<Range<u64>>) -> Result<Reader, Error> {
        let wanted = range.clone().unwrap_or(0..TO_THE_END);
        let (size, first) = self.piece(digest, wanted.clone()).await?;
        let end = wanted.end.min(size);
        let mut bytes = BytesMut::from(first);
        while wanted.start + (bytes.len() as u64) < end {
            let (_, next) = self.piece(digest, wanted.start + bytes.len() as u64..end).await?;
            if next.is_empty() {
                return Err(Error::Corrupt { digest });
            }
            bytes.extend_from_slice(&next);
        }
        if range.is_none() && Digest::of(&bytes) != digest {
            return Err(Error::Corrupt { digest });
        }
        let bytes = bytes.freeze();
        let chunks: Vec<_> = (0..bytes.len())
            .step_by(CHUNK_BYTES)
            .map(|at| Ok(bytes.slice(at..bytes.len().min(at + CHUNK_BYTES))))
            .collect();
        Ok(Reader { size, stream: stream::iter(chunks).boxed() })
    }

    async fn has(&self, digest: Digest) -> Result<Option<u64>, Error> {
        let mut answer = self.ask(HAS, Bytes::copy_from_slice(digest.as_bytes())).await?;
        Ok((answer.len() == 8).then(|| answer.get_u64()))
    }

    async fn delete(&self, _digest: Digest, _put_before: SystemTime) -> Result<bool, Error> {
        Err(unsupported("delete"))
    }

    async fn list(&self, _after: Option<Digest>, _limit: usize) -> Result<Vec<BlobInfo>, Error> {
        Err(unsupported("list"))
    }
}

/// Only the service itself, which knows who refers to what, may do that.
fn unsupported(operation: &'static str) -> Error {
    Error::Io { operation, source: ErrorKind::PermissionDenied.into() }
}

struct Writer {
    blobs: RemoteBlobs,
    bytes: BytesMut,
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Stored, Error> {
        let size = self.bytes.len() as u64;
        let digest = self.blobs.put(self.bytes.freeze()).await?;
        Ok(Stored { digest, size })
    }
}

/// The far end: answers one message out of `blobs`. `None` for an rpc that is not one of these.
pub async fn answer(blobs: &dyn Blobs, rpc: &str, mut message: Bytes) -> Option<Result<Bytes, Error>> {
    Some(match rpc {
        PUT => blobs.put(message).await.map(|digest| digest.to_string().into()),
        HAS => match take_digest(&mut message) {
            Some(digest) => blobs.has(digest).await.map(|size| size.map(size_bytes).unwrap_or_default()),
            None => Err(bad_message()),
        },
        GET => match (take_digest(&mut message), message.len()) {
            (Some(digest), 16) => piece(blobs, digest, message.get_u64(), message.get_u64()).await,
            _ => Err(bad_message()),
        },
        _ => return None,
    })
}

async fn piece(blobs: &dyn Blobs, digest: Digest, from: u64, to: u64) -> Result<Bytes, Error> {
    let Some(size) = blobs.has(digest).await? else { return Ok(Bytes::new()) };
    let end = to.min(size).min(from.saturating_add(PIECE_BYTES));
    let bytes = blobs.open(digest, Some(from.min(end)..end)).await?.bytes().await?;
    let mut answer = BytesMut::with_capacity(8 + bytes.len());
    answer.put_u64(size);
    answer.put_slice(&bytes);
    Ok(answer.freeze())
}

fn take_digest(message: &mut Bytes) -> Option<Digest> {
    (message.len() >= 32).then(|| {
        let bytes: [u8; 32] = message.split_to(32).as_ref().try_into().expect("32 bytes were split off");
        Digest::from_bytes(bytes)
    })
}

fn size_bytes(size: u64) -> Bytes {
    Bytes::copy_from_slice(&size.to_be_bytes())
}

fn bad_message() -> Error {
    Error::Io { operation: "understand a request for", source: ErrorKind::InvalidInput.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::MemoryBlobs;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// The far end in the same process.
    struct Near(MemoryBlobs);

    #[async_trait]
    impl Call for Near {
        async fn call(&self, rpc: &'static str, message: Bytes) -> std::io::Result<Bytes> {
            let answered = answer(&self.0, rpc, message).await.expect("a known rpc");
            answered.map_err(std::io::Error::other)
        }
    }

    /// Has room from the n-th time on.
    struct Full(AtomicU32, ErrorKind);

    #[async_trait]
    impl Call for Full {
        async fn call(&self, _: &'static str, message: Bytes) -> std::io::Result<Bytes> {
            if self.0.fetch_sub(1, Ordering::Relaxed) > 1 {
                return Err(self.1.into());
            }
            Ok(Digest::of(&message).to_string().into())
        }
    }

    #[tokio::test]
    async fn a_blob_for_which_there_is_no_room_is_put_again_and_not_for_ever() {
        let put = async |times: u32, refused: ErrorKind| {
            let full = Arc::new(Full(AtomicU32::new(times), refused));
            let near = RemoteBlobs { call: full.clone(), pause: Duration::from_millis(1) };
            (near.put(Bytes::from_static(b"blob")).await.is_ok(), times - full.0.load(Ordering::Relaxed))
        };
        assert_eq!(put(3, ErrorKind::ResourceBusy).await, (true, 3));
        assert_eq!(put(PUTS, ErrorKind::ResourceBusy).await, (true, PUTS));
        assert_eq!(put(PUTS + 1, ErrorKind::ResourceBusy).await, (false, PUTS));
        assert_eq!(put(3, ErrorKind::Other).await, (false, 1), "no other refusal is one of room");
    }

    #[tokio::test]
    async fn what_is_put_comes_back_in_pieces_and_ranges() {
        let far = MemoryBlobs::new();
        let near = RemoteBlobs::new(Arc::new(Near(far.clone())));
        let bytes: Bytes = (0..PIECE_BYTES as usize * 2 + 17).map(|at| (at % 251) as u8).collect();
        let digest = near.put(bytes.clone()).await.unwrap();
        assert_eq!(far.has(digest).await.unwrap(), Some(bytes.len() as u64));
        assert_eq!(near.has(digest).await.unwrap(), Some(bytes.len() as u64));
        assert_eq!(near.get(digest).await.unwrap(), bytes);
        let range = near.open(digest, Some(5..PIECE_BYTES + 9)).await.unwrap().bytes().await.unwrap();
        assert_eq!(range, bytes.slice(5..PIECE_BYTES as usize + 9));
        let missing = Digest::of(b"nothing");
        assert_eq!(near.has(missing).await.unwrap(), None);
        assert!(matches!(near.get(missing).await, Err(Error::Missing { .. })));
        let empty = near.put(Bytes::new()).await.unwrap();
        assert_eq!(near.get(empty).await.unwrap(), Bytes::new());
    }
}
