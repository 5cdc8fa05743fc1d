//! What is put into a hand, and what is taken out of it.

use crate::fixture::{Hand, Hands, Process};
use hand::protocol::{Diff, OutputFile};
use hand::spec::{FileResource, Repo, Resources, Restore};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", "-C"])
        .arg(dir)
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A bundle of a small repository, and its commit.
fn bundle(hands: &Hands) -> (PathBuf, String) {
    let repo = hands.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    std::fs::write(repo.join("a.txt"), "one\ntwo\n").unwrap();
    std::fs::write(repo.join(".gitignore"), "ignored\n").unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-qm", "first"]);
    let path = hands.path().join("repo.bundle");
    git(&repo, &["bundle", "create", "-q", path.to_str().unwrap(), "HEAD", "main"]);
    (path, git(&repo, &["rev-parse", "HEAD"]).trim().to_owned())
}

fn blob(hand: &Hand, sha256: &str) -> String {
    let mut bytes = Vec::new();
    hand.client().blob(sha256, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn files_are_read_only_inside() {
    let hands = Hands::new();
    let source = hands.path().join("source");
    std::fs::write(&source, "uploaded").unwrap();
    let file = |path: &str| FileResource { source: source.clone(), path: path.into() };
    let hand =
        hands.hand_with("h", Resources { files: vec![file("a.txt"), file("deep/er/b.txt")], ..Resources::default() });
    assert_eq!(hand.sh("cat /mnt/session/uploads/a.txt /mnt/session/uploads/deep/er/b.txt"), "uploadeduploaded");
    assert!(hand.bash("echo x >>/mnt/session/uploads/a.txt").is_error);
    assert!(hand.bash("rm -f /mnt/session/uploads/a.txt").is_error);
    hand::local::add_file(&hand.at, &file("later/c.txt")).unwrap();
    assert_eq!(hand.tool("read", json!({"file_path": "/mnt/session/uploads/later/c.txt"})).text(), "uploaded");
    assert!(hand::local::add_file(&hand.at, &file("../c.txt")).is_err());
}

#[test]
fn a_repository_is_cloned_inside_and_its_diff_is_made_there() {
    let hands = Hands::new();
    let (bundle, commit) = bundle(&hands);
    let hand = hands
        .hand_with("h", Resources { repo: Some(Repo { bundle, name: Some("app".into()) }), ..Resources::default() });
    let start = hand.client().status().unwrap().start.unwrap();
    assert_eq!((start.dir, start.commit), ("/workspace/app".into(), Some(commit)));
    assert_eq!(hand.sh("cd app; git status --short; git remote -v; cat a.txt"), "one\ntwo\n");
    let none = hand.client().collect(BTreeMap::new(), 1).unwrap();
    assert_eq!((none.files.len(), none.diff.unwrap().bytes), (0, 0));

    hand.sh("echo three >>a.txt; echo new >b.txt; echo x >ignored; git add b.txt; git commit -qm second; echo untracked >c.txt");
    let index = hand.sh("git status --short; git diff --cached --stat");
    let diff = hand.client().collect(BTreeMap::new(), 1).unwrap().diff.unwrap();
    let text = blob(&hand, diff.sha256.as_deref().unwrap());
    for part in ["+three", "b/b.txt", "+new", "b/c.txt", "+untracked"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("ignored"), "{text}");
    assert_eq!(hand.sh("git status --short; git diff --cached --stat"), index, "the agent's index is as it was");
    // It applies to the repository it came from.
    let patch = hands.path().join("patch");
    std::fs::write(&patch, text).unwrap();
    git(&hands.path().join("repo"), &["apply", "--check", patch.to_str().unwrap()]);
}

#[test]
fn a_hand_started_again_needs_its_sources_no_more() {
    let hands = Hands::new();
    let (bundle, commit) = bundle(&hands);
    let source = hands.path().join("source");
    std::fs::write(&source, "uploaded").unwrap();
    let mut spec = hands.spec("h");
    spec.resources.files.push(FileResource { source: source.clone(), path: "a.txt".into() });
    spec.resources.repo = Some(Repo { bundle: bundle.clone(), name: None });
    let hand = Hand::new(&spec);
    hand.sh("echo changed >a.txt");
    for gone in [source, bundle] {
        std::fs::remove_file(gone).unwrap();
    }
    let shim = Process::new(hand.client().status().unwrap().pid);
    shim.kill();
    shim.wait();
    hand::local::provision(&spec).unwrap();
    assert_eq!(hand.client().status().unwrap().start.unwrap().commit, Some(commit));
    assert_eq!(hand.tool("read", json!({"file_path": "a.txt"})).text(), "changed\n");
    assert_eq!(hand.tool("read", json!({"file_path": "/mnt/session/uploads/a.txt"})).text(), "uploaded");
}

#[test]
fn a_repository_can_be_the_workspace_itself() {
    let hands = Hands::new();
    let (bundle, _) = bundle(&hands);
    let hand = hands.hand_with("h", Resources { repo: Some(Repo { bundle, name: None }), ..Resources::default() });
    assert_eq!(hand.sh("git log --format=%s; ls"), "first\na.txt\n");
}

#[test]
fn nothing_a_repository_asks_for_runs_anywhere_and_a_broken_one_is_only_an_error() {
    let hands = Hands::new();
    let (bundle, _) = bundle(&hands);
    let hand = hands.hand_with("h", Resources { repo: Some(Repo { bundle, name: None }), ..Resources::default() });
    let marker = hands.path().join("ran-on-host");
    let marker = marker.display();
    hand.sh(&format!(
        "git config core.fsmonitor 'touch {marker} /workspace/ran'; git config core.hooksPath /workspace/h; \
         git config diff.external 'touch {marker} /workspace/ran'; echo x >>a.txt"
    ));
    let diff = hand.client().collect(BTreeMap::new(), 1).unwrap().diff.unwrap();
    assert!(blob(&hand, &diff.sha256.unwrap()).contains("+x"));
    assert!(!hands.path().join("ran-on-host").exists() && !hand.file("workspace/ran").exists());
    hand.sh("rm -rf .git");
    let Diff { sha256, error, .. } = hand.client().collect(BTreeMap::new(), 1).unwrap().diff.unwrap();
    assert!(sha256.is_none() && error.unwrap().contains("starting commit"));
}

#[test]
fn new_and_changed_outputs_are_collected() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh(
        "cd /mnt/session/outputs; echo one >a; mkdir d; printf two >d/b; ln -s /etc/passwd link; mkfifo fifo; : >empty",
    );
    let first = hand.client().collect(BTreeMap::new(), 1).unwrap();
    assert!(first.diff.is_none() && !first.files_truncated);
    let names: Vec<_> = first.files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
    assert_eq!(names, [("a", 4), ("empty", 0), ("d/b", 3)]);
    assert_eq!(blob(&hand, first.files[0].sha256.as_ref().unwrap()), "one\n");
    assert_eq!(blob(&hand, first.files[1].sha256.as_ref().unwrap()), "");

    let known: BTreeMap<_, _> =
        first.files.iter().map(|OutputFile { path, sha256, .. }| (path.clone(), sha256.clone().unwrap())).collect();
    assert_eq!(hand.client().collect(known.clone(), 1).unwrap().files, []);
    hand.sh("cd /mnt/session/outputs; echo changed >a; truncate -s 65M large");
    let second = hand.client().collect(known, 1).unwrap();
    let names: Vec<_> = second.files.iter().map(|file| (file.path.as_str(), file.sha256.is_some())).collect();
    assert_eq!(names, [("a", true), ("large", false)]);
}

#[test]
fn a_snapshot_brings_files_and_nothing_else_to_another_hand() {
    let hands = Hands::new();
    let (bundle, commit) = bundle(&hands);
    let hand = hands.hand_with("a", Resources { repo: Some(Repo { bundle, name: None }), ..Resources::default() });
    hand.sh("echo more >>a.txt; chmod 700 a.txt; ln -s a.txt l; echo out >/mnt/session/outputs/o; echo tmp >/tmp/t; export X=1; sleep 1000 & echo $! >pid");
    let snapshot = hand.client().snapshot(1).unwrap();
    // Everything that stood still goes on.
    assert_eq!(hand.sh("kill -0 $(cat pid) && echo $X"), "1\n");
    let archive = hands.path().join("archive");
    let mut file = std::fs::File::create(&archive).unwrap();
    assert_eq!(hand.client().blob(&snapshot.sha256, &mut file).unwrap(), snapshot.bytes);

    let restore = Some(Restore { archive, start: snapshot.start });
    let other = hands.hand_with("b", Resources { restore, ..Resources::default() });
    assert_eq!(other.sh("tail -1 a.txt; stat -c %a a.txt; readlink l; cat /mnt/session/outputs/o; ls /tmp; echo [$X]; set -- /proc/[0-9]*; echo $#"),
        "more\n700\na.txt\nout\n[]\n2\n");
    assert_eq!(other.client().status().unwrap().start.unwrap().commit, Some(commit));
    let diff = other.client().collect(BTreeMap::new(), 1).unwrap().diff.unwrap();
    assert!(blob(&other, &diff.sha256.unwrap()).contains("+more"));
}

#[test]
fn a_snapshot_waits_for_no_call() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo started go");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| hand.bash("echo >started; cat go"));
        crate::fixture::wait_line(&hand.file("workspace/started"));
        let refused = hand.client().snapshot(1);
        assert!(matches!(refused, Err(hand::client::Error::Refused { code: hand::protocol::Refusal::Busy, .. })));
        std::fs::write(hand.file("workspace/go"), "").unwrap();
        running.join().unwrap();
    });
}
