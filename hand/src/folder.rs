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

    pub fn workspace(&self) -> PathBuf {
        self.0.join("workspace")
    }

    pub fn outputs(&self) -> PathBuf {
        self.0.join("outputs")
    }

    pub fn home(&self) -> PathBuf {
        self.0.join("home")
    }

    pub fn uploads(&self) -> PathBuf {
        self.0.join("uploads")
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

/// Wait for an exclusive lock on `path`; it ends with the file.
pub fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}
