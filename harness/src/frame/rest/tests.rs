//! A hand at rest, from the end of one turn into the next.

use crate::{
    frame::Ask,
    kit::{self, Session},
    registry,
    replay::{With, replay},
    state::Op,
};
use domain::{Failure, agent::HarnessRef, commit::Closed, failure::FailureKind, outcome::ParkOutcome};

const AFTER_MS: u64 = 1_000;

/// A session at rest, with a hand that did something.
fn rested() -> Session {
    let mut attributes = kit::attributes();
    attributes.tuning.park_after_ms = AFTER_MS;
    let mut session = Session::new(attributes, registry::default_harness());
    session.message("go");
    session.settle();
    use_hand(&mut session);
    session
}

/// A turn with one call, up to its end.
fn use_hand(session: &mut Session) {
    let mut called = false;
    while let Some((activity, op)) = session.flying.iter().find(|(_, op)| !matches!(op, Op::Rest { .. })).cloned() {
        match op {
            Op::CallModel { .. } if !called => {
                called = true;
                session.model_answers(&activity, "", &["bash"]);
            }
            Op::CallModel { .. } => session.model_answers(&activity, "done", &[]),
            Op::Provision { hand, .. } => session.hand_is_ready(&activity, &hand),
            Op::Execute { call } => session.tool_returns(&activity, &call, "output", false),
            Op::Collect { .. } => session.collected(&activity),
            Op::Discard { .. } => session.finish(&activity, Ok(crate::Outcome::Done {})),
            other => panic!("{other:?}"),
        }
        session.settle();
    }
}

fn flying(session: &Session) -> Vec<&'static str> {
    let name = |op: &Op| match op {
        Op::Rest { .. } => "rest",
        Op::Park { .. } => "park",
        Op::Discard { .. } => "discard",
        Op::Provision { .. } => "provision",
        Op::Execute { .. } => "execute",
        Op::CallModel { .. } => "model",
        Op::Hand { .. } => "hand",
        Op::Collect { .. } => "collect",
        other => panic!("{other:?}"),
    };
    session.flying.iter().map(|(_, op)| name(op)).collect()
}

fn the(session: &Session, wanted: &str) -> String {
    let at = flying(session).iter().position(|name| *name == wanted).unwrap_or_else(|| panic!("no {wanted}"));
    session.flying[at].0.clone()
}

fn end(session: &mut Session, op: &str) {
    let activity = the(session, op);
    session.finish(&activity, Ok(crate::Outcome::Done {}));
    session.settle();
}

fn check_replay(session: &Session) {
    let mut own = |wanted: &HarnessRef| registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>);
    let report = replay(&session.recording(), With::Own(&mut own)).unwrap();
    assert_eq!(report.divergence, None);
}

#[test]
fn a_hand_at_rest_is_kept_then_let_go_and_the_next_call_has_one_that_begins_with_it() {
    let mut session = rested();
    assert_eq!(flying(&session), ["rest"]);
    end(&mut session, "rest");
    assert_eq!(flying(&session), ["park"]);
    assert!(session.state.summary.main.hand.is_some(), "nothing is let go before it is kept");
    let park = the(&session, "park");
    session.parked(&park);
    session.settle();
    assert_eq!(flying(&session), ["discard"]);
    let parked = session.state.summary.main.parked.clone().expect("it is kept");
    assert!(session.state.summary.main.hand.is_none() && session.state.summary.main.parking.is_none());
    end(&mut session, "discard");

    session.message("more");
    session.settle();
    let model = the(&session, "model");
    session.model_answers(&model, "", &["bash"]);
    session.settle();
    let Some((provision, Op::Provision { hand, .. })) = session.flying.last().cloned() else {
        panic!("{:?}", session.flying)
    };
    assert_ne!(hand, parked.hand, "the old one is fenced off by its name");
    session.hand_is_ready(&provision, &hand);
    session.settle();
    assert!(session.state.summary.main.parked.is_none() && session.state.main.restored, "the model is to be told");
    use_hand(&mut session);
    assert!(!session.state.main.restored, "once");
    assert_eq!(flying(&session), ["rest"]);
    check_replay(&session);
}

