//! A full disk: nothing acknowledged is lost, the error says what it is, and with space everything goes on.

use crate::program::Place;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;
use std::{fs::File, io::Write as _, path::PathBuf};

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"hello\" }]\n";
const DISK_BYTES: &std::ffi::CStr = c"size=256m";
/// Messages until the disk is full: each takes some hundred KiB.
const MESSAGES_MAX: usize = 400;

/// A small disk, mounted as long as this lives.
struct Disk {
    at: PathBuf,
}

impl Disk {
    /// `None` for who may not mount.
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        mount("tmpfs", &at, "tmpfs", MountFlags::NODEV, DISK_BYTES).ok()?;
        Some(Disk { at })
    }

    /// Leaves no byte free.
    fn fill(&self) {
        let mut filler = File::create(self.at.join("filler")).unwrap();
        while filler.write_all(&[7; 64 << 10]).is_ok() {}
        while filler.write_all(&[7]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.at.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open keeps the rest of it alive.
        unmount(&self.at, UnmountFlags::DETACH).unwrap();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that cannot do what it is for says so")]
fn a_full_disk_loses_nothing() {
    let place = Place::new();
    let Some(disk) = Disk::mount(place.data()) else {
        assert!(!rustix::process::geteuid().is_root(), "root could not mount a disk");
        return eprintln!("skipped: only root can mount a small disk");
    };
    let service = place.serve(HELLO);
    place.run(&["run", "begin"]).ok();
    let session: Value =
        serde_json::from_str(place.run(&["session", "list", "--json"]).ok().lines().next().unwrap()).unwrap();
    let id = session["id"].as_str().unwrap().to_owned();
    disk.fill();
    let large = "x".repeat(100_000);
    let mut accepted = Vec::new();
    let refused = (0..MESSAGES_MAX).find_map(|_| {
        let shot = place.run(&["session", "send", &id, &large]);
        if shot.code != 0 {
            return Some(shot);
        }
        accepted.push(shot.stdout.trim().to_owned());
        None
    });
    let refused = refused.expect("the disk is full");
    refused.failed(3, "error: the disk of the service is full");
    refused.failed(3, "hint: ");
    // It has no time to write anything more.
    service.kill();
    disk.make_room();
    let service = place.serve(HELLO);
    place.run(&["session", "send", &id, "go on"]).ok();
    place.run(&["session", "watch", &id, "--from", "0", "--until-idle"]).ok();
    let events = place.run(&["session", "events", &id, "--json"]).ok();
    for event in &accepted {
        assert!(events.contains(event.as_str()), "{event} was accepted and is gone");
    }
    service.stop();
    place.run(&["verify"]).ok();
}
