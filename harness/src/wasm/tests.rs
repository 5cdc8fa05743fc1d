//! Modules that keep the contract, and modules that attack it.

use super::*;
use crate::{
    kit::{self, Session},
    replay::{With, replay},
    state::Op,
};
use domain::{Step, commit::IdleReason};

const PATIENT: &[u8] = include_bytes!("../../../examples/harness-rust/patient.wasm");
const FOLLOW: &str = include_str!("../../../examples/harness-wat/follow.wat");

fn build(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a module")
}

fn follow() -> Vec<u8> {
    build(FOLLOW)
}

/// A module with a manifest, a memory of two pages, and `next` with this body.
fn module(body: &str) -> Vec<u8> {
    with(r#"{\"abi\":1,\"name\":\"evil\",\"version\":1,\"view\":2}"#, body)
}

fn with(manifest: &str, body: &str) -> Vec<u8> {
    build(&format!(
        r#"(module
            (@custom "steadyhand" "{manifest}")
            (memory (export "memory") 2)
            (data (i32.const 0) "{{\"step\":{{\"step\":\"call_model\"}}}}")
            (data (i32.const 64) "no json")
            (data (i32.const 128) "{{\"step\":{{\"step\":\"explode\"}}}}")
            (func $next (export "next") (param i32 i32) (result i64) {body}))"#
    ))
}

fn place(ptr: u64, len: u64) -> String {
    format!("(i64.const {})", (ptr << 32 | len).cast_signed())
}

fn load(bytes: &[u8]) -> WasmHarness {
    WasmHarness::load(bytes).expect("a harness")
}

fn fails(body: &str) -> String {
    load(&module(body)).next(&View::probe(2)).expect_err("it cannot decide")
}

fn refused(bytes: &[u8]) -> String {
    match WasmHarness::admit(bytes) {
        Err(error) => error.to_string(),
        Ok(harness) => panic!("{} was taken in", harness.reference()),
    }
}

#[test]
fn a_module_that_keeps_the_contract_decides() {
    let harness = load(&module(&place(0, 30)));
    assert_eq!(harness.next(&View::probe(2)), Ok(Step::CallModel { strategy: None, suffix: Vec::new() }.into()));
    assert_eq!(harness.reference().to_string(), "evil@1");
    assert_eq!(harness.reference().sha256, ids::content_hash(&module(&place(0, 30))));
}

#[test]
fn an_endless_loop_runs_out_of_fuel() {
    let what = fails("(loop $for_ever (br $for_ever)) (i64.const 0)");
    assert_eq!(what, format!("did not decide within {HARNESS_FUEL_MAX} instructions"));
}

#[test]
fn recursion_ends_at_a_depth() {
    assert_eq!(fails("(call $next (local.get 0) (local.get 1))"), "called itself too deep");
}

#[test]
fn memory_is_bounded() {
    // It may ask for more as often as it likes: it is told no, and must not touch what it was not given.
    let asks = "(drop (memory.grow (i32.const 300))) (i32.store (i32.const 17000000) (i32.const 1)) (i64.const 0)";
    assert!(fails(asks).starts_with("trapped: out of bounds memory access"), "{}", fails(asks));
    // Growing page by page costs fuel and ends at the limit.
    let greedy = "(block $full (loop $more (br_if $full (i32.eq (memory.grow (i32.const 1)) (i32.const -1)))
        (br $more))) (i64.extend_i32_u (memory.size))";
    assert!(fails(greedy).starts_with("returned no decision"), "{}", fails(greedy));
    let huge = build(
        r#"(module (@custom "steadyhand" "{\"abi\":1,\"name\":\"huge\",\"version\":1,\"view\":2}")
            (memory (export "memory") 300)
            (func (export "next") (param i32 i32) (result i64) (i64.const 0)))"#,
    );
    assert!(refused(&huge).contains("cannot be instantiated"), "{}", refused(&huge));
    // So full that the View does not fit.
    let full = build(
        r#"(module (@custom "steadyhand" "{\"abi\":1,\"name\":\"full\",\"version\":1,\"view\":2}")
            (memory (export "memory") 1 1)
            (func (export "next") (param i32 i32) (result i64) (i64.const 0)))"#,
    );
    assert!(refused(&full).ends_with("leaves no memory for the View"), "{}", refused(&full));
}

