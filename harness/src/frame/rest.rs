//! A session at rest: after a while its hands are parked, or what is in one goes to another session. It is kept and recorded, and
//! only then is the hand let go; the next call, of whichever session has it then, gets a new hand that begins with what was kept.

use super::{draft::Draft, turn};
use crate::{
    intake::{Closing, Outcome, Waiting},
    state::{Op, SessionState},
};
use domain::{
    HandName, Held, PrivateEntry,
    commit::Closed,
    ids,
    outcome::ParkOutcome,
    session::{Give, Handed},
};

/// A session that comes to rest lets its hands rest; one that goes on does not.
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
            let is_parked_ever = state.summary.attributes.tuning.park_after_ms > 0;
            if is_idle && !draft.was_idle && is_parked_ever && has_hands(state) {
                rest(draft);
            }
        }
    }
}

/// It has rested long enough.
pub fn over(draft: &mut Draft<'_>, closing: &Closing) {
    draft.closed(&closing.activity, closing.how.clone());
    let state = &draft.state;
    // Mail that this commit leaves waiting is not in the log, so nothing may go by it.
    let is_used = state.is_pending(|op| op.needs_hand() || matches!(op, Op::Collect { .. } | Op::Release { .. }));
    if closing.how != Closed::Finished || !state.summary.status.is_idle() || !has_hands(state) {
        return;
    }
    if is_used {
        // They have not rested.
        return rest(draft);
    }
    for name in state.hand_names() {
        if draft.state.has_hand(&name) {
            park(draft, name);
        }
    }
}

/// Hands that nothing is kept of yet.
fn has_hands(state: &SessionState) -> bool {
    state.hand_names().iter().any(|name| state.has_hand(name))
}

fn park(draft: &mut Draft<'_>, name: HandName) {
    let activity = name.activity(&format!("park-{}", draft.state.summary.n));
    draft.note(PrivateEntry::Parking { activity, name });
}

fn rest(draft: &mut Draft<'_>) {
    let after_ms = draft.state.summary.attributes.tuning.park_after_ms;
    let (activity, until) = (format!("rest-{}", draft.state.summary.n), draft.now.plus_ms(after_ms));
    draft.note(PrivateEntry::Resting { activity, until });
}

/// A hand that cannot be parked stays until its lease ends.
pub fn parked(draft: &mut Draft<'_>, closing: &Closing, name: &HandName) {
    draft.closed(&closing.activity, closing.how.clone());
    let stays = match (&closing.outcome, draft.state.hand(name).cloned()) {
        (Some(Outcome::Park { outcome: ParkOutcome::Parked { workspace } }), Some(hand)) => {
            let release = name.activity(&format!("discard-{}", draft.state.summary.n));
            let (name, workspace) = (name.clone(), workspace.clone());
            return draft.note(PrivateEntry::HandParked { hand, name, workspace, release });
        }
        (Some(Outcome::Park { outcome: ParkOutcome::Gone {} }), Some(_)) => {
            return turn::hand_lost(draft, name, "nothing of it is left");
        }
        (Some(Outcome::Park { outcome: ParkOutcome::Kept { failure } }), _) => failure.message.clone(),
        _ => "the machine that has the sandbox does not answer".to_owned(),
    };
    if draft.state.work(name).giving.is_some() {
        draft.note(PrivateEntry::NotGiven { reason: stays, name: name.clone() });
    }
}

/// What is in a hand goes to another session, if that was asked for: at once where it is kept already.
fn give(draft: &mut Draft<'_>) {
    let asked = |waiting: &Waiting| match waiting {
        Waiting::Give { give } => Some(give.clone()),
        _ => None,
    };
    for give in draft.intake.mail.iter().filter_map(asked) {
        // One at a time of each hand.
        if draft.state.work(&give.name).giving.is_none() {
            draft.note(PrivateEntry::Giving { give });
        }
    }
    let names = draft.state.summary.all_held().map(|(name, _)| name);
    let giving: Vec<Give> = names.filter_map(|name| draft.state.work(&name).giving).collect();
    for give in giving {
        give_one(draft, give);
    }
}

fn give_one(draft: &mut Draft<'_>, Give { id, to, name, to_name }: Give) {
    let state = &draft.state;
    let held = state.summary.held(&name);
    if let Some(parked) = held.and_then(|held| held.parked.clone()) {
        let id = ids::derive("handed", &[&state.session_id, &id]);
        let activity = name.activity(&format!("hand-{}", state.summary.n));
        let (from, hand, workspace) = (state.session_id.clone(), parked.hand, parked.workspace);
        let handed = Handed { id, from, hand, name: to_name, from_name: name, workspace, returned: false };
        return draft.note(PrivateEntry::HandGiven { to, handed, activity });
    }
    if state.hand(&name).is_none() {
        return draft.note(PrivateEntry::NotGiven { reason: "there is no sandbox".to_owned(), name });
    }
    // What is still asked of it comes first.
    let is_used = state.is_pending(|op| match op {
        Op::Collect { name: used } | Op::Park { name: used } | Op::Provision { name: used, .. } => *used == name,
        op => op.waits_for() == Some(&name),
    });
    if !is_used {
        park_now(draft, name);
    }
}

/// Without waiting for the end of the rest, which goes on for the other hands.
fn park_now(draft: &mut Draft<'_>, name: HandName) {
    let state = &draft.state;
    let is_last = state.hand_names().iter().all(|other| *other == name || !state.has_hand(other));
    let resting = state.pending.iter().find(|pending| matches!(pending.op, Op::Rest { .. }));
    let resting = resting.filter(|_| is_last).map(|rest| rest.activity.clone());
    if let Some(resting) = resting {
        draft.closed(&resting, Closed::Cancelled);
    }
    park(draft, name);
}

/// What another session had. One that has a sandbox of that name keeps that.
pub fn handed(draft: &mut Draft<'_>, handed: &Handed) {
    if is_without(&draft.state, &handed.name) {
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
    if closing.how != Closed::Finished && !handed.returned && is_without(&draft.state, &handed.from_name) {
        draft.note(PrivateEntry::HandBack { handed: handed.clone() });
    }
}

fn is_without(state: &SessionState, name: &HandName) -> bool {
    let is_made = state.is_pending(|op| matches!(op, Op::Provision { name: made, .. } if made == name));
    state.summary.held(name).is_none_or(Held::is_without) && !is_made
}

#[cfg(test)]
mod tests;
