//! What the model's code can reach from inside, however clever: nothing of the host, of the shim or of another hand.

use crate::fixture::{Hand, Hands, is_root};
use base64::Engine;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Command;

const EPERM: i32 = 1;
const ENXIO: i32 = 6;
const ENOSYS: i32 = 38;
const EAFNOSUPPORT: i32 = 97;

/// Put the probe inside, built by whoever built these tests: not every sandbox has a compiler.
fn probe(hand: &Hand) {
    let dir = tempfile::tempdir().unwrap();
    let (source, built) = (dir.path().join("probe.c"), dir.path().join("probe"));
    std::fs::write(&source, include_str!("probe.c")).unwrap();
    let made = Command::new("cc").arg("-static").arg("-o").arg(&built).arg(&source).status().unwrap();
    assert!(made.success());
    // The host puts nothing into a workspace; it comes in as any other file does.
    let text = base64::engine::general_purpose::STANDARD.encode(std::fs::read(&built).unwrap());
    hand.tool("write", json!({"file_path": "probe.base64", "content": text}));
    hand.sh("base64 -d <probe.base64 >probe && chmod +x probe");
}

#[test]
fn system_calls_that_lead_out_are_denied() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    probe(&hand);
    let said = hand.sh("./probe");
    let got: BTreeMap<_, i32> =
        said.lines().map(|line| line.split_once(' ').unwrap()).map(|(k, v)| (k, v.parse().unwrap())).collect();
    for (name, errno) in &got {
        let expect = match *name {
            "clone3" => ENOSYS,
            "socket_vsock" | "socket_packet" | "socket_alg" | "socket_xdp" | "netlink_audit" | "netlink_netfilter" => {
                EAFNOSUPPORT
            }
            "socket_unix" | "socket_inet" | "socket_inet6" | "socketpair_unix" | "netlink_route" => 0,
            "open_tty" => ENXIO,
            _ => EPERM,
        };
        assert_eq!(*errno, expect, "{name}");
    }
    assert_eq!(got.len(), 46, "every try has said something: {said}");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_second_abi_is_killed() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    probe(&hand);
    for abi in ["i386", "x32"] {
        // 128 + SIGSYS.
        let result = hand.bash(&format!("./probe {abi}"));
        assert!(result.is_error && result.text().contains("[exit code 159]"), "{abi}: {}", result.text());
        assert!(!result.text().contains(&format!("{abi} ")), "{abi}: {}", result.text());
    }
}

#[test]
fn no_environment_or_command_line_tells_anything() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let said =
        hand.sh("env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; echo; cat /proc/*/cmdline | tr '\\0' ' '");
    let allowed = ["PATH", "HOME", "USER", "LANG", "TERM", "GIT_CONFIG_SYSTEM", "PWD", "OLDPWD", "SHLVL", "_"];
    for (name, _) in said.lines().filter_map(|line| line.split_once('=')) {
        assert!(allowed.contains(&name), "{name}: {said}");
    }
    assert!(!said.contains(&*hands.path().to_string_lossy()) && !said.contains("/target/"), "{said}");
    assert!(said.contains("/proc/self/fd/"), "process 1 was looked at: {said}");
    // Process 1 is closed to all others inside, memory and descriptors.
    let said = hand
        .sh("cat /proc/1/environ /proc/1/maps /proc/1/mem 2>&1; ls /proc/1/fd 2>&1; readlink /proc/1/exe; echo end");
    assert!(said.lines().all(|line| line.ends_with("Permission denied") || line == "end"), "{said}");
}

#[test]
fn descriptors_are_pipes_sockets_and_null() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let said = hand.sh(
        "for p in /proc/[0-9]*; do for f in $p/fd/*; do readlink $f; done; done 2>/dev/null; readlink /proc/self/fd/*; true",
    );
    let fine = |line: &str| {
        line.starts_with("pipe:[") || line.starts_with("socket:[") || line == "/dev/null" || line.starts_with("/proc/")
    };
    assert!(said.lines().count() > 3);
    for line in said.lines() {
        assert!(fine(line), "{line}: {said}");
    }
}

#[test]
fn there_is_no_network_but_loopback() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    // A host service on loopback, and one on an abstract socket: both are there, for us.
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    let said = hand.bash(&format!(
        "cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /proc/net/route; cat /proc/net/unix | grep @; \
         timeout 3 bash -c '</dev/tcp/127.0.0.1/{port}' && echo REACHED; \
         timeout 3 bash -c '</dev/tcp/1.1.1.1/53' && echo REACHED; \
         timeout 3 bash -c 'echo x >/dev/udp/8.8.8.8/53' && echo REACHED; getent hosts example.com; cat /etc/resolv.conf"
    ));
    let text = said.text();
    assert!(text.contains("lo\n") && text.contains("Connection refused") && text.contains("unreachable"), "{text}");
    assert!(
        !text.contains("REACHED") && !text.contains("eth") && !text.contains('@') && !text.contains("nameserver"),
        "{text}"
    );
}

