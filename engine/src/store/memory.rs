//! A store that ends with the process.

use super::{Batch, Durability, Entry, Error, Order, Range, Reads, Space, Storage};
use parking_lot::RwLock;
use std::collections::BTreeMap;

#[derive(Default)]
pub struct MemoryStore {
    spaces: RwLock<Spaces>,
}

/// The keys and values of every space.
#[derive(Clone, Default, PartialEq)]
pub struct Spaces([BTreeMap<Vec<u8>, Vec<u8>>; Space::ALL.len()]);

impl Spaces {
    pub fn apply(&mut self, batch: Batch) {
        for ((space, key), value) in batch.0 {
            match value {
                Some(value) => self.0[space as usize].insert(key, value),
                None => self.0[space as usize].remove(&key),
            };
        }
    }
}

impl Reads for Spaces {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.0[space as usize].get(key).cloned())
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error> {
        if range.from >= range.to {
            return Ok(Vec::new());
        }
        let found = self.0[space as usize].range(range.from..range.to);
        let copy = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(match range.order {
            Order::Ascending => found.take(range.limit).map(copy).collect(),
            Order::Descending => found.rev().take(range.limit).map(copy).collect(),
        })
    }
}

impl Reads for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.spaces.read().get(space, key)
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error> {
        self.spaces.read().scan(space, range)
    }
}

impl Storage for MemoryStore {
    fn write(&self, batches: Vec<Batch>, _durability: Durability) -> Result<(), Error> {
        let mut spaces = self.spaces.write();
        batches.into_iter().for_each(|batch| spaces.apply(batch));
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Reads>, Error> {
        Ok(Box::new(self.spaces.read().clone()))
    }

    /// Holds nothing of the outside; what it keeps can still be examined.
    fn close(&self) {}
}
