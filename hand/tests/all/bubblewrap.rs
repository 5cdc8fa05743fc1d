//! What holds of sandboxes that bubblewrap puts up, and of no others.

use crate::fixture::Hands;
use crate::walls::program;
use hand::local;
use hand::protocol::Need;
use hand::spec::{Mode, Spec};
use serde_json::json;

#[test]
fn strict_mode_refuses_where_a_layer_is_missing() {
    let hands = Hands::new();
    let outcome = local::provision(&Spec { mode: Mode::Strict, ..hands.spec("h") });
    let layers = local::probe(&program()).unwrap();
    let off: Vec<_> = layers.into_iter().filter(|layer| !layer.on && layer.need != Need::Advice).collect();
    match outcome {
        Ok(_) => assert!(off.is_empty(), "{off:?}"),
        Err(local::Error::Refused(layers)) => {
            assert_eq!(
                layers.iter().map(|l| &l.name).collect::<Vec<_>>(),
                off.iter().map(|l| &l.name).collect::<Vec<_>>()
            );
            assert!(layers.iter().all(|layer| !layer.fix.is_empty()));
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn without_user_namespaces_there_is_no_hand_but_a_reason() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    // Inside a hand no further sandbox can be made: a machine that forbids it, made of this one.
    std::fs::copy(program(), hand.file("workspace/program")).unwrap();
    let spec = serde_json::to_string(&Spec::new("inner", "/workspace/hands", "/workspace/program")).unwrap();
    hand.tool("write", json!({"file_path": "spec.json", "content": spec}));
    let said = hand.sh("./program launch <spec.json");
    let launched: hand::launch::Launched = serde_json::from_str(&said).unwrap();
    let hand::launch::Launched::Refused { layers } = launched else { panic!("{said}") };
    assert_eq!(layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["namespaces"]);
    assert!(layers[0].why.contains("bwrap") && layers[0].fix.contains("user namespaces"), "{said}");
    assert_eq!(hand.sh("ls hands/inner"), "launch.lock\n", "nothing was started");

    // It could once, and one that starts shows no longer that the next one does.
    let inner = Spec { mode: Mode::Dev, ..Spec::new("later", "/workspace/hands", "/workspace/program") };
    hand.tool("write", json!({"file_path": "spec.json", "content": serde_json::to_string(&inner).unwrap()}));
    std::fs::copy(hands.hands_dir().join(".shown"), hand.file("workspace/shown")).unwrap();
    let said = hand.sh("cp shown hands/.shown; ./program launch <spec.json");
    let launched: hand::launch::Launched = serde_json::from_str(&said).unwrap();
    let hand::launch::Launched::Refused { layers } = launched else { panic!("{said}") };
    assert_eq!(layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["namespaces"]);
    assert!(hand.sh("ls hands/later").contains("plan.json"), "it was tried: the trial before was left out");
}

#[test]
fn only_its_own_folders_are_writable_and_nothing_of_the_host_is_there() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let said = hand.sh("for d in / /usr /etc /dev /mnt /mnt/session /mnt/session/uploads /mnt/session/tool_output /run/recipe /proc /home; do \
        (echo >$d/x) 2>/dev/null && echo WROTE $d; done; for d in /workspace /mnt/session/outputs /home/agent /tmp /run /dev/shm; do \
        (echo >$d/x) || echo CANNOT $d; done; ls -A /; echo; ls /etc; echo; ls -A /home /root /var /opt /srv /boot 2>/dev/null; true");
    assert!(!said.contains("WROTE") && !said.contains("CANNOT"), "{said}");
    let parts: Vec<_> = said.split("\n\n").collect();
    for name in parts[0].lines() {
        let known = [
            "bin",
            "dev",
            "etc",
            "home",
            "lib",
            "lib32",
            "lib64",
            "mnt",
            "proc",
            "run",
            "sbin",
            "tmp",
            "usr",
            "workspace",
        ];
        assert!(known.contains(&name), "{name}");
    }
    for name in parts[1].lines() {
        let known = ["alternatives", "group", "gitconfig", "hosts", "ld.so.cache", "nsswitch.conf", "passwd", "ssl"];
        assert!(known.contains(&name), "{name}");
    }
    assert_eq!(parts[2].trim(), "/home:\nagent");
    // No set-uid program gains anything, and devices made here do not open.
    assert_eq!(
        hand.sh("grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status | tr -d '\\t'"),
        "CapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:1\n"
    );
    let mounts = hand.sh("grep -E ' /(workspace|home/agent|mnt/session/outputs) ' /proc/self/mountinfo");
    assert!(mounts.lines().count() == 3 && mounts.lines().all(|line| line.contains("nosuid,nodev")), "{mounts}");
}

#[test]
fn its_cgroup_namespace_is_its_own_and_run_is_small() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    assert_eq!(hand.sh("cut -d: -f3 /proc/self/cgroup | sort -u"), "/\n");
    let full = hand.bash("head -c 100M /dev/zero >/run/a");
    assert!(full.is_error && full.text().contains("No space left"), "{}", full.text());
}