#[test]
fn kernel_settings_and_cgroups_cannot_be_written() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let said = hand.sh(
        "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/modprobe /sys/kernel/uevent_helper \
         /proc/sys/vm/panic_on_oom /proc/sys/fs/binfmt_misc/register /proc/sys/user/max_user_namespaces; \
         do (echo 1 >$f) 2>/dev/null && echo WROTE $f; done; echo sys; ls /sys 2>/dev/null; echo end; mount 2>/dev/null | grep cgroup; \
         find / -name release_agent 2>/dev/null; true",
    );
    assert!(!said.contains("WROTE") && !said.contains("release_agent"), "{said}");
    assert!(said.starts_with("sys\nend\n"), "there is nothing of /sys: {said}");
}

#[test]
fn landlock_holds_where_the_mounts_would_not() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let status = hand.client().status().unwrap();
    let on = status.layers.iter().any(|layer| layer.name == "landlock" && layer.on);
    // Both are the agent's own and so open to it but for this layer: a process's own files, and a device of no number.
    let said =
        hand.bash("echo renamed >/proc/self/comm; mknod w c 0 0 && echo MADE; cat /proc/1/oom_score_adj; true").text();
    let without = crate::fixture::without_filters("echo renamed >/proc/self/comm; mknod /tmp/w c 0 0 && echo MADE");
    assert!(without.contains("MADE") && !without.contains("denied"), "the control: {without}");
    if on {
        assert_eq!(said.matches("Permission denied").count(), 2, "{said}");
        assert!(!said.contains("MADE"), "{said}");
    } else {
        assert!(said.contains("MADE"), "the status says that it is off: {said}");
    }
    // What needs writing can be written, renamed across folders and linked.
    assert_eq!(
        hand.sh("mkdir a b; echo x >a/f; mv a/f b/f; ln b/f a/g; mkfifo p; echo y >>/dev/null; : >/tmp/t; truncate -s 1 b/f; cat a/g | wc -c"),
        "1\n"
    );
    // Processes of the model go first when memory runs out, and process 1 is not among them.
    assert_eq!(hand.sh("cat /proc/self/oom_score_adj; cat /proc/1/oom_score_adj"), "500\n0\n");
}

#[test]
fn signals_reach_neither_process_1_nor_the_shim() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let said = hand.sh("kill -9 1; kill -STOP 1; kill -9 -1; echo alive; ls /proc | grep -c '^[0-9]'");
    assert!(said.contains("alive"), "{said}");
    assert_eq!(hand.sh("echo still here"), "still here\n");
    assert!(!hand.sh("cat /proc/*/comm").contains("shim"));
}

#[test]
fn two_hands_do_not_see_one_another() {
    let hands = Hands::new();
    let (a, b) = (hands.hand("hand_a"), hands.hand("hand_b"));
    a.sh("echo secret >/dev/shm/s; echo secret >/tmp/s; echo secret >/workspace/s; ipcmk -M 4096 >/dev/null; sleep 1234 &");
    let said = b.sh("cat /dev/shm/s /tmp/s /workspace/s 2>&1; ipcs -m | grep -c 0x; cat /proc/*/cmdline | tr '\\0' ' '; cat /proc/self/mountinfo; ls /workspace/..; true");
    assert!(!said.contains("secret") && !said.contains("1234") && !said.contains("hand_a"), "{said}");
    assert!(said.contains("\n0\n"), "{said}");
    if is_root() {
        let uid = |hand: &Hand| std::os::unix::fs::MetadataExt::uid(&hand.file("workspace").metadata().unwrap());
        assert!(uid(&a) != uid(&b) && uid(&a) >= 61_000 && uid(&b) >= 61_000);
    }
}

#[test]
fn file_tools_do_not_leave_their_roots() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("ln -sfn / rootlink; ln -sfn /proc/self p; ln -sf /etc/passwd s");
    for path in ["rootlink/etc/passwd", "s", "p/environ", "/etc/passwd", "/proc/1/environ", "../etc/passwd"] {
        let result = hand.tool("read", json!({"file_path": path}));
        assert!(result.is_error && !result.text().contains("root:"), "{path}: {}", result.text());
    }
    for path in ["rootlink/tmp/escaped", "/tmp/escaped", "p/cwd/../../tmp/escaped"] {
        let result = hand.tool("write", json!({"file_path": path, "content": "x"}));
        assert!(result.is_error, "{path}: {}", result.text());
    }
    assert!(!std::path::Path::new("/tmp/escaped").exists());
    assert_eq!(
        hand.tool("write", json!({"file_path": "/mnt/session/outputs/o", "content": "x"})).text(),
        "wrote 1 bytes to /mnt/session/outputs/o"
    );
    assert!(hand.tool("write", json!({"file_path": "/mnt/session/uploads/o", "content": "x"})).is_error);
}

#[test]
fn memory_filesystems_are_small() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for path in ["/tmp/a", "/dev/shm/a"] {
        let result = hand.bash(&format!("head -c 100M /dev/zero >{path}; ls -l {path}"));
        assert!(result.text().contains("No space left"), "{}", result.text());
    }
}
