use super::*;
use crate::kit::moment::moment;
use domain::{Failure, failure::FailureKind};

#[test]
fn a_turn_is_planned_acted_on_and_reviewed() {
    let mut session = moment();
    assert_eq!(session.told(&HARNESS), "call full: First write a plan: ");
    let mut session = session.answered("end_turn", "1. look");
    assert_eq!(session.told(&HARNESS), "call full: Now carry out the pl");
    let mut session = session.asks(&[("bash", "ls"), ("bash", "pwd")]);
    assert_eq!(session.told(&HARNESS), "execute use_0", "one call at a time");
    let mut session = session.results(&["a"]);
    assert_eq!(session.told(&HARNESS), "call full");
    let mut session = session.answered("end_turn", "Step 1 is done.");
    assert_eq!(session.told(&HARNESS), "call full: Go through the plan ");
    let mut session = session.answered("end_turn", "All there. PLAN COMPLETE");
    assert_eq!(session.told(&HARNESS), "idle end_turn");
    assert_eq!(session.turn(2).told(&HARNESS), "call full: First write a plan: ", "each turn has a plan of its own");
}

#[test]
fn a_model_that_is_never_content_is_left_after_three_reviews() {
    let mut session = moment();
    session.ask(&HARNESS);
    let mut told = Vec::new();
    for _ in 0..5 {
        session = session.answered("end_turn", "there is more");
        told.push(session.told(&HARNESS));
    }
    let review = "call full: Go through the plan ";
    assert_eq!(told, ["call full: Now carry out the pl", review, review, review, "idle end_turn"]);
}

#[test]
fn a_failed_request_is_made_again_as_it_was() {
    let mut session = moment();
    session.ask(&HARNESS);
    let mut session = session.failed(Failure::transient(FailureKind::Overloaded, "busy"), 1);
    assert_eq!(session.told(&HARNESS), "wait 1007 ! model_overloaded_error");
    let mut session = session.compactions(0);
    assert_eq!(session.told(&HARNESS), "call full: First write a plan: ");
}
