//! `decide`: makes the next commit, with the harness under control: its own thread, its own time, its panics.

use crate::harnesses::Found;
use domain::{agent::HarnessRef, limits::HARNESS_TIMEOUT_MS};
use harness::{
    Decision, View,
    frame::{self, Ask, HarnessError, Views},
    view::VERSION,
};
use std::{panic::AssertUnwindSafe, sync::mpsc, time::Duration};
use workflows::contract::DecideInput;

pub fn decide(input: &DecideInput, found: &Found) -> domain::Commit {
    let mut guarded = Guarded::new(&input.state.summary.harness, found);
    frame::decide(&input.state, &input.intake, &mut guarded)
}

/// A harness that can do nothing worse than fail.
pub(crate) struct Guarded<'a> {
    name: String,
    found: &'a Found,
}

impl<'a> Guarded<'a> {
    pub(crate) fn new(harness: &HarnessRef, found: &'a Found) -> Self {
        Guarded { name: harness.to_string(), found }
    }
}

impl Ask for Guarded<'_> {
    fn view_version(&self) -> u32 {
        match self.found {
            Found::Native(native) => native.view,
            Found::Wasm(wasm) => wasm.manifest().view,
            Found::Gone(_) => VERSION,
        }
    }

    fn ask(&mut self, view: &View, _views: &Views) -> Result<Decision, HarnessError> {
        let decided = match self.found {
            Found::Native(native) => bounded(native.next, view).map_err(str::to_owned),
            // Fuel bounds it, the same everywhere; a clock would not.
            Found::Wasm(wasm) => std::panic::catch_unwind(AssertUnwindSafe(|| wasm.next(view)))
                .unwrap_or_else(|_| Err("broke its interpreter".to_owned())),
            Found::Gone(why) => Err(why.clone()),
        };
        decided.map_err(|what| HarnessError { harness: self.name.clone(), what })
    }
}

/// Runs a harness on a thread of its own: one that loops is left behind, one that panics is caught.
fn bounded(next: fn(&View) -> Decision, view: &View) -> Result<Decision, &'static str> {
    let (answer, answered) = mpsc::sync_channel(1);
    let view = view.clone();
    std::thread::Builder::new()
        .name("harness".to_owned())
        .spawn(move || {
            if let Ok(decision) = std::panic::catch_unwind(AssertUnwindSafe(|| next(&view))) {
                // Nobody listens any more when it was too late.
                let _ = answer.send(decision);
            }
        })
        .map_err(|_| "could not be given a thread")?;
    match answered.recv_timeout(Duration::from_millis(HARNESS_TIMEOUT_MS)) {
        Ok(decision) => Ok(decision),
        Err(mpsc::RecvTimeoutError::Timeout) => Err("did not decide in time"),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("panicked"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Step;

    #[test]
    fn a_harness_that_panics_or_loops_is_named_and_left() {
        let view = View::probe(VERSION);
        assert_eq!(bounded(|_| panic!("bad"), &view), Err("panicked"));
        let looping = bounded(
            |_| loop {
                std::thread::park();
            },
            &view,
        );
        assert_eq!(looping, Err("did not decide in time"));
        assert!(bounded(|_| Step::Continue {}.into(), &view).is_ok());
    }
}
