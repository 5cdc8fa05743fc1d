//! What is kept: memory and time that workflows cost while they sleep, and disk of steps that were taken.

use crate::{clock, metric::Metric, rig::Rig, workload};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{os::unix::fs::MetadataExt as _, path::Path, time::Duration};
use steadyhand_tests::long;

const SLEEPERS: usize = 10_000;
/// How many sleep when it is about many, unless `STEADYHAND_SLEEPERS` says otherwise.
const MANY: usize = 100_000;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(30);
/// Requests under way at once.
const STARTING: usize = 50;
/// A workflow's history has an end.
const STEPS_A_WORKFLOW: u64 = 1_000;
const WORKFLOWS_MORE: u64 = 10;
/// A block of `stat`, whatever the file system.
const BLOCK_BYTES: u64 = 512;

/// Memory of node and worker once so many workflows wait for a timer.
pub async fn sleeping() -> anyhow::Result<Vec<Metric>> {
    let rig = asleep(SLEEPERS).await?;
    let kib = rig.pss_kib()?;
    rig.stop().await?;
    Ok(vec![Metric::new("rss_10000_sleeping_mib", kib as f64 / 1024.0, "MiB")])
}

/// The same with many more; then everything is killed: how long until another workflow has taken a step, and what is
/// spent after that while nothing happens.
pub async fn many_sleeping() -> anyhow::Result<Vec<Metric>> {
    let many = long::number("STEADYHAND_SLEEPERS", MANY)?;
    let rig = asleep(many).await?;
    let mib = rig.pss_kib()? as f64 / 1024.0;

    let killed = clock::now();
    let rig = Rig::on(rig.kill()?).await?;
    workload::run_steps(&rig.client, "first", 1).await?;
    let start = clock::now().saturating_sub(killed);

    let restarted_mib = rig.pss_kib()? as f64 / 1024.0;
    let (cpu, from) = (rig.cpu()?, clock::now());
    tokio::time::sleep(IDLE).await;
    let (spent, passed) = (rig.cpu()?.saturating_sub(cpu), clock::now().saturating_sub(from));
    rig.stop().await?;
    Ok(vec![
        Metric::new("sleepers", many as f64, "workflows"),
        Metric::new("sleepers_rss_mib", mib, "MiB"),
        Metric::ms("sleepers_start_ms", start),
        Metric::new("sleepers_restarted_rss_mib", restarted_mib, "MiB"),
        Metric::new("sleepers_idle_cpu_percent", spent.as_secs_f64() / passed.as_secs_f64() * 100.0, "% of a core"),
    ])
}

/// So many workflows that wait for a timer.
async fn asleep(count: usize) -> anyhow::Result<Rig> {
    let rig = Rig::new().await?;
    stream::iter((0..count).map(|n| format!("sleeper-{n}")))
        .map(|name| {
            let client = rig.client.clone();
            async move { workload::start_sleeper(&client, &name).await }
        })
        .buffer_unordered(STARTING)
        .try_collect::<Vec<()>>()
        .await?;
    rig.node.marks(count).await?;
    // Its tasks stand behind those of all the others.
    workload::run_steps(&rig.client, "last", 1).await?;
    Ok(rig)
}

/// What is allocated after a clean stop: the difference that 10,000 steps make after the first 1,000.
pub async fn disk() -> anyhow::Result<Vec<Metric>> {
    let rig = Rig::new().await?;
    workload::run_steps(&rig.client, "first", STEPS_A_WORKFLOW).await?;
    let dir = rig.stop().await?;
    let before = allocated_bytes(dir.path())?;

    let rig = Rig::on(dir).await?;
    let ids: Vec<String> = (0..WORKFLOWS_MORE).map(|n| format!("more-{n}")).collect();
    let running = ids.iter().map(|id| workload::run_steps(&rig.client, id, STEPS_A_WORKFLOW));
    futures::future::try_join_all(running).await?;
    let dir = rig.stop().await?;
    let after = allocated_bytes(dir.path())?;

    let steps = (WORKFLOWS_MORE * STEPS_A_WORKFLOW) as f64;
    Ok(vec![Metric::new("disk_bytes_per_step", (after as f64 - before as f64) / steps, "B")])
}

fn allocated_bytes(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += metadata.blocks() * BLOCK_BYTES;
        if metadata.is_dir() {
            bytes += allocated_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}
