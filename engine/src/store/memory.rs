//! A store that ends with the process.

use super::{Batch, Durability, Entry, Error, Order, Range, Space, Storage};
use parking_lot::RwLock;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct MemoryStore {
    spaces: RwLock<[BTreeMap<Vec<u8>, Vec<u8>>; Space::ALL.len()]>,
}

impl Storage for MemoryStore {
    fn write(&self, batches: Vec<Batch>, _durability: Durability) -> Result<(), Error> {
        let mut spaces = self.spaces.write();
        for ((space, key), value) in batches.into_iter().flat_map(|batch| batch.0) {
            match value {
                Some(value) => spaces[space as usize].insert(key, value),
                None => spaces[space as usize].remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.spaces.read()[space as usize].get(key).cloned())
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error> {
        if range.from >= range.to {
            return Ok(Vec::new());
        }
        let spaces = self.spaces.read();
        let found = spaces[space as usize].range(range.from..range.to);
        let copy = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match range.order {
            Order::Ascending => found.take(range.limit).map(copy).collect(),
            Order::Descending => found.rev().take(range.limit).map(copy).collect(),
        })
    }

    /// Holds nothing of the outside; what it keeps can still be examined.
    fn close(&self) {}
}
