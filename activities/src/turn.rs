//! Which turn a decision belongs to, and the span of a turn that is over.
//!
//! A turn has no process of its own that could hold a span open while it lasts, so its span is made whole by the
//! decision that ends it. A decision that is made again (its workflow task failed) makes the same span again.

use domain::{Commit, EventBody, PrivateEntry, Status, Summary, Take, event::StopReason};
use tracing::{Span, info_span};
use workflows::contract::DecideInput;

/// A turn that a decision ended.
#[derive(Debug, PartialEq, Eq)]
struct Over {
    event: String,
    turn: u64,
    began_ms: i64,
    outcome: &'static str,
}

/// Says on the span of a decision which turn it belongs to, and makes the spans of the turns that it ends.
pub fn record(span: &Span, input: &DecideInput, commit: &Commit) {
    let (belongs, over) = turns(input, commit);
    if let Some(event) = belongs {
        span.record("turn_event", event);
    }
    for Over { event, turn, began_ms, outcome } in over {
        let agent_id = &input.state.summary.attributes.agent.agent_id;
        let session_id = &input.state.session_id;
        let error_type = (outcome == "retries_exhausted").then_some(outcome);
        info_span!(
            parent: None, "turn", session_id, turn, turn_event = event, began_ms, agent_id, outcome, error_type
        );
    }
}

/// The first event of the turn that the decision belongs to, and the turns that are over with it.
fn turns(input: &DecideInput, commit: &Commit) -> (Option<String>, Vec<Over>) {
    let before = &input.state.summary;
    // What a turn began may end after it: its outputs are collected, its hand is released.
    let is_part = is_on(before) || !input.intake.closed.is_empty();
    let mut summary = before.clone();
    let mut over = Vec::new();
    for take in &commit.takes {
        let running = is_on(&summary).then(|| (summary.began.clone(), summary.turn));
        // Attributes do not matter here, so their changes are not looked up.
        summary.take(take, commit.now, |_| None);
        if let Some((Some(began), turn)) = running
            && !is_on(&summary)
        {
            let (event, began_ms) = (began.event, began.at.as_ms());
            over.push(Over { event, turn, began_ms, outcome: outcome(take) });
        }
    }
    let belongs =
        if summary.began == before.began { before.began.as_ref().filter(|_| is_part) } else { summary.began.as_ref() };
    (belongs.map(|began| began.event.clone()), over)
}

/// A turn is on until the session goes idle: waiting for an answer from outside is part of it.
fn is_on(summary: &Summary) -> bool {
    summary.began.is_some() && !matches!(summary.status, Status::Idle | Status::Terminated)
}

/// How a turn ended, by what was taken last.
fn outcome(last: &Take) -> &'static str {
    match last {
        // Messages were waiting: the next turn begins without a pause.
        Take::Private { entry: PrivateEntry::TurnBegun {} } => "end_turn",
        Take::Inline { event, .. } => match &event.body {
            EventBody::SessionStatusIdle { stop_reason: StopReason::RetriesExhausted {}, .. } => "retries_exhausted",
            EventBody::SessionStatusIdle { stop_reason: StopReason::Refusal {}, .. } => "refusal",
            EventBody::SessionStatusTerminated {} => "terminated",
            _ => "end_turn",
        },
        _ => "end_turn",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::session::{Change, Mail};
    use harness::{SessionState, kit::Session, registry};

    /// What a decision belongs to, and which turns it ended.
    type Told = (Option<String>, Vec<(String, &'static str)>);

    /// Of each decision.
    fn told(session: &Session) -> Vec<Told> {
        let created = harness::kit::attributes();
        let mut state = SessionState::created(
            harness::kit::SESSION,
            domain::Time::from_ms(1_000),
            created,
            registry::default_harness(),
        );
        let mut told = Vec::new();
        for (commit, intake) in &session.commits {
            let input = DecideInput { state: state.clone(), intake: intake.clone() };
            let (belongs, over) = turns(&input, commit);
            assert!(over.iter().all(|over| over.began_ms > 1_000), "{over:?}");
            told.push((belongs, over.into_iter().map(|over| (over.event, over.outcome)).collect()));
            state.apply(commit, intake);
        }
        told
    }

    fn model(session: &Session) -> String {
        session.flying[0].0.clone()
    }

    #[test]
    fn decisions_belong_to_the_turn_that_caused_them() {
        let mut session = Session::default();
        let one = session.message("one");
        session.settle();
        let two = session.message("two");
        session.model_answers(&model(&session), "done", &[]);
        session.settle();
        session.model_answers(&model(&session), "done too", &[]);
        session.settle();
        let change = Change { title: Some(None), ..Change::of("chg_1") };
        session.mailbox.push(Mail::Change { change });
        session.settle();
        let none = Vec::new;
        assert_eq!(
            told(&session),
            [
                (Some(one.clone()), none()),
                // The next turn begins without a pause.
                (Some(two.clone()), vec![(one, "end_turn")]),
                (Some(two.clone()), none()),
                (Some(two.clone()), vec![(two, "end_turn")]),
                (None, none()),
            ]
        );
    }

    #[test]
    fn waiting_for_a_client_is_part_of_the_turn() {
        let mut session = Session::default();
        let one = session.message("one");
        session.settle();
        session.model_answers(&model(&session), "ask", &["lookup"]);
        session.settle();
        let asked = session.state.blocked[0].call.tool_use_id.clone();
        session.answer(&asked, "found");
        session.settle();
        session.interrupt();
        session.settle();
        let told = told(&session);
        assert!(told.iter().all(|(belongs, _)| *belongs == Some(one.clone())), "{told:?}");
        let over: Vec<_> = told.into_iter().flat_map(|(_, over)| over).collect();
        assert_eq!(over, [(one, "end_turn")]);
    }
}
