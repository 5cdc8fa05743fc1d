//! A store that fails on demand: before, in the middle of and after a write, and with what was not synced lost.

use super::dice::Dice;
use super::records::Witness;
use crate::store::{Batch, Durability, Entry, Error, Range, Reads, Space, Spaces, Storage};
use parking_lot::Mutex;

#[derive(Default)]
pub struct FaultyStore(Mutex<State>);

#[derive(Default)]
struct State {
    visible: Spaces,
    /// What power loss leaves.
    durable: Spaces,
    /// Written and not synced, in order.
    unsynced: Vec<Batch>,
    writes: u64,
    /// How many batches of the next write still happen, before it fails.
    torn_after: Option<usize>,
    witness: Witness,
}

impl FaultyStore {
    /// The next write fails after this many of its batches.
    pub fn tear_next(&self, after: usize) {
        self.0.lock().torn_after = Some(after);
    }

    pub fn writes(&self) -> u64 {
        self.0.lock().writes
    }

    /// What writes did to runs since this was last asked.
    pub fn witness(&self) -> Witness {
        std::mem::take(&mut self.0.lock().witness)
    }

    /// What was not synced is lost from some point on: the device wrote in order as far as it came.
    pub fn lose_power(&self, dice: &Dice) {
        let mut state = self.0.lock();
        let unsynced = std::mem::take(&mut state.unsynced);
        let kept = dice.below(unsynced.len() as u64 + 1) as usize;
        for batch in unsynced.into_iter().take(kept) {
            state.durable.apply(batch);
        }
        state.visible = state.durable.clone();
    }

    /// Another process opens it: what the last one handed to the operating system is there, and opening syncs it, as
    /// fjall does with the journal that it finds.
    pub fn open(&self) {
        let mut state = self.0.lock();
        state.torn_after = None;
        for batch in std::mem::take(&mut state.unsynced) {
            state.durable.apply(batch);
        }
    }
}

impl Storage for FaultyStore {
    fn write(&self, batches: Vec<Batch>, durability: Durability) -> Result<(), Error> {
        let state = &mut *self.0.lock();
        state.writes += 1;
        let torn = state.torn_after.take();
        for batch in batches.into_iter().take(torn.unwrap_or(usize::MAX)) {
            state.witness.apply(&mut state.visible, batch.clone());
            state.unsynced.push(batch);
        }
        if torn.is_some() {
            return Err(Error::Write(fjall::Error::Io(std::io::Error::other("simulated"))));
        }
        if durability == Durability::Synced {
            for batch in std::mem::take(&mut state.unsynced) {
                state.durable.apply(batch);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Reads>, Error> {
        Ok(Box::new(self.0.lock().visible.clone()))
    }

    fn close(&self) {}
}

impl Reads for FaultyStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.0.lock().visible.get(space, key)
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error> {
        self.0.lock().visible.scan(space, range)
    }
}
