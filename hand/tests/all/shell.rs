//! bash: one shell that persists, whose calls end when they should.

use crate::fixture::{Hands, parse};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn state_survives_between_calls() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    assert_eq!(hand.sh("pwd; id -un; echo $HOME"), "/workspace\nagent\n/home/agent\n");
    hand.sh("cd /tmp; export A=1; b='two words'; declare -A m=([k]=v); f() { echo in f; }; sleep 300 & echo $! >pid");
    assert_eq!(
        hand.sh("pwd; echo $A $b ${m[k]}; f; kill -0 $(cat pid) && echo alive"),
        "/tmp\n1 two words v\nin f\nalive\n"
    );
}

#[test]
fn commands_are_taken_whatever_is_in_them() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for (command, expect) in [
        ("echo \"it's\" 'quo\"ted' $((1+1))", "it's quo\"ted 2\n"),
        ("cat <<'E'\n'x' \"y\" $z\nE", "'x' \"y\" $z\n"),
        ("echo a\n\n# comment\necho b # more", "a\nb\n"),
        ("cat; echo end", "end\n"),
        ("echo out; echo err >&2; echo out2", "out\nerr\nout2\n"),
        ("printf '\\033[1;31mred\\033[0m\\0\\377'", "red\u{fffd}\u{fffd}"),
        ("printf 'no newline'", "no newline"),
        ("true", "(no output)"),
        ("for i in 1 2; do echo $i; break; done; break 2>/dev/null; echo on", "1\non\n"),
        ("set -x; true; set +x", "++ true\n++ set +x\n"),
        ("echo $'tab\\there'; echo 'ä€😀'", "tab\there\nä€😀\n"),
    ] {
        assert_eq!(hand.sh(command), expect, "{command}");
    }
    let long = format!("echo {} | wc -c", "x".repeat(100_000));
    assert_eq!(hand.sh(&long), "100001\n");
}

#[test]
fn a_failing_command_is_an_error_that_carries_its_output() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for (command, expect) in [
        ("echo said; false", "said\n[exit code 1]"),
        ("printf x; (exit 7)", "x\n[exit code 7]"),
        ("no-such-command-here", "command not found\n[exit code 127]"),
        ("if", "syntax error"),
        ("kill -9 $BASHPID", "the shell itself ended (ended by signal 9)"),
        ("exit 3", "the shell itself ended (exit code 3)"),
        ("(while :; do sleep 1000; done) & echo left; exit 4", "left\n[the shell itself ended (exit code 4)"),
    ] {
        let result = hand.bash(command);
        assert!(result.is_error && result.text().contains(expect), "{command}: {}", result.text());
    }
    assert_eq!(hand.sh("echo again"), "again\n");
}

#[test]
fn inputs_are_strict() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for (input, expect) in [
        (json!({}), "either command or restart"),
        (json!({"command": "true", "cwd": "/"}), "unknown field `cwd`"),
        (json!({"command": "true", "timeout_ms": "1;id"}), "invalid type"),
        (json!({"command": "echo ok; #\n\u{0}--unshare-none"}), "NUL"),
        (json!("true"), "invalid input"),
    ] {
        let result = hand.tool("bash", input);
        assert!(result.is_error && result.text().contains(expect), "{}", result.text());
    }
    for name in ["../../bash", "--ro-bind", "", "Bash"] {
        let result = hand.tool(name, json!({}));
        assert!(result.is_error && result.text().contains("unknown tool"), "{name}");
    }
    assert_eq!(hand.sh("echo ok"), "ok\n");
}

#[test]
fn restart_begins_anew() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("cd /tmp; x=1; setsid sleep 300 & disown");
    let result = hand.tool("bash", json!({"restart": true}));
    assert_eq!((result.text().as_str(), result.is_error), ("bash session restarted", false));
    assert_eq!(hand.sh("pwd; echo [$x]; set -- /proc/[0-9]*; echo $#"), "/workspace\n[]\n2\n");
}

