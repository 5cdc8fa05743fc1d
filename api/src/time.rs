//! Times: where they come from and how clients see them.
//!
//! Rows keep microseconds, so that lists keep the order in which things were made; clients see milliseconds in UTC,
//! which every client's own type of time can carry back in a filter.

use jiff::{Timestamp, Unit};
use serde::Serializer;

/// Where the api reads the time.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// As clients see it: RFC 3339, milliseconds, `Z`.
pub fn text(time: Timestamp) -> String {
    format!("{:.3}", truncated(time))
}

pub(crate) fn truncated(time: Timestamp) -> Timestamp {
    let round = jiff::TimestampRound::new().smallest(Unit::Millisecond).mode(jiff::RoundMode::Floor);
    time.round(round).unwrap_or(time)
}

/// For `serialize_with`.
pub fn wire<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*time))
}

/// For `serialize_with`.
pub fn wire_option<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => wire(time, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_see_milliseconds_rounded_down() {
        for (time, expected) in [
            ("2026-11-22T13:00:00.123999Z", "2026-11-22T13:00:00.123Z"),
            ("2026-11-22T13:00:00Z", "2026-11-22T13:00:00.000Z"),
            ("2026-11-22T13:00:00.5+02:00", "2026-11-22T11:00:00.500Z"),
        ] {
            assert_eq!(text(time.parse().unwrap()), expected);
        }
    }
}
