//! Blobs in a folder: `aa/bb/<digest>`, where `aa` and `bb` are the first digits, and `tmp/` for what is being written.
//!
//! A blob appears under its name by a rename, after its bytes were synced, and is acknowledged once the folders that
//! name it were synced too. So what has a name is whole, and what was acknowledged stays.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use parking_lot::Mutex;

use super::digest::Hasher;
use super::{BlobInfo, BlobWriter, Blobs, CHUNK_BYTES, Digest, Error, Reader, Stored, within};

/// Files in `tmp/` at opening belong to puts that a crash cut off.
const TEMPORARY: &str = "tmp";

const COPIED_AT_A_TIME: usize = 1_000;

#[derive(Clone)]
pub struct FolderBlobs {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    /// Numbers the files in `tmp/`.
    next: AtomicU64,
    /// Held while a blob is given its name or deleted, so that a put never counts on a file that a delete takes away.
    /// Never while syncing, so that puts wait for the disk side by side.
    names: Mutex<()>,
    /// The folders whose own names are known to be on disk: synced once each while this process runs.
    synced: Mutex<HashSet<PathBuf>>,
    poisoned: AtomicBool,
    /// How many want that nothing is deleted.
    holds: AtomicU64,
}

impl FolderBlobs {
    /// Opens the blobs of a folder, creating it. One process at a time; the caller's lock on the data folder sees to
    /// that.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let open = |path: &Path| -> io::Result<()> {
            let temporary = path.join(TEMPORARY);
            fs::create_dir_all(&temporary)?;
            for left in fs::read_dir(&temporary)? {
                fs::remove_file(left?.path())?;
            }
            Ok(())
        };
        open(root).map_err(|source| Error::Open { path: root.to_owned(), source })?;
        let shared = Shared {
            root: root.to_owned(),
            next: AtomicU64::new(0),
            names: Mutex::default(),
            synced: Mutex::default(),
            poisoned: AtomicBool::new(false),
            holds: AtomicU64::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Until this goes, no blob is deleted: whoever copies what refers to blobs finds them afterwards.
    pub fn hold(&self) -> Hold {
        // Under the lock, so that a delete that is under way has ended.
        let _names = self.shared.names.lock();
        self.shared.holds.fetch_add(1, Ordering::AcqRel);
        Hold { shared: self.shared.clone() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.shared.clone();
        blocking(move || work(&shared)).await
    }
}

/// Blobs that stay.
pub struct Hold {
    shared: Arc<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.holds.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Hold {
    /// Copies every blob into another folder, and gives how many; they are on disk when this returns. Takes as long as
    /// there are bytes: not for async threads.
    pub fn copy(&self, to: &Path) -> Result<u64, Error> {
        let copy = |from: &Path, to: &Path| -> io::Result<()> {
            fs::create_dir_all(to.parent().expect("a blob is in a folder"))?;
            fs::copy(from, to)?;
            File::open(to)?.sync_all()
        };
        let target = |digest: Digest| {
            let name = digest.to_string();
            to.join(&name[..2]).join(&name[2..4]).join(name)
        };
        fs::create_dir_all(to).map_err(failed("copy"))?;
        let (mut after, mut count, mut folders) = (None, 0, HashSet::from([to.to_owned()]));
        loop {
            let blobs = self.shared.list(after, COPIED_AT_A_TIME)?;
            for blob in &blobs {
                let path = target(blob.digest);
                copy(&self.shared.path(blob.digest), &path).map_err(failed("copy"))?;
                folders.extend(path.ancestors().skip(1).take(2).map(Path::to_owned));
                count += 1;
            }
            match blobs.last() {
                Some(last) if blobs.len() == COPIED_AT_A_TIME => after = Some(last.digest),
                _ => break,
            }
        }
        let sync = |folder: &PathBuf| File::open(folder)?.sync_all();
        folders.iter().try_for_each(sync).map_err(failed("copy"))?;
        Ok(count)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Error::Io { operation: "wait for", source: io::Error::other(error) })?
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { operation, source }
}

#[async_trait]
impl Blobs for FolderBlobs {
    async fn put(&self, bytes: Bytes) -> Result<Digest, Error> {
        self.blocking(move |shared| {
            let stored = Stored { digest: Digest::of(&bytes), size: bytes.len() as u64 };
            if !shared.touch(stored)? {
                let mut draft = shared.draft()?;
                draft.append(&bytes)?;
                shared.name(draft)?;
            }
            Ok(stored.digest)
        })
        .await
    }

    async fn writer(&self) -> Result<Box<dyn BlobWriter>, Error> {
        let draft = self.blocking(Shared::draft).await?;
        Ok(Box::new(Writer { blobs: self.clone(), draft: Some(draft), waiting: BytesMut::new() }))
    }

    async fn open(&self, digest: Digest, range: Option<Range<u64>>) -> Result<Reader, Error> {
        self.blocking(move |shared| {
            let mut file = match File::open(shared.path(digest)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing { digest }),
                opened => opened.map_err(failed("open"))?,
            };
            let size = file.metadata().map_err(failed("open"))?.len();
            let whole = range.is_none();
            let Range { start, end } = within(digest, size, range)?;
            file.seek(SeekFrom::Start(start)).map_err(failed("read"))?;
            let check = whole.then(Hasher::default);
            let open = Open { file, digest, left: end - start, check };
            Ok(Reader { size, stream: open.stream() })
        })
        .await
    }

    async fn has(&self, digest: Digest) -> Result<Option<u64>, Error> {
        self.blocking(move |shared| Ok(shared.stat(digest)?.map(|info| info.size))).await
    }

    async fn delete(&self, digest: Digest, put_before: SystemTime) -> Result<bool, Error> {
        self.blocking(move |shared| {
            let _names = shared.names.lock();
            if shared.holds.load(Ordering::Acquire) > 0 {
                return Ok(false);
            }
            match shared.stat(digest)? {
                None => Ok(true),
                Some(info) if info.put_at >= put_before => Ok(false),
                Some(_) => fs::remove_file(shared.path(digest)).map(|()| true).map_err(failed("delete")),
            }
        })
        .await
    }

    async fn list(&self, after: Option<Digest>, limit: usize) -> Result<Vec<BlobInfo>, Error> {
        self.blocking(move |shared| shared.list(after, limit)).await
    }
}

impl Shared {
    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.root.join(&name[..2]).join(&name[2..4]).join(name)
    }

    fn stat(&self, digest: Digest) -> Result<Option<BlobInfo>, Error> {
        match fs::metadata(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => {
                let found = found.map_err(failed("look at"))?;
                let put_at = found.modified().map_err(failed("look at"))?;
                Ok(Some(BlobInfo { digest, size: found.len(), put_at }))
            }
        }
    }

    fn draft(&self) -> Result<Draft, Error> {
        self.sound()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(TEMPORARY).join(number.to_string());
        let file = File::create_new(&path).map_err(failed("create"))?;
        Ok(Draft { file, path, hasher: Hasher::default(), size: 0 })
    }

    /// If the blob is there, marks it as put just now.
    fn touch(&self, stored: Stored) -> Result<bool, Error> {
        self.sound()?;
        let path = self.path(stored.digest);
        {
            let _names = self.names.lock();
            // A file of another size is damaged; the put then replaces it.
            if self.stat(stored.digest)?.is_none_or(|found| found.size != stored.size) {
                return Ok(false);
            }
            let file = File::open(&path).map_err(failed("open"))?;
            file.set_modified(SystemTime::now()).map_err(failed("mark"))?;
        }
        // Whoever put it first may not have come to this.
        self.sync_names(&path)?;
        Ok(true)
    }

    /// Gives a draft its name.
    fn name(&self, mut draft: Draft) -> Result<Stored, Error> {
        self.sound()?;
        draft.file.set_modified(SystemTime::now()).map_err(failed("mark"))?;
        draft.file.sync_all().map_err(|error| self.poison(error))?;
        let stored = Stored { digest: std::mem::take(&mut draft.hasher).finish(), size: draft.size };
        let path = self.path(stored.digest);
        {
            let _names = self.names.lock();
            fs::create_dir_all(path.parent().expect("a blob is in a folder")).map_err(failed("make the folder of"))?;
            fs::rename(&draft.path, &path).map_err(failed("name"))?;
        }
        self.sync_names(&path)?;
        Ok(stored)
    }

    /// Puts on disk that the blob, and the folders that lead to it, have their names.
    fn sync_names(&self, blob: &Path) -> Result<(), Error> {
        let sync = |folder: &Path| File::open(folder)?.sync_all();
        let leaf = blob.parent().expect("a blob is in a folder");
        sync(leaf).map_err(|error| self.poison(error))?;
        if !self.synced.lock().contains(leaf) {
            for above in leaf.ancestors().skip(1).take(2) {
                sync(above).map_err(|error| self.poison(error))?;
            }
            self.synced.lock().insert(leaf.to_owned());
        }
        Ok(())
    }

    fn sound(&self) -> Result<(), Error> {
        if self.poisoned.load(Ordering::Acquire) { Err(Error::Poisoned) } else { Ok(()) }
    }

    fn poison(&self, source: io::Error) -> Error {
        self.poisoned.store(true, Ordering::Release);
        tracing::error!(error = %source, "fsync of a blob failed, no more are taken");
        Error::Io { operation: "sync", source }
    }

    fn list(&self, after: Option<Digest>, limit: usize) -> Result<Vec<BlobInfo>, Error> {
        let start = after.map(|digest| digest.to_string()).unwrap_or_default();
        let mut found = Vec::new();
        for first in names_from(&self.root, start.get(..2))? {
            let at_first = start.get(..2) == Some(first.as_str());
            for second in names_from(&self.root.join(&first), start.get(2..4).filter(|_| at_first))? {
                let folder = self.root.join(&first).join(&second);
                for name in names_from(&folder, Some(start.as_str()))? {
                    if found.len() == limit {
                        return Ok(found);
                    }
                    let digest = name.parse().ok().filter(|digest| Some(*digest) != after);
                    // Deleted since the folder was read.
                    let Some(info) = digest.map(|digest| self.stat(digest)).transpose()?.flatten() else { continue };
                    found.push(info);
                }
            }
        }
        Ok(found)
    }
}

