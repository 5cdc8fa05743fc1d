//! A tool that waits inside a hand: a test learns when it runs, and decides when it goes on.

use anyhow::Context as _;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::{
    fs::File,
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::io::unix::AsyncFd;

/// What the tool's script does, as the first thing: says that it runs, and waits for a line.
pub const WAIT: &str = "mkfifo gate && touch started && read _ < gate";

const PATIENCE: Duration = Duration::from_secs(90);

/// A gate in some hand of a service.
pub struct Gate {
    hands_dir: PathBuf,
    changes: AsyncFd<OwnedFd>,
}

/// An open gate; the tool finds it open as long as this lives.
pub struct Opened {
    _line: File,
}

impl Gate {
    pub fn new(hands_dir: &Path) -> anyhow::Result<Self> {
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        // SAFETY: it owns the descriptor, which is open until it is dropped and is never exchanged.
        let changes = unsafe { AsyncFd::register(changes)? };
        Ok(Gate { hands_dir: hands_dir.to_owned(), changes })
    }

    /// Until the tool runs. Gives its workspace.
    pub async fn reached(&self) -> anyhow::Result<PathBuf> {
        tokio::time::timeout(PATIENCE, self.started()).await.context("the tool does not run")?
    }

    async fn started(&self) -> anyhow::Result<PathBuf> {
        loop {
            // Watched before it is looked at, so nothing falls in between.
            self.watch(&self.hands_dir);
            for hand in std::fs::read_dir(&self.hands_dir)?.flatten() {
                let workspace = hand.path().join("workspace");
                self.watch(&hand.path());
                self.watch(&workspace);
                if workspace.join("started").exists() {
                    return Ok(workspace);
                }
            }
            let mut ready = self.changes.readable().await?;
            let mut buffer = [0; 4096];
            // What changed does not matter: everything is looked at again.
            while rustix::io::read(&self.changes, &mut buffer).is_ok() {}
            ready.clear_ready();
        }
    }

    fn watch(&self, dir: &Path) {
        // A folder that is not there yet is told by the one above it.
        let _ = inotify::add_watch(&self.changes, dir, WatchFlags::CREATE | WatchFlags::MOVED_TO);
    }
}

/// Lets the tool go on.
pub fn open(workspace: &Path) -> anyhow::Result<Opened> {
    // Open for both, so that it waits for nobody and the line stays until it is read.
    let mut line = File::options().read(true).write(true).open(workspace.join("gate"))?;
    line.write_all(b"\n")?;
    Ok(Opened { _line: line })
}
