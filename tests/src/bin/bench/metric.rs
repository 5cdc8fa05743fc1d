//! Figures: how they are summed up and printed.

use rustix::fs::statfs;
use std::time::Duration;

const TMPFS_MAGIC: i64 = 0x0102_1994;

/// One figure.
pub struct Metric {
    pub name: &'static str,
    value: f64,
    unit: &'static str,
}

impl Metric {
    pub fn new(name: &'static str, value: f64, unit: &'static str) -> Self {
        Metric { name, value, unit }
    }

    pub fn ms(name: &'static str, time: Duration) -> Self {
        Metric::new(name, time.as_secs_f64() * 1e3, "ms")
    }

    pub fn print(&self) {
        println!("{} {:.3} {}", self.name, self.value, self.unit);
    }
}

/// Times of one thing that was done again and again.
pub struct Samples(Vec<Duration>);

impl Samples {
    /// # Panics
    /// Without any sample.
    pub fn new(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "something was measured");
        times.sort_unstable();
        Samples(times)
    }

    /// The sample nearest to a share of all: 0.5 is the median.
    pub fn at(&self, share: f64) -> Duration {
        let last = self.0.len() - 1;
        self.0[(last as f64 * share).round() as usize]
    }
}

/// An fsync to memory is free, and the figures would be about another machine.
pub fn warn_of_memory_disk() -> anyhow::Result<()> {
    let scratch = std::env::temp_dir();
    if statfs(&scratch)?.f_type as i64 == TMPFS_MAGIC {
        eprintln!("{} is in memory, so fsyncs cost nothing: set TMPDIR to a folder on a disk", scratch.display());
    }
    Ok(())
}
