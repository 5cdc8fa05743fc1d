//! The socket that the service asks over.

use crate::fixture::{CANARY, SESSION, World};
use domain::egress::{CALLS_SOCKET, CredentialId, Policy, Reply, Request, SOCKET, Secret};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::io::{BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use tokio::runtime::Runtime;

#[test]
fn secrets_go_in_and_never_come_out() {
    let world = World::new(Runtime::new().unwrap(), &[]);
    let id = CredentialId { vault: "vlt_1".into(), credential: "c".into() };
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            world.runtime.block_on(async {
                let stream = tokio::net::UnixStream::from_std(theirs).unwrap();
                world.egress().serve(stream).await.unwrap();
            });
        });
        let mut reader = BufReader::new(&ours);
        let mut ask = |line: String| {
            (&ours).write_all((line + "\n").as_bytes()).unwrap();
            let mut reply = String::new();
            reader.read_line(&mut reply).unwrap();
            assert!(!reply.contains("CANARY"), "{reply}");
            serde_json::from_str::<Reply>(&reply).unwrap()
        };
        let mut send = |request: &Request| ask(serde_json::to_string(request).unwrap());
        let valid = Request::ValidateCredential { id: id.clone() };
        assert_eq!(send(&valid), Reply::Valid { valid: false });
        assert_eq!(send(&Request::PutCredential { id: id.clone(), secret: Secret(CANARY.into()) }), Reply::Done);
        assert_eq!(send(&valid), Reply::Valid { valid: true });
        assert_eq!(send(&Request::RotateKey), Reply::Done);
        for line in [
            format!("{{\"op\":\"get_credential\",\"secret\":\"{CANARY}\"}}"),
            format!(
                "{{\"op\":\"put_credential\",\"id\":{{\"vault\":\"..\",\"credential\":\"c\"}},\"secret\":\"{CANARY}\"}}"
            ),
            CANARY.to_owned(),
        ] {
            assert!(matches!(ask(line), Reply::Refused { .. }));
        }
        let mut send = |request: &Request| ask(serde_json::to_string(request).unwrap());
        assert_eq!(send(&Request::DeleteCredential { id: id.clone() }), Reply::Done);
        assert_eq!(send(&valid), Reply::Valid { valid: false });
        ours.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let audit = world.audit();
    assert!(audit.contains("credential_put") && audit.contains("credential_deleted") && !audit.contains("CANARY"));
}

/// Whoever knocks while egress is started again finds a socket: the old one until it is the new one, at which everyone may knock.
#[test]
fn sockets_are_never_away_while_it_is_started_again() {
    let mut world = World::new(Runtime::new().unwrap(), &[]);
    world.policy(Policy::default());
    world.stop();
    let sockets = world.path("sockets");
    for (folder, name) in [(sockets.join(SESSION), SOCKET), (sockets.clone(), CALLS_SOCKET)] {
        let watch = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        let what = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ATTRIB;
        inotify::add_watch(&watch, &folder, what).unwrap();
        world.start();
        let (mut space, mut events) = ([MaybeUninit::uninit(); 4096], Vec::new());
        let mut reader = Reader::new(&watch, &mut space);
        while let Ok(event) = reader.next() {
            if event.file_name().is_some_and(|found| found.to_bytes() == name.as_bytes()) {
                events.push(event.events());
            }
        }
        assert_eq!(events, [ReadFlags::MOVED_TO], "{name}");
        assert_eq!(folder.join(name).metadata().unwrap().permissions().mode() & 0o777, 0o666);
        world.stop();
    }
}
