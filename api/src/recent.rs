//! The logs of the sessions that were used last, kept decoded: the next request to one of them reads what is new, not
//! all of it again.

use std::num::NonZeroUsize;
use std::sync::Arc;

use log::follow::Followed;
use lru::LruCache;
use parking_lot::Mutex;

/// A decoded log is the part of it that is not sealed, mostly less than a megabyte.
const LOGS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// Cheap to clone; all clones keep the same logs.
#[derive(Clone)]
pub struct Recent {
    logs: Arc<Mutex<LruCache<String, Arc<Followed>>>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { logs: Arc::new(Mutex::new(LruCache::new(LOGS_MAX))) }
    }
}

impl Recent {
    /// Keeps the log until enough others were used after it.
    pub fn keep(&self, session_id: &str, followed: &Arc<Followed>) {
        let replaced = self.logs.lock().push(session_id.to_owned(), followed.clone());
        // Dropping the last handle of a log takes a lock of its own, so it happens outside of this one.
        drop(replaced);
    }

    pub fn forget(&self, session_id: &str) {
        let forgotten = self.logs.lock().pop(session_id);
        drop(forgotten);
    }
}
