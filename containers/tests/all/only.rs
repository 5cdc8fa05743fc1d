//! What holds of containers and of no other sandboxes.

use crate::fixture::{Hands, Process};
use hand::{
    keeper::{self, Error},
    local,
    protocol::Need,
    spec::{CloneOf, Egress, Mode, Resources, Spec, Walls},
};
use serde_json::json;
use std::{
    io::Read as _,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

#[test]
fn a_hand_is_a_container_with_the_limits_of_its_plan_and_no_right() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let podman = &hands.made.podman;
    let names = hands.made.containers();
    assert!(names.len() == 1 && names[0].starts_with("steadyhand-h-"), "{names:?}");
    let said = podman.said(&["inspect", &names[0]]);
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    let config = &found[0]["HostConfig"];
    assert_eq!(config["Privileged"], false);
    assert_eq!(config["NetworkMode"], "none");
    assert_eq!(config["ReadonlyRootfs"], true);
    assert_eq!(config["Memory"], hand::limits::MEMORY_BYTES);
    assert_eq!(config["PidsLimit"], hand::limits::PIDS);
    let mounts = found[0]["Mounts"].to_string();
    assert!(mounts.contains("/workspace") && !mounts.contains(".sock") && !mounts.contains(".keeper"), "{mounts}");
    let inside = hand.sh("grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status; cat /proc/net/dev | tail -n +3 | cut -d: -f1; id -u");
    assert_eq!(inside.matches("0000000000000000").count(), 4, "{inside}");
    assert!(inside.contains("NoNewPrivs:\t1") && inside.contains("Seccomp:\t2"), "{inside}");
    assert_eq!(inside.lines().filter(|line| line.trim() == "lo").count(), 1, "{inside}");
    let uid: u32 = inside.lines().last().unwrap().parse().unwrap();
    assert!(hand::limits::UIDS.contains(&uid), "{inside}");
}

#[test]
fn nothing_can_be_written_but_what_the_hand_has() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for path in ["/usr/bin/new", "/etc/new", "/etc/passwd", "/new", "/dev/new", "/var/tmp/new", "/run/steadyhand/hand"]
    {
        assert!(hand.bash(&format!("echo x >{path}")).is_error, "{path}");
    }
    let full = hand.bash("head -c 100M /dev/zero >/tmp/big");
    assert!(full.is_error && full.text().contains("No space left"), "{}", full.text());
    assert!(hand.bash("head -c 100M /dev/zero >/dev/shm/big").is_error);
    hand.sh("echo x >/workspace/x; echo x >/mnt/session/outputs/x; echo x >~/x; rm /tmp/big /dev/shm/big");
    let said = hand.sh("cat /etc/resolv.conf /etc/hosts /etc/passwd");
    assert!(!said.contains("nameserver") && said.contains(":/home/agent:"), "{said}");
}

#[test]
fn nobody_inside_finds_the_shim_again() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    // It would wait for the lock that init has for as long as there is this sandbox.
    assert_eq!(hand.sh("timeout 2 /run/steadyhand/hand contained; echo $?"), "124\n");
    // And nobody listens for a second one, whoever asks.
    let asked = std::os::unix::net::UnixStream::connect(hand.file("link/shim.sock")).unwrap_err();
    assert_eq!(asked.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_container_ends_with_its_shim_and_is_removed() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo ended; (exec 9>ended; sleep 600) >/dev/null 2>&1 &");
    // Opened on both sides at once, and by the job until it is killed.
    let mut pipe = std::fs::File::open(hand.file("workspace/ended")).unwrap();
    let shim = Process::new(hand.client().status().unwrap().pid);
    shim.kill();
    pipe.read_to_end(&mut Vec::new()).unwrap();
    let again = local::provision(&hands.spec("h")).unwrap();
    assert_eq!(again, hand.at);
    assert_eq!(hands.made.containers().len(), 1);
    assert_eq!(hand.sh("ls"), "ended\n");
    local::release(&hand.at).unwrap();
    assert!(!hand.at.dir.exists());
    // The runtime's own process does it, when it has seen the end.
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !hands.made.containers().is_empty() {
        assert!(std::time::Instant::now() < give_up, "{:?}", hands.made.containers());
    }
}

#[test]
fn a_container_ends_with_its_shim_while_its_recipe_is_carried_out() {
    let hands = Hands::new();
    let out = hands.path().join("sockets/s");
    std::fs::create_dir_all(&out).unwrap();
    let socket = out.join("proxy.sock");
    let proxy = UnixListener::bind(&socket).unwrap();
    for open in [hands.path().join("sockets"), out.clone(), socket.clone()] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    // Where the bridge to the way out is; no helper of git's is needed.
    let url = "git://127.0.0.1:3128/repository".to_owned();
    let clones = vec![CloneOf { url, path: "repository".into(), checkout: None }];
    let egress = Some(Egress { dir: out, ..Egress::default() });
    let spec = Spec { egress, resources: Resources { clones, ..Resources::default() }, ..hands.spec("h") };
    let launch = std::thread::spawn(move || {
        let launched = local::provision(&spec);
        // One that did not clone is not waited for.
        UnixStream::connect(&socket).unwrap();
        launched
    });
    // It clones from who will never answer.
    let (_cloning, _) = proxy.accept().unwrap();
    assert_eq!(hands.made.containers().len(), 1);
    let first = Process::new(hands.made.first_process(0));
    Process::new(shim_of(&hands.hands_dir().canonicalize().unwrap().join("h"))).kill();
    first.wait();
    assert!(launch.join().unwrap().is_err());
}

