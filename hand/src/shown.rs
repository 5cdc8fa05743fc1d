//! Whether a sandbox has started on this machine as it is now: same boot, same bubblewrap. Then the layers without which none
//! starts need not be tried again for each hand, which would take as long as making it.
//!
//! Only a shortcut: where it misleads, the sandbox does not start, and what is missing is found out then.

use crate::sandbox::bwrap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is remembered beside the hands of a folder, which nobody but whoever launches can write to.
pub fn note(hands_dir: &Path) {
    if let Some(machine) = machine() {
        // Without it everything is tried again.
        crate::folder::replace(&at(hands_dir), machine.as_bytes()).ok();
    }
}

pub fn is_noted(hands_dir: &Path) -> bool {
    machine().is_some_and(|machine| std::fs::read_to_string(at(hands_dir)).is_ok_and(|noted| noted == machine))
}

fn at(hands_dir: &Path) -> PathBuf {
    hands_dir.join(".shown")
}

fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let bwrap = bwrap()?;
    let found = bwrap.metadata().ok()?;
    let program = format!("{} {} {} {}", bwrap.display(), found.ino(), found.size(), found.mtime());
    Some(format!("{} {program}\n", boot.trim()))
}
