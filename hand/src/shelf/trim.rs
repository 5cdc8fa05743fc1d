//! Removing shelves that nobody needs: those that were not read for long, and then the least recently read ones while all of them
//! together are too large.
//!
//! One that a hand here was launched with is never removed, whether the hand runs or only its folder is left, as it can be started
//! again. Whoever needs one that is gone installs it again.

use super::{FOLDER, folder};
use crate::folder::Folder;
use crate::launch::is_ours;
use crate::local::{Error, folders};
use crate::removal::{remove_all_but, remove_tree};
use crate::spec::{Plan, Shelf};
use crate::{image, launch, limits};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// In the folder of a shelf: an empty file that was changed when the shelf was given out last.
const USED: &str = "used";
/// Beside the shelves, which have no dot: what is being removed.
const REMOVED: &str = ".removed-";
/// Held shared by whoever gives out a shelf, until it can be seen who has it; and alone by whoever removes some.
const LOCK: &str = ".lock";

/// How much may lie on shelves that no hand has.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// On disk, of all shelves together.
    pub bytes_max: u64,
    /// Since one was given out last.
    pub idle_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes_max: limits::SHELVES_BYTES_MAX, idle_max: limits::SHELF_IDLE_MAX }
    }
}

struct Found {
    used: SystemTime,
    name: String,
    bytes: u64,
}

/// Shelves are being given out: none is removed as long as this is held.
pub(crate) fn hold(hands_dir: &Path) -> io::Result<File> {
    let lock = open_lock(hands_dir)?;
    lock.lock_shared()?;
    Ok(lock)
}

/// It is given out now.
pub(crate) fn note_use(shelf: &Folder) -> io::Result<()> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let file =
        File::options().write(true).create(true).truncate(false).custom_flags(flags).open(shelf.path().join(USED))?;
    file.set_modified(SystemTime::now())
}

/// Removes what is beyond the bounds and says what that was. While shelves are being given out, nothing is. One that cannot be
/// removed keeps none of the others.
pub fn trim(hands_dir: &Path, bounds: Bounds) -> Result<Vec<String>, Error> {
    let shelves = hands_dir.join(FOLDER);
    let failed = |e| Error::Trim(shelves.clone(), e);
    if !shelves.try_exists().map_err(failed)? {
        return Ok(Vec::new());
    }
    let lock = open_lock(hands_dir).map_err(failed)?;
    if lock.try_lock().is_err() {
        return Ok(Vec::new());
    }
    let mut all = finish(&shelves);
    let mut found = found(hands_dir).map_err(failed)?;
    let read = read_by_hands(hands_dir)?;
    let mut bytes: u64 = found.iter().map(|shelf| shelf.bytes).sum();
    // The least recently used first.
    found.sort_by(|a, b| (a.used, &a.name).cmp(&(b.used, &b.name)));
    let mut removed = Vec::new();
    for shelf in found.into_iter().filter(|shelf| !read.contains(&shelf.name)) {
        let idle = SystemTime::now().duration_since(shelf.used).unwrap_or_default();
        if idle <= bounds.idle_max && bytes <= bounds.bytes_max {
            break;
        }
        match set_aside(hands_dir, &shelf.name) {
            Ok(aside) => {
                bytes -= shelf.bytes;
                removed.push(shelf.name);
                all = all.and(clear(hands_dir, &aside));
            }
            Err(e) => all = all.and(Err(e)),
        }
    }
    all.map(|()| removed).map_err(failed)
}

fn open_lock(hands_dir: &Path) -> io::Result<File> {
    let path = hands_dir.join(FOLDER).join(LOCK);
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn found(hands_dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in hands_dir.join(FOLDER).read_dir()? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else {
            continue;
        };
        let shelf = folder(hands_dir, &name);
        let meta = entry.metadata()?;
        // What somebody else has put there is no shelf, and not ours to remove.
        if !meta.is_dir() || !is_ours(&meta) {
            continue;
        }
        // One of an earlier release was never noted.
        let used = shelf.path().join(USED).metadata().and_then(|meta| meta.modified()).or_else(|_| meta.modified())?;
        found.push(Found { used, bytes: bytes(&shelf)?, name });
    }
    Ok(found)
}

/// What it takes of the disk. It never changes, so what takes long is measured once.
fn bytes(shelf: &Folder) -> io::Result<u64> {
    if let Ok(image) = shelf.image().symlink_metadata() {
        return Ok(image.blocks() * 512);
    }
    let noted = shelf.path().join("bytes");
    if let Some(bytes) = std::fs::read_to_string(&noted).ok().and_then(|text| text.parse().ok()) {
        return Ok(bytes);
    }
    let (mut bytes, mut folders) = (0, vec![shelf.packages()]);
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir()? {
            let entry = entry?;
            // Of the entry itself, wherever it may lead.
            let meta = entry.metadata()?;
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    crate::folder::replace(&noted, bytes.to_string().as_bytes())?;
    Ok(bytes)
}

/// Names of those that hands here were launched with.
fn read_by_hands(hands_dir: &Path) -> Result<BTreeSet<String>, Error> {
    let mut read = BTreeSet::new();
    for (_, hand) in folders(hands_dir)? {
        // One that is being made holds the lock until it has a plan; of one that nobody can read nothing may be assumed.
        if let Some(Plan { spec, .. }) = launch::earlier(&hand).map_err(Error::Plan)?
            && let Some(Shelf::Read(name)) = spec.shelf
        {
            read.insert(name);
        }
    }
    Ok(read)
}

/// Out of sight at once; it is removed piece by piece.
fn set_aside(hands_dir: &Path, name: &str) -> io::Result<PathBuf> {
    let shelf = folder(hands_dir, name);
    let aside = shelf.path().with_file_name(format!("{REMOVED}{name}"));
    std::fs::rename(shelf.path(), &aside)?;
    Ok(aside)
}

/// What an earlier one has begun to remove.
fn finish(shelves: &Path) -> io::Result<()> {
    let hands_dir = shelves.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut all = Ok(());
    for entry in shelves.read_dir()? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(REMOVED)) {
            all = all.and(clear(hands_dir, &entry.path()));
        }
    }
    all
}

/// Its disk, its folder, and the user of the hand that filled it, who owned what is gone.
fn clear(hands_dir: &Path, aside: &Path) -> io::Result<()> {
    let shelf = Folder::new(aside);
    let filler = File::open(shelf.plan()).ok().and_then(|plan| serde_json::from_reader::<_, Plan>(plan).ok());
    image::unmount(&shelf).map_err(io::Error::other)?;
    // Who it was goes last: a removal that is broken off finds it again.
    remove_all_but(aside, &shelf.plan())?;
    if let Some(Plan { spec, .. }) = filler {
        launch::release_uid(hands_dir, &spec.hand_id)?;
    }
    match remove_tree(aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
