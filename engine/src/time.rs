//! Points in time and lengths of time as the engine keeps them: whole nanoseconds, convertible to and from protobuf.
//! Never reads a clock.

use prost_wkt_types::{Duration as ProtoDuration, Timestamp};
use std::time::Duration;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since the Unix epoch; zero means "not set".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    pub const UNSET: Time = Time(0);

    pub fn is_set(self) -> bool {
        self.0 != 0
    }

    /// The moment `nanos` later; saturates at the end of time.
    pub fn plus(self, nanos: i64) -> Time {
        Time(self.0.saturating_add(nanos))
    }

    /// How long until `later`; zero when that has passed.
    pub fn until(self, later: Time) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0).max(0) as u64)
    }

    pub fn millis(self) -> i64 {
        self.0 / 1_000_000
    }

    /// The moment that a message tells of; one too far away is the last that can be told.
    pub fn of(timestamp: &Timestamp) -> Time {
        Time(timestamp.seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(timestamp.nanos.into()))
    }

    /// As a protobuf timestamp; `None` when not set.
    pub fn timestamp(self) -> Option<Timestamp> {
        self.is_set().then(|| Timestamp {
            seconds: self.0.div_euclid(NANOS_PER_SECOND),
            nanos: self.0.rem_euclid(NANOS_PER_SECOND) as i32,
        })
    }
}

/// Nanoseconds of a protobuf duration; absent, negative or zero is zero, which Temporal reads as "no limit".
pub fn nanos(duration: Option<&ProtoDuration>) -> i64 {
    duration.map_or(0, |d| d.seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(i64::from(d.nanos)).max(0))
}

/// A protobuf duration of `nanos`, always present.
pub fn duration(nanos: i64) -> Option<ProtoDuration> {
    Some(ProtoDuration { seconds: nanos / NANOS_PER_SECOND, nanos: (nanos % NANOS_PER_SECOND) as i32 })
}

/// Nanoseconds of a std duration, saturating.
pub fn from_std(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_the_round_trip_and_negative_ones_are_no_limit() {
        for n in [0, 1, 999_999_999, NANOS_PER_SECOND, 90 * NANOS_PER_SECOND + 5] {
            assert_eq!(nanos(duration(n).as_ref()), n);
        }
        assert_eq!(nanos(Some(&ProtoDuration { seconds: -3, nanos: 0 })), 0);
        assert_eq!(nanos(Some(&ProtoDuration { seconds: i64::MAX, nanos: 0 })), i64::MAX);
    }

    #[test]
    fn an_unset_time_has_no_timestamp() {
        assert_eq!(Time::UNSET.timestamp(), None);
        assert_eq!(Time(1_500_000_000).timestamp(), Some(Timestamp { seconds: 1, nanos: 500_000_000 }));
    }
}
