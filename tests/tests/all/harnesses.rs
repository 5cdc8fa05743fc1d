//! Harnesses under live sessions: swapped, gone, uploaded, and making room. Each scenario runs on both engines.

use bytes::Bytes;
use domain::{
    EventBody, PrivateEntry, Take,
    agent::{HarnessRef, StrategyRef},
    event::{ErrorBody, StopReason},
    session::{Change, LogEntry, StrategyChange, Swap, signal},
};
use harness::{
    registry::{self, default_harness},
    wasm::WasmHarness,
};
use log::SessionLog;
use steadyhand_tests::{
    bed::{Bed, On, message},
    on_both,
};

on_both![
    a_swap_waits_for_the_turn_to_end,
    a_harness_that_is_gone_stops_the_turn_and_a_swap_cures_it,
    a_module_decides_live_and_a_bad_one_fails_its_own_turn,
    bad_modules_are_contained_and_named,
    room_is_made_in_a_long_turn,
    another_strategy_holds_from_the_next_request_on,
];

const CALLS: &str = r#"
version = 1
[[rules]]
when = { user_contains = "Write the hand-off" }
answer = [{ text = "half of it is done" }]
[[rules]]
when = { user_contains = "half of it is done" }
answer = [{ text = "done" }]
[[rules]]
when = { results = { max = 0 } }
usage = { input_tokens = 900, output_tokens = 5 }
delay_ms = 200
answer = [{ tool = "bash", input = { command = "ls" } }]
[[rules]]
answer = [{ text = "done, PLAN COMPLETE" }]
"#;

fn named(name: &str, version: u32) -> HarnessRef {
    registry::named(name, version).expect("it is in this build").reference()
}

async fn swap(bed: &Bed, id: &str, session: &str, harness: HarnessRef) -> anyhow::Result<()> {
    bed.signal(session, signal::SWAP, &Swap { id: id.into(), harness }).await
}

/// Private entries about swaps, with the position at which they stand.
async fn swaps(bed: &Bed, log: &mut SessionLog) -> anyhow::Result<Vec<(u64, String)>> {
    let commits = log.commits(&*bed.blobs, 0, u64::MAX).await?;
    let mut found = Vec::new();
    for committed in commits {
        let mut position = committed.position;
        for take in &committed.commit.takes {
            match take {
                Take::Private { entry: PrivateEntry::SwapRequested { harness, .. } } => {
                    found.push((position, format!("asked for {harness}")));
                }
                Take::Private { entry: PrivateEntry::Swapped { from, to } } => {
                    found.push((position, format!("{from} to {to}")));
                }
                Take::Private { .. } => {}
                _ => position += 1,
            }
        }
    }
    Ok(found)
}

fn errors(entries: &[LogEntry]) -> Vec<&ErrorBody> {
    entries
        .iter()
        .filter_map(|entry| match &entry.event.body {
            EventBody::SessionError { error } => Some(error),
            _ => None,
        })
        .collect()
}

fn stops(entries: &[LogEntry]) -> Vec<&StopReason> {
    entries
        .iter()
        .filter_map(|entry| match &entry.event.body {
            EventBody::SessionStatusIdle { stop_reason, .. } => Some(stop_reason),
            _ => None,
        })
        .collect()
}

async fn a_swap_waits_for_the_turn_to_end(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, CALLS).await?;
    bed.start("s1", vec![message("m1", "go")]).await?;
    bed.wait("s1", |log| log.end_position() > 0).await?;
    swap(&bed, "swap_1", "s1", named("plan-act", 1)).await?;
    let is_swapped = |log: &SessionLog| log.summary().is_some_and(|summary| summary.harness.name == "plan-act");
    let mut log = bed.wait("s1", is_swapped).await?;
    let idle =
        bed.entries(&mut log).await?.iter().position(|entry| entry.event.body.type_name() == "session.status_idle");
    let after = idle.expect("the turn ended") as u64 + 1;
    let told = swaps(&bed, &mut log).await?;
    assert_eq!(told[0].1, "asked for plan-act@1");
    assert!(told[0].0 < after, "it was asked for within the turn: {told:?}");
    assert_eq!(told[1], (after, "loop@1 to plan-act@1".to_owned()), "and applied behind it");

    // The next turn is the new harness's, in a run of its own; nothing is lost on the way.
    bed.post("s1", vec![message("m2", "again")]).await?;
    let mut log = bed
        .wait("s1", |log| log.summary().is_some_and(|summary| summary.turn == 2 && summary.status.is_idle()))
        .await?;
    let entries = bed.entries(&mut log).await?;
    assert_eq!(stops(&entries), [&StopReason::EndTurn {}, &StopReason::EndTurn {}]);
    let asked = entries.iter().filter_map(|entry| entry.private.as_ref()).map(|private| private.recipe.suffix.len());
    assert!(asked.clone().take(2).all(|told| told == 0), "loop@1 tells the model nothing");
    assert!(asked.skip(2).any(|told| told > 0), "plan-act@1 asks for a plan");
    let summary = log.summary().expect("there is one");
    assert!(summary.manifest.is_some() || !summary.unsealed.is_empty(), "the swap began a new run");
    bed.end().await
}