#[test]
fn a_hand_that_is_still_asked_has_not_rested() {
    let mut attributes = kit::attributes();
    attributes.tuning.park_after_ms = AFTER_MS;
    let mut session = Session::new(attributes, registry::default_harness());
    session.message("go");
    session.settle();
    let model = the(&session, "model");
    session.model_answers(&model, "", &["bash"]);
    session.settle();
    let Some((provision, Op::Provision { hand, .. })) = session.flying.last().cloned() else {
        panic!("no hand is made")
    };
    session.hand_is_ready(&provision, &hand);
    session.settle();
    let Some((execute, Op::Execute { call })) = session.flying.last().cloned() else { panic!("no call runs") };
    session.tool_returns(&execute, &call, "output", false);
    session.settle();
    let model = the(&session, "model");
    session.model_answers(&model, "done", &[]);
    session.settle();
    let collect =
        session.flying.iter().find(|(_, op)| matches!(op, Op::Collect { .. })).expect("it is collected").0.clone();
    end(&mut session, "rest");
    assert!(!session.flying.iter().any(|(_, op)| matches!(op, Op::Park { .. })), "{:?}", session.flying);
    session.collected(&collect);
    session.settle();
    end(&mut session, "rest");
    assert_eq!(flying(&session), ["park"]);
    check_replay(&session);
}

#[test]
fn a_session_that_goes_on_has_its_hand_as_it_was() {
    let mut session = rested();
    let hand = session.state.summary.main.hand.clone();
    session.message("more");
    session.settle();
    assert_eq!(flying(&session), ["model"], "nobody waits for the end of the rest");
    use_hand(&mut session);
    assert_eq!(session.state.summary.main.hand, hand);
    // An interrupt later on has nothing to do with how the rest ended.
    session.message("even more");
    session.settle();
    session.interrupt();
    session.settle();
    check_replay(&session);
}

#[test]
fn calls_wait_until_what_is_in_the_hand_is_kept_and_have_a_new_one() {
    for outcome in ["parked", "kept", "gone"] {
        let mut session = rested();
        end(&mut session, "rest");
        session.message("more");
        session.settle();
        let model = the(&session, "model");
        session.model_answers(&model, "", &["bash"]);
        session.settle();
        assert_eq!(flying(&session), ["park"], "the call is given to nobody");
        let park = the(&session, "park");
        match outcome {
            "parked" => session.parked(&park),
            "gone" => session.park_ends(&park, ParkOutcome::Gone {}),
            _ => {
                let failure = Failure::transient(FailureKind::Internal, "no room");
                session.park_ends(&park, ParkOutcome::Kept { failure });
            }
        }
        session.settle();
        let expected: &[&str] = match outcome {
            "parked" => &["discard", "provision"],
            "gone" => &["provision"],
            _ => &["execute"],
        };
        assert_eq!(flying(&session), expected, "{outcome}");
        use_hand(&mut session);
        assert_eq!(session.types().last(), Some(&"session.status_idle"), "{outcome}");
        check_replay(&session);
    }
}

#[test]
fn a_session_that_is_closed_at_rest_releases_its_hand() {
    let mut session = rested();
    session.close();
    session.settle();
    assert!(matches!(session.flying.as_slice(), [(_, Op::Release { .. })]), "{:?}", session.flying);
}

#[test]
fn sessions_without_a_hand_or_of_earlier_releases_do_not_rest() {
    let mut attributes = kit::attributes();
    let mut session = Session::new(attributes.clone(), registry::default_harness());
    session.message("go");
    session.settle();
    use_hand(&mut session);
    assert!(session.flying.is_empty(), "it was made before hands were parked");
    attributes.tuning.park_after_ms = AFTER_MS;
    let mut session = Session::new(attributes, registry::default_harness());
    session.message("go");
    session.settle();
    let model = the(&session, "model");
    session.model_answers(&model, "hello", &[]);
    session.settle();
    assert!(session.flying.is_empty(), "there is nothing to park");
}

