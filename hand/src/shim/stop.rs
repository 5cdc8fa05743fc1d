//! A shim that stops itself at a named moment, when its spec asks for it, so that a test can end somebody just then. Off
//! otherwise.

use super::note;
use crate::spec::{Stop, StopAt};
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Stops {
    stop: Option<Stop>,
    passed: AtomicU64,
}

impl Stops {
    pub fn new(stop: Option<Stop>) -> Self {
        Self { stop, passed: AtomicU64::new(0) }
    }

    /// The moment has come. Returns when somebody lets the shim go on.
    pub fn pass(&self, at: StopAt) {
        let Some(stop) = self.stop.filter(|stop| stop.at == at) else { return };
        if self.passed.fetch_add(1, Ordering::Relaxed) + 1 == stop.nth {
            note("stopped at the moment that the spec names", &[]);
            #[expect(unsafe_code, reason = "rustix signals processes, not the calling thread")]
            // SAFETY: no memory is involved. It is sent to this very thread, so nothing after it runs before the signal.
            unsafe {
                libc::raise(libc::SIGSTOP)
            };
        }
    }
}
