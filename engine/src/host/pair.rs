//! Two runs at once: one asks, the other is asked, and what becomes of both stands in one write.

use super::{Change, Error, Host, Slot, record};
use crate::core::errand::{Errand, owes};
use crate::core::state::Run;
use crate::core::{self, At, Input, Refusal};
use crate::store::Durability;
use parking_lot::MutexGuard;
use std::sync::Arc;

/// What came of asking.
pub(super) enum Asked {
    /// The errand is done, or was not owed any more.
    Settled,
    /// The run that was asked continues as another one.
    MovedOn,
}

/// Locks two different runs, in the order of their keys: two who want the same two do not wait for each other.
pub(super) fn lock_both<'a>(a: &'a Slot, b: &'a Slot) -> (MutexGuard<'a, Run>, MutexGuard<'a, Run>) {
    debug_assert_ne!(a.key, b.key, "a run has nothing to ask of itself");
    if a.key < b.key {
        let first = a.run.lock();
        (first, b.run.lock())
    } else {
        let first = b.run.lock();
        (a.run.lock(), first)
    }
}

impl Host {
    /// Does the errand of `source` by applying `input` to `target`; `done` is what the source hears of it. `follows`:
    /// a target that was continued as another run is not meant any more.
    pub(super) fn ask<I: Input, D: Input>(
        self: &Arc<Self>,
        (source, errand): (&Arc<Slot>, Errand),
        (target, input): (&Arc<Slot>, I),
        follows: bool,
        done: impl FnOnce(Result<(), Refusal>) -> D,
    ) -> Result<Asked, Error> {
        self.check_writable()?;
        let (mut asking, mut asked) = lock_both(source, target);
        if source.is_deleted() || !owes(&asking.state, errand) {
            return Ok(Asked::Settled);
        }
        if follows && !asked.state.is_open() && !asked.state.successor.is_empty() {
            return Ok(Asked::MovedOn);
        }
        let at = At { now: self.clock.now(), limits: &self.limits, started: None };
        let before_asked = record::Before::of(&asked.state);
        let outcome = match target.is_deleted() {
            true => Err(Refusal::Closed),
            false => core::apply(&mut asked, input, &at).map(|(_, effects)| effects),
        };
        let before = record::Before::of(&asking.state);
        let heard = done(outcome.as_ref().map(|_| ()).map_err(Clone::clone));
        // It owes the errand, and nothing else was checked: a refusal would leave half of it done.
        let (_, effects) = core::apply(&mut asking, heard, &at).expect("a run takes the answer that it waits for");
        let mut changes = vec![Change { slot: source, run: &asking, effects, before }];
        changes.extend(outcome.ok().map(|effects| Change { slot: target, run: &asked, effects, before: before_asked }));
        // Nobody waits for it here; what follows from it follows when it is on disk.
        let _done = self.commit_all(changes, Durability::Synced, None);
        Ok(Asked::Settled)
    }
}
