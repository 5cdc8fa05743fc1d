//! Dead weight: what a shim of a harness changes on recorded sessions. Each moment of a record is shown to the harness twice,
//! with the shim and without it, and what it decides is held against each other.
//!
//! A record says what a shim does in moments that really were. It cannot say what would have become of the session
//! without it: the answers in the record are answers to what was really sent. [`shadow`] says that, where a model is asked.

pub mod shadow;

use crate::{
    Decision, View,
    frame::{self, Ask, HarnessError, Views},
    replay::{self, Error, Recording, walk},
};
use domain::{Step, rollout::Moments};
use serde::Serialize;
use std::panic::AssertUnwindSafe;

/// What one shim does, over some sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Effect {
    pub sessions: u64,
    /// Sessions in which it changed anything.
    pub sessions_changed: u64,
    /// Moments at which the harness was asked.
    pub moments: u64,
    /// Of these, where it decided another step, or told of another error.
    pub other_step: u64,
    /// Of these, where it made the same request by another context strategy.
    pub other_context: u64,
    /// Model requests of a session more than without it, one by one at the moments of the record.
    pub requests: Moments,
}

impl Effect {
    /// Takes in one session.
    pub fn add(
        &mut self,
        recording: &Recording,
        harness: &domain::agent::HarnessRef,
        ask: &mut dyn Ask,
        shim: &str,
    ) -> Result<(), Error> {
        let mut twice = Twice { ask, name: harness.to_string(), shim, memos: [None, None], seen: None };
        let (mut other_step, mut other_context, mut requests) = (0, 0, 0);
        walk(recording, |state, intake, committed| {
            if committed.commit.view_hash.is_none() {
                return Ok(());
            }
            frame::decide_again(state, intake, &mut twice, &committed.commit);
            let Some([with, without]) = twice.seen.take() else { return Ok(()) };
            self.moments += 1;
            match (&with, &without) {
                (Ok(with), Ok(without)) => {
                    let is_same = replay::plain(&with.step) == replay::plain(&without.step);
                    other_step += u64::from(!is_same || with.errors != without.errors);
                    let strategies = (replay::step_strategy(&with.step), replay::step_strategy(&without.step));
                    other_context += u64::from(is_same && strategies.0 != strategies.1);
                }
                (with, without) => other_step += u64::from(with.is_ok() != without.is_ok()),
            }
            requests += asks(&with) - asks(&without);
            Ok(())
        })?;
        self.sessions += 1;
        self.sessions_changed += u64::from(other_step + other_context > 0);
        self.other_step += other_step;
        self.other_context += other_context;
        self.requests.add(requests as f64);
        Ok(())
    }

    /// Between which shares of all such sessions it changes something, with 95 percent confidence (Wilson's interval).
    pub fn share(&self) -> (f64, f64) {
        wilson(self.sessions_changed, self.sessions)
    }
}

/// Of the normal distribution, for 95 percent on both sides.
const Z: f64 = 1.959_964;

/// The 95 percent interval of a mean. One value says nothing of how far others lie from it.
pub fn interval(moments: &Moments) -> Option<(f64, f64)> {
    let half = Z * (moments.variance() / moments.n as f64).sqrt();
    (moments.n > 1).then(|| (moments.mean() - half, moments.mean() + half))
}

/// Wilson's 95 percent interval of a share.
fn wilson(found: u64, of: u64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (of as f64, found as f64 / of as f64);
    let scale = 1.0 + Z * Z / n;
    let centre = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

type Answer = Result<Decision, HarnessError>;

fn asks(answer: &Answer) -> i64 {
    i64::from(
        answer.as_ref().is_ok_and(|decision| matches!(decision.step, Step::CallModel { .. } | Step::Compact { .. })),
    )
}

/// Asks a harness with a shim and without it. Each of the two remembers what it decided itself.
struct Twice<'a> {
    ask: &'a mut dyn Ask,
    name: String,
    shim: &'a str,
    memos: [Option<String>; 2],
    seen: Option<[Answer; 2]>,
}

