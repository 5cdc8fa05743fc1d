use super::*;
use crate::kit::moment::{Moment, moment};

/// Each line a moment and what becomes of it.
fn check(table: &mut [(Moment, &str)]) {
    for (line, (moment, expect)) in table.iter_mut().enumerate() {
        assert_eq!(moment.told(&HARNESS), *expect, "line {line}");
    }
}

fn overloaded() -> Failure {
    Failure::transient(FailureKind::Overloaded, "busy")
}

fn too_long() -> Failure {
    Failure::permanent(FailureKind::ContextLength, "too long")
}

#[test]
fn it_loops() {
    check(&mut [
        (moment(), "call compact"),
        (moment().asks(&[("bash", "ls"), ("bash", "pwd")]), "execute use_0 use_1"),
        (moment().asks(&[("bash", "ls")]).results(&["a"]), "call compact"),
        (moment().answered("end_turn", "done"), "idle end_turn"),
        (moment().answered("pause_turn", "hm"), "call compact"),
        (moment().answered("refusal", ""), "idle refusal"),
        (moment().failed(overloaded(), 1), "wait 1007 ! model_overloaded_error"),
        (moment().failed(overloaded(), 8), "idle retries_exhausted ! model_overloaded_error"),
        (moment().strategy("window"), "call"),
    ]);
}

#[test]
fn room_is_made_before_the_window_is_full() {
    check(&mut [
        (moment().filled(74), "call compact"),
        (moment().filled(75), "compact reset"),
        (moment().filled(79).without("context-reset"), "call compact"),
        (moment().filled(80).without("context-reset"), "compact compact"),
        (moment().filled(99).without("context-reset").without("compaction"), "call compact"),
        (moment().filled(99).strategy("window"), "call"),
        (moment().filled(90).compactions(3), "idle retries_exhausted ! compaction_limit_reached_error"),
        (moment().failed(too_long(), 1), "compact compact"),
        (moment().failed(too_long(), 4), "idle retries_exhausted ! compaction_limit_reached_error"),
        (moment().failed(too_long(), 1).without("compaction"), "idle retries_exhausted ! model_request_failed_error"),
    ]);
}

#[test]
fn after_a_reset_requests_are_made_from_the_hand_off() {
    let mut session = moment().filled(80);
    assert_eq!(session.told(&HARNESS), "compact reset");
    let mut session = session.filled(2).compactions(1);
    assert_eq!(session.told(&HARNESS), "call reset");
    let mut session = session.turn(2);
    assert_eq!(session.told(&HARNESS), "call reset", "also in later turns");
}

#[test]
fn old_results_are_cleared_in_leaps() {
    let params = |moment: &mut Moment| match moment.ask(&HARNESS).step {
        Step::CallModel { strategy: Some(strategy), .. } => strategy.params["clear"].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(params(&mut moment().filled(49)), Value::Null);
    assert_eq!(params(&mut moment().filled(50).without("clear-tool-results")), Value::Null);
    let mut session = moment().filled(50);
    assert_eq!(params(&mut session), json!({"before": 10, "keep": 5}));
    for round in 1..=ROUNDS_BETWEEN_CLEARINGS {
        let input = round.to_string();
        session = session.asks(&[("bash", &input)]);
        session.ask(&HARNESS);
        session = session.results(&[&input]);
        session = session.end(10 + round);
        let expect = if round == ROUNDS_BETWEEN_CLEARINGS { 10 + round } else { 10 };
        assert_eq!(params(&mut session)["before"], expect, "round {round}");
    }
}

#[test]
fn an_empty_answer_is_asked_about_twice_a_turn() {
    let mut session = moment().answered("end_turn", " ");
    assert_eq!(session.told(&HARNESS), "call compact: Your last answer was");
    let mut session = session.answered("end_turn", "");
    assert_eq!(session.told(&HARNESS), "call compact: Your last answer was");
    let mut session = session.answered("end_turn", "");
    assert_eq!(session.told(&HARNESS), "idle end_turn");
    let mut session = session.turn(2).answered("end_turn", "");
    assert_eq!(session.told(&HARNESS), "call compact: Your last answer was");
    let mut off = moment().answered("end_turn", "").without("nudge-on-empty");
    assert_eq!(off.told(&HARNESS), "idle end_turn");
}

#[test]
fn a_model_that_believes_to_be_short_of_room_is_told_otherwise() {
    let text = "I am running low on context, so I will continue in a future session.";
    check(&mut [
        (moment().filled(50).answered("end_turn", text), "call compact: There is no need to "),
        (moment().filled(10).answered("end_turn", text), "idle end_turn"),
        (moment().filled(50).answered("end_turn", "Everything is done."), "idle end_turn"),
        (moment().filled(50).answered("end_turn", text).without("wrap-up-prevention"), "idle end_turn"),
    ]);
}

/// Plays rounds of calls whose results are always the same; what each request is told.
fn play(inputs: impl Iterator<Item = &'static str>, mut session: Moment) -> Vec<String> {
    inputs
        .map(|input| {
            session = session.clone().asks(&[("bash", input)]);
            session.ask(&HARNESS);
            session = session.clone().results(&["same"]);
            session.told(&HARNESS)
        })
        .collect()
}

#[test]
fn calls_that_go_round_in_circles_are_told_and_then_ended() {
    let told = "call compact: You have made the sa";
    let end = "idle retries_exhausted ! tool_use_limit_reached_error";
    let one = play(std::iter::repeat_n("ls", 6), moment());
    assert_eq!(one, ["call compact", "call compact", told, "call compact", "call compact", end]);
    let two = play(["ls", "pwd"].into_iter().cycle().take(12), moment());
    assert_eq!(two.iter().position(|line| line == told), Some(5));
    assert_eq!(two.iter().position(|line| line == end), Some(11));
    let progress = play(["a", "b", "c", "d", "e", "f", "g", "h"].into_iter(), moment());
    assert!(progress.iter().all(|line| line == "call compact"), "{progress:?}");
    let off = play(std::iter::repeat_n("ls", 20), moment().without("loop-detection"));
    assert!(off.iter().all(|line| line == "call compact"), "{off:?}");
}

#[test]
fn every_switch_switches_its_shim() {
    // With everything off, what would wake each shim wakes none.
    let off = |moment: Moment| HARNESS.shims.iter().fold(moment, |moment, shim| moment.without(shim.name));
    check(&mut [
        (off(moment().filled(99)), "call compact"),
        (off(moment().answered("end_turn", "")), "idle end_turn"),
        (off(moment().filled(90).answered("end_turn", "no context window left")), "idle end_turn"),
        (off(moment().failed(too_long(), 1)), "idle retries_exhausted ! model_request_failed_error"),
    ]);
}
