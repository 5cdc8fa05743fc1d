//! Packages that one hand installs and others read.

use crate::fixture::{Hand, Hands, Process, is_root};
use hand::local;
use hand::shelf::{self, Bounds};
use hand::spec::{Mode, Shelf, Spec};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

const INSTALL: &str = "umask 022; cd /opt/packages; mkdir -p pip/bin; echo 'word = 7' >pip/installed.py; \
    printf '#!/bin/sh\\necho it runs\\n' >pip/bin/tool; chmod +x pip/bin/tool; echo CANARY-left >/workspace/left; \
    echo CANARY-left >$HOME/left; chmod -R a+rX .";

fn spec(hands: &Hands, id: &str, mode: Mode, shelf: Shelf) -> Spec {
    Spec { mode, shelf: Some(shelf), ..hands.spec(id) }
}

fn is_installed_once_and_read_by_others(hands: &Hands, mode: Mode) {
    let filler = Hand::new(&spec(hands, "filler", mode, Shelf::Fill("s".into())));
    filler.sh(INSTALL);
    assert!(!shelf::is_kept(&hands.hands_dir(), "s"));
    shelf::keep(&filler.at).unwrap();
    assert!(shelf::is_kept(&hands.hands_dir(), "s") && !filler.at.dir.exists());
    shelf::keep(&filler.at).unwrap();

    let read = || Shelf::Read("s".into());
    let readers = ["a", "b"].map(|id| Hand::new(&spec(hands, id, mode, read())));
    for reader in &readers {
        assert_eq!(reader.sh("tool; python3 -c 'import installed; print(installed.word)'"), "it runs\n7\n");
        for change in ["echo x >>/opt/packages/pip/installed.py", "rm -r /opt/packages/pip", "touch /opt/packages/new"]
        {
            assert!(reader.bash(change).is_error, "{change}");
        }
    }
    assert_eq!(readers[0].sh("tool"), "it runs\n");
    let without = Hand::new(&Spec { mode, ..hands.spec("without") });
    assert!(without.bash("ls /opt/packages").is_error && without.bash("tool").is_error);

    // Nothing else of the hand that filled it is there, and nobody becomes its user.
    let kept = shelf::folder(&hands.hands_dir(), "s");
    let left = Command::new("grep").args(["-rlas", "CANARY-left"]).arg(kept.packages()).arg(kept.path()).output();
    let left = String::from_utf8(left.unwrap().stdout).unwrap();
    assert_eq!(left.replace(&format!("{}\n", kept.path().join("disk.img").display()), ""), "");
    if is_root() {
        let owner = kept.packages().join("pip").metadata().unwrap().uid();
        let users = readers.iter().chain([&without]).map(|hand| hand.file("workspace").metadata().unwrap().uid());
        assert!(owner >= 61_000 && users.into_iter().all(|user| user != owner));
    }

    // A hand that lost its shim finds them again.
    local::release(&readers[1].at).unwrap();
    let again = Hand::new(&spec(hands, "b", mode, read()));
    assert_eq!(again.sh("tool"), "it runs\n");
}

#[test]
fn packages_are_installed_once_and_read_by_others() {
    is_installed_once_and_read_by_others(&Hands::new(), Mode::Dev);
}

#[test]
fn packages_keep_the_disk_that_they_were_installed_on() {
    if !is_root() {
        // Only root gives hands disks of their own.
        return;
    }
    let hands = Hands::new();
    is_installed_once_and_read_by_others(&hands, Mode::Strict);
    for id in ["a", "b", "without"] {
        local::release(&local::attach(&hands.hands_dir().join(id)).unwrap()).unwrap();
    }
    // As after a restart of the machine: the disk is mounted for whoever comes next.
    let disk = shelf::folder(&hands.hands_dir(), "s").disk();
    unmount(&disk);
    let reader = Hand::new(&spec(&hands, "c", Mode::Strict, Shelf::Read("s".into())));
    assert_eq!(reader.sh("tool"), "it runs\n");
    local::release(&reader.at).unwrap();
    unmount(&disk);
}

fn unmount(disk: &Path) {
    assert!(Command::new("umount").arg(disk).status().unwrap().success());
}

