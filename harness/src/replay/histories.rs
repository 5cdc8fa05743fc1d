//! Kept histories: real sessions of every released harness, recorded once, that must decide the same in every later
//! build. `scripts/record-histories` records the ones that are missing.

use super::{Recording, With, replay};
use crate::{HARNESSES, frame::Ask, registry};
use domain::agent::HarnessRef;
use std::path::{Path, PathBuf};

#[expect(clippy::disallowed_methods, reason = "a test reads what is kept in the tree")]
fn kept() -> Vec<(PathBuf, Recording)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../histories");
    let files = std::fs::read_dir(&folder).expect("the histories are in the tree");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a folder that can be read").path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let bytes = std::fs::read(&file).expect("a history that can be read");
            let recording =
                serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            (file, recording)
        })
        .collect()
}

#[test]
fn every_kept_history_decides_the_same() {
    let mut own = |wanted: &HarnessRef| registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>);
    for (file, recording) in kept() {
        let report =
            replay(&recording, With::Own(&mut own)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(report.divergence, None, "{}", file.display());
        assert_eq!(report.commits, recording.commits.len() as u64, "{}", file.display());
        assert!(report.decisions >= 5, "{} shows too little: {report:?}", file.display());
    }
}

#[test]
fn every_released_harness_has_a_kept_history() {
    let kept = kept();
    for harness in HARNESSES {
        let reference = harness.reference();
        let has = kept.iter().any(|(_, recording)| recording.genesis.harness == reference);
        assert!(has, "{reference}: run scripts/record-histories and keep what it records");
    }
}
