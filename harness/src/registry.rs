//! The harnesses of this build: one line each.

use crate::{Decision, View, loop_v1};
use domain::{agent::HarnessRef, ids};

/// A released, frozen piece of deterministic code that decides the next step.
pub struct Harness {
    pub name: &'static str,
    pub version: u32,
    /// Its source file: the sha-256 of it is the identity of the harness.
    pub source: &'static str,
    pub next: fn(&View) -> Decision,
    /// Workarounds inside, each with the assumption it encodes.
    pub shims: &'static [Shim],
}

/// A workaround for what a model of its time could not do.
pub struct Shim {
    pub name: &'static str,
    pub assumption: &'static str,
    /// The model that it was written for.
    pub model: &'static str,
}

/// Every harness that this build can run, oldest first. Released ones never change: add a version.
pub static HARNESSES: &[Harness] = &[loop_v1::HARNESS];

/// What a session gets that asks for nothing else.
pub fn default_harness() -> HarnessRef {
    HARNESSES[0].reference()
}

pub fn find(wanted: &HarnessRef) -> Option<&'static Harness> {
    HARNESSES.iter().find(|harness| harness.reference() == *wanted)
}

impl Harness {
    pub fn reference(&self) -> HarnessRef {
        HarnessRef {
            name: self.name.to_owned(),
            version: self.version,
            sha256: ids::content_hash(self.source.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_harness_is_found_by_its_own_reference() {
        for harness in HARNESSES {
            let found = find(&harness.reference()).expect("it is in the list");
            assert_eq!((found.name, found.version), (harness.name, harness.version));
        }
        let gone = HarnessRef { name: "loop".into(), version: 1, sha256: "0".repeat(64) };
        assert!(find(&gone).is_none(), "a harness is its bytes, not its name");
    }
}
