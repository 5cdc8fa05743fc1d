//! A hand's disk as a filesystem of its own, in a file: what is full is this disk, and the sandbox is told so by the
//! kernel. For whoever launches as root; the file is sparse, so a hand takes what it has written and 5 MB.
//!
//! Only the kernel ever writes the file, so mounting it trusts nothing that the sandbox made.

use crate::folder::Folder;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("make {0}")]
    Make(PathBuf, #[source] io::Error),
    #[error("find {0}")]
    NoProgram(&'static str),
    #[error("run {0}")]
    Start(&'static str, #[source] io::Error),
    #[error("{program}: {said}")]
    Failed { program: &'static str, said: String },
}

/// Have the disk of the hand mounted, made first where there is none. Whether it is mounted only now.
///
/// `patterns` is a folder where an empty one of each size is kept: making a filesystem takes longer than all the rest.
pub fn mount(folder: &Folder, bytes: u64, patterns: Option<&Path>) -> Result<bool, Error> {
    let (image, disk) = (folder.image(), folder.disk());
    match DirBuilder::new().mode(0o755).create(&disk) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Error::Make(disk, e)),
        _ => {}
    }
    if is_mounted(folder) {
        return Ok(false);
    }
    if !image.exists() {
        match patterns {
            Some(patterns) => copy_of(&pattern(patterns, bytes)?, &image)?,
            None => make(&image, bytes)?,
        }
    }
    run("mount", &["-t", "ext4", "-o", "loop,nosuid,nodev,noatime"], &[&image, &disk])?;
    Ok(true)
}

/// Take the disk away; it stays in its file. None that is mounted is as good.
///
/// Where somebody on this machine looks into it (a backup, a shell) it is gone from there at once, and in the kernel when
/// they are done: it must neither keep a hand from being removed nor be left behind.
pub fn unmount(folder: &Folder) -> Result<(), Error> {
    if !is_mounted(folder) {
        return Ok(());
    }
    match run("umount", &[], &[&folder.disk()]) {
        Err(Error::Failed { .. }) if is_mounted(folder) => run("umount", &["--lazy"], &[&folder.disk()]),
        // A signal that everybody gets may end the program when it has done its work.
        Err(Error::Failed { .. }) => Ok(()),
        unmounted => unmounted,
    }
}

/// The disk of a hand that is being brought up: mounted for that, it is taken away again where that fails.
pub struct Fresh<'a> {
    folder: &'a Folder,
    is_fresh: bool,
}

impl<'a> Fresh<'a> {
    pub fn new(folder: &'a Folder, is_fresh: bool) -> Self {
        Self { folder, is_fresh }
    }

    /// The hand has it now.
    pub fn keep(mut self) {
        self.is_fresh = false;
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        if self.is_fresh {
            // What stays is taken away with the folder.
            unmount(self.folder).ok();
        }
    }
}

/// Make, mount and remove a small one: whether hands on this machine can have disks of their own.
pub fn probe() -> Result<(), Error> {
    const BYTES: u64 = 4 * 1024 * 1024;
    let dir = std::env::temp_dir().join(format!("steadyhand-probe-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&dir).map_err(|e| Error::Make(dir.clone(), e))?;
    let folder = Folder::new(&dir);
    let outcome = mount(&folder, BYTES, None).and_then(|_| unmount(&folder));
    // What an unmount left busy is still there to be seen.
    crate::removal::remove_tree(&dir).ok();
    outcome
}

/// The empty one of that size, made where there is none. Who made it last has made the same.
fn pattern(patterns: &Path, bytes: u64) -> Result<PathBuf, Error> {
    let pattern = patterns.join(format!(".disk-{bytes}"));
    if !pattern.exists() {
        make(&pattern, bytes)?;
    }
    Ok(pattern)
}

/// What was written of it, and holes for the rest.
fn copy_of(pattern: &Path, image: &Path) -> Result<(), Error> {
    let part = image.with_extension("part");
    let copied = File::open(pattern).and_then(|from| {
        let to = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        let bytes = from.metadata()?.len();
        to.set_len(bytes)?;
        let mut at = 0;
        while let Some(begin) = next_data(&from, at)? {
            at = rustix::fs::seek(&from, SeekFrom::Hole(begin))?;
            let (mut read, mut written) = (begin, begin);
            while read < at {
                let left = usize::try_from(at - read).unwrap_or(usize::MAX);
                if rustix::fs::copy_file_range(&from, Some(&mut read), &to, Some(&mut written), left)? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        std::fs::rename(&part, image)
    });
    copied.map_err(|e| Error::Make(image.to_owned(), e))
}

/// Where a file goes on after a hole.
fn next_data(file: &File, at: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(begin) => Ok(Some(begin)),
        Err(Errno::NXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn make(image: &Path, bytes: u64) -> Result<(), Error> {
    let part = image.with_extension(format!("part-{}", std::process::id()));
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part);
    file.and_then(|file| file.set_len(bytes)).map_err(|e| Error::Make(part.clone(), e))?;
    // No blocks are kept for root, and tables are written when they are used.
    run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"], &[&part])?;
    std::fs::rename(&part, image).map_err(|e| Error::Make(image.to_owned(), e))
}

fn is_mounted(folder: &Folder) -> bool {
    match (folder.disk().metadata(), folder.path().metadata()) {
        (Ok(disk), Ok(above)) => disk.dev() != above.dev(),
        _ => false,
    }
}

fn run(program: &'static str, options: &[&str], paths: &[&Path]) -> Result<(), Error> {
    let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(program));
    let path = found.into_iter().find(|path| path.is_file()).ok_or(Error::NoProgram(program))?;
    let mut command = Command::new(path);
    command.args(options).args(paths).env_clear().current_dir("/").stdin(Stdio::null());
    let output = command.output().map_err(|e| Error::Start(program, e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Failed { program, said: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};

    #[test]
    fn a_copy_has_what_was_written_and_the_same_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (pattern, image) = (dir.path().join("pattern"), dir.path().join("image"));
        let mut file = File::create(&pattern).unwrap();
        for at in [0, 1 << 20, 100 << 20] {
            file.seek(io::SeekFrom::Start(at)).unwrap();
            file.write_all(&[7; 5000]).unwrap();
        }
        file.set_len(1 << 30).unwrap();
        copy_of(&pattern, &image).unwrap();
        let (from, to) = (pattern.metadata().unwrap(), image.metadata().unwrap());
        assert_eq!(to.len(), 1 << 30);
        assert!(to.blocks() <= from.blocks() && to.blocks() < 1000, "{} of {}", to.blocks(), from.blocks());
        let read = |path: &Path, at| {
            let mut bytes = [0; 6000];
            std::os::unix::fs::FileExt::read_exact_at(&File::open(path).unwrap(), &mut bytes, at).unwrap();
            bytes
        };
        for at in [0, 1 << 20, 100 << 20, 500 << 20] {
            assert_eq!(read(&pattern, at), read(&image, at), "at {at}");
        }
        let empty = dir.path().join("empty");
        File::create(&empty).unwrap().set_len(1 << 20).unwrap();
        copy_of(&empty, &image).unwrap();
        assert_eq!(image.metadata().unwrap().len(), 1 << 20);
    }
}
