//! Wakes runs at their deadlines. The index on disk holds one entry a run that has any; in memory are only those of the
//! next minute. One task for all runs, asleep until the next entry.

use super::{Error, Host, Slot};
use crate::core::deadline::Wake;
use crate::store::keys::{self, RunKey};
use crate::store::{Durability, Order, Range, Space};
use crate::time::Time;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tracing::warn;

/// How far ahead entries are held in memory.
const AHEAD_NS: i64 = 60_000_000_000;

#[derive(Default)]
pub struct Wheel {
    near: Mutex<Near>,
    changed: Notify,
    closed: AtomicBool,
}

#[derive(Default)]
struct Near {
    entries: BTreeSet<(Time, RunKey)>,
    /// Entries from here on are only on disk.
    horizon: Time,
}

impl Wheel {
    /// A durable transition set this wake-up.
    pub fn arm(&self, at: Time, run: RunKey) {
        let mut near = self.near.lock();
        if at >= near.horizon {
            return;
        }
        let is_first = near.entries.first().is_none_or(|first| at < first.0);
        near.entries.insert((at, run));
        if is_first {
            self.changed.notify_one();
        }
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

impl Host {
    /// Wakes runs until the engine closes.
    pub async fn run_wheel(self: Arc<Self>) {
        while !self.wheel.closed.load(Ordering::Acquire) {
            let now = self.clock.now();
            if let Err(error) = self.look_ahead(now) {
                warn!(error = &error as &dyn std::error::Error, "timers could not be read");
            }
            for run in self.take_due(now) {
                if let Err(error) = self.wake(&run, now) {
                    let run_id = keys::run_id(&run);
                    warn!(run_id, error = &error as &dyn std::error::Error, "a run could not be woken");
                }
            }
            let next = {
                let near = self.wheel.near.lock();
                near.entries.first().map_or(near.horizon, |first| first.0)
            };
            tokio::select! {
                biased;
                () = self.clock.sleep_until(next) => {}
                () = self.wheel.changed.notified() => {}
            }
        }
    }

    /// Reads the entries of the next stretch of time, when the last one is used up.
    fn look_ahead(&self, now: Time) -> Result<(), Error> {
        let from = {
            let mut near = self.wheel.near.lock();
            if now < near.horizon {
                return Ok(());
            }
            // Moved before reading: what is written from now on announces itself.
            std::mem::replace(&mut near.horizon, now.plus(AHEAD_NS))
        };
        let range = Range {
            from: keys::timer(from, &[0; 16]),
            to: keys::timer(now.plus(AHEAD_NS), &[0; 16]),
            order: Order::Ascending,
            limit: usize::MAX,
        };
        let entries = self.store.scan(Space::Timer, range).inspect_err(|_| self.wheel.near.lock().horizon = from)?;
        self.wheel.near.lock().entries.extend(entries.iter().filter_map(|entry| keys::parse_timer(&entry.0)));
        Ok(())
    }

    fn take_due(&self, now: Time) -> Vec<RunKey> {
        let mut near = self.wheel.near.lock();
        let later = near.entries.split_off(&(now.plus(1), [0; 16]));
        std::mem::replace(&mut near.entries, later).into_iter().map(|entry| entry.1).collect()
    }

    fn wake(self: &Arc<Self>, run: &RunKey, now: Time) -> Result<(), Error> {
        let Some(slot) = self.slot(run)? else { return Ok(()) };
        if is_due(&slot, now) {
            // Its effects follow when it is durable; nobody waits for it here.
            self.decide(&slot, Wake, Durability::Synced)?;
        }
        Ok(())
    }
}

/// Whether the run still wants this wake-up: an entry may be older than the run's state. `now` is when the entry was
/// taken: the clock may have been set back since, and an entry is taken once.
fn is_due(slot: &Slot, now: Time) -> bool {
    let wake_at = slot.run.lock().state.wake_at;
    wake_at != 0 && wake_at <= now.0 && !slot.is_deleted()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SimulatedClock};
    use crate::host::{Settings, Start};
    use crate::options::Limits;
    use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
    use crate::store::MemoryStore;
    use crate::store::committer::Committer;
    use crate::time::duration;
    use std::time::Duration;

    #[test]
    fn a_clock_that_is_set_back_while_a_run_is_woken_loses_no_wake_up() {
        let clock = SimulatedClock::new(Time(1_700_000_000_000_000_000));
        let store = Arc::new(MemoryStore::default());
        let (committer, mut commits) = Committer::unattended(store.clone());
        let settings =
            Settings { clock: Arc::new(clock.clone()), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
        let host = Arc::new(Host::new(store, Some(committer), settings));
        host.look_ahead(clock.now()).expect("reads");
        let start = Start {
            namespace: "default".into(),
            request_id: "r".into(),
            started: WorkflowExecutionStartedEventAttributes {
                workflow_id: "w".into(),
                first_workflow_task_backoff: duration(10_000_000_000),
                ..Default::default()
            },
            user_metadata: None,
            reuse: Default::default(),
            conflict: Default::default(),
            signal: None,
        };
        let mut starting = Box::pin(host.start(start));
        assert!(futures::FutureExt::now_or_never(&mut starting).is_none());
        commits.turn();
        clock.advance(Duration::from_secs(10));
        let now = clock.now();
        let due = host.take_due(now);
        assert_eq!(due.len(), 1);
        clock.set_back(Duration::from_secs(5));
        due.iter().for_each(|run| host.wake(run, now).expect("wakes"));
        commits.turn();
        clock.advance(Duration::from_secs(5));
        assert_eq!(host.take_due(clock.now()), due, "it is due again");
    }
}
