//! The one place that knows what time it is: the system clock, and a simulated one that tests move by hand.

use crate::time::Time;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Tells the time and wakes at a time.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time: deadlines are persisted, so they must mean the same after a restart.
    fn now(&self) -> Time;

    /// Resolves at `deadline` or somewhat earlier; who waits looks at `now` again.
    fn sleep_until(&self, deadline: Time) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
pub struct SystemClock;

/// The longest uninterrupted sleep: a clock that is set forward is noticed within this.
const NAP: Duration = Duration::from_secs(30);

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time(crate::time::from_std(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    fn sleep_until(&self, deadline: Time) -> BoxFuture<'static, ()> {
        let nap = self.now().until(deadline).min(NAP);
        Box::pin(tokio::time::sleep(nap))
    }
}

/// A seed that differs between processes.
pub(crate) fn entropy() -> u64 {
    uuid::Uuid::now_v7().as_u128() as u64
}

/// A clock that stands still until it is advanced. Clones show the same time.
#[derive(Clone)]
pub struct SimulatedClock(Arc<Mutex<Simulated>>);

struct Simulated {
    now: Time,
    sleepers: Vec<(Time, oneshot::Sender<()>)>,
}

impl SimulatedClock {
    pub fn new(now: Time) -> Self {
        SimulatedClock(Arc::new(Mutex::new(Simulated { now, sleepers: Vec::new() })))
    }

    /// The earliest deadline that somebody sleeps towards.
    pub fn earliest(&self) -> Option<Time> {
        let clock = self.0.lock();
        clock.sleepers.iter().filter(|sleeper| !sleeper.1.is_closed()).map(|sleeper| sleeper.0).min()
    }

    /// Sets time back, as an administrator would. Who sleeps sleeps longer.
    pub fn set_back(&self, by: Duration) {
        let mut clock = self.0.lock();
        clock.now = clock.now.plus(-crate::time::from_std(by));
    }

    /// Moves time forward and wakes everybody whose deadline has come.
    pub fn advance(&self, by: Duration) {
        let mut clock = self.0.lock();
        clock.now = clock.now.plus(crate::time::from_std(by));
        let now = clock.now;
        let (due, later) = std::mem::take(&mut clock.sleepers).into_iter().partition::<Vec<_>, _>(|s| s.0 <= now);
        clock.sleepers = later;
        for (_, wake) in due {
            let _gone = wake.send(());
        }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Time {
        self.0.lock().now
    }

    fn sleep_until(&self, deadline: Time) -> BoxFuture<'static, ()> {
        let mut clock = self.0.lock();
        if deadline <= clock.now {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        clock.sleepers.retain(|sleeper| !sleeper.1.is_closed());
        clock.sleepers.push((deadline, wake));
        Box::pin(async move {
            // A dropped clock never wakes anybody: the engine that slept on it is gone too.
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_simulated_sleeper_wakes_exactly_when_its_deadline_comes() {
        let clock = SimulatedClock::new(Time(1_000));
        let mut sleeper = clock.sleep_until(Time(3_000));
        clock.advance(Duration::from_nanos(1_999));
        assert!(futures::poll!(&mut sleeper).is_pending());
        clock.advance(Duration::from_nanos(1));
        sleeper.await;
        assert_eq!(clock.now(), Time(3_000));
    }
}