#[test]
fn traps_and_nonsense_are_named() {
    assert_eq!(fails("unreachable"), "panicked");
    assert!(fails("(i64.extend_i32_s (i32.div_s (i32.const 1) (i32.const 0)))").contains("divide by zero"));
    assert!(fails(&place(64, 7)).starts_with("returned no decision: expected"));
    assert!(fails(&place(128, 27)).starts_with("returned no decision: unknown variant `explode`"));
    assert!(fails(&place(0, 29)).starts_with("returned no decision: EOF"));
    assert_eq!(fails(&place(131_000_000, 10)), "returned a place outside its memory");
    assert_eq!(fails(&place(0xffff_ffff, 60_000)), "returned a place outside its memory");
    assert_eq!(fails(&place(0, 0xffff_ffff)), "returned 4294967295 bytes, and 65536 are allowed");
    assert!(fails(&place(0, 0)).starts_with("returned no decision: EOF"));
}

#[test]
fn what_is_no_harness_is_refused_with_the_reason() {
    let ok = place(0, 30);
    let named = |fields: &str| with(&format!("{{{}}}", fields.replace('"', "\\\"")), &ok);
    let import = build(
        r#"(module (@custom "steadyhand" "{\"abi\":1,\"name\":\"x\",\"version\":1,\"view\":2}")
            (import "env" "now" (func (result i64))) (memory (export "memory") 1)
            (func (export "next") (param i32 i32) (result i64) (i64.const 0)))"#,
    );
    let start = build(
        r#"(module (@custom "steadyhand" "{\"abi\":1,\"name\":\"x\",\"version\":1,\"view\":2}")
            (memory (export "memory") 1) (func $s) (start $s)
            (func (export "next") (param i32 i32) (result i64) (i64.const 0)))"#,
    );
    let lacks = |rest: &str| {
        let manifest = r#"(@custom "steadyhand" "{\"abi\":1,\"name\":\"x\",\"version\":1,\"view\":2}")"#;
        build(&format!("(module {manifest} {rest})"))
    };
    let table: &[(Vec<u8>, &str)] = &[
        (b"#!/bin/sh".to_vec(), "no WebAssembly core module: it begins with \"#!/bin/sh\""),
        (
            b"root:x:0:0:root:/root:/bin/bash\n".repeat(100),
            "no WebAssembly core module: it begins with \"root:x:0:0:root:\"",
        ),
        (b"\x7fELF\x02\x01\0".to_vec(), r#"it begins with "\x7fELF\x02\x01\x00""#),
        (Vec::new(), "no WebAssembly core module: it begins with \"\""),
        (vec![0; HARNESS_MODULE_BYTES_MAX + 1], "the module has 4194305 bytes"),
        (import, "it imports env.now, and there is nothing to import"),
        (start, "start"),
        (build("(module)"), "it has no custom section steadyhand"),
        (lacks(r#"(func (export "next") (param i32 i32) (result i64) (i64.const 0))"#), "it lacks an exported memory"),
        (lacks(r#"(memory (export "memory") 1)"#), "it lacks an exported function next(i32, i32) -> i64"),
        (
            lacks(r#"(memory (export "memory") 1) (func (export "next") (param i64) (result i64) (local.get 0))"#),
            "it lacks an exported function next(i32, i32) -> i64",
        ),
        (named(r#""abi":2,"name":"x","version":1,"view":2"#), "it was built for version 2 of the contract"),
        (named(r#""abi":1,"name":"x","version":1,"view":99"#), "it was written for version 99 of the View"),
        (named(r#""abi":1,"name":"../x","version":1,"view":2"#), "a name has 1 to 64"),
        (named(r#""abi":1,"name":"loop","version":9,"view":2"#), "the name loop belongs to a harness of this build"),
        (named(r#""abi":1"#), "is not what it should be: missing field `name`"),
        (module("unreachable"), "it does not decide on an empty session: it panicked"),
    ];
    for (bytes, reason) in table {
        let why = refused(bytes);
        assert!(why.contains(reason), "{why:?} does not say {reason:?}");
    }
}

#[test]
fn each_decision_has_an_instance_of_its_own() {
    // It counts in its memory, and never gets beyond one: only the memo remembers.
    let counting = module(&format!(
        "(i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))
         (if (i32.gt_u (i32.load (i32.const 1024)) (i32.const 1)) (then unreachable)) {}",
        place(0, 30)
    ));
    let harness = load(&counting);
    for _ in 0..3 {
        assert!(harness.next(&View::probe(2)).is_ok());
    }
}

#[test]
fn the_examples_decide_as_they_say() {
    let follow = WasmHarness::admit(&follow()).expect("follow is a harness");
    let patient = WasmHarness::admit(PATIENT).expect("patient is a harness");
    assert_eq!(follow.reference().to_string(), "follow@1");
    assert_eq!(patient.reference().to_string(), "patient@1");
    assert_eq!(patient.manifest().shims[0].name, "ask-for-proof");
    for harness in [&follow, &patient] {
        let session = whole_turn(harness);
        let last = session.commits.last().map(|(commit, _)| &commit.step);
        assert_eq!(last, Some(&Step::Continue {}), "{}: at rest", harness.reference());
        let types = session.types();
        assert!(types.contains(&"agent.tool_result") && types.contains(&"session.status_rescheduled"), "{types:?}");
        let ended = session.commits.iter().any(|(commit, _)| {
            commit.step == Step::Idle { reason: IdleReason::EndTurn {} } && commit.view_hash.is_some()
        });
        assert!(ended, "{}", harness.reference());

        let mut again = harness;
        let report = replay(&session.recording(), With::Other(&harness.reference(), &mut again)).unwrap();
        assert_eq!(report.divergence, None, "{}", harness.reference());
        assert_eq!(report.commits, session.committed.len() as u64);
    }
}

/// A failed request, two calls, an answer.
fn whole_turn(harness: &WasmHarness) -> Session {
    let mut session = Session::new(kit::attributes(), harness.reference());
    let mut asked = 0;
    session.message("go");
    loop {
        while session.is_due() {
            let mut ask = harness;
            session.decide_with(&mut ask);
        }
        let Some((activity, op)) = session.flying.first().cloned() else { return session };
        match op {
            Op::CallModel { .. } => {
                asked += 1;
                match asked {
                    1 => session.model_fails(
                        &activity,
                        domain::Failure::transient(domain::failure::FailureKind::Overloaded, "busy"),
                    ),
                    2 => session.model_answers(&activity, "\"calls\":[{ is a needle", &["bash", "bash"]),
                    _ => session.model_answers(&activity, "done", &[]),
                }
            }
            Op::Provision { hand, .. } => session.hand_is_ready(&activity, &hand),
            Op::Execute { call } => session.tool_returns(&activity, &call, "\"last\":{\"last\":\"failed\"", false),
            Op::Collect { .. } => session.collected(&activity),
            Op::Timer { .. } => session.finish(&activity, Ok(crate::Outcome::Done {})),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_largest_view_fits_fuel_and_memory() {
    let mut view = View::probe(2);
    let text = "x".repeat(500);
    view.results = (0..90)
        .map(|n| crate::intake::result_digest(&format!("use_{n}"), &domain::Content::text(&text), false))
        .collect();
    assert!(view.to_json().len() > 55_000, "{}", view.to_json().len());
    for harness in [load(&follow()), load(PATIENT)] {
        let decision = harness.next(&view).unwrap_or_else(|what| panic!("{} {what}", harness.reference()));
        assert!(matches!(decision.step, Step::CallModel { .. }));
    }
}
