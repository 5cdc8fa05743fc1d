//! A session with more than one hand: each is made, lost, kept and given by itself.

use crate::{
    frame::Ask,
    kit::{self, Session},
    registry,
    replay::{With, replay},
    state::Op,
};
use domain::{HandName, agent::HarnessRef, outcome::Call, session::Handed};

const AFTER_MS: u64 = 1_000;

fn build() -> HandName {
    HandName::other("build").unwrap()
}

/// One whose model has just called these, `bash` in the main hand and `bash@build` in the other.
fn called(calls: &[&str]) -> Session {
    let mut attributes = kit::attributes();
    attributes.tuning.park_after_ms = AFTER_MS;
    attributes.agent.hands = vec![build()];
    let mut session = Session::new(attributes, registry::default_harness());
    session.message("go");
    session.settle();
    answer(&mut session, "", calls);
    session
}

fn answer(session: &mut Session, text: &str, calls: &[&str]) {
    let (model, _) = the(session, |op| matches!(op, Op::CallModel { .. }));
    session.model_answers(&model, text, calls);
    session.settle();
}

/// What the shell has under way of that kind.
fn the(session: &Session, is_meant: impl Fn(&Op) -> bool) -> (String, Op) {
    session.flying.iter().find(|(_, op)| is_meant(op)).cloned().unwrap_or_else(|| panic!("{:?}", session.flying))
}

fn provision(session: &mut Session, wanted: &HandName) -> String {
    let (activity, op) = the(session, |op| matches!(op, Op::Provision { name, .. } if name == wanted));
    let Op::Provision { hand, .. } = op else { unreachable!() };
    session.hand_is_ready(&activity, &hand);
    session.settle();
    hand
}

fn running(session: &Session) -> Vec<Call> {
    let call = |op: &Op| match op {
        Op::Execute { call } => Some(call.clone()),
        _ => None,
    };
    session.flying.iter().filter_map(|(_, op)| call(op)).collect()
}

fn end_call(session: &mut Session, wanted: &HandName, hand_lost: bool) {
    let (activity, op) = the(session, |op| op.waits_for() == Some(wanted));
    let Op::Execute { call } = op else { unreachable!() };
    session.tool_returns(&activity, &call, "output", hand_lost);
    session.settle();
}

fn finish(session: &mut Session, is_meant: impl Fn(&Op) -> bool) {
    let (activity, _) = the(session, is_meant);
    session.finish(&activity, Ok(crate::Outcome::Done {}));
    session.settle();
}

/// A session at rest, with both hands.
fn rested() -> Session {
    let mut session = called(&["bash", "bash@build"]);
    for name in [HandName::default(), build()] {
        provision(&mut session, &name);
        end_call(&mut session, &name, false);
    }
    answer(&mut session, "done", &[]);
    for name in [HandName::default(), build()] {
        let (collect, _) = the(&session, |op| matches!(op, Op::Collect { name: asked } if *asked == name));
        session.collected(&collect);
    }
    session.settle();
    session
}

fn check_replay(session: &Session) {
    let mut own = |wanted: &HarnessRef| registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>);
    let report = replay(&session.recording(), With::Own(&mut own)).unwrap();
    assert_eq!(report.divergence, None);
}

#[test]
fn each_call_waits_for_its_own_hand_and_for_no_other() {
    let mut session = called(&["bash", "bash@build", "bash@build"]);
    assert!(running(&session).is_empty(), "{:?}", session.flying);
    let built = provision(&mut session, &build());
    let hands: Vec<HandName> = running(&session).iter().map(|call| call.hand.clone()).collect();
    assert_eq!(hands, [build(), build()], "the main hand is still being made");
    let main = provision(&mut session, &HandName::default());
    assert_eq!(running(&session).len(), 3);
    assert_ne!(main, built);
    assert_eq!(session.state.hand(&build()).map(|hand| &hand.hand), Some(&built));
    check_replay(&session);
}

#[test]
fn a_hand_that_nobody_named_is_not_made() {
    let session = called(&["bash@build"]);
    let made = session.flying.iter().filter(|(_, op)| matches!(op, Op::Provision { .. })).count();
    assert_eq!(made, 1);
    let session = called(&["bash"]);
    let (_, op) = the(&session, |op| matches!(op, Op::Provision { .. }));
    assert!(matches!(op, Op::Provision { name, .. } if name.is_main()));
}