/// The names in a folder, sorted, from `from` on. Folders whose names are no digits (`tmp`) sort in but hold no blobs.
fn names_from(folder: &Path, from: Option<&str>) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(failed("list"))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list"))?.file_name();
        names.extend(name.into_string().ok().filter(|name| Some(name.as_str()) >= from));
    }
    names.sort_unstable();
    Ok(names)
}

/// A blob without a name yet.
struct Draft {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
}

impl Draft {
    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(failed("write"))?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already if it was given its name. What cannot be removed now is removed at the next opening.
        let _ = fs::remove_file(&self.path);
    }
}

struct Writer {
    blobs: FolderBlobs,
    /// Absent after a failed write, or while a write was given up half-way.
    draft: Option<Draft>,
    waiting: BytesMut,
}

impl Writer {
    async fn flush(&mut self) -> Result<(), Error> {
        let mut draft =
            self.draft.take().ok_or_else(|| failed("write")(io::Error::other("an earlier write failed")))?;
        let bytes = self.waiting.split();
        let work = move || {
            draft.append(&bytes)?;
            Ok(draft)
        };
        self.draft = Some(blocking(work).await?);
        Ok(())
    }
}

#[async_trait]
impl BlobWriter for Writer {
    async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.waiting.extend_from_slice(&chunk);
        if self.waiting.len() >= CHUNK_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<Stored, Error> {
        self.flush().await?;
        let draft = self.draft.take().expect("a flush that succeeds leaves the draft");
        self.blobs.blocking(move |shared| shared.name(draft)).await
    }
}

