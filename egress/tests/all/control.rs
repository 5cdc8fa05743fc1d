//! The socket that the service asks over.

use crate::fixture::{CANARY, World};
use domain::egress::{CredentialId, Reply, Request, Secret};
use std::io::{BufRead, BufReader, Write};
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
