//! How often something happened a second, over the last half minute.

use crate::time::Time;

const SECONDS: usize = 30;
const SECOND_NS: i64 = 1_000_000_000;

/// Counts by the second. Memory and time do not depend on how much is counted.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    counts: [u32; SECONDS],
    /// The second of the newest count; all of the ring belongs to it and those before.
    newest: i64,
    /// When the first one was counted.
    since: Time,
}

impl Rate {
    pub fn count(&mut self, now: Time) {
        if !self.since.is_set() {
            self.since = now;
        }
        self.turn_to(now.0.div_euclid(SECOND_NS));
        let slot = &mut self.counts[self.newest.rem_euclid(SECONDS as i64) as usize];
        *slot = slot.saturating_add(1);
    }

    /// The average of half a minute, or of as long as anything was counted, but at least a second.
    pub fn per_second(&self, now: Time) -> f32 {
        let mut current = self.clone();
        current.turn_to(now.0.div_euclid(SECOND_NS));
        let counted: u32 = current.counts.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let elapsed = self.since.until(now).as_secs_f32().clamp(1.0, SECONDS as f32);
        counted as f32 / elapsed
    }

    /// Forgets the seconds that are over. A clock that was set back counts for the newest second.
    fn turn_to(&mut self, second: i64) {
        let over = (second - self.newest).clamp(0, SECONDS as i64);
        for step in 1..=over {
            self.counts[(second - over + step).rem_euclid(SECONDS as i64) as usize] = 0;
        }
        self.newest = self.newest.max(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_is_of_half_a_minute_or_of_as_long_as_there_was_anything() {
        let start = Time(1_700_000_000 * SECOND_NS);
        let after = |seconds: i64| start.plus(seconds * SECOND_NS);
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(start), 0.0);
        for _ in 0..6 {
            rate.count(start);
        }
        // What happened (seconds later, how often), and what is said then.
        let table =
            [(0, 0, 6.0), (2, 0, 3.0), (2, 6, 6.0), (29, 0, 12.0 / 29.0), (30, 0, 0.2), (31, 3, 0.3), (90, 0, 0.0)];
        for (seconds, times, expected) in table {
            for _ in 0..times {
                rate.count(after(seconds));
            }
            let said = rate.per_second(after(seconds));
            assert!((said - expected).abs() < 0.001, "after {seconds} s: {said} instead of {expected}");
        }
        rate.count(after(90));
        rate.count(after(60));
        assert!((rate.per_second(after(90)) - 2.0 / 30.0).abs() < 0.001, "a clock that was set back loses nothing");
    }
}
