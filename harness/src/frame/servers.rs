//! MCP servers that live in a session's hands: asked where they live once the hand is there, and called as its other tools are.

use crate::{
    frame::Ask,
    kit::{self, Session},
    registry,
    replay::{With, replay},
    state::Op,
};
use domain::{EventBody, HandName, agent::HarnessRef, commit::Closed, event::ErrorKind, outcome::ListOutcome};

fn build() -> HandName {
    HandName::other("build").unwrap()
}

/// One with a server in each of these hands, and one out in the network if `outside`. It was just sent a message.
fn begun(hand: &HandName, outside: bool) -> Session {
    let mut attributes = kit::attributes();
    attributes.agent.hands = vec![build()];
    if outside {
        attributes = kit::with_server(attributes);
    }
    let mut session = Session::new(kit::with_server_in(attributes, hand), registry::default_harness());
    session.message("go");
    session.settle();
    session
}

fn the(session: &Session, is_meant: impl Fn(&Op) -> bool) -> (String, Op) {
    session.flying.iter().find(|(_, op)| is_meant(op)).cloned().unwrap_or_else(|| panic!("{:?}", session.flying))
}

fn has(session: &Session, is_meant: impl Fn(&Op) -> bool) -> bool {
    session.flying.iter().any(|(_, op)| is_meant(op))
}

fn is_list(op: &Op) -> bool {
    matches!(op, Op::ListTools { .. })
}

fn is_model(op: &Op) -> bool {
    matches!(op, Op::CallModel { .. })
}

fn provision(session: &mut Session, wanted: &HandName) {
    let (activity, op) = the(session, |op| matches!(op, Op::Provision { name, .. } if name == wanted));
    let Op::Provision { hand, .. } = op else { unreachable!() };
    session.hand_is_ready(&activity, &hand);
    session.settle();
}

/// Servers that a `session.error` was said of, in order.
fn failed(session: &Session) -> Vec<String> {
    let failed = session.log.iter().filter_map(|entry| match &entry.event.body {
        EventBody::SessionError { error } => match &error.kind {
            ErrorKind::McpConnectionFailed { mcp_server_name } => Some(mcp_server_name.clone()),
            other => panic!("{other:?}"),
        },
        _ => None,
    });
    failed.collect()
}

fn check_replay(session: &Session) {
    let mut own = |wanted: &HarnessRef| registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>);
    let report = replay(&session.recording(), With::Own(&mut own)).unwrap();
    assert_eq!(report.divergence, None);
}

#[test]
fn a_server_is_asked_in_its_hand_before_the_model_and_called_there() {
    for hand in [HandName::default(), build()] {
        let mut session = begun(&hand, false);
        assert!(!has(&session, is_list) && !has(&session, is_model), "the hand comes first: {:?}", session.flying);
        provision(&mut session, &hand);
        let (list, op) = the(&session, is_list);
        assert!(matches!(op, Op::ListTools { hand: Some(asked) } if asked == hand));
        assert!(!has(&session, is_model));
        session.inside_listed(&list, &hand);
        session.settle();
        let (model, _) = the(&session, is_model);
        session.model_answers(&model, "", &[&format!("{}@{hand}", kit::INSIDE_TOOL)]);
        session.settle();
        let (execute, op) = the(&session, |op| matches!(op, Op::Execute { .. }));
        assert_eq!(op.waits_for(), Some(&hand));
        let Op::Execute { call } = op else { unreachable!() };
        // Its hand is lost with it, as by any call that it runs.
        session.tool_returns(&execute, &call, "lost", true);
        session.settle();
        assert!(session.state.hand(&hand).is_none() && session.types().contains(&"agent.mcp_tool_result"));
        let (model, _) = the(&session, is_model);
        session.model_answers(&model, "done", &[]);
        session.settle();
        // It said so already: another turn asks nobody, and has no hand that nobody needs.
        session.message("go");
        session.settle();
        assert!(has(&session, is_model) && session.flying.len() == 1, "{:?}", session.flying);
        assert!(failed(&session).is_empty());
        check_replay(&session);
    }
}

#[test]
fn a_server_whose_hand_cannot_be_had_is_said_and_asked_again() {
    let mut session = begun(&HandName::default(), true);
    // The one that needs no hand is asked meanwhile.
    let (list, op) = the(&session, is_list);
    assert!(matches!(op, Op::ListTools { hand: None }));
    let (provision_activity, _) = the(&session, |op| matches!(op, Op::Provision { .. }));
    session.hand_fails(&provision_activity);
    session.settle();
    assert_eq!(failed(&session), ["local"]);
    session.tools_listed(&list, true);
    session.settle();
    let (model, _) = the(&session, is_model);
    session.model_answers(&model, "done", &[]);
    session.settle();

    session.message("go");
    session.settle();
    provision(&mut session, &HandName::default());
    let (list, op) = the(&session, is_list);
    assert!(matches!(op, Op::ListTools { hand: Some(_) }), "only who has not answered");
    // Its host does not answer: the hand is given up, and the turn goes on.
    session.finish(&list, Err(Closed::Failed { message: "nobody took it".to_owned() }));
    session.settle();
    assert_eq!(failed(&session), ["local", "local"]);
    assert!(has(&session, is_model) && session.state.hand(&HandName::default()).is_none());
    check_replay(&session);
}

#[test]
fn lists_come_one_after_the_other_as_each_adds_to_the_one_before() {
    let mut session = begun(&build(), true);
    provision(&mut session, &build());
    let lists = |session: &Session| session.flying.iter().filter(|(_, op)| is_list(op)).count();
    assert_eq!(lists(&session), 1);
    let (list, _) = the(&session, is_list);
    session.tools_listed(&list, true);
    session.settle();
    assert!(lists(&session) == 1 && !has(&session, is_model));
    let (list, op) = the(&session, is_list);
    assert!(matches!(op, Op::ListTools { hand: Some(_) }));
    session.inside_listed(&list, &build());
    session.settle();
    let agent = &session.state.summary.attributes.agent;
    for name in [kit::MCP_TOOL, kit::INSIDE_TOOL] {
        assert!(agent.tools.iter().any(|tool| tool.name == name), "{name}");
    }
    assert!(agent.mcp.iter().all(|server| server.listed) && has(&session, is_model));
    check_replay(&session);
}

#[test]
fn a_hand_that_is_gone_when_its_server_is_asked_is_given_up() {
    let mut session = begun(&HandName::default(), false);
    provision(&mut session, &HandName::default());
    let (list, _) = the(&session, is_list);
    session.list_ends(&list, ListOutcome { listed: None, problems: Vec::new(), hand_lost: true });
    session.settle();
    assert!(session.state.hand(&HandName::default()).is_none() && has(&session, is_model));
    check_replay(&session);
}

#[test]
fn an_interrupt_ends_the_asking() {
    let mut session = begun(&HandName::default(), false);
    session.interrupt();
    session.settle();
    assert!(
        session.flying.iter().all(|(_, op)| !is_list(op)) && session.types().last() == Some(&"session.status_idle")
    );
    check_replay(&session);
}