/// The process that was started as the shim of that folder.
fn shim_of(dir: &Path) -> u32 {
    let wanted = format!("shim\0{}\0", dir.display());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(wanted.as_bytes())))
        .unwrap()
}

#[test]
fn a_container_that_no_hand_has_is_swept_away_and_no_other() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let podman = &hands.made.podman;
    let dir = hands.hands_dir().canonicalize().unwrap();
    let left = |id: &str, dir: &Path| {
        let labels = [format!("dev.steadyhand.hands-dir={}", dir.display()), format!("dev.steadyhand.hand={id}")];
        let said = podman.said(&[
            "run",
            "--detach",
            "--network",
            "none",
            "--label",
            &labels[0],
            "--label",
            &labels[1],
            crate::podman::IMAGE,
            "sleep",
            "600",
        ]);
        assert_eq!(said.trim().len(), 64, "{said}");
        said.trim().to_owned()
    };
    let (orphan, foreign) = (left("gone", &dir), left("gone", Path::new("/elsewhere")));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sweeper = containers::Runtime::new(podman.socket(), crate::podman::IMAGE, crate::walls::program());
    let swept = runtime.block_on(sweeper.sweep(&dir)).unwrap();
    assert_eq!(swept, ["gone"]);
    let there = podman.said(&["ps", "--all", "--quiet", "--no-trunc"]);
    assert!(!there.contains(&orphan) && there.contains(&foreign), "{there}");
    assert_eq!(hand.sh("echo alive"), "alive\n");
    podman.said(&["rm", "--force", "--time", "0", &foreign]);
}

#[test]
fn what_cannot_be_is_said_with_what_to_do() {
    let hands = Hands::new();
    let refused = |image: &str| {
        let dir = hands.path().join(format!("hands-{}", image.len()));
        let podman = crate::podman::Podman::start().unwrap();
        let made = crate::walls::Made::with_image(&dir, podman, image);
        let spec = Spec { walls: made.walls(), mode: Mode::Dev, ..Spec::new("h", &dir, crate::walls::program()) };
        match local::provision(&spec) {
            Err(local::Error::Refused(layers)) => layers,
            other => panic!("{other:?}"),
        }
    };
    let layers = refused("localhost/none");
    assert_eq!(layers.iter().map(|layer| &*layer.name).collect::<Vec<_>>(), ["container_image"]);
    assert!(layers[0].fix.contains("podman pull localhost/none"), "{layers:?}");
    assert!(layers.iter().all(|layer| layer.need == Need::Always));

    let nobody = Spec { walls: Walls::Container { keeper: hands.path().join("none.sock") }, ..hands.spec("h") };
    let said = local::provision(&nobody).unwrap_err().to_string();
    assert!(said.contains("reach the keeper of containers"), "{said}");
}

#[test]
fn the_keeper_starts_what_is_planned_and_nothing_else() {
    let hands = Hands::new();
    let Walls::Container { keeper } = hands.walls() else { panic!("these are containers") };
    for id in ["none", "../etc", ""] {
        let said = keeper::start(&keeper, id).unwrap_err();
        assert!(matches!(&said, Error::Refused(said) if said.contains("find a hand of that id")), "{id}: {said}");
    }
    // One that nobody launches just now is left as it is.
    let hand = hands.hand("h");
    assert!(matches!(keeper::start(&keeper, "h"), Err(Error::Refused(_))));
    assert_eq!(hand.sh("echo alive"), "alive\n");
    let mut stranger = std::process::Command::new("/usr/bin/python3");
    use std::os::unix::process::CommandExt;
    let script = format!("import socket; socket.socket(socket.AF_UNIX).connect({:?})", keeper.display().to_string());
    let said = stranger.args(["-c", &script]).uid(60_998).gid(60_998).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("PermissionError"), "{said:?}");
}

#[test]
fn a_disk_of_its_own_is_in_a_container_as_well() {
    let hands = Hands::new();
    let limits = hand::spec::Limits { disk_bytes: 64 << 20, ..Default::default() };
    let hand = crate::fixture::Hand::new(&Spec { mode: Mode::Strict, limits, ..hands.spec("h") });
    let status = hand.client().status().unwrap();
    assert!(
        status.layers.iter().filter(|layer| layer.need != Need::Advice).all(|layer| layer.on),
        "{:?}",
        status.layers
    );
    let full = hand.bash("head -c 100M /dev/zero >big");
    assert!(full.is_error && full.text().contains("No space left"), "{}", full.text());
    let refused = hand.tool("write", json!({"file_path": "more", "content": "x".repeat(200_000)}));
    assert!(refused.is_error && refused.text().contains("No space left"), "{}", refused.text());
    assert_eq!(hand.sh("rm big; echo kept >kept; cat kept"), "kept\n");
}
