//! `bench`: what a durable step, a message and a turn cost on this machine, one `metric value unit` a line.
//!
//! With names as arguments it measures only those. Scratch data goes to `TMPDIR`, which should be on the disk that the
//! service will use: every figure here includes its fsyncs. It compares nothing and sets no targets; docs/benchmarks.md
//! says what the figures mean.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures and complaints are what this program is for")]

mod clock;
mod fleet;
mod footprint;
mod hands;
mod latency;
mod metric;
mod model;
mod process;
mod replay;
mod resume;
mod rig;
mod roles;
mod service;
mod steps;
mod stream;
mod turn;
mod workload;

use anyhow::bail;
use futures::future::{FutureExt as _, LocalBoxFuture};
use metric::Metric;
use std::collections::BTreeSet;

/// One run of the machinery, and the metrics that it yields.
struct Measure {
    metrics: &'static [&'static str],
    run: fn() -> LocalBoxFuture<'static, anyhow::Result<Vec<Metric>>>,
}

const MEASURES: &[Measure] = &[
    Measure { metrics: &["seq_steps_per_s"], run: || steps::sequential().boxed_local() },
    Measure { metrics: &["agg_steps_per_s", "cpu_us_per_step"], run: || steps::aggregate().boxed_local() },
    Measure { metrics: &["growth_ratio"], run: || steps::growth().boxed_local() },
    Measure { metrics: &["wf1_latency_p50_ms", "wf1_latency_p99_ms"], run: || latency::one_step().boxed_local() },
    Measure { metrics: &["signal_p50_ms", "signal_p99_ms"], run: || latency::signal().boxed_local() },
    Measure { metrics: &["resume_ms_100"], run: || resume::resume("resume_ms_100", 100).boxed_local() },
    Measure { metrics: &["resume_ms_1000"], run: || resume::resume("resume_ms_1000", 1_000).boxed_local() },
    Measure { metrics: &["rss_10000_sleeping_mib"], run: || footprint::sleeping().boxed_local() },
    Measure { metrics: &["disk_bytes_per_step"], run: || footprint::disk().boxed_local() },
    Measure {
        metrics: &["replay_decisions_per_s", "replay_wasm_decisions_per_s"],
        run: || replay::decisions().boxed_local(),
    },
    Measure {
        metrics: &["turn_overhead_p50_ms", "turn_overhead_p99_ms", "first_delta_ms", "first_delta_p99_ms"],
        run: || turn::turns().boxed_local(),
    },
    Measure {
        metrics: &["lazy_ttft_p50_ms", "lazy_ttft_p95_ms", "eager_ttft_p50_ms", "eager_ttft_p95_ms"],
        run: || hands::lazy_against_eager().boxed_local(),
    },
    Measure {
        metrics: &["provision_p50_ms", "provision_p99_ms", "provision_busy_p50_ms", "provision_busy_p99_ms"],
        run: || fleet::provision().boxed_local(),
    },
    Measure {
        metrics: &[
            "provision_strict_p50_ms",
            "provision_strict_p99_ms",
            "provision_strict_busy_p50_ms",
            "provision_strict_busy_p99_ms",
        ],
        run: || fleet::provision_strict().boxed_local(),
    },
    Measure { metrics: &["execute_true_p50_ms", "execute_true_p99_ms"], run: || fleet::execute().boxed_local() },
    Measure { metrics: &["idle_hands_alive", "idle_hand_kib"], run: || fleet::idle().boxed_local() },
    Measure {
        metrics: &["flood_500_mb_ms", "flood_worker_grew_mib", "flood_shim_peak_mib"],
        run: || fleet::flood().boxed_local(),
    },
];

/// What takes minutes: measured only when a metric of it is named.
const NAMED: &[Measure] = &[Measure {
    metrics: &[
        "sleepers",
        "sleepers_rss_mib",
        "sleepers_start_ms",
        "sleepers_restarted_rss_mib",
        "sleepers_idle_cpu_percent",
    ],
    run: || footprint::many_sleeping().boxed_local(),
}];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [roles::ARGUMENT, role, place] => runtime.block_on(roles::play(role, place)),
        ref names => runtime.block_on(measure(names)),
    }
}

async fn measure(names: &[&str]) -> anyhow::Result<()> {
    let wanted: BTreeSet<&str> = names.iter().copied().collect();
    let known: BTreeSet<&str> = MEASURES.iter().chain(NAMED).flat_map(|measure| measure.metrics).copied().collect();
    if let Some(unknown) = wanted.difference(&known).next() {
        let known: Vec<&str> = known.iter().copied().collect();
        bail!("there is no metric {unknown:?}; there are {}", known.join(", "));
    }
    metric::warn_of_memory_disk()?;
    let is_wanted = |name: &str| wanted.is_empty() || wanted.contains(name);
    let mut failed: Vec<&str> = Vec::new();
    let usual = MEASURES.iter().filter(|measure| measure.metrics.iter().any(|name| is_wanted(name)));
    let named = NAMED.iter().filter(|measure| measure.metrics.iter().any(|name| wanted.contains(name)));
    for measure in usual.chain(named) {
        match (measure.run)().await {
            Ok(metrics) => metrics.iter().filter(|metric| is_wanted(metric.name)).for_each(Metric::print),
            Err(error) => {
                eprintln!("{}: {error:#}", measure.metrics.join(", "));
                failed.extend(measure.metrics);
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed to measure {}", failed.join(", "));
    }
    Ok(())
}
