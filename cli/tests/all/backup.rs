//! `steadyhand backup` and `restore`: of a service that works, of a folder that rests, and of what is no backup.

use crate::{program::Place, verify::used};
use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"You said: {{user}}\" }]\n";

/// How many sessions a report of `verify` counts.
fn sessions(report: &str) -> u64 {
    let line = report.lines().find(|line| line.starts_with("sessions")).unwrap_or_else(|| panic!("{report}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_backup_of_a_service_under_load_holds_all_that_was_done_before_it() {
    let place = Place::new();
    let service = place.serve(HELLO);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let before: Vec<u64> = thread::scope(|scope| {
        for worker in 0..3 {
            let (place, stop, done) = (&place, &stop, &done);
            scope.spawn(move || {
                while !stop.load(Ordering::Acquire) {
                    place.run(&["run", &format!("from {worker}")]).ok();
                    let name = format!("upload-{worker}.txt");
                    let text = format!("{worker} {}", done.fetch_add(1, Ordering::AcqRel));
                    place.write(&name, &text);
                    place.run(&["file", "upload", &name]).ok();
                }
            });
        }
        let taken = (0..3).map(|n| {
            while done.load(Ordering::Acquire) < 4 * (n + 1) {
                thread::yield_now();
            }
            let before = done.load(Ordering::Acquire);
            place.run(&["backup", &format!("backups/{n}")]).ok();
            before
        });
        fs::create_dir(place.path().join("backups")).unwrap();
        let taken = taken.collect();
        stop.store(true, Ordering::Release);
        taken
    });
    service.kill();
    for (n, before) in before.into_iter().enumerate() {
        let restored = format!("restored-{n}");
        let report = place.run(&["restore", &format!("backups/{n}"), "--data", &restored]).ok();
        assert!(!report.contains("problem") && sessions(&report) >= before, "{before}: {report}");
        assert_eq!(place.run(&["verify", "--data", &restored]).ok(), report);
        assert_eq!(
            fs::read(place.path().join(&restored).join("admin.key")).unwrap(),
            fs::read(place.data().join("admin.key")).unwrap()
        );
    }
    // What was restored is a service again, with the key of before.
    let again = Place::at(&place).with("STEADYHAND_DATA", place.path().join("restored-2").to_str().unwrap());
    let service = again.serve(HELLO);
    again.run(&["run", "after the restore"]).ok();
    service.stop();
    let report = again.run(&["verify"]).ok();
    assert!(!report.contains("problem"), "{report}");
}

#[test]
fn a_folder_that_no_service_uses_can_be_copied_too() {
    let place = Place::new();
    let service = place.serve(HELLO);
    place.run(&["run", "remember this"]).ok();
    service.stop();
    let made = place.run(&["backup", "copy", "--json"]).ok();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["format"], 1);
    assert!(made["engine_entries"].as_u64().unwrap() > 5, "{made}");
    place.run(&["restore", "copy", "--data", "restored"]).ok();
    assert_eq!(place.run(&["verify", "--data", "restored"]).ok(), place.run(&["verify"]).ok());
}

#[test]
fn neither_writes_over_anything() {
    let place = Place::new();
    place.run(&["backup", "copy"]).failed(6, "there is no data folder");
    let service = place.serve(HELLO);
    place.run(&["backup", "copy"]).ok();
    place.run(&["backup", "copy"]).failed(1, "is there already");
    service.stop();
    place.run(&["backup", "copy"]).failed(2, "is there already");
    place.run(&["restore", "copy"]).failed(2, "[DIR]/data is there already");
    place.run(&["restore", "copy", "--data", "empty"]).ok();
}

#[test]
fn what_is_unfinished_damaged_or_of_another_time_is_not_restored() {
    let place = used();
    place.run(&["restore", "nothing", "--data", "restored"]).failed(6, "is no backup, or one that was not finished");
    place.run(&["backup", "copy"]).ok();
    let manifest = place.read("copy/backup.json");
    place.write("copy/backup.json", &manifest.replace("\"format\": 1", "\"format\": 2"));
    place.run(&["restore", "copy", "--data", "restored"]).failed(6, "has format 2");
    place.write("copy/backup.json", &manifest);
    fs::remove_dir_all(place.path().join("copy/blobs")).unwrap();
    place.run(&["restore", "copy", "--data", "restored"]).failed(6, "is damaged, and nothing was restored");
    assert!(!place.path().join("restored").exists() && !place.path().join("restored.part").exists());
}