async fn a_harness_that_is_gone_stops_the_turn_and_a_swap_cures_it(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, CALLS).await?;
    let gone = HarnessRef { name: "lost".into(), version: 3, sha256: "ab".repeat(32) };
    bed.start_as("s1", gone, 200_000, vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let entries = log.slice(&*bed.blobs, 0, u64::MAX).await?;
    let said = errors(&entries)[0];
    assert!(said.message.starts_with("harness lost@3 is not in this build and was not added"), "{}", said.message);
    assert_eq!(stops(&entries), [&StopReason::RetriesExhausted {}]);

    swap(&bed, "swap_1", "s1", default_harness()).await?;
    bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.harness.name == "loop")).await?;
    bed.post("s1", vec![message("m2", "now")]).await?;
    let turns = |log: &SessionLog| log.summary().is_some_and(|summary| summary.turn == 2 && summary.status.is_idle());
    let mut log = bed.wait("s1", turns).await?;
    let entries = log.slice(&*bed.blobs, 0, u64::MAX).await?;
    assert_eq!(stops(&entries), [&StopReason::RetriesExhausted {}, &StopReason::EndTurn {}]);
    bed.end().await
}

async fn a_module_decides_live_and_a_bad_one_fails_its_own_turn(on: On) -> anyhow::Result<()> {
    const PATIENT: &[u8] = include_bytes!("../../../examples/harness-rust/patient.wasm");
    let bed = Bed::new(on, CALLS).await?;
    let patient = WasmHarness::admit(PATIENT)?.reference();
    log::blobs::put(&*bed.blobs, Bytes::from_static(PATIENT)).await?;
    bed.start_as("s1", patient, 200_000, vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s1").await?;
    let entries = bed.entries(&mut log).await?;
    assert_eq!(stops(&entries), [&StopReason::EndTurn {}]);
    let asked = entries.iter().filter_map(|entry| entry.private.as_ref());
    assert!(asked.clone().any(|private| !private.recipe.suffix.is_empty()), "it asked for proof");
    assert!(asked.clone().all(|private| private.recipe.strategy.version == 2), "by the strategy it wants");

    // A module that keeps the contract and traps when it is asked: its session says so, others do not notice.
    let trap = wat::parse_str(
        r#"(module (@custom "steadyhand" "{\"abi\":1,\"name\":\"trap\",\"version\":1,\"view\":2}")
            (memory (export "memory") 1)
            (func (export "next") (param i32 i32) (result i64) unreachable))"#,
    )?;
    let reference = WasmHarness::load(&trap)?.reference();
    log::blobs::put(&*bed.blobs, Bytes::from(trap)).await?;
    bed.start_as("s2", reference, 200_000, vec![message("m1", "go")]).await?;
    let mut log = bed.idle("s2").await?;
    let entries = bed.entries(&mut log).await?;
    assert_eq!(errors(&entries)[0].message, "harness trap@1 panicked");
    assert_eq!(stops(&entries), [&StopReason::RetriesExhausted {}]);
    bed.post("s1", vec![message("m2", "again")]).await?;
    bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.turn == 2 && summary.status.is_idle())).await?;
    bed.end().await
}

