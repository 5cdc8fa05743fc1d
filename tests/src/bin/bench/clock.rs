//! One clock for all processes of a measurement, and the marks that they leave on it.

use rustix::time::{ClockId, clock_gettime};
use std::{io::Write as _, time::Duration};

/// What a line with a mark begins with.
const MARK: &str = "mark";

/// Time since some moment that is the same for every process of this machine.
pub fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Says on standard output that this line was reached now. A name has no spaces.
pub fn mark(name: &str) {
    let now = now();
    // Whoever reads this may be gone, and then so are we.
    let _ = writeln!(std::io::stdout().lock(), "{MARK} {name} {}", now.as_nanos());
}

/// A mark that another process left: its name and when.
pub fn read(line: &str) -> Option<(String, Duration)> {
    let mut words = line.split(' ');
    if words.next() != Some(MARK) {
        return None;
    }
    let (name, nanos) = (words.next()?, words.next()?.parse().ok()?);
    Some((name.to_owned(), Duration::from_nanos(nanos)))
}
