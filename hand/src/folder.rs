//! Where things lie in a hand's folder, and the two ways to write there that survive a crash.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// `<hands_dir>/<hand_id>`.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What `launch` decided.
    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    /// Who listens is the shim.
    pub fn socket(&self) -> PathBuf {
        self.0.join("shim.sock")
    }

    /// Held by the shim as long as it lives.
    pub fn shim_lock(&self) -> PathBuf {
        self.0.join("shim.lock")
    }

    /// Held by the sandbox as long as it lives, which is a little longer.
    pub fn sandbox_lock(&self) -> PathBuf {
        self.0.join("sandbox.lock")
    }

    /// Held while someone makes or removes the hand.
    pub fn launch_lock(&self) -> PathBuf {
        self.0.join("launch.lock")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// Bytes by their sha-256, for whoever asks the shim.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs")
    }

    /// Outputs of calls; seen read-only inside.
    pub fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }

    /// The filesystem of a hand that has one of its own.
    pub fn image(&self) -> PathBuf {
        self.0.join("disk.img")
    }

    /// Where it is mounted.
    pub fn disk(&self) -> PathBuf {
        self.0.join("disk")
    }

    pub fn workspace(&self) -> PathBuf {
        self.0.join("workspace")
    }

    pub fn outputs(&self) -> PathBuf {
        self.0.join("outputs")
    }

    pub fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    /// Of a hand that fills a shelf, and of the shelf.
    pub fn packages(&self) -> PathBuf {
        self.0.join("packages")
    }

    pub fn uploads(&self) -> PathBuf {
        self.0.join("uploads")
    }

    /// Files of /etc that a container sees instead of its image's.
    pub fn etc(&self) -> PathBuf {
        self.0.join("etc")
    }

    /// With the socket on which a container's first process finds the shim.
    pub fn link(&self) -> PathBuf {
        self.0.join("link")
    }

    pub fn link_socket(&self) -> PathBuf {
        self.link().join(crate::link::inside::LINK_SOCKET)
    }

    /// Bundle and snapshot, until the recipe is carried out.
    pub fn recipe(&self) -> PathBuf {
        self.0.join("recipe")
    }
}

/// Put `bytes` in the place of `path`, durable when this returns.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Make the entry of `path` in its folder durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Remove the oldest files of a folder until the rest is no more than `max` bytes; the newest always stays.
pub fn prune(dir: &Path, max: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in dir.read_dir()? {
        let entry = entry?;
        let meta = entry.metadata()?;
        files.push((meta.modified()?, meta.len(), entry.path()));
    }
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    files.pop();
    for (_, bytes, path) in files {
        if total <= max {
            break;
        }
        std::fs::remove_file(path)?;
        total -= bytes;
    }
    Ok(())
}

/// Wait for an exclusive lock on `path`; it ends with the file.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_oldest_go_first_and_the_newest_stays() {
        let dir = tempfile::tempdir().unwrap();
        for age in 0..4 {
            let file = File::create(dir.path().join(age.to_string())).unwrap();
            file.set_len(10).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        for (max, left) in [(40, "0123"), (25, "01"), (0, "0"), (0, "0")] {
            prune(dir.path(), max).unwrap();
            let mut names: Vec<_> = dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names.join(std::ffi::OsStr::new("")), left, "{max}");
        }
    }
}
