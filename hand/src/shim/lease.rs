//! How long a hand lives: until its lease runs out with nothing running, it is released, or its sandbox is gone.

use crate::limits::LEASE_MAX_MS;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Why a hand ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    Lease,
    Released,
    /// Its folder was removed: nobody can find it any more.
    Folder,
    Sandbox(String),
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lease => write!(f, "its lease ran out"),
            Self::Released => write!(f, "it was released"),
            Self::Folder => write!(f, "its folder was removed"),
            Self::Sandbox(why) => write!(f, "its sandbox ended: {why}"),
        }
    }
}

pub struct Lease {
    state: Mutex<State>,
    changed: Condvar,
    length: Duration,
}

struct State {
    until: Instant,
    /// What runs, with the time by which the sandbox must have answered, once its own time has begun.
    running: HashMap<u64, Option<Instant>>,
    over: Option<Over>,
}

impl Lease {
    pub fn new(length: Duration) -> Self {
        let length = length.min(Duration::from_millis(LEASE_MAX_MS));
        let state = State { until: Instant::now() + length, running: HashMap::new(), over: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), length }
    }

    /// Something runs, and holds the lease.
    pub fn begin(&self, call: u64) {
        self.lock().running.insert(call, None);
    }

    /// Its own time runs from now; without an answer within it the sandbox is given up.
    pub fn expect_within(&self, call: u64, time: Duration) {
        if let Some(at) = self.lock().running.get_mut(&call) {
            *at = Some(Instant::now() + time);
        }
        self.changed.notify_all();
    }

    /// It no longer runs; the lease starts again.
    pub fn finish(&self, call: u64) {
        let mut state = self.lock();
        state.running.remove(&call);
        state.until = state.until.max(Instant::now() + self.length);
        drop(state);
        self.changed.notify_all();
    }

    pub fn renew(&self, ttl: Duration) -> Duration {
        let ttl = ttl.min(Duration::from_millis(LEASE_MAX_MS));
        let mut state = self.lock();
        state.until = state.until.max(Instant::now() + ttl);
        let left = state.until.saturating_duration_since(Instant::now());
        drop(state);
        self.changed.notify_all();
        left
    }

    pub fn left(&self) -> Duration {
        self.lock().until.saturating_duration_since(Instant::now())
    }

    /// Only the first reason counts.
    pub fn end(&self, over: Over) {
        self.lock().over.get_or_insert(over);
        self.changed.notify_all();
    }

    pub fn is_over(&self) -> bool {
        self.lock().over.is_some()
    }

    /// Wait until the hand is to end, and say why.
    pub fn wait_over(&self) -> Over {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.over.is_none() {
                if state.running.values().flatten().any(|at| *at <= now) {
                    state.over = Some(Over::Sandbox("it did not answer in time".to_owned()));
                } else if state.running.is_empty() && state.until <= now {
                    state.over = Some(Over::Lease);
                }
            }
            if let Some(over) = &state.over {
                return over.clone();
            }
            let next = state.running.values().flatten().min().copied();
            let next = if state.running.is_empty() { Some(state.until) } else { next };
            state = match next {
                Some(at) => self.changed.wait_timeout(state, at - now).expect("no holder panics").0,
                None => self.changed.wait(state).expect("no holder panics"),
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_when_nothing_runs_and_time_is_up() {
        assert_eq!(Lease::new(Duration::ZERO).wait_over(), Over::Lease);
    }

    #[test]
    fn what_runs_holds_it_until_it_is_finished() {
        let lease = Lease::new(Duration::ZERO);
        lease.begin(1);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| lease.wait_over());
            lease.expect_within(1, Duration::from_secs(3600));
            assert!(!waits.is_finished(), "a call that runs holds the lease");
            lease.finish(1);
            assert_eq!(waits.join().unwrap(), Over::Lease);
        });
    }

    #[test]
    fn a_sandbox_that_does_not_answer_is_given_up() {
        let lease = Lease::new(Duration::from_secs(3600));
        lease.begin(1);
        lease.expect_within(1, Duration::ZERO);
        assert!(matches!(lease.wait_over(), Over::Sandbox(_)));
    }

    #[test]
    fn renewing_never_shortens() {
        let lease = Lease::new(Duration::from_secs(3600));
        assert!(lease.renew(Duration::from_secs(1)) > Duration::from_secs(3000));
        assert!(lease.renew(Duration::from_secs(7200)) > Duration::from_secs(7000));
        lease.end(Over::Released);
        lease.end(Over::Lease);
        assert_eq!(lease.wait_over(), Over::Released);
    }
}
