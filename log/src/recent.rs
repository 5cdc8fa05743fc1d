//! What was used last, as much of it as fits into a number of bytes. Decoded logs differ by a factor of a thousand, so
//! their count says nothing.

use lru::LruCache;

/// What an entry costs beside its own bytes.
const ENTRY_BYTES: u64 = 1024;

/// The entry that was used last is kept however large it is.
pub struct Recent<V> {
    entries: LruCache<String, Entry<V>>,
    bytes: u64,
    bytes_max: u64,
}

struct Entry<V> {
    value: V,
    bytes: u64,
}

impl<V: Clone> Recent<V> {
    pub fn new(bytes_max: u64) -> Self {
        Recent { entries: LruCache::unbounded(), bytes: 0, bytes_max }
    }

    /// The value under a key, made if there is none, with what had to go for it.
    #[must_use]
    pub fn get_or_insert(&mut self, key: &str, make: impl FnOnce() -> V) -> (V, Vec<V>) {
        if let Some(known) = self.entries.get(key) {
            return (known.value.clone(), Vec::new());
        }
        let value = make();
        self.entries.put(key.to_owned(), Entry { value: value.clone(), bytes: ENTRY_BYTES });
        self.bytes += ENTRY_BYTES;
        (value, self.shrink())
    }

    /// Tells how large the value under a key is now. Gives what had to go: the caller drops it when no lock is held.
    #[must_use]
    pub fn weigh(&mut self, key: &str, bytes: u64) -> Vec<V> {
        if let Some(entry) = self.entries.peek_mut(key) {
            self.bytes -= entry.bytes;
            entry.bytes = ENTRY_BYTES + bytes;
            self.bytes += entry.bytes;
        }
        self.shrink()
    }

    #[must_use]
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let entry = self.entries.pop(key)?;
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    fn shrink(&mut self) -> Vec<V> {
        let mut gone = Vec::new();
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            let Some((_, entry)) = self.entries.pop_lru() else { break };
            self.bytes -= entry.bytes;
            gone.push(entry.value);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes: &[(&'static str, u64)]) -> Recent<&'static str> {
        let mut recent = Recent::new(3 * (ENTRY_BYTES + 100));
        for (key, bytes) in bytes {
            assert_eq!(recent.get_or_insert(key, || *key), (*key, Vec::new()));
            assert_eq!(recent.weigh(key, *bytes), [""; 0]);
        }
        recent
    }

    #[test]
    fn what_was_not_used_for_longest_goes_when_the_bytes_do_not_fit() {
        let mut recent = filled(&[("a", 100), ("b", 100), ("c", 100)]);
        assert_eq!(recent.get_or_insert("a", || "another"), ("a", Vec::new()));
        assert_eq!(recent.weigh("a", 101), ["b"]);
        assert_eq!(recent.get_or_insert("b", || "made again"), ("made again", Vec::new()));
    }

    #[test]
    fn one_that_is_too_large_stays_alone() {
        let mut recent = filled(&[("a", 100), ("b", 100)]);
        assert_eq!(recent.weigh("b", 1_000_000), ["a"]);
        assert_eq!(recent.get_or_insert("b", || "another"), ("b", Vec::new()));
        assert_eq!(recent.get_or_insert("c", || "c"), ("c", vec!["b"]));
    }

    #[test]
    fn what_is_removed_weighs_nothing() {
        let mut recent = filled(&[("a", 100), ("b", 100), ("c", 100)]);
        assert_eq!(recent.remove("a"), Some("a"));
        assert_eq!(recent.remove("a"), None);
        assert_eq!(recent.get_or_insert("d", || "d"), ("d", Vec::new()));
        assert_eq!(recent.weigh("d", 100), [""; 0]);
        assert_eq!(recent.weigh("gone", 1_000_000), [""; 0]);
    }
}
