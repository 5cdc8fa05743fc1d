//! The catalogue of attacks against a real hand, one test each, whatever its walls are made by.
//!
//! `attacks.json` has the commands and what must and must not be seen; [`cases`] says where each is run, what else is
//! looked at, and on what lesser hand the same attack succeeds, so that a test which cannot fail is known as such.

use crate::cases::{self, CASES, Case, Place};
use crate::fixture;
use libtest_mimic::{Arguments, Failed, Trial};
use regex::Regex;
use serde::Deserialize;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

#[derive(Deserialize, Clone)]
pub struct Attack {
    pub id: String,
    pub name: String,
    pub command: String,
    pub timeout_s: u64,
    pub must: Vec<String>,
    pub mustnot: Vec<String>,
}

impl Attack {
    /// Why what an attack has brought to light is not as it must be.
    pub fn judge(&self, said: &str) -> Result<(), Failed> {
        let finds = |pattern: &str| Regex::new(&format!("(?m){pattern}")).map(|regex| regex.is_match(said));
        for pattern in &self.must {
            if !finds(pattern)? {
                return Err(format!("{pattern} is missing in: {said}").into());
            }
        }
        for pattern in &self.mustnot {
            if finds(pattern)? {
                return Err(format!("{pattern} is in: {said}").into());
            }
        }
        Ok(())
    }
}

/// What not every machine can put up, and whether it does what it is for.
pub struct Layer {
    pub name: &'static str,
    pub needs: fn() -> Option<String>,
    pub run: fn() -> Result<(), Failed>,
}

/// In the environment of whoever makes hands, as a service may have it.
pub const CANARY: &str = "STEADYHAND_TEST_TOKEN";

/// Run it, and tests of layers beside it.
pub fn run(layers: &[Layer]) -> ExitCode {
    if std::env::var_os(CANARY).is_none() {
        let own = std::env::current_exe().expect("it runs");
        let error = Command::new(own).args(std::env::args_os().skip(1)).env(CANARY, "CANARY-environment").exec();
        panic!("start again with a canary: {error}");
    }
    let attacks: Vec<Attack> = serde_json::from_str(include_str!("attacks.json")).expect("the catalogue is JSON");
    let mut trials = vec![Trial::test("every_attack_has_its_case", {
        let ids: Vec<_> = attacks.iter().map(|attack| attack.id.clone()).collect();
        move || {
            let cases: Vec<_> = CASES.iter().map(|case| case.id.to_owned()).collect();
            if ids == cases { Ok(()) } else { Err(format!("{ids:?} are not {cases:?}").into()) }
        }
    })];
    for (attack, case) in attacks.into_iter().zip(CASES) {
        if let Place::Hand(run) = &case.place {
            trials.extend(trials_of(attack, case, *run));
        }
    }
    for layer in layers {
        let (name, skip) = marked(layer.name.to_owned(), (layer.needs)());
        trials.push(Trial::test(name, layer.run).with_ignored_flag(skip));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The attack, and its success on a lesser hand where it can have any.
fn trials_of(attack: Attack, case: &'static Case, run: cases::Run) -> Vec<Trial> {
    let title = format!("{} {}", attack.id, attack.name);
    let missing = case.needs.and_then(|needs| needs());
    let (name, skip) = marked(title.clone(), missing);
    let refused = attack.clone();
    let mut trials = vec![Trial::test(name, move || run(&refused)).with_ignored_flag(skip)];
    if let cases::Control::Succeeds(naive) = case.control {
        let root = (!fixture::is_root()).then(|| "the lesser hand needs root to become a plain user".to_owned());
        let (name, skip) = marked(format!("{title}: succeeds on a lesser hand"), root);
        let control = move || match naive(&attack) {
            true => Ok(()),
            false => Err("it was refused there as well, so the attack shows nothing".into()),
        };
        trials.push(Trial::test(name, control).with_ignored_flag(skip));
    }
    trials
}

/// A test that this machine cannot run says so in its name, and is not run.
fn marked(name: String, missing: Option<String>) -> (String, bool) {
    match missing {
        Some(missing) => (format!("{name} (cannot run here: {missing})"), true),
        None => (name, false),
    }
}