/// Modules that keep the contract until they are asked: one loops, one traps, one wants all memory, one talks nonsense, one
/// recurses. They decide beside a good session, on the same worker.
async fn bad_modules_are_contained_and_named(on: On) -> anyhow::Result<()> {
    const BAD: [(&str, &str, &str); 5] = [
        ("looping", "(loop $again (br $again)) (i64.const 0)", "did not decide within"),
        ("panicking", "unreachable", "panicked"),
        (
            "greedy",
            "(drop (memory.grow (i32.const 60000))) (i32.store (i32.const 17000000) (i32.const 1)) (i64.const 0)",
            "out of bounds memory access",
        ),
        ("babbling", "(i64.const 7)", "returned no decision"),
        ("recursive", "(call $next (local.get 0) (local.get 1))", "called itself too deep"),
    ];
    let bed = Bed::new(on, CALLS).await?;
    bed.start("good", vec![message("m1", "go")]).await?;
    for (name, body, _) in BAD {
        let module = wat::parse_str(format!(
            r#"(module (@custom "steadyhand" "{{\"abi\":1,\"name\":\"{name}\",\"version\":1,\"view\":2}}")
                (memory (export "memory") 1)
                (func $next (export "next") (param i32 i32) (result i64) {body}))"#
        ))?;
        let reference = WasmHarness::load(&module)?.reference();
        log::blobs::put(&*bed.blobs, Bytes::from(module)).await?;
        bed.start_as(name, reference, 200_000, vec![message("m1", "go")]).await?;
    }
    for (name, _, why) in BAD {
        let mut log = bed.idle(name).await?;
        let entries = bed.entries(&mut log).await?;
        let said = &errors(&entries)[0].message;
        assert!(said.starts_with(&format!("harness {name}@1 ")) && said.contains(why), "{name}: {said}");
        assert_eq!(stops(&entries), [&StopReason::RetriesExhausted {}], "{name}");
        // It is cured as any other.
        swap(&bed, &format!("swap_{name}"), name, default_harness()).await?;
        bed.post(name, vec![message("m2", "again")]).await?;
    }
    let ends = |turns| {
        move |log: &SessionLog| log.summary().is_some_and(|summary| summary.turn == turns && summary.status.is_idle())
    };
    for (name, ..) in BAD {
        let mut log = bed.wait(name, ends(2)).await?;
        assert_eq!(stops(&bed.entries(&mut log).await?)[1], &StopReason::EndTurn {}, "{name}");
    }
    let mut log = bed.wait("good", ends(1)).await?;
    assert!(errors(&bed.entries(&mut log).await?).is_empty(), "it noticed nothing");
    // Nothing outside can be asked: what would differ between two decisions is refused before any session has it.
    let clock = wat::parse_str(
        r#"(module (@custom "steadyhand" "{\"abi\":1,\"name\":\"fickle\",\"version\":1,\"view\":2}")
            (import "env" "now" (func $now (result i64))) (memory (export "memory") 1)
            (func (export "next") (param i32 i32) (result i64) (call $now)))"#,
    )?;
    let refused = WasmHarness::admit(&clock).err().expect("it asks for a clock").to_string();
    assert!(refused.contains("import"), "{refused}");
    bed.end().await
}

async fn room_is_made_in_a_long_turn(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, CALLS).await?;
    bed.start_as("s1", named("loop", 2), 1_000, vec![message("m1", "the long task")]).await?;
    let mut log = bed.idle("s1").await?;
    let entries = bed.entries(&mut log).await?;
    let types: Vec<&str> = entries.iter().map(|entry| entry.event.body.type_name()).collect();
    let at = types.iter().position(|name| *name == "agent.thread_context_compacted").expect("room was made");
    let summary = entries[at].private.as_ref().expect("the summary is its private part");
    assert_eq!(summary.recipe.purpose, domain::model::Purpose::Summary);
    assert!(!types[..at].contains(&"agent.message"), "the summary is no message to anybody");
    let next = entries[at..].iter().skip(1).find_map(|entry| entry.private.as_ref()).expect("it went on");
    assert_eq!(next.recipe.from, summary.recipe.to, "what was summarised is not read again");
    assert_eq!(next.recipe.strategy.name, "reset");
    assert_eq!(next.recipe.keep.len(), 1, "but for the task");
    assert_eq!(stops(&entries), [&StopReason::EndTurn {}]);
    bed.end().await
}

async fn another_strategy_holds_from_the_next_request_on(on: On) -> anyhow::Result<()> {
    let bed = Bed::new(on, CALLS).await?;
    let window = StrategyRef { name: "window".into(), version: 1, params: serde_json::json!({"rounds": 2}) };
    let change = |id: &str, turn| Change {
        strategy: Some(Box::new(StrategyChange { strategy: window.clone(), turn })),
        ..Change::of(id)
    };
    let rests = |turns| {
        move |log: &SessionLog| log.summary().is_some_and(|summary| summary.turn == turns && summary.status.is_idle())
    };
    bed.start("s1", vec![message("m1", "go")]).await?;
    // In the middle of a turn: the request that is out stays as it is.
    bed.wait("s1", |log| log.summary().is_some_and(|summary| summary.status == domain::Status::Running)).await?;
    bed.signal("s1", signal::CHANGE, &change("chg_1", true)).await?;
    bed.wait("s1", rests(1)).await?;
    bed.post("s1", vec![message("m2", "again")]).await?;
    bed.wait("s1", rests(2)).await?;
    bed.signal("s1", signal::CHANGE, &change("chg_2", false)).await?;
    bed.post("s1", vec![message("m3", "and again")]).await?;
    let mut log = bed.wait("s1", rests(3)).await?;
    let entries = bed.entries(&mut log).await?;
    let held = entries.iter().filter_map(|entry| entry.private.as_ref());
    let held: Vec<&str> = held.map(|private| private.recipe.strategy.name.as_str()).collect();
    assert_eq!(held, ["full", "window", "full", "full", "window", "window"], "the turn's, and then the session's");
    bed.end().await
}