#[test]
fn only_what_was_installed_is_kept_and_only_what_was_kept_is_read() {
    let hands = Hands::new();
    let plain = hands.hand("plain");
    assert!(matches!(shelf::keep(&plain.at), Err(local::Error::NoShelf)));
    assert_eq!(plain.sh("echo lives"), "lives\n");
    for name in ["none", "../plain", ""] {
        let refused = local::provision(&spec(&hands, "reader", Mode::Dev, Shelf::Read(name.into())));
        assert!(matches!(refused, Err(local::Error::Failed(_))), "{name}");
    }
    if is_root() {
        // A folder that somebody else has put there is no shelf.
        let planted = hands.hands_dir().join(".shelves/planted");
        std::fs::create_dir_all(planted.join("packages")).unwrap();
        std::os::unix::fs::chown(&planted, Some(61_000), None).unwrap();
        let refused = local::provision(&spec(&hands, "reader", Mode::Dev, Shelf::Read("planted".into())));
        assert!(matches!(refused, Err(local::Error::Failed(_))));
    }
}

/// A shelf of that many bytes, given out so long ago.
fn shelf_of(hands: &Hands, name: &str, bytes: u32, days: u32) {
    let filler = Hand::new(&spec(hands, &format!("fill-{name}"), Mode::Dev, Shelf::Fill(name.into())));
    filler.sh(&format!("head -c {bytes} /dev/urandom >/opt/packages/data"));
    shelf::keep(&filler.at).unwrap();
    let used = shelf::folder(&hands.hands_dir(), name).path().join("used");
    File::options().write(true).open(used).unwrap().set_modified(SystemTime::now() - DAY * days).unwrap();
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MIB: u32 = 1 << 20;

fn kept(hands: &Hands) -> Vec<String> {
    let names = hands.hands_dir().join(".shelves").read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).filter(|name| name != ".lock").collect();
    names.sort();
    names
}

#[test]
fn shelves_that_nobody_reads_go_by_their_age_and_then_the_oldest_until_the_rest_is_small_enough() {
    let hands = Hands::new();
    for (name, days) in [("ancient", 40), ("old", 3), ("older", 5), ("new", 0)] {
        shelf_of(&hands, name, MIB + 1, days);
    }
    let dir = hands.hands_dir();
    let trim = |mib: u32, idle_max| shelf::trim(&dir, Bounds { bytes_max: u64::from(mib * MIB), idle_max }).unwrap();
    assert!(trim(100, DAY * 50).is_empty());
    assert_eq!(trim(100, DAY * 30), ["ancient"]);
    // Each takes a little more than its bytes.
    assert_eq!(trim(3, DAY * 30), ["older"]);
    // What is given out is the newest, whatever it was before.
    let reader = Hand::new(&spec(&hands, "reader", Mode::Dev, Shelf::Read("old".into())));
    assert!(reader.sh("wc -c </opt/packages/data").starts_with("1048577"));
    local::release(&reader.at).unwrap();
    assert_eq!(trim(2, DAY * 30), ["new"]);
    assert_eq!(kept(&hands), ["old"]);
    if is_root() {
        let claims = || dir.join(".uids").read_dir().unwrap().count();
        assert_eq!(claims(), 1, "of the shelf that is left");
        assert_eq!(trim(0, DAY), ["old"]);
        assert_eq!(claims(), 0, "users of hands that filled shelves are free again");
    }
}

#[test]
fn a_shelf_that_a_hand_has_is_never_removed() {
    let hands = Hands::new();
    shelf_of(&hands, "read", MIB + 1, 100);
    let reader = Hand::new(&spec(&hands, "reader", Mode::Dev, Shelf::Read("read".into())));
    let nothing = Bounds { bytes_max: 0, idle_max: Duration::ZERO };
    assert!(shelf::trim(&hands.hands_dir(), nothing).unwrap().is_empty());
    // One whose processes are gone can be started again.
    let shim = Process::new(reader.client().status().unwrap().pid);
    shim.kill();
    shim.wait();
    assert!(shelf::trim(&hands.hands_dir(), nothing).unwrap().is_empty());
    let reader = Hand::new(&spec(&hands, "reader", Mode::Dev, Shelf::Read("read".into())));
    assert!(reader.sh("wc -c </opt/packages/data").starts_with("1048577"));
    local::release(&reader.at).unwrap();
    assert_eq!(shelf::trim(&hands.hands_dir(), nothing).unwrap(), ["read"]);
    assert!(kept(&hands).is_empty());
}

#[test]
fn a_removal_that_was_broken_off_is_finished_by_the_next() {
    let hands = Hands::new();
    shelf_of(&hands, "half", MIB + 1, 0);
    let shelf = shelf::folder(&hands.hands_dir(), "half");
    std::fs::rename(shelf.path(), shelf.path().with_file_name(".removed-half")).unwrap();
    assert!(!shelf::is_kept(&hands.hands_dir(), "half"));
    assert!(shelf::trim(&hands.hands_dir(), Bounds::default()).unwrap().is_empty());
    assert!(kept(&hands).is_empty());
}
