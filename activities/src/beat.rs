//! Heartbeats: one a second while something is under way, so that a lost worker is seen within five.

use domain::limits::HEARTBEAT_INTERVAL_MS;
use std::{future::Future, time::Duration};
use temporalio_sdk::activities::ActivityContext;

/// Runs `work`, beating all the while.
pub async fn beating<T>(ctx: &ActivityContext, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(Duration::from_millis(HEARTBEAT_INTERVAL_MS));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = ticks.tick() => {
                if let Err(error) = ctx.record_heartbeat(()).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "heartbeat not recorded");
                }
            }
        }
    }
}
