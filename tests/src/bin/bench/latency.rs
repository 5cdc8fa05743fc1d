//! How long one step and one signal take, one at a time.

use crate::{
    clock,
    metric::{Metric, Samples},
    rig::Rig,
    workload,
};
use std::time::Instant;

const WARM_UP: usize = 100;
const SAMPLES: usize = 500;

/// From the request to start a workflow of one step to its result.
pub async fn one_step() -> anyhow::Result<Vec<Metric>> {
    let rig = Rig::new().await?;
    let mut times = Vec::new();
    for n in 0..WARM_UP + SAMPLES {
        let started = Instant::now();
        workload::run_steps(&rig.client, &format!("one-{n}"), 1).await?;
        if n >= WARM_UP {
            times.push(started.elapsed());
        }
    }
    rig.stop().await?;
    let times = Samples::new(times);
    Ok(vec![Metric::ms("wf1_latency_p50_ms", times.at(0.5)), Metric::ms("wf1_latency_p99_ms", times.at(0.99))])
}

/// From the request to signal a workflow to the first line of its handler.
pub async fn signal() -> anyhow::Result<Vec<Metric>> {
    let rig = Rig::new().await?;
    workload::start_mailbox(&rig.client, "mailbox", (WARM_UP + SAMPLES) as u64).await?;
    let mut times = Vec::new();
    for n in 0..WARM_UP + SAMPLES {
        let name = format!("note-{n}");
        let sent = clock::now();
        workload::note(&rig.client, "mailbox", &name).await?;
        let handled = rig.node.mark(&name).await?;
        if n >= WARM_UP {
            times.push(handled.saturating_sub(sent));
        }
    }
    rig.stop().await?;
    let times = Samples::new(times);
    Ok(vec![Metric::ms("signal_p50_ms", times.at(0.5)), Metric::ms("signal_p99_ms", times.at(0.99))])
}