/// Whom `op` tells what.
fn telling(session: &Session) -> (String, domain::session::Handed) {
    match session.flying.iter().find(|(_, op)| matches!(op, Op::Hand { .. })) {
        Some((_, Op::Hand { to, handed })) => (to.clone(), handed.clone()),
        _ => panic!("nobody is told: {:?}", session.flying),
    }
}

fn end_telling(session: &mut Session, how: Result<crate::Outcome, Closed>) {
    let activity = session.flying.iter().find(|(_, op)| matches!(op, Op::Hand { .. })).expect("it is told").0.clone();
    session.finish(&activity, how);
    session.settle();
}

#[test]
fn a_hand_is_kept_before_another_session_is_told_of_it() {
    let mut session = rested();
    let hand = session.state.summary.main.hand.clone().expect("it has one");
    session.give();
    session.settle();
    assert_eq!(flying(&session), ["park"], "nobody waits for the end of the rest");
    let park = the(&session, "park");
    session.parked(&park);
    session.settle();
    end(&mut session, "discard");
    let (to, handed) = telling(&session);
    assert_eq!((to.as_str(), &handed.hand, handed.returned), ("sesn_other", &hand.hand, false));
    end_telling(&mut session, Ok(crate::Outcome::Done {}));
    assert!(
        session.flying.is_empty() && session.state.summary.main.parked.is_none() && session.state.main.giving.is_none()
    );
    check_replay(&session);
}

#[test]
fn a_hand_that_nobody_takes_is_the_sessions_again() {
    let mut session = rested();
    end(&mut session, "rest");
    let park = the(&session, "park");
    session.parked(&park);
    session.settle();
    end(&mut session, "discard");
    session.give();
    session.settle();
    end_telling(&mut session, Err(Closed::Failed { message: "it is over".to_owned() }));
    assert!(session.state.summary.main.parked.is_some());
    check_replay(&session);
}

#[test]
fn without_a_hand_or_with_one_that_cannot_be_kept_nothing_is_given() {
    let mut session = Session::new(kit::attributes(), registry::default_harness());
    session.give();
    session.settle();
    assert!(session.flying.is_empty() && session.state.main.giving.is_none() && !session.is_due());
    check_replay(&session);
    let mut session = rested();
    session.give();
    session.settle();
    let park = the(&session, "park");
    let failure = Failure::transient(FailureKind::Internal, "no room");
    session.park_ends(&park, ParkOutcome::Kept { failure });
    session.settle();
    assert!(session.state.summary.main.hand.is_some() && session.state.main.giving.is_none(), "it is still there");
    assert!(session.flying.is_empty(), "and not tried for ever: {:?}", session.flying);
    check_replay(&session);
}

#[test]
fn a_session_without_a_hand_takes_what_comes_and_one_with_a_hand_sends_it_back_once() {
    let mut session = Session::new(kit::attributes(), registry::default_harness());
    session.handed(false);
    session.settle();
    assert_eq!(session.state.summary.main.parked.as_ref().map(|parked| parked.hand.as_str()), Some("hand_other"));
    session.message("go");
    session.settle();
    use_hand(&mut session);
    assert!(session.state.summary.main.hand.is_some() && session.state.summary.main.parked.is_none());
    session.handed(false);
    session.settle();
    let (to, handed) = telling(&session);
    assert!(to == "sesn_other" && handed.returned);
    end_telling(&mut session, Err(Closed::Failed { message: "it is over".to_owned() }));
    session.handed(true);
    session.settle();
    assert!(session.flying.is_empty(), "it goes back and forth: {:?}", session.flying);
    check_replay(&session);
}
