//! A call takes effect at most once, whoever dies when.

use crate::fixture::{Hands, Process, parse, wait_line};
use hand::client::{self, Client};
use hand::local;
use hand::protocol::{How, Refusal, Reply, Request, State};
use rustix::process::Pid;
use serde_json::json;
use std::io::Write;
use std::os::unix::net::UnixStream;

#[test]
fn a_client_that_dies_does_not_stop_its_call_and_the_next_one_attaches() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo started go");
    let input = json!({"command": "echo run >>counter; echo >started; cat go; wc -l <counter"});
    let request =
        Request::Execute { id: "a".into(), name: "bash".into(), input: input.clone(), timeout_ms: None, epoch: 1 };
    let mut first = UnixStream::connect(&hand.at.socket).unwrap();
    first.write_all((serde_json::to_string(&request).unwrap() + "\n").as_bytes()).unwrap();
    wait_line(&hand.file("workspace/started"));
    drop(first);

    std::thread::scope(|scope| {
        let again: Vec<_> = (0..10).map(|_| scope.spawn(|| hand.call("a", "bash", input.clone()))).collect();
        // The call cannot end before this, so whoever has connected by then attaches and the others replay.
        std::fs::write(hand.file("workspace/go"), "went\n").unwrap();
        for settled in again {
            let settled = settled.join().unwrap();
            assert_ne!(settled.how, How::Ran);
            assert_eq!(parse(&settled).text(), "went\n1\n");
        }
    });
    let replayed = hand.call("a", "bash", input);
    assert_eq!((replayed.how, replayed.state), (How::Replayed, State::Finished));
    assert_eq!(parse(&replayed).text(), "went\n1\n");
    assert_eq!(hand.sh("cat counter"), "run\n");
}

#[test]
fn an_id_used_at_once_by_many_runs_once() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let input = json!({"command": "echo run >>counter"});
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..100).map(|_| scope.spawn(|| hand.call("same", "bash", input.clone()))).collect();
        let how: Vec<_> = all.into_iter().map(|settled| settled.join().unwrap().how).collect();
        assert_eq!(how.iter().filter(|how| **how == How::Ran).count(), 1);
    });
    assert_eq!(hand.sh("cat counter"), "run\n");
}

#[test]
fn an_id_with_another_input_or_name_is_a_conflict() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.call("a", "bash", json!({"command": "echo 1 >>counter"}));
    for (name, input) in
        [("bash", json!({"command": "echo 2 >>counter"})), ("write", json!({"command": "echo 1 >>counter"}))]
    {
        let refused = hand.client().execute("a", name, input, None, 1);
        assert!(matches!(refused, Err(client::Error::Refused { code: Refusal::Conflict, .. })));
    }
    assert_eq!(hand.sh("cat counter"), "1\n");
}

#[test]
fn a_killed_shim_takes_its_sandbox_along_and_its_running_call_is_lost_once_and_for_all() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo started; echo run0 >>counter");
    let done = hand.call("done", "bash", json!({"command": "echo done >>counter; echo finished"}));
    let input = json!({"command": "echo run >>counter; echo said; until grep -q said /mnt/session/tool_output/*; do :; done; \
                                  echo >started; sleep 600"});
    let shim = hand.client().status().unwrap().pid;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| hand.client().execute("a", "bash", input.clone(), None, 1));
        wait_line(&hand.file("workspace/started"));
        let process = Process::new(shim);
        process.kill();
        process.wait();
        assert!(matches!(waiting.join().unwrap(), Err(client::Error::Broken(_))));
    });
    assert!(matches!(Client::connect(&hand.at.socket), Err(client::Error::Gone(_))));

    // Whoever provisions next finds workspace, journal and epoch as they were, and a new shell.
    let again = local::provision(&hands.spec("h")).unwrap();
    assert_eq!(again, hand.at);
    assert_ne!(hand.client().status().unwrap().pid, shim);
    for _ in 0..2 {
        let settled = hand.call("a", "bash", input.clone());
        assert_eq!((settled.state, settled.how), (State::Lost, How::Replayed));
        let result = parse(&settled);
        assert!(
            result.is_error && result.text().contains("lost:") && result.text().ends_with("said\n"),
            "{}",
            result.text()
        );
    }
    let other = hand.client().execute("a", "bash", json!({"command": "true"}), None, 1);
    assert!(matches!(other, Err(client::Error::Refused { code: Refusal::Conflict, .. })));
    let replayed = hand.call("done", "bash", json!({"command": "echo done >>counter; echo finished"}));
    assert_eq!((replayed.how, &replayed.result), (How::Replayed, &done.result));
    assert_eq!(hand.sh("cat counter; set -- /proc/[0-9]*; echo $#"), "run0\ndone\nrun\n2\n");
}

