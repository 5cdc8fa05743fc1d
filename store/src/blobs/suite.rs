//! One suite for every Blobs.

use std::sync::Arc;
use std::time::Duration;

use super::*;

/// Bytes over several chunks that do not repeat from chunk to chunk.
fn large() -> Bytes {
    (0..(CHUNK_BYTES as u32 * 2 + 77) / 4).flat_map(u32::to_be_bytes).collect::<Vec<_>>().into()
}

async fn put_get_has(blobs: Arc<dyn Blobs>) {
    for bytes in [Bytes::new(), "one".into(), large()] {
        let digest = Digest::of(&bytes);
        assert_eq!(blobs.has(digest).await.unwrap(), None);
        assert!(matches!(blobs.get(digest).await, Err(Error::Missing { .. })));
        for _ in 0..2 {
            assert_eq!(blobs.put(bytes.clone()).await.unwrap(), digest);
            assert_eq!(blobs.has(digest).await.unwrap(), Some(bytes.len() as u64));
            assert_eq!(blobs.get(digest).await.unwrap(), bytes);
        }
    }
    assert_eq!(blobs.list(None, 10).await.unwrap().len(), 3);
}

async fn writers(blobs: Arc<dyn Blobs>) {
    let bytes = large();
    for chunk in [1000, CHUNK_BYTES, bytes.len()] {
        let mut writer = blobs.writer().await.unwrap();
        for at in (0..bytes.len()).step_by(chunk) {
            writer.write(bytes.slice(at..bytes.len().min(at + chunk))).await.unwrap();
        }
        let stored = writer.finish().await.unwrap();
        assert_eq!(stored, Stored { digest: Digest::of(&bytes), size: bytes.len() as u64 });
        assert_eq!(blobs.get(stored.digest).await.unwrap(), bytes);
    }
    let empty = blobs.writer().await.unwrap().finish().await.unwrap();
    assert_eq!(empty, Stored { digest: Digest::of(b""), size: 0 });
    let mut dropped = blobs.writer().await.unwrap();
    dropped.write("never finished".into()).await.unwrap();
    drop(dropped);
    assert_eq!(blobs.has(Digest::of(b"never finished")).await.unwrap(), None);
}

async fn ranges(blobs: Arc<dyn Blobs>) {
    let bytes = large();
    let size = bytes.len() as u64;
    let digest = blobs.put(bytes.clone()).await.unwrap();
    for range in [0..0, 0..1, 5..CHUNK_BYTES as u64 + 5, size - 1..size, 0..size, size..size] {
        let reader = blobs.open(digest, Some(range.clone())).await.unwrap();
        assert_eq!(reader.size, size);
        assert_eq!(reader.bytes().await.unwrap(), bytes.slice(range.start as usize..range.end as usize), "{range:?}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "a client can ask for one")]
    for range in [0..size + 1, 2..1] {
        assert!(matches!(blobs.open(digest, Some(range)).await, Err(Error::Range { .. })));
    }
}

async fn deletes(blobs: Arc<dyn Blobs>) {
    let digest = blobs.put("one".into()).await.unwrap();
    let put_at = blobs.list(None, 1).await.unwrap()[0].put_at;
    assert!(!blobs.delete(digest, put_at).await.unwrap());
    assert_eq!(blobs.has(digest).await.unwrap(), Some(3));
    assert!(blobs.delete(digest, put_at + Duration::from_nanos(1)).await.unwrap());
    assert_eq!(blobs.has(digest).await.unwrap(), None);
    assert!(blobs.delete(digest, put_at).await.unwrap());
}

/// A sweeper decides on what it listed; whatever is put again after that must stay.
async fn a_put_again_keeps_a_blob_from_the_sweeper(blobs: Arc<dyn Blobs>) {
    let digest = blobs.put("one".into()).await.unwrap();
    let listed = blobs.list(None, 1).await.unwrap()[0].put_at;
    let mut now = SystemTime::now();
    while now <= listed {
        now = SystemTime::now();
    }
    blobs.put("one".into()).await.unwrap();
    assert!(blobs.list(None, 1).await.unwrap()[0].put_at > listed);
    assert!(!blobs.delete(digest, listed + Duration::from_nanos(1)).await.unwrap());
    assert_eq!(blobs.get(digest).await.unwrap(), "one");
}

async fn lists(blobs: Arc<dyn Blobs>) {
    let mut expected = Vec::new();
    for n in 0..60u32 {
        expected.push(blobs.put(n.to_string().into()).await.unwrap());
    }
    expected.sort();
    for limit in [1, 7, 60, 1000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = blobs.list(after, limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last() else { break };
            after = Some(last.digest);
            seen.extend(page.iter().map(|blob| blob.digest));
        }
        assert_eq!(seen, expected, "pages of {limit}");
    }
    let report = blobs.verify().await.unwrap();
    assert_eq!(report, Report { blobs: 60, bytes: 10 + 50 * 2, problems: vec![] });
}

macro_rules! suite {
    ($($test:ident),*) => {
        mod in_memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(std::sync::Arc::new(crate::MemoryBlobs::new())).await;
            })*
        }
        mod in_folder {
            $(#[tokio::test]
            async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                super::$test(std::sync::Arc::new(crate::FolderBlobs::open(folder.path()).unwrap())).await;
            })*
        }
    };
}

suite!(put_get_has, writers, ranges, deletes, a_put_again_keeps_a_blob_from_the_sweeper, lists);
