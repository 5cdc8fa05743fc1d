//! Real git, inside, with a token that is outside.

use crate::fixture::{CANARY, Hand, World, limited};
use crate::servers::{self, Seen};
use domain::egress::{Policy, Repository};
use hand::spec::{CloneOf, CloneStep, Resources};
use std::path::Path;
use std::process::Command;
use tokio::runtime::Runtime;

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

/// A bare repository with one commit on main.
fn repository(root: &Path, name: &str) {
    let (bare, work) = (root.join(name), root.join(format!("{name}.work")));
    std::fs::create_dir_all(&work).unwrap();
    git(root, &["init", "-q", "--bare", name]);
    git(&bare, &["config", "http.receivepack", "true"]);
    git(&work, &["init", "-q"]);
    std::fs::write(work.join("a.txt"), "one\n").unwrap();
    git(&work, &["add", "."]);
    git(&work, &["commit", "-qm", "first"]);
    git(&work, &["push", "-q", bare.to_str().unwrap(), "main"]);
}

/// In this order they go: a hand whose folder is gone cannot be released any more.
struct Forge {
    hand: Hand,
    world: World,
    seen: Seen,
    root: tempfile::TempDir,
    url: String,
}

fn forge(push: &[&str]) -> Forge {
    let runtime = Runtime::new().unwrap();
    let root = tempfile::tempdir().unwrap();
    for name in ["acme/app.git", "other/repo.git"] {
        repository(root.path(), name);
    }
    let (addr, seen) = servers::git(&runtime, root.path().to_owned(), CANARY);
    let world = World::new(runtime, &[addr]);
    let credential = world.put("git", CANARY);
    let url = format!("http://forge.test:{}/acme/app", addr.port());
    let push = push.iter().map(|&name| name.to_owned()).collect();
    let repository = Repository { url: format!("{url}.git"), credential: Some(credential), push };
    world.policy(Policy { repositories: vec![repository], ..Policy::default() });
    let hand = world.hand();
    Forge { world, hand, seen, root, url }
}

#[test]
fn clone_pull_and_push_work_and_other_refs_and_repositories_are_refused() {
    let forge = forge(&["refs/heads/agent/*"]);
    let (hand, url) = (&forge.hand, &forge.url);
    hand.sh(&format!(
        "git clone -q {url}.git repo; cd repo; git switch -qc agent/x; echo two >>a.txt; git commit -qam second"
    ));
    assert_eq!(
        hand.sh(
            "cd /workspace/repo; git push -q origin agent/x 2>&1; git ls-remote origin 'refs/heads/agent/*' | cut -f2"
        ),
        "refs/heads/agent/x\n"
    );
    assert_eq!(git(&forge.root.path().join("acme/app.git"), &["log", "--format=%s", "agent/x"]), "second\nfirst\n");

    // Somebody else pushes, and it can be pulled.
    let work = forge.root.path().join("acme/app.git.work");
    git(&work, &["commit", "-q", "--allow-empty", "-m", "elsewhere"]);
    git(&work, &["push", "-q", "../app.git", "main"]);
    assert_eq!(hand.sh("git switch -q main; git pull -q; git log -1 --format=%s"), "elsewhere\n");

    for command in [
        "git push -f origin HEAD~1:main",
        "git push -f origin agent/x:main",
        "git push -f origin agent/x agent/x:other",
        "git push -f origin :main",
    ] {
        let refused = hand.bash(&format!("{command} 2>&1"));
        assert!(refused.is_error && refused.text().contains("403"), "{command}: {}", refused.text());
    }
    assert_eq!(git(&forge.root.path().join("acme/app.git"), &["log", "-1", "--format=%s", "main"]), "elsewhere\n");

    let before = forge.seen.lock().unwrap().len();
    let host = url.strip_suffix("/acme/app").unwrap();
    for other in [
        format!("{host}/other/repo"),
        format!("{url}.git/../../other/repo"),
        format!("{url}-other"),
        "http://127.0.0.1:3128/git/1".into(),
    ] {
        let refused = hand.bash(&format!("git ls-remote {other} 2>&1"));
        assert!(refused.is_error && !refused.text().contains("refs/heads"), "{other}: {}", refused.text());
    }
    for path in ["config", "HEAD", "objects/info/packs", "../../vault", "info/refs?service=git-upload-archive"] {
        let said = hand.sh(&format!(
            "curl -s -o /dev/null -w '%{{http_code}}' --path-as-is 'http://127.0.0.1:3128/git/0~/{path}'"
        ));
        assert_eq!(said, "403", "{path}");
    }
    assert_eq!(forge.seen.lock().unwrap().len(), before, "none of these reached the server");
    let audit = forge.world.audit();
    assert!(audit.contains("git-receive-pack") && audit.contains("refs/heads/main may not be pushed to"), "{audit}");
    assert!(!audit.contains("CANARY"));
}