#[test]
fn a_sandbox_that_dies_loses_its_running_calls_and_ends_the_hand() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo started");
    let sandbox = Process::new(hands.made.first_process(hand.client().status().unwrap().pid));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| hand.call("a", "bash", json!({"command": "echo >started; sleep 600"})));
        wait_line(&hand.file("workspace/started"));
        sandbox.kill();
        let settled = waiting.join().unwrap();
        assert_eq!(settled.state, State::Lost);
    });
    local::provision(&hands.spec("h")).unwrap();
    let settled = hand.call("a", "bash", json!({"command": "echo >started; sleep 600"}));
    assert_eq!((settled.state, settled.how), (State::Lost, How::Replayed));
}

#[test]
fn a_kill_at_any_moment_runs_nothing_twice_and_forgets_nothing_told() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for round in 0..12u32 {
        local::provision(&hands.spec("h")).unwrap();
        let shim = hand.client().status().unwrap().pid;
        let input = json!({"command": format!("echo {round} >>counter")});
        let id = format!("r{round}");
        let told = std::thread::scope(|scope| {
            let asked = scope.spawn(|| {
                Client::connect(&hand.at.socket).ok()?.execute(id.as_str(), "bash", input.clone(), None, 1).ok()
            });
            // From before the request is read until after the answer, in steps that grow with the round.
            for _ in 0..round * 40_000 {
                std::hint::spin_loop();
            }
            let process = Process::new(shim);
            process.kill();
            process.wait();
            asked.join().unwrap()
        });
        local::provision(&hands.spec("h")).unwrap();
        let settled = hand.call(&id, "bash", input.clone());
        if let Some(told) = told {
            assert_eq!((told.state, &told.result), (settled.state, &settled.result));
        }
        let count = hand.sh(&format!("grep -cx {round} counter || true")).trim().to_owned();
        match settled.state {
            State::Finished => assert_eq!(count, "1", "round {round}"),
            State::Lost => {
                assert!(count == "0" || count == "1" || count.contains("No such file"), "round {round}: {count}")
            }
        }
        assert_eq!(hand.call(&id, "bash", input).result, settled.result);
    }
}

#[test]
fn provisioning_again_or_at_once_gives_the_same_hand() {
    let hands = Hands::new();
    let spec = hands.spec("h");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| local::provision(&spec).unwrap())).collect();
        let all: Vec<_> = all.into_iter().map(|hand| hand.join().unwrap()).collect();
        assert!(all.iter().all(|hand| *hand == all[0]));
    });
    let hand = hands.hand("h");
    let before = hand.client().status().unwrap().pid;
    hand.sh("cd /tmp");
    local::provision(&spec).unwrap();
    assert_eq!(hand.client().status().unwrap().pid, before);
    assert_eq!(hand.sh("pwd"), "/tmp\n");
}

#[test]
fn the_shim_is_a_session_of_its_own_with_an_empty_environment() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let pid = hand.client().status().unwrap().pid;
    let shim = Pid::from_raw(pid.cast_signed()).unwrap();
    assert_eq!(rustix::process::getsid(Some(shim)).unwrap(), shim);
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let reply = hand.client().ask(&Request::Status).unwrap();
    assert!(matches!(reply, Reply::Status(_)));
}
