//! Somebody broke out of a sandbox and is the hand's own user on the host. Whoever launches has more rights than that,
//! and must not lend them.

use crate::fixture::{Hand, Hands, Process, is_root};
use crate::walls::program;
use hand::client::{Client, Error};
use hand::local;
use hand::spec::{FileResource, Plan, Resources, Spec};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Run a script on the host as the hand's user, in the hand's folder.
fn as_hand(hand: &Hand, script: &str) -> String {
    let uid = hand.file("workspace").metadata().unwrap().uid();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("exec 2>&1; {script}")]).env_clear().uid(uid).gid(uid).current_dir(&hand.at.dir);
    let output = shell.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn end(hand: &Hand) {
    let shim = Process::new(hand.client().status().unwrap().pid);
    shim.kill();
    shim.wait();
}

#[test]
fn a_plan_that_the_hand_has_written_is_not_followed() {
    if !is_root() {
        // Hand and launcher are the same user then, and there is nothing to lend.
        return;
    }
    let hands = Hands::new();
    let hand = hands.hand("h");
    let mut plan: Plan = serde_json::from_slice(&std::fs::read(hand.file("plan.json")).unwrap()).unwrap();
    (plan.uid, plan.spec.program) = (Some(0), "/bin/false".into());
    let hostile = serde_json::to_string(&plan).unwrap();
    as_hand(
        &hand,
        &format!("rm -f plan.json; echo '{hostile}' >plan.json; mv plan.json elsewhere; cp elsewhere plan.json"),
    );
    end(&hand);
    let again = local::revive(&hand.at.dir, &program()).unwrap();
    assert_eq!(again, hand.at);
    let shim = hand.client().status().unwrap().pid;
    assert!(Path::new(&format!("/proc/{shim}")).metadata().unwrap().uid() >= 61_000);
}

#[test]
fn a_plan_of_somebody_else_is_not_read() {
    if !is_root() {
        return;
    }
    let hands = Hands::new();
    let hand = hands.hand("h");
    end(&hand);
    std::os::unix::fs::chown(hand.file("plan.json"), Some(61_000), None).unwrap();
    let said = local::revive(&hand.at.dir, &program()).unwrap_err();
    assert!(matches!(said, local::Error::Plan(_)), "{said}");
    std::os::unix::fs::chown(hand.file("plan.json"), Some(0), None).unwrap();
}

#[test]
fn a_folder_that_is_the_hands_own_is_set_aside() {
    if !is_root() {
        return;
    }
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("echo kept >file");
    end(&hand);
    let uid = hand.file("workspace").metadata().unwrap().uid();
    std::os::unix::fs::chown(&hand.at.dir, Some(uid), Some(uid)).unwrap();
    assert!(matches!(local::revive(&hand.at.dir, &program()), Err(local::Error::Plan(_))));
    local::provision(&hands.spec("h")).unwrap();
    assert_eq!(hand.sh("ls"), "(no output)");
    let aside = hands.hands_dir().join(".left-h");
    assert_eq!(std::fs::read_to_string(aside.join("workspace/file")).unwrap(), "kept\n");
    std::fs::remove_dir_all(aside).unwrap();
}

#[test]
fn links_that_the_hand_has_put_up_lead_a_launch_nowhere() {
    if !is_root() {
        return;
    }
    let hands = Hands::new();
    let victim = hands.path().join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::set_permissions(&victim, PermissionsExt::from_mode(0o700)).unwrap();
    let secret = victim.join("secret");
    std::fs::write(&secret, "of root").unwrap();
    let upload = hands.path().join("upload");
    std::fs::write(&upload, "of the session").unwrap();
    let files = vec![FileResource { source: upload, path: "a/later.txt".into() }];

    let hand = hands.hand("h");
    end(&hand);
    let at = victim.display();
    as_hand(
        &hand,
        &format!(
            "for d in journal blobs spool recipe uploads disk; do mv $d old-$d; ln -s {at} $d; done; \
             for f in plan.tmp plan.json shim.log shim.lock launch.lock; do rm -f $f; ln -s {at}/secret $f; done; \
             for d in recipe uploads journal; do ln -s {at}/secret $d/.later.txt.part; ln -s {at} $d/a; done"
        ),
    );
    let resources = Resources { files, ..Resources::default() };
    local::provision(&Spec { resources, ..hands.spec("h") }).unwrap();
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "of root");
    for path in [&victim, &secret] {
        assert_eq!(path.metadata().unwrap().uid(), 0, "{}", path.display());
    }
    assert_eq!(victim.metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(victim.read_dir().unwrap().count(), 1);
    assert_eq!(hand.sh("cat /mnt/session/uploads/a/later.txt"), "of the session");
}

#[test]
fn the_hands_user_can_neither_ask_its_shim_nor_look_into_another_hand() {
    if !is_root() {
        return;
    }
    let hands = Hands::new();
    let (hand, other) = (hands.hand("h"), hands.hand("other"));
    other.sh("echo CANARY >secret");
    let said = as_hand(
        &hand,
        "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.connect(\"shim.sock\")'; \
         cat ../other/plan.json ../other/workspace/secret ../other/shim.log; ls ..; ls ../.uids; cat plan.json | head -c 1",
    );
    assert_eq!(said.matches("Permission denied").count(), 6, "{said}");
    assert!(!said.contains("CANARY") && said.ends_with('{'), "it may read its own plan: {said}");
}

#[test]
fn a_lesser_user_gets_his_own_files_and_talks_to_his_own_hand() {
    if !is_root() {
        return;
    }
    const CLIENT: u32 = 60_998;
    let hands = Hands::new();
    let file = hands.path().join("file");
    std::fs::write(&file, "of root").unwrap();
    let files = vec![FileResource { source: file.clone(), path: "f".into() }];
    let resources = Resources { files, ..Resources::default() };
    let spec = Spec { client: Some(CLIENT), resources, ..hands.spec("h") };
    let said = local::provision(&spec).unwrap_err().to_string();
    assert!(said.contains("no file of the user who asks"), "{said}");
    std::os::unix::fs::chown(&file, Some(CLIENT), None).unwrap();
    let link = hands.path().join("link");
    std::os::unix::fs::symlink("/etc/shadow", &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(CLIENT), None).unwrap();
    let mut linked = spec.clone();
    linked.resources.files[0].source = link;
    assert!(local::provision(&linked).is_err());

    let hand = Hand::new(&spec);
    assert_eq!(hand.sh("cat /mnt/session/uploads/f"), "of root");
    let socket = hand.at.socket.metadata().unwrap();
    assert_eq!((socket.uid(), socket.mode() & 0o777), (CLIENT, 0o600));
}

#[test]
fn a_shim_whose_folder_is_gone_ends_itself() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let shim = Process::new(hand.client().status().unwrap().pid);
    std::fs::remove_dir_all(&hand.at.dir).unwrap();
    shim.wait();
    assert!(matches!(Client::connect(&hand.at.socket), Err(Error::Gone(_))));
}
