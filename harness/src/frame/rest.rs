//! A session at rest: after a while its hand is parked. What is in it is kept and recorded, and only then is it let go; the
//! next call has a new hand that begins with what was kept.

use super::{draft::Draft, turn};
use crate::{
    intake::{Closing, Outcome},
    state::Op,
};
use domain::{PrivateEntry, commit::Closed, outcome::ParkOutcome};

/// A session that comes to rest lets its hand rest; one that goes on does not.
pub fn settle(draft: &mut Draft<'_>) {
    let state = &draft.state;
    let is_idle = state.summary.status.is_idle();
    let resting = state.pending.iter().find(|pending| matches!(pending.op, Op::Rest { .. }));
    match resting.map(|pending| pending.activity.clone()) {
        // A run that is to go on as a new one waits for nothing.
        Some(activity) if !is_idle || draft.has_swapped() => draft.closed(&activity, Closed::Cancelled),
        Some(_) => {}
        None => {
            let after_ms = state.summary.attributes.tuning.park_after_ms;
            if is_idle && !draft.was_idle && after_ms > 0 && state.has_hand() {
                let activity = format!("rest-{}", state.summary.n);
                let until = draft.now.plus_ms(after_ms);
                draft.note(PrivateEntry::Resting { activity, until });
            }
        }
    }
}

/// It has rested long enough.
pub fn over(draft: &mut Draft<'_>, closing: &Closing) {
    draft.closed(&closing.activity, closing.how.clone());
    let state = &draft.state;
    let is_asked = |op: &Op| op.needs_hand() || matches!(op, Op::Collect {} | Op::Release {});
    let is_used = draft.has_input() || state.pending.iter().any(|pending| is_asked(&pending.op));
    if closing.how == Closed::Finished && state.summary.status.is_idle() && state.has_hand() && !is_used {
        let activity = format!("park-{}", state.summary.n);
        draft.note(PrivateEntry::Parking { activity });
    }
}

/// A hand that cannot be parked stays until its lease ends.
pub fn parked(draft: &mut Draft<'_>, closing: &Closing) {
    draft.closed(&closing.activity, closing.how.clone());
    match (&closing.outcome, draft.state.summary.hand.clone()) {
        (Some(Outcome::Park { outcome: ParkOutcome::Parked { workspace } }), Some(hand)) => {
            let release = format!("discard-{}", draft.state.summary.n);
            draft.note(PrivateEntry::HandParked { hand, workspace: workspace.clone(), release });
        }
        (Some(Outcome::Park { outcome: ParkOutcome::Gone {} }), Some(_)) => {
            turn::hand_lost(draft, "nothing of it is left");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
