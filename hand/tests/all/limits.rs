//! How much may come out of a hand.

use crate::fixture::Hands;
use hand::client;
use hand::limits::{BASH_OUTPUT_BYTES, SPOOL_BYTES};
use hand::protocol::Refusal;
use serde_json::json;
use sha2::{Digest, Sha256};

#[test]
fn a_flood_keeps_its_end_and_little_memory() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let result = hand.bash("yes flood | head -c 400000000; echo the end");
    let text = result.text();
    assert!(result.truncated && !result.is_error);
    assert!(
        text.starts_with(
            "[output truncated]\n[the first 16 MiB of all 400000008 bytes are in /mnt/session/tool_output/"
        )
    );
    assert!(text.ends_with("the end\n") && text.len() < BASH_OUTPUT_BYTES + 300);

    // All of it, as far as it is kept, can be had by its hash, and read inside.
    let mut whole = Vec::new();
    let blob = result.blob.unwrap();
    assert_eq!(hand.client().blob(&blob, &mut whole).unwrap(), SPOOL_BYTES);
    assert_eq!(hex::encode(Sha256::digest(&whole)), blob);
    let spool = text.lines().nth(1).unwrap().split(' ').next_back().unwrap().trim_end_matches(']').to_owned();
    let lines = hand.tool("read", json!({"file_path": spool, "view_range": [1_000_000, 1_000_001]}));
    assert_eq!(lines.text(), "flood\nflood\n");

    let pid = hand.client().status().unwrap().pid;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap()
        .trim()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(peak < 64 * 1024, "the shim took {peak} KiB");
}

#[test]
fn output_up_to_the_limit_is_whole() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    for (bytes, truncated) in [(BASH_OUTPUT_BYTES, false), (BASH_OUTPUT_BYTES + 1, true)] {
        let result = hand.bash(&format!("head -c {bytes} /dev/zero | tr '\\0' x"));
        assert_eq!(result.truncated, truncated, "{bytes}");
        assert_eq!(result.blob.is_some(), truncated);
        assert!(result.text().ends_with(&"x".repeat(BASH_OUTPUT_BYTES)));
    }
    // What is whole in its result is not kept a second time.
    assert_eq!(hand.file("spool").read_dir().unwrap().count(), 1);
}

#[test]
fn an_argument_that_is_too_large_is_refused_in_words_and_the_hand_goes_on() {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let input = json!({"file_path": "large", "content": "x".repeat(64 << 20)});
    match hand.client().execute("a", "write", input, None, 1) {
        Err(client::Error::Refused { code: Refusal::BadRequest, message }) => {
            assert!(message.starts_with("it has 671") && message.ends_with("in smaller pieces"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(hand.sh("ls"), "(no output)");
    let fits = json!({"file_path": "large", "content": "x".repeat(15 << 20)});
    assert_eq!(hand.tool("write", fits).text(), "wrote 15728640 bytes to large");
}
