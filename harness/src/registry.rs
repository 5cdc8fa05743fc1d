//! The harnesses of this build: one line each.

use crate::{
    Decision, View,
    frame::{Ask, HarnessError, Views},
    loop_v1, loop_v2, plan_act_v1,
};
use domain::{
    agent::{HarnessRef, StrategyRef},
    ids,
};

/// A released, frozen piece of deterministic code that decides the next step.
pub struct Harness {
    pub name: &'static str,
    pub version: u32,
    /// The files that it is made of: their sha-256 is its identity.
    pub source: &'static [&'static str],
    /// The version of the View that it was written for.
    pub view: u32,
    /// How it makes requests where the agent asks for nothing else; `None`: as the agent says.
    pub strategy: Option<Declared>,
    pub next: fn(&View) -> Decision,
    /// Workarounds inside, each with the assumption it encodes.
    pub shims: &'static [Shim],
}

/// A context strategy with its parameters, as JSON.
pub struct Declared {
    pub name: &'static str,
    pub version: u32,
    pub params: &'static str,
}

/// A workaround for what a model of its time could not do. `AgentView::shims_off` switches it off by name.
pub struct Shim {
    pub name: &'static str,
    pub assumption: &'static str,
    /// The model that it was written for.
    pub model: &'static str,
}

/// Every harness that this build can run, oldest first. Released ones never change: add a version.
pub static HARNESSES: &[Harness] = &[loop_v1::HARNESS, loop_v2::HARNESS, plan_act_v1::HARNESS];

/// What a session gets that asks for nothing else.
pub fn default_harness() -> HarnessRef {
    HARNESSES[0].reference()
}

pub fn find(wanted: &HarnessRef) -> Option<&'static Harness> {
    HARNESSES.iter().find(|harness| harness.reference() == *wanted)
}

/// The harness that people call `name@version`.
pub fn named(name: &str, version: u32) -> Option<&'static Harness> {
    HARNESSES.iter().find(|harness| harness.name == name && harness.version == version)
}

impl Harness {
    pub fn reference(&self) -> HarnessRef {
        HarnessRef {
            name: self.name.to_owned(),
            version: self.version,
            sha256: ids::content_hash(self.source.concat().as_bytes()),
        }
    }

    /// The strategy that it declares.
    pub fn strategy(&self) -> Option<StrategyRef> {
        self.strategy.as_ref().map(|declared| StrategyRef {
            name: declared.name.to_owned(),
            version: declared.version,
            params: serde_json::from_str(declared.params).unwrap_or_default(),
        })
    }
}

/// Asks it here and now: for those who bound its time themselves.
impl Ask for &Harness {
    fn view_version(&self) -> u32 {
        self.view
    }

    fn ask(&mut self, view: &View, _views: &Views) -> Result<Decision, HarnessError> {
        Ok((self.next)(view))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{context, view};
    use std::collections::BTreeSet;

    /// The identities of released harnesses. A line that does not hold any more means that a released file was
    /// changed: sessions that are pinned to it would lose their harness. Add a version instead.
    const RELEASED: &[(&str, u32, &str)] = &[
        ("loop", 1, "f333bd269d7b5ca15298575861f53af18f00823fae5270a888ecaebd117dabb6"),
        ("loop", 2, "9d447c4a21603fc97daf206c004b6483dd8e475b4a77fdd87f4c25582e589e23"),
        ("plan-act", 1, "37ea95df9f1a97bc3f19da13ea6b098b2546f61ab71554e108528542152b2592"),
    ];

    #[test]
    fn released_harnesses_are_frozen() {
        let known: Vec<_> = HARNESSES.iter().map(Harness::reference).collect();
        let known: Vec<_> =
            known.iter().map(|known| (known.name.as_str(), known.version, known.sha256.as_str())).collect();
        assert_eq!(known, RELEASED);
    }

    #[test]
    fn every_harness_is_found_by_its_own_reference() {
        for harness in HARNESSES {
            let found = find(&harness.reference()).expect("it is in the list");
            assert_eq!((found.name, found.version), (harness.name, harness.version));
            assert!(named(harness.name, harness.version).is_some());
        }
        let gone = HarnessRef { name: "loop".into(), version: 1, sha256: "0".repeat(64) };
        assert!(find(&gone).is_none(), "a harness is its bytes, not its name");
    }

    #[test]
    fn what_a_harness_declares_exists_and_its_shims_have_names_of_their_own() {
        for harness in HARNESSES {
            assert!((1..=view::VERSION).contains(&harness.view), "{}@{}", harness.name, harness.version);
            if let Some(declared) = &harness.strategy {
                context::find(&harness.strategy().expect("it declares one")).expect("a strategy of this build");
                serde_json::from_str::<serde_json::Value>(declared.params).expect("parameters are JSON");
            }
            let names: BTreeSet<_> = harness.shims.iter().map(|shim| shim.name).collect();
            assert_eq!(names.len(), harness.shims.len());
            assert!(harness.shims.iter().all(|shim| !shim.assumption.is_empty() && !shim.model.is_empty()));
        }
    }
}
