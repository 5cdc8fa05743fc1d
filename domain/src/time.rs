//! Points in time as the log and the API write them: milliseconds since the epoch, RFC 3339 in JSON.
//!
//! There is no way to read a clock here: time enters through the engine (workflow time) or the api.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    pub const fn from_ms(ms: i64) -> Self {
        Time(ms)
    }

    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Saturates at the ends of the range of `i64`.
    pub fn plus_ms(self, ms: u64) -> Self {
        Time(self.0.saturating_add_unsigned(ms))
    }

    /// Milliseconds from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Parses an RFC 3339 timestamp with `Z` or a numeric offset; finer than a millisecond is cut.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<jiff::Timestamp>().ok().map(|t| Time(t.as_millisecond()))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Out of jiff's range (years -9999..9999) only if somebody forged the value: clamp, never fail.
        let stamp = jiff::Timestamp::from_millisecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        });
        write!(f, "{stamp:.3}")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Time::parse(&text).ok_or_else(|| D::Error::custom(format_args!("{text:?} is not an RFC 3339 timestamp")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_792_000_000_123, "2026-10-14T17:46:40.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Time::from_ms(ms).to_string(), text);
            assert_eq!(Time::parse(text), Some(Time::from_ms(ms)));
        }
        assert_eq!(Time::parse("2026-10-14T19:46:40.123+02:00"), Some(Time::from_ms(1_792_000_000_123)));
        assert_eq!(Time::parse("yesterday"), None);
    }

    #[test]
    fn differences_never_wrap() {
        assert_eq!(Time::from_ms(5).since(Time::from_ms(7)), 0);
        assert_eq!(Time::from_ms(i64::MAX).plus_ms(9), Time::from_ms(i64::MAX));
    }
}
