//! Where the vault's master key comes from, and how another takes over: egress as `serve` starts it.

use crate::program::Place;
use domain::egress::{CredentialId, Reply, Request, Secret};
use serde_json::json;
use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Stdio},
};

const KEYS: [&str; 2] = [
    "1111111111111111111111111111111111111111111111111111111111111111",
    "2222222222222222222222222222222222222222222222222222222222222222",
];

struct Egress {
    child: Child,
    socket: UnixStream,
}

impl Egress {
    fn start(place: &Place, more: &[&str], told: Option<serde_json::Value>) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let (dir, sockets) = (place.path().join("egress"), place.path().join("sockets"));
        std::fs::create_dir_all(&dir).unwrap();
        let args = ["worker", "egress", "--dir", dir.to_str().unwrap(), "--sockets", sockets.to_str().unwrap()];
        let mut command = place.command(&[&args, more].concat());
        command.env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        if let Some(told) = told {
            (&socket).write_all(format!("{told}\n").as_bytes()).unwrap();
        }
        Egress { child, socket }
    }

    fn ask(&self, request: &Request) -> Reply {
        (&self.socket).write_all((serde_json::to_string(request).unwrap() + "\n").as_bytes()).unwrap();
        let mut reply = String::new();
        BufReader::new(&self.socket).read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    }

    fn holds(&self) -> bool {
        match self.ask(&Request::ValidateCredential { id: id() }) {
            Reply::Valid { valid } => valid,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        // The end of its socket is the end of the service.
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
        self.child.wait().unwrap();
    }
}

fn id() -> CredentialId {
    CredentialId { vault: "vlt_1".into(), credential: "c".into() }
}

#[test]
fn a_key_of_the_environment_goes_over_the_socket_alone_and_another_takes_over() {
    let place = Place::new();
    let first = Egress::start(&place, &["--keys-told"], Some(json!({"key": KEYS[0]})));
    assert_eq!(first.ask(&Request::PutCredential { id: id(), secret: Secret("s".into()) }), Reply::Done);
    assert!(first.holds());
    let cmdline = std::fs::read(format!("/proc/{}/cmdline", first.child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&cmdline).contains(KEYS[0]));
    drop(first);
    assert!(!place.path().join("egress/master.key").exists(), "none is made where one is given");

    let wrong = Egress::start(&place, &["--keys-told"], Some(json!({"key": KEYS[1]})));
    assert!(!wrong.holds());
    drop(wrong);
    let both = Egress::start(&place, &["--keys-told"], Some(json!({"key": KEYS[1], "old_key": KEYS[0]})));
    assert!(both.holds());
    drop(both);
    assert!(place.read("egress/audit.jsonl").contains(r#""event":"key_rotated","vaults":1"#));
    let new = Egress::start(&place, &["--keys-told"], Some(json!({"key": KEYS[1]})));
    assert!(new.holds(), "the old one is not needed any more");
    drop(new);
    let old = Egress::start(&place, &["--keys-told"], Some(json!({"key": KEYS[0]})));
    assert!(!old.holds(), "nor of use");
}

#[test]
fn a_key_comes_from_a_command_or_a_file_too() {
    let place = Place::new();
    let command = format!("echo {}", KEYS[0]);
    let first = Egress::start(&place, &["--key-command", &command], None);
    assert_eq!(first.ask(&Request::PutCredential { id: id(), secret: Secret("s".into()) }), Reply::Done);
    drop(first);
    let file = place.write("key", KEYS[0]);
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(Egress::start(&place, &["--key-file", file.to_str().unwrap()], None).holds());
    let same = Egress::start(&place, &["--keys-told"], Some(json!({"key": KEYS[0]})));
    assert!(same.holds());
}

#[test]
fn what_is_no_key_is_refused_where_it_can_be_corrected() {
    let place = Place::new().with("STEADYHAND_VAULT_KEY", "short-CANARY");
    let shot = place.run(&["serve", "--listen", "127.0.0.1:0", "--hands", "false"]);
    assert!(shot.code == 2 && shot.stderr.contains("use STEADYHAND_VAULT_KEY"), "{}", shot.stderr);
    assert!(!shot.stderr.contains("CANARY"));
    let place = Place::new().with("STEADYHAND_VAULT_KEY", KEYS[0]);
    let shot = place.run(&["serve", "--listen", "127.0.0.1:0", "--hands", "false", "--vault-key-file", "/k"]);
    assert!(shot.code == 2 && shot.stderr.contains("more than one place"), "{}", shot.stderr);
}
