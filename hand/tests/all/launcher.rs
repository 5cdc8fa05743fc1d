//! Hands for somebody who may not make them: through the launcher, and within what it gives.

use crate::fixture::{Hand, Hands, Process, is_root};
use crate::walls::program;
use hand::hands::{By, Hands as Asked};
use hand::launcher::{Options, Reply, Request};
use hand::spec::{FileResource, Mode, Shelf, Spec};
use hand::{limits, local, shelf, wire};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

/// Nobody's, unless these tests are not run by root: then the client is who runs them.
const CLIENT: u32 = 60_998;

struct Launcher {
    child: Child,
    socket: PathBuf,
    asked: Asked,
}

impl Launcher {
    fn start(hands: &Hands) -> Self {
        let (dir, socket) = (hands.hands_dir(), hands.path().join("launcher.sock"));
        let client = if is_root() { CLIENT } else { rustix::process::getuid().as_raw() };
        let options = Options {
            socket: socket.clone(),
            hands_dir: dir.clone(),
            client,
            mode: Mode::Dev,
            walls: hands.walls(),
            ways_out: None,
        };
        let child = Command::new(program())
            .args(["launcher", &serde_json::to_string(&options).unwrap()])
            .env_clear()
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let asked = Asked { dir, by: By::Launcher { socket: socket.clone() } };
        // Whoever asks waits for it to listen.
        assert!(asked.revive("none").is_err());
        Self { child, socket, asked }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // The end of its input is the end of the service.
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

#[test]
fn a_hand_is_made_found_again_listed_and_released() {
    let hands = Hands::new();
    let launcher = Launcher::start(&hands);
    let asked = &launcher.asked;
    let hand = Hand { at: asked.provision(asked.spec("h")).unwrap(), next: Default::default() };
    assert_eq!(hand.at, asked.reference("h", 1));
    hand.sh("echo kept >file");
    let shim = Process::new(hand.client().status().unwrap().pid);
    shim.kill();
    shim.wait();
    asked.revive("h").unwrap();
    assert_eq!(hand.sh("cat file"), "kept\n");
    let listed = asked.list().unwrap();
    let status = listed[0].status.as_ref().unwrap();
    assert_eq!((listed.len(), listed[0].hand_id.as_str(), status.mode), (1, "h", Mode::Dev));
    asked.release("h", 1).unwrap();
    assert!(!hand.at.dir.exists() && asked.list().unwrap().is_empty());
    assert!(matches!(asked.revive("h"), Err(local::Error::Nothing(..))));
}

/// What it has begun to remove, it removes before it ends: after it nobody may be there.
#[test]
fn a_removal_that_was_begun_is_finished_when_the_service_ends() {
    let hands = Hands::new();
    let mut launcher = Launcher::start(&hands);
    let asked = &launcher.asked;
    let hand = Hand { at: asked.provision(asked.spec("h")).unwrap(), next: Default::default() };
    // Enough to remove that it takes a while.
    hand.sh("for d in $(seq 40); do mkdir $d && (cd $d && seq 1000 | xargs touch); done");
    let shim = Process::new(hand.client().status().unwrap().pid);
    let mut connection = UnixStream::connect(&launcher.socket).unwrap();
    wire::write_line(&mut connection, &Request::Release { hand_id: "h".into(), epoch: 1 }).unwrap();
    // Its hand ends first.
    shim.wait();
    drop(launcher.child.stdin.take());
    launcher.child.wait().unwrap();
    assert!(!hand.at.dir.exists());
    drop(connection);
}

/// Ctrl-C goes to all that are in a terminal's foreground, and a supervisor of processes may end each of a service's.
#[test]
fn what_is_said_to_everybody_does_not_end_it() {
    let hands = Hands::new();
    let mut launcher = Launcher::start(&hands);
    let asked = &launcher.asked;
    let hand = Hand { at: asked.provision(asked.spec("h")).unwrap(), next: Default::default() };
    let shim = hand.client().status().unwrap().pid;
    let status = std::fs::read_to_string(format!("/proc/{shim}/status")).unwrap();
    let signals = [Signal::INT, Signal::TERM, Signal::HUP];
    for kind in ["SigIgn:", "SigCgt:"] {
        let set = status.lines().find_map(|line| line.strip_prefix(kind)).unwrap();
        let set = u64::from_str_radix(set.trim(), 16).unwrap();
        assert!(
            signals.iter().all(|signal| set & 1 << (signal.as_raw() - 1) == 0),
            "a hand is ended as ever: {kind} {set:x}"
        );
    }
    let shim = Process::new(shim);
    hand.sh("for d in $(seq 40); do mkdir $d && (cd $d && seq 1000 | xargs touch); done");
    let mut connection = UnixStream::connect(&launcher.socket).unwrap();
    wire::write_line(&mut connection, &Request::Release { hand_id: "h".into(), epoch: 1 }).unwrap();
    shim.wait();
    let pid = Pid::from_child(&launcher.child);
    signals.iter().for_each(|signal| kill_process(pid, *signal).unwrap());
    drop(launcher.child.stdin.take());
    assert!(launcher.child.wait().unwrap().success());
    assert!(!hand.at.dir.exists());
}

#[test]
fn it_lends_its_rights_to_nobody() {
    let hands = Hands::new();
    let launcher = Launcher::start(&hands);
    let asked = &launcher.asked;
    // A folder of root's, a program and a place of the client's choice, a file that only root may read.
    let mut spec = asked.spec("h");
    (spec.hands_dir, spec.program, spec.mode) = (hands.path().join("else"), "/bin/false".into(), Mode::Strict);
    let hand = asked.provision(spec).unwrap();
    assert_eq!(hand.dir, hands.hands_dir().canonicalize().unwrap().join("h"));
    for id in ["../else", "..", ".uids", "a/b"] {
        assert!(asked.provision(asked.spec(id)).is_err() && asked.revive(id).is_err(), "{id}");
        asked.release(id, 1).unwrap();
    }
    assert!(hands.path().exists() && hand.dir.exists());
    if is_root() {
        let mut spec = asked.spec("thief");
        spec.resources.files = vec![FileResource { source: "/etc/shadow".into(), path: "f".into() }];
        let said = asked.provision(spec).unwrap_err().to_string();
        assert!(said.contains("no file of the user who asks"), "{said}");
    }
}

#[test]
fn it_removes_shelves_that_nobody_reads_within_its_own_bounds() {
    let hands = Hands::new();
    let launcher = Launcher::start(&hands);
    let asked = &launcher.asked;
    assert!(asked.trim_shelves().unwrap().is_empty(), "there is no folder yet");
    for name in ["old", "read", "new"] {
        let filler = format!("fill-{name}");
        asked.provision(Spec { shelf: Some(Shelf::Fill(name.into())), ..asked.spec(&filler) }).unwrap();
        asked.keep_shelf(&filler, 1).unwrap();
        assert!(shelf::is_kept(&hands.hands_dir(), name));
    }
    asked.provision(Spec { shelf: Some(Shelf::Read("read".into())), ..asked.spec("reader") }).unwrap();
    let past = SystemTime::now() - limits::SHELF_IDLE_MAX - Duration::from_secs(60);
    for name in ["old", "read"] {
        let used = shelf::folder(&hands.hands_dir(), name).path().join("used");
        File::options().write(true).open(used).unwrap().set_modified(past).unwrap();
    }
    assert_eq!(asked.trim_shelves().unwrap(), ["old"], "one has a reader, one was used just now");
    assert!(!shelf::is_kept(&hands.hands_dir(), "old"));
    asked.release("reader", 1).unwrap();
    assert_eq!(asked.trim_shelves().unwrap(), ["read"]);
    assert!(shelf::is_kept(&hands.hands_dir(), "new"));
}

/// Neither what is left of a hand nor what is left of a shelf keeps anything else from being removed.
#[test]
fn what_cannot_be_removed_keeps_nothing_else() {
    let hands = Hands::new();
    let launcher = Launcher::start(&hands);
    let itself = By::Itself { program: program(), mode: Mode::Dev, walls: hands.walls() };
    let (dir, shelves) = (hands.hands_dir(), hands.hands_dir().join(".shelves"));
    for (n, asked) in [launcher.asked.clone(), Asked { dir: dir.clone(), by: itself }].iter().enumerate() {
        for stuck in [dir.join("stuck/launch.lock"), shelves.join(".removed-stuck/not-a-folder")] {
            let filler = format!("fill-{n}");
            asked.provision(Spec { shelf: Some(Shelf::Fill("old".into())), ..asked.spec(&filler) }).unwrap();
            asked.keep_shelf(&filler, 1).unwrap();
            let past = SystemTime::now() - limits::SHELF_IDLE_MAX - Duration::from_secs(60);
            let used = File::options().write(true).open(shelves.join("old/used")).unwrap();
            used.set_modified(past).unwrap();
            let left: Vec<_> = (0..8).map(|n| dir.join(format!("left-{n}"))).collect();
            for left in &left {
                std::fs::create_dir(left).unwrap();
                File::create(left.join("launch.lock")).unwrap();
                File::open(left).unwrap().set_modified(past).unwrap();
            }
            // A folder where a file should be, or a file where a folder should be.
            let at = stuck.parent().unwrap();
            match at.starts_with(&shelves) {
                true => drop(File::create(at).unwrap()),
                false => std::fs::create_dir_all(&stuck).unwrap(),
            }
            asked.trim_shelves().expect_err("something is stuck");
            assert!(at.exists() && !shelf::is_kept(&dir, "old"), "{at:?}");
            assert!(left.iter().all(|left| !left.exists()), "{at:?}");
            if at.is_dir() { std::fs::remove_dir_all(at) } else { std::fs::remove_file(at) }.unwrap();
            assert!(asked.trim_shelves().unwrap().is_empty());
        }
    }
}

#[test]
fn a_stranger_is_not_answered() {
    if !is_root() {
        return;
    }
    let hands = Hands::new();
    let launcher = Launcher::start(&hands);
    let ask = |uid: u32| {
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); \
            s.sendall(b'{\"op\": \"list\"}\\n'); print(s.makefile().readline())";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(&launcher.socket).uid(uid).gid(uid).current_dir("/");
        let output = python.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    // The folder of hands is not there yet, which is an answer all the same.
    assert!(ask(CLIENT).contains("\"reply\""), "the control: {}", ask(CLIENT));
    for uid in [*hand::limits::UIDS.start(), hand::limits::EGRESS_UID, 12_345] {
        assert!(ask(uid).contains("PermissionError"), "{uid}: {}", ask(uid));
    }
    // Nor where the socket itself would let him.
    std::fs::set_permissions(&launcher.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(!ask(12_345).contains("reply"), "{}", ask(12_345));
}

#[test]
fn what_it_does_not_understand_is_refused() {
    let hands = Hands::new();
    let launcher = Launcher::start(&hands);
    for line in ["", "{}", "nonsense", "{\"op\":\"provision\",\"spec\":{\"hand_id\":\"h\",\"evil\":1}}"] {
        let mut stream = UnixStream::connect(&launcher.socket).unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let reply: Reply = wire::read_line(&mut BufReader::new(stream), 10_000).unwrap();
        assert!(matches!(reply, Reply::Refused { .. }), "{line}: {reply:?}");
    }
    assert!(serde_json::from_str::<Request>("{\"op\":\"list\"}").is_ok());
}