#[test]
fn a_background_job_that_holds_stdout_does_not_hold_the_call() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let begun = Instant::now();
    assert_eq!(hand.sh("sleep 300 & echo started"), "started\n");
    assert!(begun.elapsed() < Duration::from_secs(20));
    // It can go on talking without anybody listening, and is heard by the next call.
    hand.sh("mkfifo go; (head -c 1000000 /dev/zero | tr '\\0' x; echo; echo last; echo >go) &");
    let heard = hand.bash("cat go");
    assert!(heard.text().ends_with("last\n\n"), "{}", &heard.text()[heard.text().len().saturating_sub(100)..]);
    assert!(heard.truncated);
}

#[test]
fn a_timeout_ends_all_that_the_call_started_and_nothing_else() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("echo kept >file");
    let begun = Instant::now();
    let result = hand.tool(
        "bash",
        json!({
            "command": "echo before; (setsid nohup bash -c \"trap '' TERM INT HUP; sleep 600\" >/dev/null 2>&1 &); \
                        nohup sleep 601 >/dev/null 2>&1 & disown; (trap '' TERM; sleep 602) & sleep 120",
            "timeout_ms": 1500
        }),
    );
    assert!(begun.elapsed() < Duration::from_secs(15));
    let text = result.text();
    assert!(result.is_error && text.starts_with("before\n[command timed out after 1500 ms; ended "), "{text}");
    assert!(text.contains("sleep") && text.contains("bash"), "{text}");
    assert_eq!(hand.sh("cat file; pwd; set -- /proc/[0-9]*; echo $#"), "kept\n/workspace\n2\n");
}

#[test]
fn the_callers_bound_holds_too() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let input = json!({"command": "sleep 100", "timeout_ms": 100_000});
    let settled = hand.client().execute("a", "bash", input, Some(500), hand.at.epoch).unwrap();
    assert!(parse(&settled).text().contains("timed out after 500 ms"));
}

#[test]
fn a_cancelled_command_is_dead_when_the_answer_comes() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo started");
    let input = json!({"command": "echo up; echo >started; while :; do sleep 1000; done"});
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| hand.call("a", "bash", input.clone()));
        // Another tool runs beside it, and opening the FIFO waits for the command to be under way.
        crate::fixture::wait_line(&hand.file("workspace/started"));
        let settled = hand.client().cancel("a", hand.at.epoch).unwrap();
        let text = parse(&settled).text();
        assert!(text.contains("up\n") && text.contains("[command interrupted; ended "), "{text}");
        assert_eq!(waiting.join().unwrap().result, settled.result);
    });
    // Asked again it is the same answer, and nothing runs.
    assert_eq!(parse(&hand.call("a", "bash", input)).text().matches("interrupted").count(), 1);
    assert_eq!(hand.sh("set -- /proc/[0-9]*; echo $#"), "2\n");
}

#[test]
fn calls_of_the_shell_wait_for_one_another_and_file_tools_do_not() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo go started");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| hand.bash("echo >started; cat go"));
        crate::fixture::wait_line(&hand.file("workspace/started"));
        let second = scope.spawn(|| hand.bash("echo second"));
        let third = hand.tool("write", json!({"file_path": "beside", "content": "x"}));
        assert_eq!(third.text(), "wrote 1 bytes to beside");
        assert!(!second.is_finished() && !first.is_finished());
        std::fs::write(hand.file("workspace/go"), "first\n").unwrap();
        assert_eq!(first.join().unwrap().text(), "first\n");
        assert_eq!(second.join().unwrap().text(), "second\n");
    });
}

#[test]
fn a_command_cancelled_before_its_turn_is_never_run_and_holds_nobody() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("mkfifo started go");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| hand.bash("echo >started; cat go"));
        crate::fixture::wait_line(&hand.file("workspace/started"));
        let second = scope.spawn(|| hand.call("second", "bash", json!({"command": "echo >ran"})));
        // It is under way once the shim knows of it.
        let cancelled = loop {
            match hand.client().cancel("second", hand.at.epoch) {
                Ok(settled) => break settled,
                Err(e) => assert!(matches!(e, hand::client::Error::Refused { .. }), "{e}"),
            }
        };
        assert_eq!(parse(&cancelled).text(), "interrupted before it was run");
        assert_eq!(second.join().unwrap().result, cancelled.result);
        std::fs::write(hand.file("workspace/go"), "first\n").unwrap();
        assert_eq!(first.join().unwrap().text(), "first\n");
    });
    assert!(!hand.file("workspace/ran").exists());
}