#[test]
fn a_hand_that_is_lost_takes_no_other_with_it() {
    let mut session = called(&["bash", "bash@build"]);
    let main = provision(&mut session, &HandName::default());
    provision(&mut session, &build());
    end_call(&mut session, &build(), true);
    assert!(session.state.hand(&build()).is_none());
    assert_eq!(session.state.hand(&HandName::default()).map(|hand| &hand.hand), Some(&main));
    assert_eq!(running(&session).len(), 1, "what runs in the main hand goes on");
    end_call(&mut session, &HandName::default(), false);
    answer(&mut session, "", &["bash@build", "bash"]);
    provision(&mut session, &build());
    assert_eq!(running(&session).len(), 2);
    check_replay(&session);
}

#[test]
fn a_hand_that_cannot_be_made_fails_its_own_calls_alone() {
    let mut session = called(&["bash", "bash@build"]);
    let (failing, _) = the(&session, |op| matches!(op, Op::Provision { name, .. } if !name.is_main()));
    session.hand_fails(&failing);
    session.settle();
    provision(&mut session, &HandName::default());
    let hands: Vec<HandName> = running(&session).iter().map(|call| call.hand.clone()).collect();
    assert_eq!(hands, [HandName::default()]);
    check_replay(&session);
}

#[test]
fn hands_rest_together_and_each_is_kept_for_itself() {
    let mut session = rested();
    finish(&mut session, |op| matches!(op, Op::Rest { .. }));
    let (park, _) = the(&session, |op| matches!(op, Op::Park { name } if !name.is_main()));
    session.parked(&park);
    session.settle();
    assert!(session.state.summary.main.hand.is_some() && session.state.hand(&build()).is_none());
    assert!(session.state.summary.is_asking_hands(), "the main one is still being kept");
    session.message("more");
    session.settle();
    answer(&mut session, "", &["bash@build", "bash"]);
    provision(&mut session, &build());
    assert!(session.state.work(&build()).restored && !session.state.main.restored);
    let hands: Vec<HandName> = running(&session).iter().map(|call| call.hand.clone()).collect();
    assert_eq!(hands, [build()], "calls of the main one wait until it is kept");
    end_call(&mut session, &build(), false);
    assert!(!session.state.work(&build()).restored);
    check_replay(&session);
}

#[test]
fn one_hand_is_given_under_another_name_and_the_others_stay() {
    let mut session = rested();
    let main = session.state.hand(&HandName::default()).cloned();
    let to_name = HandName::other("theirs").unwrap();
    session.give_as(&build(), &to_name);
    session.settle();
    let (park, op) = the(&session, |op| matches!(op, Op::Park { .. }));
    assert!(matches!(op, Op::Park { name } if name == build()));
    assert!(session.flying.iter().any(|(_, op)| matches!(op, Op::Rest { .. })), "the main one goes on resting");
    session.parked(&park);
    session.settle();
    finish(&mut session, |op| matches!(op, Op::Discard { .. }));
    let (activity, op) = the(&session, |op| matches!(op, Op::Hand { .. }));
    let Op::Hand { handed, .. } = op else { unreachable!() };
    assert_eq!((&handed.name, &handed.from_name), (&to_name, &build()));
    assert!(session.state.summary.held(&build()).is_some_and(domain::Held::is_without));
    assert_eq!(session.state.hand(&HandName::default()).cloned(), main);
    // The other session is over: it is this one's again, under its own name.
    let how = domain::commit::Closed::Failed { message: "it is over".to_owned() };
    session.finish(&activity, Err(how));
    session.settle();
    assert!(
        session.state.summary.others[&build()].parked.is_some() && !session.state.summary.others.contains_key(&to_name)
    );
    finish(&mut session, |op| matches!(op, Op::Rest { .. }));
    the(&session, |op| matches!(op, Op::Park { name } if name.is_main()));
    check_replay(&session);
}

#[test]
fn what_comes_for_a_name_that_is_taken_goes_back_and_for_another_stays() {
    let mut session = rested();
    session.handed_as(&build(), false);
    session.settle();
    let (_, op) = the(&session, |op| matches!(op, Op::Hand { .. }));
    assert!(
        matches!(op, Op::Hand { handed: Handed { returned: true, name, .. }, .. } if name.is_main()),
        "as it was called there"
    );
    let other = HandName::other("third").unwrap();
    session.handed_as(&other, false);
    session.settle();
    assert_eq!(
        session.state.summary.others[&other].parked.as_ref().map(|parked| parked.hand.as_str()),
        Some("hand_other")
    );
    check_replay(&session);
}

#[test]
fn all_hands_are_released_with_their_session() {
    let mut session = rested();
    session.close();
    session.settle();
    let released: Vec<HandName> = session
        .flying
        .iter()
        .filter_map(|(_, op)| match op {
            Op::Release { name } => Some(name.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(released, [HandName::default(), build()]);
    for _ in 0..2 {
        finish(&mut session, |op| matches!(op, Op::Release { .. }));
    }
    assert!(!session.state.summary.has_any_hand() && session.flying.is_empty());
}
