//! The frame: makes a commit out of what arrived. It is the same for every harness.
//!
//! It puts what arrived in order, makes the status, span, usage, refused, interrupted and ignored events, and
//! asks the harness for the next step when nothing is under way that the turn waits for. It writes on a
//! draft that is the state with the takes so far applied, so what it decides on is what replay will see.

mod draft;
mod fork;
mod mail;
mod rest;
mod turn;
mod views;

use crate::{intake::Intake, state::SessionState, view::View};
use domain::{Commit, PrivateEntry, Status, Take};
use draft::Draft;
pub use views::Views;

/// Why a harness gave no decision.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("harness {harness} {what}")]
pub struct HarnessError {
    pub harness: String,
    pub what: String,
}

/// Asks the session's harness. Whoever implements it bounds the harness's time and catches its panics.
pub trait Ask {
    /// The version of the View that the harness was written for.
    fn view_version(&self) -> u32;

    /// `view` is the one of that version; `views` gives the same moment in any other.
    fn ask(&mut self, view: &View, views: &Views) -> Result<crate::Decision, HarnessError>;
}

/// Makes the next commit. Pure: the same state, intake and harness give the same commit.
pub fn decide(state: &SessionState, intake: &Intake, ask: &mut dyn Ask) -> Commit {
    make(Draft::new(state, intake), intake, ask)
}

/// Makes a commit again that was recorded, as the build that made it did.
pub fn decide_again(state: &SessionState, intake: &Intake, ask: &mut dyn Ask, recorded: &Commit) -> Commit {
    let entries = recorded.takes.iter().filter_map(|take| match take {
        Take::Private { entry } => Some(entry),
        _ => None,
    });
    let mut behind_swap = entries.skip_while(|entry| !matches!(entry, PrivateEntry::Swapped { .. }));
    let turn_begins_with_swap = behind_swap.any(|entry| matches!(entry, PrivateEntry::TurnBegun {}));
    let is_swapped = |take: &Take| matches!(take, Take::Private { entry: PrivateEntry::Swapped { .. } });
    let mut draft = Draft::new(state, intake);
    draft.swaps_with_end = recorded.takes.iter().any(is_swapped);
    draft.turn_begins_with_swap = turn_begins_with_swap;
    make(draft, intake, ask)
}

fn make(mut draft: Draft<'_>, intake: &Intake, ask: &mut dyn Ask) -> Commit {
    fork::begin(&mut draft);
    for closing in &intake.closed {
        turn::close(&mut draft, closing);
    }
    mail::sort(&mut draft);
    turn::go_on(&mut draft, ask);
    rest::settle(&mut draft);
    draft.finish()
}

/// Whether a decision on this state and intake would do anything: the shell sleeps until it would.
pub fn is_due(state: &SessionState, intake: &Intake) -> bool {
    // The turn is on and nothing holds it: the harness moves, or the session says what it waits for.
    if state.fork.is_some()
        || (state.summary.status == Status::Running && !state.is_busy())
        || intake.closed.iter().any(|closing| state.pending(&closing.activity).is_some())
    {
        return true;
    }
    mail::is_due(state, intake)
}

#[cfg(test)]
mod servers;
#[cfg(test)]
mod several;
#[cfg(test)]
mod tests;
