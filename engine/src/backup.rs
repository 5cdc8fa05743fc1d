//! A copy of the store while the engine works: one moment between two writes, written into a folder of its own.

use crate::engine::Error;
use crate::store::{Batch, Durability, FjallStore, Order, Range, Reads, Space, Storage};
use std::path::Path;

/// Entries that are copied at a time.
const CHUNK: usize = 1_024;

/// The store at one moment.
pub struct Moment(Box<dyn Reads>);

impl Moment {
    pub(crate) fn new(snapshot: Box<dyn Reads>) -> Moment {
        Moment(snapshot)
    }

    /// Writes the moment into a folder that has no database, and gives how many entries it has; they are on disk when
    /// this returns. Takes as long as there is data: not for async threads.
    pub fn write(&self, folder: &Path) -> Result<u64, Error> {
        let copy = FjallStore::open(folder)?;
        let mut count = 0;
        for space in Space::ALL {
            count += self.copy_space(space, &copy)?;
        }
        copy.write(Vec::new(), Durability::Synced)?;
        copy.close();
        Ok(count)
    }

    fn copy_space(&self, space: Space, copy: &FjallStore) -> Result<u64, Error> {
        let mut count = 0;
        let mut from = Vec::new();
        loop {
            let range = Range { from, limit: CHUNK, order: Order::Ascending, ..Range::prefix(Vec::new()) };
            let entries = self.0.scan(space, range)?;
            let next = entries.last().map(|(key, _)| [key.as_slice(), &[0]].concat());
            let is_last = entries.len() < CHUNK;
            count += entries.len() as u64;
            let mut batch = Batch::default();
            entries.into_iter().for_each(|(key, value)| batch.put(space, key, value));
            copy.write(vec![batch], Durability::Journaled)?;
            match next {
                Some(next) if !is_last => from = next,
                _ => return Ok(count),
            }
        }
    }
}
