//! `decide`: makes the next commit, with the harness under control: its own thread, its own time, its panics.

use domain::limits::HARNESS_TIMEOUT_MS;
use harness::{
    Decision, View,
    frame::{self, HarnessError},
    registry,
};
use std::{panic::AssertUnwindSafe, sync::mpsc, time::Duration};
use workflows::contract::DecideInput;

pub fn decide(input: &DecideInput) -> domain::Commit {
    let wanted = input.state.summary.harness.clone();
    frame::decide(&input.state, &input.intake, &mut |view| {
        let failed = |what: &str| HarnessError { harness: wanted.to_string(), what: what.to_owned() };
        let Some(harness) = registry::find(&wanted) else {
            return Err(failed("is not in this build; a build that has it takes the session up again"));
        };
        bounded(harness.next, view).map_err(failed)
    })
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

    fn view() -> View {
        serde_json::from_value(serde_json::json!({
            "version": 1, "now": "2026-01-01T00:00:00Z", "seed": 1, "turn": 1, "round": 0, "last": null, "calls": [],
            "results": [], "queued": [], "context": {"tokens": 0, "window_tokens": 1}, "memo": null,
            "agent": {"model": "m", "tools": [], "strategy": {"name": "full", "version": 1}, "shims_off": []},
        }))
        .expect("a view")
    }

    #[test]
    fn a_harness_that_panics_or_loops_is_named_and_left() {
        assert_eq!(bounded(|_| panic!("bad"), &view()), Err("panicked"));
        let looping = bounded(
            |_| loop {
                std::thread::park();
            },
            &view(),
        );
        assert_eq!(looping, Err("did not decide in time"));
        assert!(bounded(|_| Step::Continue {}.into(), &view()).is_ok());
    }
}
