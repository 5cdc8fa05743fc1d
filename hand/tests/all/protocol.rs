//! The socket: leases, epochs, refusals.

use crate::fixture::{Hand, Hands, Process, is_root};
use hand::client::{Client, Error};
use hand::local;
use hand::protocol::{Need, Refusal, Reply, Request};
use hand::spec::Spec;
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn refusal<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Refusal {
    match outcome {
        Err(Error::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn an_old_epoch_is_refused_everything() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let mut client = hand.client();
    client.execute("before", "bash", json!({"command": "echo 1"}), None, 1).unwrap();
    assert_eq!(refusal(client.fence(2, 3)), Refusal::Fenced);
    assert_eq!(client.fence(1, 2).unwrap(), 2);
    assert_eq!(refusal(client.fence(1, 2)), Refusal::Fenced);
    assert_eq!(refusal(client.execute("after", "bash", json!({"command": "echo >ran"}), None, 1)), Refusal::Fenced);
    assert_eq!(refusal(client.execute("before", "bash", json!({"command": "echo 1"}), None, 1)), Refusal::Fenced);
    assert_eq!(refusal(client.cancel("before", 1)), Refusal::Fenced);
    assert_eq!(refusal(client.collect(Default::default(), 1)), Refusal::Fenced);
    assert_eq!(refusal(client.snapshot(1)), Refusal::Fenced);
    assert_eq!(refusal(client.release(1)), Refusal::Fenced);
    assert_eq!(refusal(client.execute("future", "bash", json!({"command": "echo >ran"}), None, 3)), Refusal::Fenced);
    assert!(!hand.file("workspace/ran").exists());
    assert_eq!(local::attach(&hand.at.dir).unwrap().epoch, 2);
    client.execute("after", "bash", json!({"command": "echo >ran"}), None, 2).unwrap();
    assert!(hand.file("workspace/ran").exists());
}

#[test]
fn ids_and_requests_are_checked() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for id in ["", "../../x", "a b", &"a".repeat(129), &"a".repeat(1_000_000)] {
        let outcome = hand.client().execute(id, "bash", json!({"command": "echo >ran"}), None, 1);
        assert_eq!(refusal(outcome), Refusal::BadRequest);
    }
    assert_eq!(refusal(hand.client().cancel("never-seen", 1)), Refusal::Unknown);
    assert_eq!(refusal(hand.client().blob(&"0".repeat(64), &mut Vec::new())), Refusal::Unknown);
    assert_eq!(refusal(hand.client().blob("../plan.json", &mut Vec::new())), Refusal::BadRequest);
    for line in ["{}", "nonsense", "[1]", "{\"op\":\"execute\"}"] {
        let mut stream = UnixStream::connect(&hand.at.socket).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut said = String::new();
        BufReader::new(stream).read_line(&mut said).unwrap();
        let reply: Reply = serde_json::from_str(&said).unwrap();
        assert!(matches!(reply, Reply::Refused { code: Refusal::BadRequest, .. }), "{line}: {said}");
    }
    assert!(!hand.file("workspace/ran").exists());
}

#[test]
fn one_connection_carries_many_requests() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let mut client = hand.client();
    for n in 0..20 {
        let settled =
            client.execute(format!("c{n}"), "bash", json!({"command": format!("echo {n}")}), None, 1).unwrap();
        assert!(settled.result.contains(&format!("\"{n}\\n\"")));
    }
    assert!(matches!(client.ask(&Request::Status).unwrap(), Reply::Status(_)));
}

#[test]
fn a_hand_without_a_lease_ends_and_comes_back_with_its_workspace() {
    let hands = Hands::new();
    let spec = Spec { lease_ms: 400, ..hands.spec("h") };
    let hand = Hand::new(&spec);
    let pid = hand.client().status().unwrap().pid;
    // A call that runs for longer than the lease holds it.
    hand.sh("sleep 1; echo kept >file");
    // The end of the connection is the end of the shim.
    let mut stream = UnixStream::connect(&hand.at.socket).unwrap();
    let mut rest = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut rest).unwrap();
    assert!(matches!(Client::connect(&hand.at.socket), Err(Error::Gone(_))));
    local::provision(&Spec { lease_ms: 60_000, ..spec }).unwrap();
    assert_ne!(hand.client().status().unwrap().pid, pid);
    assert_eq!(hand.sh("cat file"), "kept\n");
    let left = hand.client().status().unwrap().lease_left_ms;
    assert!((50_000..=60_000).contains(&left), "{left}");
    assert!(hand.client().renew(120_000).unwrap() > 100_000);
}

