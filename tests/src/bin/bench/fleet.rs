//! Hands themselves, without a service around them: how fast they are made and called, how many may lie idle, and what a flood of
//! output takes. Made as a hand worker makes them, by a process of its own each.

use crate::metric::{Metric, Samples};
use activities::hands::{Local, Provider as _, ToolCall};
use anyhow::{Context as _, ensure};
use domain::HandName;
use domain::session::{HandRef, ProvisionInput};
use hand::{
    client::Client,
    hands::{By, Hands},
    spec::{Mode, Walls},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::available_parallelism,
    time::Instant,
};
use steadyhand_tests::{long, service::program};
use store::MemoryBlobs;
use tempfile::TempDir;

const MADE: usize = 100;
const CALLED: usize = 300;
const WARM_UP: usize = 5;
const IDLE: usize = 1_000;
const FLOOD_BYTES: u64 = 500_000_000;

/// A folder of hands that are gone when it is.
struct Fleet {
    _dir: TempDir,
    hands: Hands,
    made: Vec<String>,
}

impl Fleet {
    fn new(mode: Mode) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        // Users of hands pass through it.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
        let by = By::Itself { program: program("steadyhand-hand"), mode, walls: Walls::Bubblewrap };
        let hands = Hands { dir: dir.path().join("hands"), by };
        Ok(Fleet { _dir: dir, hands, made: Vec::new() })
    }

    fn make(&mut self) -> anyhow::Result<hand::spec::HandRef> {
        let id = format!("bench-{}", self.made.len());
        self.made.push(id.clone());
        Ok(self.hands.provision(self.hands.spec(&id))?)
    }

    /// What is left of the last one is not measured with the next.
    fn release_last(&mut self) -> anyhow::Result<()> {
        let id = self.made.pop().context("one was made")?;
        Ok(self.hands.release(&id, 1)?)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for id in &self.made {
            // One that will not go ends with its lease.
            let _ = self.hands.release(id, 1);
        }
    }
}

pub async fn provision() -> anyhow::Result<Vec<Metric>> {
    tokio::task::spawn_blocking(|| {
        let quiet = made(Mode::Dev)?;
        let busy = beside_others(|| made(Mode::Dev))?;
        Ok(vec![
            Metric::ms("provision_p50_ms", quiet.at(0.5)),
            Metric::ms("provision_p99_ms", quiet.at(0.99)),
            Metric::ms("provision_busy_p50_ms", busy.at(0.5)),
            Metric::ms("provision_busy_p99_ms", busy.at(0.99)),
        ])
    })
    .await?
}

/// Every layer, which only root can put up.
pub async fn provision_strict() -> anyhow::Result<Vec<Metric>> {
    tokio::task::spawn_blocking(|| {
        let quiet = made(Mode::Strict)?;
        let busy = beside_others(|| made(Mode::Strict))?;
        Ok(vec![
            Metric::ms("provision_strict_p50_ms", quiet.at(0.5)),
            Metric::ms("provision_strict_p99_ms", quiet.at(0.99)),
            Metric::ms("provision_strict_busy_p50_ms", busy.at(0.5)),
            Metric::ms("provision_strict_busy_p99_ms", busy.at(0.99)),
        ])
    })
    .await?
}

fn made(mode: Mode) -> anyhow::Result<Samples> {
    let mut fleet = Fleet::new(mode)?;
    let mut times = Vec::new();
    for n in 0..WARM_UP + MADE {
        let began = Instant::now();
        fleet.make()?;
        if n >= WARM_UP {
            times.push(began.elapsed());
        }
        fleet.release_last()?;
    }
    Ok(Samples::new(times))
}

/// With every core busy.
fn beside_others<T>(measure: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let measured = measure();
        over.store(true, Ordering::Relaxed);
        measured
    })
}

pub async fn execute() -> anyhow::Result<Vec<Metric>> {
    tokio::task::spawn_blocking(|| {
        let mut fleet = Fleet::new(Mode::Dev)?;
        let hand = fleet.make()?;
        let mut client = Client::connect(&hand.socket)?;
        let mut times = Vec::new();
        for n in 0..WARM_UP + CALLED {
            let began = Instant::now();
            client.execute(format!("call-{n}"), "bash", json!({"command": "true"}), None, hand.epoch)?;
            if n >= WARM_UP {
                times.push(began.elapsed());
            }
        }
        let times = Samples::new(times);
        Ok(vec![Metric::ms("execute_true_p50_ms", times.at(0.5)), Metric::ms("execute_true_p99_ms", times.at(0.99))])
    })
    .await?
}

