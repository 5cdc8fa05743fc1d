//! The runs in memory. Bounded: the least recently used run that nobody holds is dropped and read back when needed.
//! Whoever has not yet stored a change holds the run, so a dropped run is always as the store has it.

use super::slot::Slot;
use crate::core::state::Run;
use crate::pb::history::v1::HistoryEvent;
use crate::store::keys::RunKey;
use lru::LruCache;
use parking_lot::Mutex;
use std::sync::Arc;

const SHARDS: usize = 16;
/// How many held runs are passed over in the search for one to drop.
const SKIPS_MAX: usize = 8;

pub struct RunCache {
    shards: Vec<Mutex<LruCache<RunKey, Arc<Slot>>>>,
    shard_max: usize,
}

impl RunCache {
    pub fn new(runs_max: usize) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(LruCache::unbounded())).collect();
        RunCache { shards, shard_max: runs_max.div_ceil(SHARDS).max(1) }
    }

    /// The run, read by `load` if it is not here.
    pub fn get_or_load<E>(
        &self,
        key: &RunKey,
        load: impl FnOnce() -> Result<Option<Run>, E>,
    ) -> Result<Option<Arc<Slot>>, E> {
        let mut shard = self.shard(key).lock();
        if let Some(slot) = shard.get(key) {
            return Ok(Some(slot.clone()));
        }
        // Read under the shard's lock: nobody else may load an older state beside this.
        let Some(run) = load()? else { return Ok(None) };
        let slot = Arc::new(Slot::stored(*key, run));
        shard.put(*key, slot.clone());
        self.shrink(&mut shard);
        Ok(Some(slot))
    }

    /// Adds a run that is about to be stored with these events.
    pub fn insert(&self, run: &Run, events: &[HistoryEvent]) -> Arc<Slot> {
        let slot = Slot::unwritten(run.clone(), events).expect("the engine makes run ids that are UUIDs");
        let slot = Arc::new(slot);
        let mut shard = self.shard(&slot.key).lock();
        shard.put(slot.key, slot.clone());
        self.shrink(&mut shard);
        slot
    }

    pub fn remove(&self, key: &RunKey) {
        self.shard(key).lock().pop(key);
    }

    fn shard(&self, key: &RunKey) -> &Mutex<LruCache<RunKey, Arc<Slot>>> {
        // The tail of a run id is random, its head is the time.
        &self.shards[usize::from(key[15]) % SHARDS]
    }

    fn shrink(&self, shard: &mut LruCache<RunKey, Arc<Slot>>) {
        let mut skips = 0;
        while shard.len() > self.shard_max && skips < SKIPS_MAX {
            let Some((key, slot)) = shard.pop_lru() else { return };
            if Arc::strong_count(&slot) > 1 {
                shard.put(key, slot);
                skips += 1;
            }
        }
    }
}
