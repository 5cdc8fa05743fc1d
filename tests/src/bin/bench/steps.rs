//! How many steps a second, and what they cost.

use crate::{metric::Metric, rig::Rig, workload};
use anyhow::ensure;
use std::time::{Duration, Instant};
use temporalio_common::protos::temporal::api::{enums::v1::EventType, history::v1::HistoryEvent};

const SEQUENTIAL: u64 = 1_000;
const WORKFLOWS: u64 = 50;
const STEPS_EACH: u64 = 20;
const GROWN: u64 = 2_000;
const WINDOW: usize = 100;
const WARM_UP: u64 = 20;

/// One workflow.
pub async fn sequential() -> anyhow::Result<Vec<Metric>> {
    let rig = warm().await?;
    let started = Instant::now();
    workload::run_steps(&rig.client, "sequential", SEQUENTIAL).await?;
    let took = started.elapsed();
    rig.stop().await?;
    Ok(vec![Metric::new("seq_steps_per_s", SEQUENTIAL as f64 / took.as_secs_f64(), "steps/s")])
}

/// Many workflows at once.
pub async fn aggregate() -> anyhow::Result<Vec<Metric>> {
    let rig = warm().await?;
    let (started, used) = (Instant::now(), rig.cpu()?);
    let ids: Vec<String> = (0..WORKFLOWS).map(|n| format!("aggregate-{n}")).collect();
    let running = ids.iter().map(|id| workload::run_steps(&rig.client, id, STEPS_EACH));
    futures::future::try_join_all(running).await?;
    let (took, used) = (started.elapsed(), rig.cpu()? - used);
    rig.stop().await?;
    let steps = (WORKFLOWS * STEPS_EACH) as f64;
    Ok(vec![
        Metric::new("agg_steps_per_s", steps / took.as_secs_f64(), "steps/s"),
        Metric::new("cpu_us_per_step", used.as_secs_f64() * 1e6 / steps, "us"),
    ])
}

/// Whether a step costs more the more there are behind it.
pub async fn growth() -> anyhow::Result<Vec<Metric>> {
    let rig = warm().await?;
    workload::run_steps(&rig.client, "growth", GROWN).await?;
    let history = workload::steps_history(&rig.client, "growth").await?;
    let ended: Vec<Duration> = history.iter().filter_map(step_ended).collect();
    ensure!(ended.len() == GROWN as usize, "{} steps are recorded", ended.len());
    let first = ended[WINDOW] - ended[0];
    let last = ended[ended.len() - 1] - ended[ended.len() - 1 - WINDOW];
    rig.stop().await?;
    Ok(vec![Metric::new("growth_ratio", first.as_secs_f64() / last.as_secs_f64(), "ratio")])
}

fn step_ended(event: &HistoryEvent) -> Option<Duration> {
    let time = event.event_time.filter(|_| event.event_type() == EventType::ActivityTaskCompleted)?;
    Some(Duration::new(time.seconds.unsigned_abs(), time.nanos.unsigned_abs()))
}

/// A rig whose connections, queues and code have been used once.
async fn warm() -> anyhow::Result<Rig> {
    let rig = Rig::new().await?;
    workload::run_steps(&rig.client, "warm-up", WARM_UP).await?;
    Ok(rig)
}
