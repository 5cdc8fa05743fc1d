//! Tests that `scripts/long` runs longer than CI does: how long, and from which seed.

use anyhow::Context as _;
use std::time::Duration;

/// How long anything awaited may take.
pub fn patience() -> Duration {
    let seconds = std::env::var("STEADYHAND_PATIENCE_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(120))
}

const SEED: &str = "STEADYHAND_SEED";

/// A number from the environment.
pub fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}")),
        Err(_) => Ok(default),
    }
}

/// The seed that was asked for, else a new one. Whoever uses it prints it.
pub fn seed() -> anyhow::Result<u64> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED} is {text:?}")),
        Err(_) => Ok(rand::random()),
    }
}
