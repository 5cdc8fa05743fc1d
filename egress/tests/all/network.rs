//! What a sandbox reaches, and what it does not.

use crate::fixture::{SESSION, World, limited};
use crate::servers;
use domain::egress::{Networking, Policy, Reply, Repository, Request};
use tokio::runtime::Runtime;

#[test]
fn the_list_decides_for_plain_http_and_for_tunnels() {
    let runtime = Runtime::new().unwrap();
    let (origin, _) = servers::echo(&runtime);
    let port = origin.port();
    let world = World::new(runtime, &[origin]);
    world.policy(limited(&[format!("allowed.test:{port}"), format!("*.below.test:{port}"), "portless.test".into()]));
    let hand = world.hand();
    for (host, expect) in [
        ("allowed.test", "200"),
        ("ALLOWED.test.", "200"),
        ("a.below.test", "200"),
        ("below.test", "403"),
        ("other.test", "403"),
        ("allowed.test.evil.test", "403"),
        ("portless.test", "403"),
        ("127.0.0.1.nip.io", "403"),
    ] {
        assert_eq!(hand.get(&format!("http://{host}:{port}/")), expect, "{host}");
        let tunnel = hand.bash(&format!(
            "curl -s -m 20 -p -o /dev/null -w '%{{http_connect}} %{{http_code}}' http://{host}:{port}/; true"
        ));
        let expect = if expect == "200" { "200 200" } else { "403 000" };
        assert_eq!(tunnel.text(), expect, "{host}");
    }
    let said = hand.bash(&format!("curl -s http://other.test:{port}/")).text();
    assert_eq!(
        said,
        format!("steadyhand egress: other.test:{port} is not among the hosts of this session's environment\n")
    );
    let audit = world.audit();
    assert!(audit.contains(r#""event":"denied""#) && audit.contains(r#""host":"other.test""#), "{audit}");
    assert!(audit.contains(r#""event":"connected""#), "{audit}");
}

#[test]
fn without_networking_nothing_is_reached_and_without_egress_nothing_listens() {
    let runtime = Runtime::new().unwrap();
    let (origin, seen) = servers::echo(&runtime);
    let world = World::new(runtime, &[origin]);
    world.policy(Policy::default());
    let hand = world.hand();
    assert_eq!(hand.get(&format!("http://any.test:{}/", origin.port())), "403");
    // Past the proxy there is still no way.
    let around = format!("http://127.0.0.1:{}/", origin.port());
    assert_eq!(hand.get(&around), "000");
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn addresses_that_are_not_public_are_reached_only_where_they_are_listed() {
    let runtime = Runtime::new().unwrap();
    let (listed, _) = servers::echo(&runtime);
    let (private, seen) = servers::echo(&runtime);
    let world = World::new(runtime, &[listed]);
    world.policy(Policy { networking: Networking::Unrestricted, ..Policy::default() });
    let hand = world.hand();
    assert_eq!(hand.get(&format!("http://name.test:{}/", listed.port())), "200");
    let port = private.port();
    for host in ["name.test", "127.0.0.1.nip.io", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]", "0"] {
        // Some are spellings of loopback, for which curl would not ask the proxy by itself.
        let said = hand.bash(&format!(
            "curl -s -m 20 --noproxy '' -o /dev/null -w '%{{http_code}}' 'http://{host}:{port}/'; true"
        ));
        assert_eq!(said.text(), "403", "{host}");
    }
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn a_new_policy_cuts_what_runs_and_one_that_is_wrong_leaves_nothing() {
    let runtime = Runtime::new().unwrap();
    let (origin, _) = servers::echo(&runtime);
    let port = origin.port();
    let world = World::new(runtime, &[origin]);
    let allowed = limited(&[format!("allowed.test:{port}")]);
    world.policy(allowed.clone());
    let hand = world.hand();
    let open = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT allowed.test:{port} HTTP/1.1\\r\\nHost: allowed.test:{port}\\r\\n\\r\\n' >&3; \
         while read -r line <&3 && [ \"$line\" != $'\\r' ]; do echo \"$line\"; done"
    );
    let cut = "read -r -t 20 -n 1 line <&3; echo $?";
    assert!(hand.sh(&open).contains("200 OK"));
    // While it is open: a process that is killed now hides nothing.
    let audit = world.audit();
    assert!(audit.contains(r#""event":"opened""#) && !audit.contains(r#""event":"connected""#), "{audit}");
    world.policy(limited(&[]));
    assert_eq!(hand.sh(cut), "1\n", "the tunnel has ended");
    assert_eq!(hand.get(&format!("http://allowed.test:{port}/")), "403");

    world.policy(allowed.clone());
    assert!(hand.sh(&open).contains("200 OK"));
    let wrong = Repository { url: "https://user:pass@host/x".into(), credential: None, push: vec![] };
    let policy = Policy { repositories: vec![wrong], ..allowed };
    assert!(matches!(world.ask(Request::SetPolicy { session_id: SESSION.into(), policy }), Reply::Refused { .. }));
    assert_eq!(hand.sh(cut), "1\n");
    assert_eq!(hand.get(&format!("http://allowed.test:{port}/")), "403");
}

#[test]
fn a_session_has_so_many_tunnels_and_no_more() {
    let runtime = Runtime::new().unwrap();
    let (origin, _) = servers::echo(&runtime);
    let port = origin.port();
    let world = World::new(runtime, &[origin]);
    world.policy(limited(&[format!("allowed.test:{port}")]));
    let hand = world.hand();
    let tunnel = format!(
        "tunnel() {{ exec {{fd}}<>/dev/tcp/127.0.0.1/3128; \
         printf 'CONNECT allowed.test:{port} HTTP/1.1\\r\\nHost: allowed.test:{port}\\r\\n\\r\\n' >&$fd; read -r line <&$fd; echo \"$line\"; }}"
    );
    let said = hand.sh(&format!("{tunnel}; for i in $(seq {}); do tunnel; done", egress::proxy::TUNNELS_MAX + 1));
    let lines: Vec<&str> = said.lines().collect();
    let (last, before) = lines.split_last().unwrap();
    assert!(before.iter().all(|line| line.contains("200")), "{said}");
    assert!(last.contains("503"), "{last}");
}

#[test]
fn a_policy_and_the_way_to_it_outlive_the_process_and_not_the_session() {
    let runtime = Runtime::new().unwrap();
    let (origin, _) = servers::echo(&runtime);
    let url = format!("http://allowed.test:{}/", origin.port());
    let mut world = World::new(runtime, &[origin]);
    world.policy(limited(&[format!("allowed.test:{}", origin.port())]));
    let hand = world.hand();
    assert_eq!(hand.get(&url), "200");
    world.stop();
    assert_eq!(hand.get(&url), "000");
    world.start();
    assert_eq!(hand.get(&url), "200");

    world.stop();
    std::fs::write(world.path(&format!("egress/policies/{SESSION}.json")), "{\"networking\": 1}").unwrap();
    world.start();
    assert_eq!(hand.get(&url), "403", "what is not understood allows nothing");

    assert_eq!(world.ask(Request::DropSession { session_id: SESSION.into() }), Reply::Done);
    assert_eq!(hand.get(&url), "000");
    assert!(!world.path("egress/policies").join(format!("{SESSION}.json")).exists());
}

#[test]
fn http_2_goes_through_a_tunnel() {
    let runtime = Runtime::new().unwrap();
    let origin = servers::http2(&runtime);
    let port = origin.port();
    let world = World::new(runtime, &[origin]);
    world.policy(limited(&[format!("allowed.test:{port}")]));
    let hand = world.hand();
    let ask = |host: &str| {
        hand.bash(&format!("curl -s -m 20 -p --http2-prior-knowledge http://{host}:{port}/path; echo \" $?\"")).text()
    };
    assert_eq!(ask("allowed.test"), "HTTP/2.0 /path 0\n");
    assert_eq!(ask("other.test"), " 56\n", "the tunnel is refused");
}

#[test]
fn a_sandbox_that_knocks_without_end_does_not_fill_the_audit_log() {
    let runtime = Runtime::new().unwrap();
    let world = World::new(runtime, &[]);
    world.policy(Policy::default());
    let hand = world.hand();
    let knock = "import socket\ns = socket.create_connection(('127.0.0.1', 3128))\nf = s.makefile('rwb')\n\
        for n in range(2000):\n  f.write(b'GET http://h%d.test/ HTTP/1.1\\r\\nHost: h%d.test\\r\\n\\r\\n' % (n, n)); f.flush()\n  \
        length = 0\n  while (line := f.readline()) != b'\\r\\n':\n    if line.lower().startswith(b'content-length:'): length = int(line[15:])\n  \
        f.read(length)\nprint('knocked')\n";
    std::fs::write(hand.file("workspace/knock.py"), knock).unwrap();
    assert_eq!(hand.sh("python3 knock.py"), "knocked\n");
    world.policy(Policy::default());
    let audit = world.audit();
    assert!(audit.matches(r#""event":"denied""#).count() <= 1200, "{}", audit.len());
    assert!(audit.contains(r#""event":"left_out""#), "what is left out is counted");
}