#[test]
fn a_released_hand_leaves_nothing() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let shim = Process::new(hand.client().status().unwrap().pid);
    hand.sh("mkdir -p deep/er; echo x >deep/er/f; chmod 000 deep; mkdir -p $(printf 'd/%.0s' {1..1500}); sleep 1000 &");
    let plan: hand::spec::Plan = serde_json::from_slice(&std::fs::read(hand.file("plan.json")).unwrap()).unwrap();
    let groups = plan.cgroup_procs;
    assert!(groups.iter().all(|group| group.exists()), "{groups:?}");
    local::release(&hand.at).unwrap();
    assert!(!hand.at.dir.exists());
    shim.wait();
    if is_root() {
        assert_eq!(hands.hands_dir().join(".uids").read_dir().unwrap().count(), 0);
        assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    }
    local::release(&hand.at).unwrap();
    assert!(matches!(Client::connect(&hand.at.socket), Err(Error::Gone(_))));
}

#[test]
fn only_dead_and_old_hands_are_reaped() {
    let hands = Hands::new();
    let (live, dead) = (hands.hand("live"), hands.hand("dead"));
    let mut stream = UnixStream::connect(&dead.at.socket).unwrap();
    dead.client().release(1).unwrap();
    std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
    assert!(local::reap(&hands.hands_dir(), Duration::from_secs(3600)).unwrap().is_empty());
    for held_while_alive in ["shim.lock", "sandbox.lock"] {
        std::fs::File::open(dead.file(held_while_alive)).unwrap().lock().unwrap();
    }
    assert_eq!(local::reap(&hands.hands_dir(), Duration::ZERO).unwrap(), ["dead"]);
    assert!(!dead.at.dir.exists());
    assert_eq!(live.sh("echo fine"), "fine\n");
}

#[test]
fn the_status_tells_every_layer() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let status = hand.client().status().unwrap();
    assert_eq!((status.hand_id.as_str(), status.epoch, status.running.len()), ("h", 1, 0));
    for name in [
        "namespaces",
        "seccomp",
        "landlock",
        "own_uid",
        "cgroup_memory",
        "cgroup_pids",
        "cgroup_cpu",
        "disk_quota",
        "static_program",
    ] {
        let layer = status.layers.iter().find(|layer| layer.name == name).unwrap_or_else(|| panic!("{name}"));
        assert!(layer.on || !layer.fix.is_empty(), "{name}");
        assert!(layer.need != Need::Always || layer.on, "{name}");
    }
}

#[test]
fn a_spec_that_cannot_be_is_refused_with_a_reason() {
    let hands = Hands::new();
    let check = |change: fn(&mut Spec), expect: &str| {
        let mut spec = hands.spec("h");
        change(&mut spec);
        let said = local::provision(&spec).unwrap_err().to_string();
        assert!(said.contains(expect), "{said}");
    };
    check(|spec| spec.hand_id = "../h".into(), "a hand id is");
    check(
        |spec| {
            spec.resources.files.push(hand::spec::FileResource { source: "/etc/hostname".into(), path: "../x".into() })
        },
        "without `..`",
    );
    check(
        |spec| spec.resources.files.push(hand::spec::FileResource { source: "/no/such".into(), path: "x".into() }),
        "copy /no/such",
    );
    check(
        |spec| {
            spec.resources.repo = Some(hand::spec::Repo { bundle: "/etc/hostname".into(), name: Some("a/b".into()) })
        },
        "one plain folder name",
    );
    check(
        |spec| spec.resources.repo = Some(hand::spec::Repo { bundle: "/etc/hostname".into(), name: None }),
        "clone the repository",
    );
    let spec = Spec { program: "/no/such/program".into(), ..hands.spec("h") };
    assert!(local::provision(&spec).unwrap_err().to_string().contains("start /no/such/program"));
}

#[test]
fn a_folder_that_the_hands_user_cannot_reach_is_named() {
    if !is_root() {
        // Hands then have the uid of who made the folder.
        return;
    }
    let hands = Hands::new();
    let closed = hands.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let spec = Spec { hands_dir: closed.join("hands"), ..hands.spec("h") };
    let said = local::provision(&spec).unwrap_err().to_string();
    assert!(said.contains(&format!("reach {}", closed.display())) && said.contains("chmod o+x"), "{said}");
}

#[test]
fn a_recipe_that_failed_can_be_tried_again() {
    let hands = Hands::new();
    let mut spec = hands.spec("h");
    spec.resources.repo = Some(hand::spec::Repo { bundle: "/etc/passwd".into(), name: None });
    assert!(local::provision(&spec).unwrap_err().to_string().contains("clone the repository"));
    spec.resources.repo = None;
    assert_eq!(Hand::new(&spec).sh("ls -A"), "(no output)");
}
