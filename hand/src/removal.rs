//! Removing a folder that somebody hostile has filled: any depth, any names, any modes, no link followed.
//!
//! Folders are moved to the top before they are emptied, so that neither depth nor path length costs a descriptor or a
//! stack frame. Nothing may write there any more.

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Remove `path` and all below it.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = open(CWD, path)?;
    let mut moved = 0u64;
    loop {
        let folders = empty_of_files(&top)?;
        if folders.is_empty() {
            return Ok(rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?);
        }
        for name in folders {
            let folder = open(&top, &name)?;
            for below in empty_of_files(&folder)? {
                // Its own `..` changes, for which it must be writable.
                drop(open(&folder, &below)?);
                move_up(&folder, &below, &top, &mut moved)?;
            }
            rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Remove what is in the folder `path` but for this entry, by which a removal that is broken off is found again.
pub fn remove_all_but(path: &Path, kept: &Path) -> io::Result<()> {
    for entry in path.read_dir()? {
        let entry = entry?;
        if entry.path() == kept {
            continue;
        }
        if entry.file_type()?.is_dir() { remove_tree(&entry.path())? } else { std::fs::remove_file(entry.path())? }
    }
    Ok(())
}

/// Unlink everything but folders, and name those.
fn empty_of_files(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut folders = Vec::new();
    // Listed to the end before anything is unlinked, as a listing may skip when its folder changes.
    let entries: Vec<_> = Dir::read_from(folder)?.collect::<Result<_, _>>()?;
    for entry in entries {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            kind => kind,
        };
        if kind == FileType::Directory {
            folders.push(name.to_owned());
        } else {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(folders)
}

fn move_up(from: &OwnedFd, name: &CString, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let to = format!(".removed-{moved}");
        // Over a folder that has that name already it fails, unless that is empty, which is as good.
        match rustix::fs::renameat(from, name, top, to) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            moved => return Ok(moved?),
        }
    }
}

fn open(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(&at, path, flags, Mode::empty()) {
        // Never as root, who could be led to another folder by a link that is put there in between.
        Err(Errno::ACCESS) => {
            open_up(&at, path)?;
            rustix::fs::openat(&at, path, flags, Mode::empty())?
        }
        opened => opened?,
    };
    // To be written to as well.
    rustix::fs::fchmod(&folder, Mode::RWXU)?;
    Ok(folder)
}

/// Give ourselves all rights to a folder.
fn open_up(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> io::Result<()> {
    Ok(rustix::fs::chmodat(at, path, Mode::RWXU, AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn whatever_was_made_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, tree) = (dir.path().join("outside"), dir.path().join("tree"));
        std::fs::create_dir_all(outside.join("kept")).unwrap();
        std::fs::create_dir_all(tree.join("a/b/c")).unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink("nothing", tree.join("dangling")).unwrap();
        for n in 1..5 {
            std::fs::create_dir_all(tree.join(format!(".removed-{n}/x"))).unwrap();
            std::fs::write(tree.join(format!("a/b/{n}")), "x").unwrap();
        }
        for path in ["a/b/c", "a/b", "a"] {
            std::fs::set_permissions(tree.join(path), std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
        assert_eq!(remove_tree(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn depth_costs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        let mut at = open(CWD, &tree).unwrap();
        for _ in 0..1_500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, "d").unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
