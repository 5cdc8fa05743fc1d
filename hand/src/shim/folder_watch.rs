//! Whether the hand's folder is still there: without it nobody can find the hand, and only it can end itself.

use super::lease::{Lease, Over};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Events that have not been looked at; what they say is not needed, only that there was one.
const EVENT_BYTES: usize = 4096;

/// A file of the folder that the hand holds open as long as it lives.
pub struct Watch {
    held: File,
    events: OwnedFd,
}

impl Watch {
    pub fn new(path: &Path, held: &File) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::CLOEXEC)?;
        // Losing its name changes a file's attributes; that it was deleted is only said once nobody holds it.
        inotify::add_watch(&events, path, WatchFlags::ATTRIB)?;
        let held = held.try_clone()?;
        Ok(Self { held, events })
    }

    /// Wait until the file has lost its name, then end the hand.
    pub fn run(&self, lease: &Lease) {
        let mut events = [0; EVENT_BYTES];
        while self.held.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
            match rustix::io::read(&self.events, &mut events) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
        lease.end(Over::Folder);
    }
}
