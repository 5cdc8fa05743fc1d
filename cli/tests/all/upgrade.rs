//! Data folders of other builds: kept ones of every format go on, newer ones are refused and stay as they are.

use crate::program::Place;
use std::{fs, path::Path, process::Command};

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"You said: {{user}}\" }]\n";

/// Puts a kept folder where the data folder of `place` is. They were made with a script like [`HELLO`] and hold two
/// sessions, an uploaded file and, from the `temporal` CLI, runs that are open (`open-1` with a signal, `open-2`), closed
/// (`ended`) and in a namespace of their own (`in-other`). Keys and tokens were taken out.
fn unpack(place: &Place, name: &str) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    fs::create_dir(place.data()).unwrap();
    let unpacked = Command::new("tar").arg("-xzf").arg(kept).arg("-C").arg(place.data()).status().unwrap();
    assert!(unpacked.success());
}

/// The id of the session with that title.
fn session(place: &Place, title: &str) -> String {
    let list = place.run(&["session", "list"]).ok();
    let line = list.lines().find(|line| line.trim_end().ends_with(title)).unwrap_or_else(|| panic!("{list}"));
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_folder_of_the_first_format_goes_on() {
    let place = Place::new();
    unpack(&place, "format-1.tar.gz");
    // Whoever only looks changes nothing, and cannot read it as it is.
    let looked = place.run(&["verify"]);
    assert!(looked.code == 6 && looked.stdout.contains("it has format 1, and this build reads"), "{looked}");
    let service = place.serve(HELLO);
    let before = session(&place, "remember this");
    let at = place.run(&["session", "events", &before]).ok().lines().count().to_string();
    place.run(&["session", "send", &before, "still there?"]).ok();
    let watched = place.run(&["session", "watch", &before, "--from", &at, "--until-idle"]).ok();
    assert!(watched.contains("You said: still there?"), "{watched}");
    place.run(&["run", "something new"]).ok();
    service.stop();
    let report = place.run(&["verify"]).ok();
    assert!(!report.contains("problem"), "{report}");
    assert!(report.contains("3 sessions"), "{report}");
    // What was said before and after stands in one log, also for the next service.
    let service = place.serve(HELLO);
    let events = place.run(&["session", "events", &before]).ok();
    for said in ["You said: remember this", "You said: still there?"] {
        assert!(events.contains(said), "{said}: {events}");
    }
    service.stop();
}

#[test]
fn a_newer_folder_is_refused_and_stays_as_it_is() {
    let place = Place::new();
    let service = place.serve(HELLO);
    service.stop();
    assert_eq!(fs::read_to_string(place.data().join("format")).unwrap(), "1\n");
    place.write("data/format", "2\n");
    for command in ["verify", "serve"] {
        place.run(&[command]).failed(6, "the data folder [DIR]/data has format 2, and this build knows 1");
    }
    place.run(&["backup", "copy"]).failed(6, "has format 2");
    place.write("data/format", "two\n");
    place.run(&["verify"]).failed(6, "learn the format");
    assert_eq!(fs::read_to_string(place.data().join("format")).unwrap(), "two\n");
}