/// Many at once that do nothing. `STEADYHAND_IDLE_HANDS`: how many.
pub async fn idle() -> anyhow::Result<Vec<Metric>> {
    tokio::task::spawn_blocking(|| {
        let count = long::number("STEADYHAND_IDLE_HANDS", IDLE)?;
        let mut fleet = Fleet::new(Mode::Dev)?;
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(fleet.make()?.socket);
        }
        let (mut alive, mut kib) = (0, 0);
        let children = children()?;
        for socket in &sockets {
            let status = Client::connect(socket)?.status()?;
            alive += usize::from(status.lease_left_ms > 0);
            kib += pss_kib(&children, status.pid);
        }
        ensure!(alive == count, "{alive} of {count} are alive");
        Ok(vec![
            Metric::new("idle_hands_alive", alive as f64, "hands"),
            Metric::new("idle_hand_kib", kib as f64 / count as f64, "KiB"),
        ])
    })
    .await?
}

/// Processes by their parent.
fn children() -> anyhow::Result<BTreeMap<u32, Vec<u32>>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has just ended has no parent to tell.
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        children.entry(parent.unwrap_or_default()).or_default().push(pid);
    }
    Ok(children)
}

/// Of a process and all below it, what is shared divided among those who share it.
fn pss_kib(children: &BTreeMap<u32, Vec<u32>>, pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let own = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).and_then(kib).unwrap_or_default();
    let below = children.get(&pid).into_iter().flatten().map(|child| pss_kib(children, *child));
    own + below.sum::<u64>()
}

fn kib(field: &str) -> Option<u64> {
    field.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// One call with more output than anybody should hold: what it takes of the worker, which this process is, and of the shim.
pub async fn flood() -> anyhow::Result<Vec<Metric>> {
    let fleet = Fleet::new(Mode::Dev)?;
    let provider = Local::new("bench", fleet.hands.clone(), Arc::new(MemoryBlobs::new()));
    let input = ProvisionInput {
        session_id: "flood".to_owned(),
        hand: "flood".to_owned(),
        environment_id: "bench".to_owned(),
        resources: Vec::new(),
        restore: None,
        name: HandName::default(),
        turn_event: None,
    };
    let hand = provider.provision(&input).await.map_err(|failure| anyhow::anyhow!("{failure:?}"))?.hand;
    let flooded = flood_through(&provider, &hand, &fleet).await;
    provider.release(&hand).await.map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    flooded
}

async fn flood_through(provider: &Local, hand: &HandRef, fleet: &Fleet) -> anyhow::Result<Vec<Metric>> {
    let call = |id: &str, command: String| ToolCall {
        id: id.to_owned(),
        name: "bash".to_owned(),
        input: json!({"command": command}),
    };
    provider.execute(hand, call("warm", "true".to_owned())).await;
    // From here on the peak is counted anew.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = status_kib("self", "VmRSS:")?;
    let began = Instant::now();
    let executed = provider.execute(hand, call("flood", format!("yes flood | head -c {FLOOD_BYTES}"))).await;
    let took = began.elapsed();
    ensure!(!executed.is_error, "{executed:?}");
    let worker = status_kib("self", "VmHWM:")?.saturating_sub(before);
    let socket = fleet.hands.reference(&hand.hand, hand.epoch).socket;
    let shim = tokio::task::spawn_blocking(move || Client::connect(&socket)?.status()).await??;
    let shim = status_kib(&shim.pid.to_string(), "VmHWM:")?;
    Ok(vec![
        Metric::ms("flood_500_mb_ms", took),
        Metric::new("flood_worker_grew_mib", worker as f64 / 1024.0, "MiB"),
        Metric::new("flood_shim_peak_mib", shim as f64 / 1024.0, "MiB"),
    ])
}

fn status_kib(pid: &str, field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status.lines().find_map(|line| line.strip_prefix(field)).and_then(kib).with_context(|| format!("no {field}"))
}
