//! A session at rest: after a while its hand is parked, or what is in it goes to another session. It is kept and recorded, and
//! only then is the hand let go; the next call, of whichever session has it then, gets a new hand that begins with what was kept.

use super::{draft::Draft, turn};
use crate::{
    intake::{Closing, Outcome, Waiting},
    state::{Op, SessionState},
};
use domain::{PrivateEntry, commit::Closed, ids, outcome::ParkOutcome, session::Handed};

/// A session that comes to rest lets its hand rest; one that goes on does not.
pub fn settle(draft: &mut Draft<'_>) {
    if draft.state.summary.status.is_idle() {
        give(draft);
    }
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
    // Mail that this commit leaves waiting is not in the log, so nothing may go by it.
    let is_used = state.pending.iter().any(|pending| is_asked(&pending.op));
    if closing.how == Closed::Finished && state.summary.status.is_idle() && state.has_hand() && !is_used {
        let activity = format!("park-{}", state.summary.n);
        draft.note(PrivateEntry::Parking { activity });
    }
}

/// A hand that cannot be parked stays until its lease ends.
pub fn parked(draft: &mut Draft<'_>, closing: &Closing) {
    draft.closed(&closing.activity, closing.how.clone());
    let stays = match (&closing.outcome, draft.state.summary.hand.clone()) {
        (Some(Outcome::Park { outcome: ParkOutcome::Parked { workspace } }), Some(hand)) => {
            let release = format!("discard-{}", draft.state.summary.n);
            return draft.note(PrivateEntry::HandParked { hand, workspace: workspace.clone(), release });
        }
        (Some(Outcome::Park { outcome: ParkOutcome::Gone {} }), Some(_)) => {
            return turn::hand_lost(draft, "nothing of it is left");
        }
        (Some(Outcome::Park { outcome: ParkOutcome::Kept { failure } }), _) => failure.message.clone(),
        _ => "the machine that has the sandbox does not answer".to_owned(),
    };
    if draft.state.giving.is_some() {
        draft.note(PrivateEntry::NotGiven { reason: stays });
    }
}

/// What is in the hand goes to another session, if that was asked for: at once where it is kept already.
fn give(draft: &mut Draft<'_>) {
    let asked = |waiting: &Waiting| match waiting {
        Waiting::Give { give } => Some(give.clone()),
        _ => None,
    };
    if draft.state.giving.is_none()
        && let Some(give) = draft.intake.mail.iter().find_map(asked)
    {
        draft.note(PrivateEntry::Giving { give });
    }
    let state = &draft.state;
    let Some(give) = state.giving.clone() else { return };
    if let Some(parked) = state.summary.parked.clone() {
        let id = ids::derive("handed", &[&state.session_id, &give.id]);
        let (from, hand, workspace) = (state.session_id.clone(), parked.hand, parked.workspace);
        let handed = Handed { id, from, hand, workspace, returned: false };
        let activity = format!("hand-{}", state.summary.n);
        return draft.note(PrivateEntry::HandGiven { to: give.to, handed, activity });
    }
    if state.summary.hand.is_none() {
        return draft.note(PrivateEntry::NotGiven { reason: "there is no sandbox".to_owned() });
    }
    // What is still asked of it comes first.
    let is_used = |op: &Op| op.needs_hand() || matches!(op, Op::Collect {} | Op::Park {} | Op::Provision { .. });
    if !state.pending.iter().any(|pending| is_used(&pending.op)) {
        let resting = state.pending.iter().find(|pending| matches!(pending.op, Op::Rest { .. }));
        let (resting, activity) = (resting.map(|rest| rest.activity.clone()), format!("park-{}", state.summary.n));
        if let Some(resting) = resting {
            draft.closed(&resting, Closed::Cancelled);
        }
        draft.note(PrivateEntry::Parking { activity });
    }
}

/// What another session had. One that has a sandbox of its own keeps that.
pub fn handed(draft: &mut Draft<'_>, handed: &Handed) {
    if is_without(&draft.state) {
        draft.note(PrivateEntry::HandTaken { handed: handed.clone() });
    } else {
        refuse(draft, handed);
    }
}

/// It goes back to where it came from, and no further.
pub fn refuse(draft: &mut Draft<'_>, handed: &Handed) {
    let activity = (!handed.returned).then(|| format!("return-{}", handed.id));
    draft.note(PrivateEntry::HandRefused { handed: handed.clone(), activity });
}

/// The other session has been told, or is over.
pub fn sent(draft: &mut Draft<'_>, closing: &Closing, handed: &Handed) {
    draft.closed(&closing.activity, closing.how.clone());
    if closing.how != Closed::Finished && !handed.returned && is_without(&draft.state) {
        draft.note(PrivateEntry::HandBack { handed: handed.clone() });
    }
}

fn is_without(state: &SessionState) -> bool {
    let is_made = state.pending.iter().any(|pending| matches!(pending.op, Op::Provision { .. }));
    state.summary.hand.is_none() && state.summary.parked.is_none() && !is_made
}

#[cfg(test)]
mod tests;
