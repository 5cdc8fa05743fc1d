//! Layers that not every machine can put up: what they do, where they can.

use crate::cases::{check, needs_cgroups};
use crate::catalogue::Layer;
use crate::fixture::{Hand, Hands, Process, is_root, parse};
use hand::local;
use hand::spec::{FileResource, Limits, Mode, Plan, Spec};
use libtest_mimic::Failed;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

pub const LAYERS: &[Layer] = &[
    Layer { name: "memory_and_processes_end_inside", needs: needs_cgroups, run: memory_and_processes },
    Layer { name: "processor_time_is_bounded", needs: needs_cgroups, run: processor_time },
    Layer { name: "without_room_for_a_process_the_shell_can_be_restarted", needs: needs_cgroups, run: no_room },
    Layer { name: "a_disk_of_its_own_is_full_by_the_kernels_word", needs: needs_disk, run: own_disk },
    Layer { name: "no_disk_stays_mounted_without_a_hand", needs: needs_disk, run: no_disk_left },
];

fn needs_disk() -> Option<String> {
    let layers = local::probe(&crate::walls::program()).unwrap();
    let disk = layers.into_iter().find(|layer| layer.name == "disk_quota").unwrap();
    (!disk.on).then_some(disk.why)
}

fn memory_and_processes() -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand_within("h", Limits { memory_bytes: 128 << 20, pids: 48, ..Limits::default() });
    let status = hand.client().status()?;
    let on: Vec<_> = status.layers.iter().filter(|layer| layer.on).map(|layer| layer.name.as_str()).collect();
    check(on.contains(&"cgroup_memory") && on.contains(&"cgroup_pids"), &format!("{on:?}"))?;
    check(on.contains(&"own_uid") == is_root(), &format!("{on:?}"))?;

    let hog = hand.bash("x=$(head -c 1000000000 /dev/zero | tr '\\0' x); echo ${#x}");
    check(hog.is_error, &hog.text())?;
    check(hand.sh("echo fine") == "fine\n", "the next call")?;

    let input = json!({"command": "bomb() { bomb | bomb & }; bomb; sleep 100", "timeout_ms": 3000});
    let bomb = parse(&hand.call("bomb", "bash", input));
    check(bomb.is_error && bomb.text().contains("timed out"), &bomb.text())?;
    check(hand.sh("set -- /proc/[0-9]*; echo $#") == "2\n", "what is left of the bomb")
}

/// The kernel's own count of how often the sandbox was held back.
fn processor_time() -> Result<(), Failed> {
    let hands = Hands::new();
    let throttled = |id: &str, cpu_percent| -> Result<u64, Failed> {
        let hand = hands.hand_within(id, Limits { cpu_percent, ..Limits::default() });
        hand.bash("timeout 1 bash -c 'while :; do :; done'");
        let plan: Plan = serde_json::from_slice(&std::fs::read(hand.file("plan.json"))?)?;
        let stats = plan.cgroup_procs.iter().map(|procs| procs.with_file_name("cpu.stat"));
        let stat = stats.filter_map(|path| std::fs::read_to_string(path).ok()).next().ok_or("no group has cpu.stat")?;
        let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).ok_or("no count")?;
        Ok(count.parse()?)
    };
    check(throttled("held", 5)? > 0, "it was never held back")?;
    // The control: with more than one thread can use, it is not.
    check(throttled("free", 400)? == 0, "it was held back without need")
}

fn no_room() -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand_within("h", Limits { pids: 48, ..Limits::default() });
    hand.tool("write", json!({"file_path": "probe.c", "content": include_str!("../all/probe.c")}));
    hand.sh("cc -o probe probe.c 2>&1");
    check(hand.sh("mkfifo full; ./probe fill >full & read line <full; echo $line") == "full\n", "it is not full")?;
    let refused = hand.tool("read", json!({"file_path": "probe.c"}));
    check(refused.is_error && refused.text().contains("no room"), &refused.text())?;
    let restarted = hand.tool("bash", json!({"restart": true})).text();
    check(restarted == "bash session restarted", &restarted)?;
    check(hand.sh("set -- /proc/[0-9]*; echo $#") == "2\n", "what is left")
}

fn own_disk() -> Result<(), Failed> {
    let hands = Hands::new();
    let limits = Limits { disk_bytes: 64 << 20, ..Limits::default() };
    let spec = Spec { mode: Mode::Strict, limits, ..hands.spec("h") };
    let hand = Hand::new(&spec);
    let full = hand.bash("head -c 100M /dev/zero >big");
    check(full.is_error && full.text().contains("No space left"), &full.text())?;
    let refused = hand.tool("write", json!({"file_path": "more", "content": "x".repeat(200_000)}));
    check(refused.is_error && refused.text().contains("No space left"), &refused.text())?;
    hand.sh("rm big; echo kept >kept; echo out >/mnt/session/outputs/o; touch ~/h");
    check(hand.client().collect(Default::default(), 1)?.files.len() == 1, "the outputs")?;
    let inside = hand.sh("cat /proc/self/mountinfo");
    check(!inside.contains("disk.img"), &inside)?;

    let shim = Process::new(hand.client().status()?.pid);
    shim.kill();
    shim.wait();
    local::provision(&spec)?;
    check(hand.sh("cat kept") == "kept\n", "a hand started again has its disk")?;

    check(is_mounted(&hand.at.dir), "the mount")?;
    local::release(&hand.at)?;
    check(!hand.at.dir.exists() && !is_mounted(&hand.at.dir), "what is left of it")
}

fn is_mounted(dir: &Path) -> bool {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(dir.to_str().unwrap())
}

fn no_disk_left() -> Result<(), Failed> {
    let hands = Hands::new();
    let spec = |id: &str| Spec {
        mode: Mode::Strict,
        limits: Limits { disk_bytes: 64 << 20, ..Limits::default() },
        ..hands.spec(id)
    };
    // Somebody on the machine looks into it.
    let hand = Hand::new(&spec("watched"));
    hand.sh("echo read >kept");
    let looked_at = std::fs::File::open(hand.file("workspace/kept"))?;
    local::release(&hand.at)?;
    check(!hand.at.dir.exists() && !is_mounted(&hand.at.dir), "a disk that is looked into")?;
    check(std::io::read_to_string(looked_at)? == "read\n", "whoever looks is not disturbed")?;

    // A launch that fails once the disk is there.
    let mut failing = spec("failing");
    failing.resources.files = vec![FileResource { source: hands.path().join("nothing"), path: "told".into() }];
    check(local::provision(&failing).is_err(), "a file that is not there")?;
    let left = hands.hands_dir().canonicalize()?.join("failing");
    check(left.join("disk.img").exists() && !is_mounted(&left), "the disk of a launch that failed")?;
    // Nobody can name it any more.
    check(local::reap_unfinished(&hands.hands_dir(), Duration::from_secs(3600))?.is_empty(), "it may be tried again")?;
    let somebodys = hands.hands_dir().join("somebodys");
    std::fs::create_dir(&somebodys)?;
    check(local::reap_unfinished(&hands.hands_dir(), Duration::ZERO)? == ["failing"], "what is left goes")?;
    check(somebodys.exists(), "what was no hand")?;
    std::fs::remove_dir(&somebodys)?;
    check(!left.exists(), "its folder")
}
