//! What a hand may take of the disk where it is only watched; disks of their own are in the other binary.

use crate::fixture::Hands;
use hand::spec::Limits;
use serde_json::json;

const MIB: u64 = 1 << 20;

fn limits(disk_bytes: u64) -> Limits {
    Limits { disk_bytes, ..Limits::default() }
}

#[test]
fn a_call_that_fills_a_watched_disk_is_ended_and_the_hand_goes_on() {
    let hands = Hands::new();
    let hand = hands.hand_within("h", limits(32 * MIB));
    let full = hand.bash("head -c 64M /dev/zero >big; sleep 300");
    assert!(full.is_error && full.text().contains("the disk is full: files hold"), "{}", full.text());
    // Nothing more is written, what is there can be looked at and removed, and then it goes on.
    let refused = hand.tool("write", json!({"file_path": "small", "content": "x"}));
    assert!(refused.is_error && refused.text().contains("the disk is full"), "{}", refused.text());
    assert_eq!(hand.sh("ls; rm big"), "big\n");
    assert_eq!(hand.tool("write", json!({"file_path": "small", "content": "x"})).text(), "wrote 1 bytes to small");
    assert_eq!(hand.sh("head -c 8M /dev/zero >some; cat small"), "x");
}

#[test]
fn a_background_job_that_fills_a_watched_disk_is_ended_too() {
    let hands = Hands::new();
    let hand = hands.hand_within("h", limits(32 * MIB));
    hand.sh("mkfifo ended; (exec 9>ended; head -c 64M /dev/zero >big; sleep 300) >/dev/null 2>&1 &");
    // The job holds the pipe open until it is killed.
    std::fs::read(hand.file("workspace/ended")).unwrap();
    // Whoever calls next is told.
    let told = hand.bash("true");
    assert!(told.is_error && told.text().contains("the disk is full"), "{}", told.text());
    assert_eq!(hand.sh("set -- /proc/[0-9]*; echo $#"), "2\n");
}
