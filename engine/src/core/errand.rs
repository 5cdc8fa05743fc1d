//! What a run owes to other runs, or to one that is to be. It follows from the run's state alone, so the index of runs
//! with errands on disk holds one entry for each and nothing else. An errand is done in the same write that strikes it
//! off, on both sides, so it happens once whatever stops in between. Which runs it concerns is the host's to find.

use super::state::RunState;
use super::{Input, Refusal, Tx};

/// One thing owed, by the event that made it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Errand {
    pub event_id: i64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The child that the event initiated is to be started.
    StartChild,
    /// The signal that the event initiated is to be sent.
    Signal,
    /// The run that the event names is to be asked to cancel itself.
    Cancel,
    /// This run is closed by the event, and its parent is to hear of it.
    TellParent,
    /// This run is closed, and the child that the event initiated is to end as its parent-close policy says.
    ClosePolicy,
}

/// Everything that a run owes, in the order of its events.
pub fn errands(state: &RunState) -> impl Iterator<Item = Errand> {
    let is_open = state.is_open();
    let of_child = if is_open { What::StartChild } else { What::ClosePolicy };
    let owed = state.children.iter().filter(move |(_, child)| !is_open || !child.is_started());
    let children = owed.map(move |(event_id, _)| Errand { event_id: *event_id, what: of_child });
    let externals = state.externals.iter().map(|(event_id, external)| {
        let what = if external.is_cancel { What::Cancel } else { What::Signal };
        Errand { event_id: *event_id, what }
    });
    let parent = state.owes_parent.then_some(Errand { event_id: state.close_event_id, what: What::TellParent });
    let mut all: Vec<_> = children.chain(externals).chain(parent).collect();
    all.sort();
    all.into_iter()
}

/// Whether a run still owes this.
pub fn owes(state: &RunState, errand: Errand) -> bool {
    errands(state).any(|owed| owed == errand)
}

/// A closed run has done an errand; nothing of it shows in its history.
pub struct Settled(pub Errand);

impl Input for Settled {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        if !owes(tx.state, self.0) {
            return Err(Refusal::NotAwaited);
        }
        match self.0.what {
            What::TellParent => tx.state.owes_parent = false,
            What::ClosePolicy => {
                tx.state.children.remove(&self.0.event_id);
            }
            What::StartChild | What::Signal | What::Cancel => return Err(Refusal::NotAwaited),
        }
        Ok(())
    }
}
