//! Shelves: packages that one hand has installed and that any number of others read.
//!
//! A shelf is what is left of the hand that filled it: its folder, moved to `.shelves`, with nothing in it any more but the
//! packages, on the disk that it had. That hand's user stays taken, so nobody ever runs as the owner of what others trust,
//! and it is mounted read-only. It is never filled twice and never changed; whoever wants other packages has another name.

mod trim;

pub use self::trim::{Bounds, trim};

use crate::folder::Folder;
use crate::image;
use crate::launch::{self, Owner, is_ours, make_dir};
use crate::local::{self, Error};
use crate::removal::remove_tree;
use crate::sandbox::cgroup;
use crate::spec::{HandRef, Plan, Shelf};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Beside the hands, of which none has a name with a dot.
const FOLDER: &str = ".shelves";

/// Where the shelf of that name is, if it is there.
pub fn folder(hands_dir: &Path, name: &str) -> Folder {
    Folder::new(hands_dir.join(FOLDER).join(name))
}

/// Whether packages were kept under that name.
pub fn is_kept(hands_dir: &Path, name: &str) -> bool {
    // On a disk of its own this is a link, which may lead nowhere until the disk is mounted.
    folder(hands_dir, name).packages().symlink_metadata().is_ok()
}

/// Have it so that a sandbox can be given it. It is not removed as long as what this gives is held, nor once a hand's plan names it.
pub(crate) fn open(hands_dir: &Path, name: &str) -> Result<File, launch::Error> {
    let folder = folder(hands_dir, name);
    let held = trim::hold(hands_dir).map_err(|e| match e.kind() {
        // Not one is there.
        io::ErrorKind::NotFound => launch::Error::NoShelf(folder.path().to_owned()),
        _ => launch::Error::Make(folder.path().to_owned(), e),
    })?;
    if !folder.path().symlink_metadata().is_ok_and(|found| found.is_dir() && is_ours(&found)) {
        return Err(launch::Error::NoShelf(folder.path().to_owned()));
    }
    if folder.image().exists() {
        // Made by the hand that filled it; its size is not asked for again.
        image::mount(&folder, 0, None).map_err(launch::Error::ShelfDisk)?;
    }
    trim::note_use(&folder).map_err(|e| launch::Error::Make(folder.path().to_owned(), e))?;
    Ok(held)
}

/// End the hand and keep what it has installed. One that was kept already is as good.
pub fn keep(hand: &HandRef) -> Result<(), Error> {
    let left = Folder::new(&hand.dir);
    let Some(Plan { spec, .. }) = launch::earlier(&left).map_err(Error::Plan)? else { return Ok(()) };
    let Some(Shelf::Fill(name)) = &spec.shelf else { return Err(Error::NoShelf) };
    let Some(_launch) = local::end(hand)? else { return Ok(()) };
    let kept = folder(&spec.hands_dir, name);
    let failed = |e| Error::Keep(kept.path().to_owned(), e);
    if is_kept(&spec.hands_dir, name) {
        return local::clear(&left).map_err(failed);
    }
    for dir in [left.workspace(), left.outputs(), left.home(), left.journal(), left.blobs(), left.spool()] {
        empty(&left, &dir).map_err(failed)?;
    }
    for dir in [left.uploads(), left.recipe()] {
        empty(&left, &dir).map_err(failed)?;
    }
    cgroup::remove(&cgroup::name(&spec.hand_id, left.path()));
    make_dir(&spec.hands_dir.join(FOLDER), 0o711, Owner::Launcher).map_err(Error::Shelves)?;
    trim::note_use(&left).map_err(failed)?;
    std::fs::rename(left.path(), kept.path()).map_err(failed)
}

/// Remove a folder of the hand, wherever it lies.
fn empty(left: &Folder, dir: &Path) -> io::Result<()> {
    let on_disk = left.disk().join(dir.file_name().unwrap_or_default());
    let lies: PathBuf = if dir.is_symlink() { on_disk } else { dir.to_owned() };
    match remove_tree(&lies) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    if dir.is_symlink() { std::fs::remove_file(dir) } else { Ok(()) }
}