#[test]
fn what_only_begins_like_a_repository_of_the_session_gets_none_of_its_credential() {
    let forge = forge(&["refs/heads/*"]);
    let (hand, url) = (&forge.hand, &forge.url);
    for other in [format!("{url}2"), format!("{url}-other.git"), format!("{url}/below")] {
        let refused = hand.bash(&format!("git ls-remote {other} 2>&1; git push {other} HEAD 2>&1"));
        assert!(refused.text().contains("403"), "{other}: {}", refused.text());
    }
    assert!(forge.seen.lock().unwrap().is_empty(), "nothing else of the host is allowed");

    // Where the environment allows the host it is asked as anybody could ask it.
    let host = url.split('/').nth(2).unwrap().to_owned();
    let repository =
        Repository { url: format!("{url}.git"), credential: Some(forge.world.put("git", CANARY)), push: vec![] };
    forge.world.policy(Policy { repositories: vec![repository], ..limited(&[host]) });
    let said = hand.bash(&format!(
        "git ls-remote {url}2 2>&1; curl -s 'http://127.0.0.1:3128/git/0~2/info/refs?service=git-upload-pack'"
    ));
    assert!(said.text().contains("has none for it"), "{}", said.text());
    let seen = std::mem::take(&mut *forge.seen.lock().unwrap());
    assert!(!seen.is_empty() && seen.iter().all(|asked| asked.starts_with("GET /acme/app2/info/refs?")), "{seen:?}");
    // The control: with its own URL it is let in.
    assert!(hand.sh(&format!("git ls-remote {url}")).contains("refs/heads/main"));
}

#[test]
fn a_repository_without_refs_to_push_to_is_only_read() {
    let forge = forge(&[]);
    forge.hand.sh(&format!(
        "git clone -q {}.git repo; cd repo; git switch -qc agent/x; git commit -q --allow-empty -m x",
        forge.url
    ));
    let refused = forge.hand.bash("git push origin agent/x 2>&1");
    assert!(refused.is_error && refused.text().contains("403"), "{}", refused.text());
}

#[test]
fn a_repository_is_cloned_when_the_hand_is_made_and_what_cannot_be_says_why() {
    let forge = forge(&["refs/heads/agent/*"]);
    let Forge { world, hand, url, root, .. } = forge;
    drop(hand);
    let bare = root.path().join("acme/app.git");
    git(&bare, &["branch", "agent/old", "main"]);
    let clone = |url: &str, checkout: Option<&str>| Resources {
        clones: vec![CloneOf { url: url.into(), path: "src/app".into(), checkout: checkout.map(str::to_owned) }],
        ..Resources::default()
    };
    let refused = hand::error_chain(&world.hand_with(clone("--upload-pack=x", None)).unwrap_err());
    assert!(refused.contains("a clone has a URL"), "{refused}");
    for (url, checkout, step, said) in [
        (format!("{url}-other"), None, CloneStep::Clone, "403"),
        (url.clone(), Some("none"), CloneStep::Checkout, "none"),
    ] {
        let hand = Hand::at(world.hand_with(clone(&url, checkout)).unwrap());
        let failed = hand.client().status().unwrap().failed_clones;
        assert!(failed.len() == 1 && failed[0].url == url && failed[0].step == step, "{failed:?}");
        assert!(failed[0].said.contains(said) && !failed[0].said.contains("CANARY"), "{failed:?}");
        assert_eq!(hand.sh("ls -A /workspace/src 2>/dev/null; echo works"), "works\n", "nothing of it is left");
    }
    let hand = Hand::at(world.hand_with(clone(&url, Some("agent/old"))).unwrap());
    assert_eq!(
        hand.sh("cd src/app; cat a.txt; git branch --show-current; git config remote.origin.url"),
        format!("one\nagent/old\n{url}\n")
    );
    hand.sh("git commit -q --allow-empty -m more; git push -q 2>&1; git pull -q");
    assert_eq!(git(&bare, &["log", "-1", "--format=%s", "agent/old"]), "more\n");
}