/// A blob being read.
struct Open {
    file: File,
    digest: Digest,
    left: u64,
    /// Of the bytes so far, where the whole blob is read.
    check: Option<Hasher>,
}

impl Open {
    fn stream(self) -> stream::BoxStream<'static, Result<Bytes, Error>> {
        stream::try_unfold(self, |open| async move {
            if open.left == 0 && open.check.is_none() {
                return Ok(None);
            }
            blocking(move || open.next()).await.map(Some)
        })
        // The empty chunk that a check of an empty blob takes is nobody's business.
        .filter(|chunk| std::future::ready(!matches!(chunk, Ok(bytes) if bytes.is_empty())))
        .boxed()
    }

    /// The next chunk. The last one is held back until the digest of the whole was found right.
    fn next(mut self) -> Result<(Bytes, Self), Error> {
        let mut chunk = vec![0; self.left.min(CHUNK_BYTES as u64) as usize];
        self.file.read_exact(&mut chunk).map_err(|source| match source.kind() {
            // Shorter than it was when it was opened: blobs never change, so someone else did this.
            io::ErrorKind::UnexpectedEof => Error::Corrupt { digest: self.digest },
            _ => Error::Io { operation: "read", source },
        })?;
        self.left -= chunk.len() as u64;
        if let Some(check) = &mut self.check {
            check.update(&chunk);
        }
        if self.left == 0
            && let Some(check) = self.check.take()
            && check.finish() != self.digest
        {
            return Err(Error::Corrupt { digest: self.digest });
        }
        Ok((chunk.into(), self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, FolderBlobs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = FolderBlobs::open(folder.path()).unwrap();
        (folder, blobs)
    }

    #[tokio::test]
    async fn the_layout_is_two_folders_and_the_digest() {
        let (folder, blobs) = fixture();
        let name = blobs.put(Bytes::new()).await.unwrap().to_string();
        assert_eq!(fs::read(folder.path().join("e3/b0").join(name)).unwrap(), b"");
    }

    #[tokio::test]
    async fn what_is_held_is_not_deleted_and_can_be_copied() {
        let (folder, blobs) = fixture();
        let kept = blobs.put("kept".into()).await.unwrap();
        let hold = blobs.hold();
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert!(!blobs.delete(kept, later).await.unwrap(), "it is held");
        let to = folder.path().join("copy");
        assert_eq!(hold.copy(&to).unwrap(), 1);
        drop(hold);
        assert!(blobs.delete(kept, later).await.unwrap());
        let copy = FolderBlobs::open(&to).unwrap();
        assert_eq!(copy.get(kept).await.unwrap(), "kept");
        assert_eq!(copy.verify().await.unwrap().problems, Vec::<String>::new());
    }

    #[tokio::test]
    async fn damage_is_found_before_the_last_chunk() {
        let (_folder, blobs) = fixture();
        let size = CHUNK_BYTES * 2 + 10;
        let digest = blobs.put(vec![1; size].into()).await.unwrap();
        let path = blobs.shared.path(digest);
        let mut bytes = fs::read(&path).unwrap();
        bytes[CHUNK_BYTES] ^= 1;
        fs::write(&path, &bytes).unwrap();

        let mut stream = blobs.open(digest, None).await.unwrap().stream;
        let mut read = 0;
        let error = loop {
            match stream.next().await.unwrap() {
                Ok(chunk) => read += chunk.len(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Corrupt { .. }));
        assert_eq!(read, CHUNK_BYTES * 2);
        let report = blobs.verify().await.unwrap();
        assert_eq!((report.blobs, report.problems.len()), (0, 1));

        fs::write(&path, &bytes[..5]).unwrap();
        assert!(matches!(blobs.get(digest).await, Err(Error::Corrupt { .. })));
        // A new put of the same bytes sees that the size is wrong and heals it.
        blobs.put(vec![1; size].into()).await.unwrap();
        assert_eq!(blobs.get(digest).await.unwrap(), vec![1; size]);
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_or_cut_off_leaves_nothing() {
        let (folder, blobs) = fixture();
        let mut writer = blobs.writer().await.unwrap();
        writer.write(vec![1; CHUNK_BYTES].into()).await.unwrap();
        let temporary = folder.path().join(TEMPORARY);
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 1);
        drop(writer);
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);

        fs::write(temporary.join("7"), "from a process that was killed").unwrap();
        drop(blobs);
        let blobs = FolderBlobs::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
        assert_eq!(blobs.list(None, 10).await.unwrap(), []);
    }

    #[tokio::test]
    async fn after_a_failed_sync_nothing_is_written() {
        let (_folder, blobs) = fixture();
        let kept = blobs.put("before".into()).await.unwrap();
        blobs.shared.poison(io::Error::other("no disk"));
        assert!(matches!(blobs.put("after".into()).await, Err(Error::Poisoned)));
        assert!(matches!(blobs.put("before".into()).await, Err(Error::Poisoned)));
        assert!(matches!(blobs.writer().await, Err(Error::Poisoned)));
        assert_eq!(blobs.get(kept).await.unwrap(), "before");
    }
}