impl Twice<'_> {
    fn one(&mut self, view: &View, views: &Views, which: usize) -> Answer {
        let mut view = view.clone();
        view.agent.shims_off.retain(|name| name != self.shim);
        if which == 1 {
            view.agent.shims_off.push(self.shim.to_owned());
        }
        view.memo.clone_from(&self.memos[which]);
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| self.ask.ask(&view, views)));
        let answer =
            asked.unwrap_or_else(|_| Err(HarnessError { harness: self.name.clone(), what: "panicked".to_owned() }));
        if let Ok(Decision { memo: Some(memo), .. }) = &answer {
            self.memos[which] = Some(memo.clone());
        }
        answer
    }
}

impl Ask for Twice<'_> {
    fn view_version(&self) -> u32 {
        self.ask.view_version()
    }

    fn ask(&mut self, view: &View, views: &Views) -> Answer {
        let with = self.one(view, views, 0);
        let without = self.one(view, views, 1);
        self.seen = Some([with.clone(), without]);
        with
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kit::Session, registry, state::Op};

    /// A turn of some rounds, at the end of each of which the model's context was as full as `tokens`.
    fn recorded(tokens: u64) -> Recording {
        let harness = registry::named("loop", 2).expect("it is in this build");
        let mut session = Session::new(crate::kit::attributes(), harness.reference());
        session.input_tokens = tokens;
        session.message("go");
        session.settle();
        let mut rounds = 0;
        while let Some((activity, op)) = session.flying.first().cloned() {
            match op {
                Op::CallModel { .. } if rounds < 3 => {
                    rounds += 1;
                    session.model_answers(&activity, "looking", &["bash"]);
                }
                Op::CallModel { .. } | Op::Compact { .. } => {
                    session.input_tokens = 10;
                    session.model_answers(&activity, "done", &[]);
                }
                Op::Provision { hand, .. } => session.hand_is_ready(&activity, &hand),
                Op::Execute { call } => {
                    let text = format!("output {rounds}");
                    session.tool_returns(&activity, &call, &text, false);
                }
                Op::Collect { .. } => session.collected(&activity),
                other => panic!("{other:?}"),
            }
            session.settle();
        }
        session.recording()
    }

    fn effect(recording: &Recording, shim: &str) -> Effect {
        let mut harness = registry::named("loop", 2).expect("it is in this build");
        let mut effect = Effect::default();
        effect.add(recording, &harness.reference(), &mut harness, shim).unwrap();
        effect
    }

    #[test]
    fn a_shim_acts_on_a_model_that_needs_it_and_is_dead_weight_on_one_that_does_not() {
        let window = crate::kit::attributes().agent.window_tokens;
        let needs = effect(&recorded(window * 78 / 100), "context-reset");
        assert_eq!((needs.sessions, needs.sessions_changed), (1, 1), "{needs:?}");
        assert!(needs.other_step > 0, "{needs:?}");
        let other = effect(&recorded(window / 100), "context-reset");
        assert_eq!((other.sessions_changed, other.other_step, other.other_context), (0, 0, 0), "{other:?}");
        assert!(other.moments >= 4, "it was asked: {other:?}");
        assert_eq!(effect(&recorded(10), "no such shim").sessions_changed, 0);
    }

    #[test]
    fn a_share_of_few_sessions_is_told_with_its_breadth() {
        let close = |(low, high): (f64, f64), expected: (f64, f64)| {
            assert!((low - expected.0).abs() < 1e-3 && (high - expected.1).abs() < 1e-3, "{low} {high}");
        };
        close(wilson(0, 0), (0.0, 1.0));
        close(wilson(0, 20), (0.0, 0.161));
        close(wilson(10, 20), (0.299, 0.701));
        close(wilson(50, 50), (0.929, 1.0));
    }
}