/// Looks wherever a process inside can look: environments, command lines, memory, files, the configuration of git.
const SEARCH: &str = r#"
import os, re, sys
needle = b"CANARY-" + b"7f3a9c51d2"
import base64
pair = base64.b64encode(b"x-access-token:" + needle)
needles = [needle, needle[::-1], pair, base64.b64encode(needle), needle.hex().encode()]
hits, looked = [], 0
def look(name, data):
    global looked
    looked += 1
    for n in needles:
        if n in data: hits.append(name)
own = os.getpid()
for pid in filter(str.isdigit, os.listdir('/proc')):
    for what in ('environ', 'cmdline'):
        try: look(f'{pid}/{what}', open(f'/proc/{pid}/{what}', 'rb').read())
        except OSError: pass
    if int(pid) == own: continue
    try:
        mem = open(f'/proc/{pid}/mem', 'rb', 0)
        for line in open(f'/proc/{pid}/maps'):
            m = re.match(r'([0-9a-f]+)-([0-9a-f]+) r', line)
            if not m or 'vvar' in line or 'vsyscall' in line: continue
            a, b = (int(x, 16) for x in m.groups())
            try:
                mem.seek(a); look(f'{pid}/mem', mem.read(min(b - a, 64 << 20)))
            except OSError: pass
    except OSError: pass
for root in ('/workspace', '/tmp', '/run', '/etc', '/home', '/mnt', '/dev/shm'):
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and path != '/workspace/search.py':
                try: look(path, open(path, 'rb').read())
                except OSError: pass
print(f'looked {looked} hits {sorted(set(hits))}')
"#;

#[test]
fn the_token_is_nowhere_in_the_sandbox() {
    let forge = forge(&["refs/heads/agent/*"]);
    let hand = &forge.hand;
    hand.sh(&format!("git clone -q {}.git repo; cd repo; git switch -qc agent/x; git commit -q --allow-empty -m x; git push -q origin agent/x 2>&1", forge.url));
    assert_eq!(
        hand.sh("git config --get remote.origin.url"),
        format!("{}.git\n", forge.url),
        "the URL stays the agent's"
    );
    let said = hand.sh("git config -l --show-origin; env; GIT_CURL_VERBOSE=1 GIT_TRACE_CURL=1 GIT_TRACE_REDACT=0 GIT_TRACE=1 git ls-remote 2>&1; \
        printf 'protocol=http\\nhost=forge.test\\n' | git credential fill 2>&1; true");
    assert!(!said.contains("CANARY") && !said.to_lowercase().contains("authorization:"), "{said}");

    std::fs::write(hand.file("workspace/search.py"), SEARCH).unwrap();
    // While git talks to the server, so that its memory is looked at too.
    hand.sh("cd /workspace/repo; (while :; do git ls-remote >/dev/null 2>&1; done) & cd ..");
    let said = hand.sh("for i in 1 2 3; do python3 search.py; done");
    assert!(said.lines().all(|line| line.ends_with("hits []")) && said.lines().count() == 3, "{said}");
    let looked: usize = said.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(looked > 100, "{said}");

    // The control: where one is planted, the search finds it.
    let found =
        hand.sh(&format!("echo {CANARY} >planted; (export TOKEN={CANARY}; exec sleep 600) & python3 search.py"));
    assert!(found.contains("/workspace/planted") && found.contains("/environ"), "{found}");
    let kept = forge.world.path("egress");
    let grep = Command::new("grep").args(["-r", "CANARY"]).arg(kept).output().unwrap();
    assert!(grep.stdout.is_empty(), "{}", String::from_utf8_lossy(&grep.stdout));
}

#[test]
fn a_token_that_the_server_refuses_is_an_error_that_says_so() {
    let forge = forge(&[]);
    forge.world.put("git", "another");
    let refused = forge.hand.bash(&format!(
        "curl -s '{}'; git clone {}.git repo 2>&1",
        "http://127.0.0.1:3128/git/0~/info/refs?service=git-upload-pack", forge.url
    ));
    let said = refused.text();
    assert!(
        refused.is_error && said.contains("does not accept the session's credential") && !said.contains("Password"),
        "{said}"
    );
}
