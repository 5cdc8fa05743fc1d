//! `steadyhand verify`: on nothing, on what a service left, and on damage.

use crate::program::Place;
use std::{
    fs,
    path::{Path, PathBuf},
};

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"You said: {{user}}\" }]\n";
const EMPTY: &str = "catalog   nothing\nblobs     nothing\nengine    nothing\nsessions  nothing\n";

#[test]
fn a_folder_that_is_not_there() {
    let place = Place::new();
    let hint = "hint: name the folder that the service ran from with --data\n";
    place.run(&["verify"]).expect(6, "", &format!("error: there is no data folder [DIR]/data\n{hint}"));
    assert!(!place.data().exists());
}

#[test]
fn an_empty_folder_is_sound() {
    let place = Place::new();
    fs::create_dir(place.data()).unwrap();
    place.run(&["verify"]).expect(0, EMPTY, "");
    let json = place.run(&["verify", "--json"]).ok();
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["problems"], serde_json::json!([]));
    assert_eq!(report["catalog"], serde_json::Value::Null);
}

/// A folder in which a session ran, stopped.
pub fn used() -> Place {
    let place = Place::new();
    let service = place.serve(HELLO);
    place.run(&["run", "remember this"]).ok();
    place.write("upload.txt", "something to keep");
    place.run(&["file", "upload", "upload.txt"]).ok();
    service.stop();
    place
}

#[test]
fn what_a_service_left_is_sound_also_after_a_kill() {
    let place = used();
    let report = place.run(&["verify"]).ok();
    assert!(report.contains("sessions  1 sessions, 9 events"), "{report}");
    assert!(!report.contains("problem"), "{report}");
    let service = place.serve(HELLO);
    place.run(&["run", "and this"]).ok();
    service.kill();
    let report = place.run(&["verify"]).ok();
    assert!(report.contains("sessions  2 sessions, 18 events"), "{report}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The blob that holds `text`.
fn blob(place: &Place, text: &str) -> PathBuf {
    let blobs = files(&place.data().join("blobs"));
    blobs.into_iter().find(|path| fs::read(path).unwrap() == text.as_bytes()).unwrap()
}

#[test]
fn a_blob_that_changed_or_is_gone_is_named() {
    let place = used();
    let path = blob(&place, "something to keep");
    fs::remove_file(&path).unwrap();
    let shot = place.run(&["verify"]);
    shot.failed(6, "found\nhint: keep a copy of the folder, then restore it from a backup");
    assert!(shot.stdout.contains("problem: ") && shot.stdout.contains("is not there"), "{shot}");

    fs::write(&path, "something to lose").unwrap();
    let shot = place.run(&["verify", "--json"]);
    shot.failed(6, "found");
    let report: serde_json::Value = serde_json::from_str(&shot.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem.as_str().unwrap().contains("not what was stored")), "{shot}");
}

#[test]
fn a_store_that_cannot_be_opened_does_not_hide_the_others() {
    let place = used();
    fs::remove_dir_all(place.data().join("blobs")).unwrap();
    let shot = place.run(&["verify"]);
    shot.failed(6, "1 problem found");
    assert!(shot.stdout.contains("problem: blobs: [DIR]/data/blobs is not there"), "{shot}");
    assert!(shot.stdout.contains("history events"), "the engine is examined all the same: {shot}");
}

#[test]
fn damage_in_a_database_is_found_and_never_a_crash() {
    for part in ["catalog", "engine"] {
        let place = used();
        for path in files(&place.data().join(part)) {
            let mut bytes = fs::read(&path).unwrap();
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
            fs::write(&path, bytes).unwrap();
        }
        let shot = place.run(&["verify"]);
        assert!(shot.code == 6 && shot.stdout.contains(&format!("problem: {part}: ")), "{part}: {shot}");
    }
}
