//! Named moments at which a test can have a process stopped, to see what becomes of a session when it dies there.
//!
//! Off unless [`arm`] was called, and then passing a point costs one read. This file knows when the moment has come;
//! what happens then is the caller's: nothing here touches the process or its environment.

use std::{
    str::FromStr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The moments, each between two things that a crash must not tear apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The engine has a POST's signal; the client has no answer.
    EventAccepted,
    /// A workflow task has begun to decide.
    TaskStarted,
    /// A decision is made and recorded nowhere.
    DecisionMade,
    /// A decision is recorded, and its step, a model request, was not begun.
    DecisionRecorded,
    /// The model has answered; nobody was told.
    ModelAnswered,
    /// A hand was made; nobody was told.
    HandProvisioned,
    /// What is in a hand is kept; nobody was told.
    HandKept,
    /// A tool call has reached a hand worker and no hand.
    ExecuteDispatched,
    /// A hand's journal knows of a call; nothing was started.
    CallBegun,
    /// A call is over; the hand's journal does not know.
    CallEnded,
    /// A call's result is in the hand's journal; nobody was told.
    CallRecorded,
    /// A tool has finished; nobody was told.
    ToolFinished,
    /// A run is about to continue as new.
    RunContinued,
    /// A closed run is about to be sealed.
    RunSealing,
    /// A run's segment is written; nobody was told.
    RunSealed,
    /// A rollout has begun to decide.
    RolloutDeciding,
    /// A rollout's decision is made and recorded nowhere.
    RolloutDecided,
    /// A part of a rollout's gate is about to begin.
    GateStarted,
    /// A part of a rollout's gate is over; nobody was told.
    GateReported,
    /// A run of a rollout is about to continue as new.
    RolloutContinued,
    /// A what-if is about to begin.
    TrialStarted,
    /// A what-if is over; nobody was told.
    TrialReported,
}

impl Point {
    pub const ALL: [(Point, &str); 22] = [
        (Point::EventAccepted, "event-accepted"),
        (Point::TaskStarted, "task-started"),
        (Point::DecisionMade, "decision-made"),
        (Point::DecisionRecorded, "decision-recorded"),
        (Point::ModelAnswered, "model-answered"),
        (Point::HandProvisioned, "hand-provisioned"),
        (Point::HandKept, "hand-kept"),
        (Point::ExecuteDispatched, "execute-dispatched"),
        (Point::CallBegun, "call-begun"),
        (Point::CallEnded, "call-ended"),
        (Point::CallRecorded, "call-recorded"),
        (Point::ToolFinished, "tool-finished"),
        (Point::RunContinued, "run-continued"),
        (Point::RunSealing, "run-sealing"),
        (Point::RunSealed, "run-sealed"),
        (Point::RolloutDeciding, "rollout-deciding"),
        (Point::RolloutDecided, "rollout-decided"),
        (Point::GateStarted, "gate-started"),
        (Point::GateReported, "gate-reported"),
        (Point::RolloutContinued, "rollout-continued"),
        (Point::TrialStarted, "trial-started"),
        (Point::TrialReported, "trial-reported"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// The n-th passage of a point, counted from 1: `tool-finished` or `tool-finished:3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub point: Point,
    pub nth: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not POINT or POINT:N with one of {names}", names = Point::ALL.map(|(_, name)| name).join(", "))]
pub struct Unknown(String);

impl FromStr for Fault {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        let unknown = || Unknown(text.to_owned());
        let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
        let (point, _) = Point::ALL.into_iter().find(|(_, known)| *known == name).ok_or_else(unknown)?;
        let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or_else(unknown)?;
        Ok(Fault { point, nth })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.point.name(), self.nth)
    }
}

struct Armed {
    fault: Fault,
    passed: AtomicU64,
    act: fn(),
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Lets `act` happen at `fault`, once. The first call in a process counts.
pub fn arm(fault: Fault, act: fn()) {
    ARMED.get_or_init(|| Armed { fault, passed: AtomicU64::new(0), act });
}

/// What is waited for in this process, for whoever has to hand it on to a process that it starts.
pub fn armed() -> Option<Fault> {
    ARMED.get().map(|armed| armed.fault)
}

/// The moment has come.
pub fn pass(point: Point) {
    if let Some(armed) = ARMED.get()
        && armed.fault.point == point
        && armed.passed.fetch_add(1, Ordering::Relaxed) + 1 == armed.fault.nth
    {
        (armed.act)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_order_of_the_points() {
        for (point, name) in Point::ALL {
            assert_eq!(point.name(), name);
            assert_eq!(name.parse::<Fault>().unwrap(), Fault { point, nth: 1 });
            assert_eq!(format!("{name}:7").parse::<Fault>().unwrap().to_string(), format!("{name}:7"));
        }
        for wrong in ["", "tool", "tool-finished:", "tool-finished:0", "tool-finished:x", "tool-finished:1:1"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn acts_at_the_nth_passage_and_only_there() {
        static ACTED: AtomicU64 = AtomicU64::new(0);
        pass(Point::RunSealed);
        arm(Fault { point: Point::RunSealed, nth: 2 }, || {
            ACTED.fetch_add(1, Ordering::Relaxed);
        });
        for expect in [0, 1, 1] {
            pass(Point::RunSealing);
            pass(Point::RunSealed);
            assert_eq!(ACTED.load(Ordering::Relaxed), expect);
        }
    }
}
