//! The frame: makes a commit out of what arrived. It is the same for every harness.
//!
//! It puts what arrived in order, makes the status, span, usage, refused, interrupted and ignored events, and
//! asks the harness for the next step when nothing is under way that the turn waits for. It writes on a
//! draft that is the state with the takes so far applied, so what it decides on is what replay will see.

mod draft;
mod mail;
mod turn;

use crate::{intake::Intake, state::SessionState, view::View};
use domain::{Commit, Status};
use draft::Draft;

/// Why a harness gave no decision.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("harness {harness} {what}")]
pub struct HarnessError {
    pub harness: String,
    pub what: String,
}

/// Asks the session's harness. The caller bounds its time and catches its panics.
pub type Ask<'a> = dyn FnMut(&View) -> Result<crate::Decision, HarnessError> + 'a;

/// Makes the next commit. Pure: the same state, intake and harness give the same commit.
pub fn decide(state: &SessionState, intake: &Intake, ask: &mut Ask<'_>) -> Commit {
    let mut draft = Draft::new(state, intake);
    for closing in &intake.closed {
        turn::close(&mut draft, closing);
    }
    mail::sort(&mut draft);
    turn::go_on(&mut draft, ask);
    draft.finish()
}

/// Whether a decision on this state and intake would do anything: the shell sleeps until it would.
pub fn is_due(state: &SessionState, intake: &Intake) -> bool {
    // The turn is on and nothing holds it: the harness moves, or the session says what it waits for.
    if (state.summary.status == Status::Running && !state.is_busy())
        || intake.closed.iter().any(|closing| state.pending(&closing.activity).is_some())
    {
        return true;
    }
    mail::is_due(state, intake)
}

#[cfg(test)]
mod tests;
