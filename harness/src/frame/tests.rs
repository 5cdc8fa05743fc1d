//! The frame under every schedule: signals, interrupts and completions in any order, late and doubled ones too.
//!
//! A failing schedule prints its seed; `SEED=n cargo test -p steadyhand-harness schedules` runs that one.

use crate::{kit::Session, state::Op};
use domain::{
    EventBody, Failure, Status, Step, commit::Closed, event::StopReason, failure::FailureKind, session::LogEntry,
};
use std::collections::{BTreeMap, BTreeSet};

/// Small, fast and the same everywhere (xorshift64*).
struct Lot(u64);

impl Lot {
    fn new(seed: u64) -> Self {
        Lot(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const SCHEDULES: u64 = 600;
const STEPS: usize = 120;

#[test]
#[expect(clippy::disallowed_methods, reason = "whoever reruns a failing schedule names its seed")]
fn schedules() {
    match std::env::var("SEED") {
        Ok(seed) => play(seed.parse().expect("SEED is a number")),
        Err(_) => {
            for seed in 0..SCHEDULES {
                let played = std::panic::catch_unwind(|| play(seed));
                assert!(played.is_ok(), "rerun: SEED={seed} cargo test -p steadyhand-harness schedules");
            }
        }
    }
}

fn play(seed: u64) {
    let mut lot = Lot::new(seed);
    let mut session = Session::default();
    // What was in flight once and was taken back: it may still complete.
    let mut gone: Vec<(String, Op)> = Vec::new();
    for _ in 0..STEPS {
        act(&mut lot, &mut session, &mut gone);
        // The shell decides when it gets to it: often at once, sometimes after more has arrived.
        if session.is_due() && !lot.one_in(3) {
            let before = session.flying.clone();
            let commit = session.decide();
            let left = before.into_iter().filter(|(activity, _)| session.state.pending(activity).is_none());
            gone.extend(left);
            check(&session, &commit.step);
        }
    }
    finish(&mut session);
    check_rest(&session);
    check_fold(&session);
}

/// Something happens.
fn act(lot: &mut Lot, session: &mut Session, gone: &mut Vec<(String, Op)>) {
    match lot.below(12) {
        0 | 1 => {
            session.message("hello");
        }
        2 if lot.one_in(3) => {
            session.interrupt();
        }
        3 if lot.one_in(20) => session.close(),
        4 | 5 => {
            let uses = open_uses(&session.log);
            if !uses.is_empty() {
                let id = uses[lot.below(uses.len())].clone();
                if lot.one_in(2) {
                    session.answer(&id, "answer");
                } else {
                    let allow = lot.one_in(2);
                    session.confirm(&id, allow);
                }
            }
        }
        6 if lot.one_in(3) && !gone.is_empty() => {
            // A late completion of something that nobody waits for any more.
            let (activity, op) = gone.swap_remove(lot.below(gone.len()));
            complete(lot, session, &activity, &op);
        }
        _ => {
            if !session.flying.is_empty() {
                let (activity, op) = session.flying[lot.below(session.flying.len())].clone();
                complete(lot, session, &activity, &op);
            }
        }
    }
}

fn complete(lot: &mut Lot, session: &mut Session, activity: &str, op: &Op) {
    if lot.one_in(15) {
        let message = "worker lost".to_owned();
        return session.finish(activity, Err(Closed::Failed { message }));
    }
    match op {
        Op::CallModel { .. } => match lot.below(8) {
            0 => session.model_fails(activity, Failure::transient(FailureKind::Overloaded, "busy")),
            1 => session.model_fails(activity, Failure::permanent(FailureKind::Authentication, "no")),
            2 => session.model_answers(activity, "", &["bash"]),
            3 => session.model_answers(activity, "several", &["bash", "write", "lookup", "bash"]),
            4 => session.model_answers(activity, "", &["write", "nonsense"]),
            5 => session.model_answers(activity, "custom", &["lookup", "lookup"]),
            _ => session.model_answers(activity, "done", &[]),
        },
        Op::Execute { call } => {
            let lost = lot.one_in(10);
            session.tool_returns(activity, call, "output", lost);
        }
        Op::Provision { hand } => {
            if lot.one_in(6) {
                session.hand_fails(activity);
            } else {
                session.hand_is_ready(activity, hand);
            }
        }
        Op::Timer { .. } | Op::Release {} => session.finish(activity, Ok(crate::Outcome::Done {})),
        Op::Collect {} => session.collected(activity),
        Op::Seal { .. } => unreachable!("the kit has one run"),
    }
}

/// Lets everything that is under way end well.
fn finish(session: &mut Session) {
    for _ in 0..1_000 {
        session.settle();
        let Some((activity, op)) = session.flying.first().cloned() else { return };
        match &op {
            Op::CallModel { .. } => session.model_answers(&activity, "done", &[]),
            Op::Execute { call } => session.tool_returns(&activity, call, "output", false),
            Op::Provision { hand } => session.hand_is_ready(&activity, hand),
            Op::Collect {} => session.collected(&activity),
            Op::Timer { .. } | Op::Release {} | Op::Seal { .. } => {
                session.finish(&activity, Ok(crate::Outcome::Done {}));
            }
        }
    }
    panic!("the session does not come to rest");
}

fn use_ids(log: &[LogEntry]) -> impl Iterator<Item = &str> {
    log.iter().filter_map(|entry| match &entry.event.body {
        EventBody::AgentToolUse { .. } | EventBody::AgentCustomToolUse { .. } => Some(entry.event.id.as_str()),
        _ => None,
    })
}

fn open_uses(log: &[LogEntry]) -> Vec<String> {
    use_ids(log).map(str::to_owned).collect()
}

/// Results that count, by use.
fn results(log: &[LogEntry]) -> BTreeMap<&str, usize> {
    let mut results = BTreeMap::new();
    for entry in log.iter().filter(|entry| !entry.ignored) {
        if let EventBody::AgentToolResult { tool_use_id: id, .. }
        | EventBody::UserCustomToolResult { custom_tool_use_id: id, .. } = &entry.event.body
        {
            *results.entry(id.as_str()).or_default() += 1;
        }
    }
    results
}

/// What holds after every commit.
fn check(session: &Session, step: &Step) {
    let log = &session.log;
    let types = session.types();
    let ids: BTreeSet<&str> = log.iter().map(|entry| entry.event.id.as_str()).collect();
    assert_eq!(ids.len(), log.len(), "an event is in the log once");
    assert_eq!(session.state.summary.position, log.len() as u64, "positions are dense");
    let mut last = None;
    for entry in log {
        assert!(entry.event.processed_at >= last, "stamps do not go back");
        last = entry.event.processed_at;
    }
    for (at, name) in types.iter().enumerate() {
        if *name == "session.status_idle" {
            assert_eq!(types[at - 1], "session.usage", "usage directly before idle");
        }
    }
    let starts = types.iter().filter(|name| **name == "span.model_request_start").count();
    let ends = types.iter().filter(|name| **name == "span.model_request_end").count();
    let open = session.state.pending.iter().filter(|pending| matches!(pending.op, Op::CallModel { .. })).count();
    assert!(open <= 1, "one model request at a time");
    assert_eq!(starts, ends + open, "every span has one end");
    let results = results(log);
    assert!(results.values().all(|count| *count == 1), "a call has one result that counts");
    if matches!(step, Step::CallModel { .. }) {
        check_request(session);
    }
}

/// What a provider demands of a request: every use is answered by the very next message, and nothing else is.
fn check_request(session: &Session) {
    let request = session.request();
    let messages = request["messages"].as_array().expect("a request has messages");
    for (at, message) in messages.iter().enumerate() {
        let uses: BTreeSet<&str> = message["content"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == "tool_use")
            .filter_map(|block| block["id"].as_str())
            .collect();
        let answered: BTreeSet<&str> = messages
            .get(at + 1)
            .and_then(|next| next["content"].as_array())
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == "tool_result")
            .filter_map(|block| block["tool_use_id"].as_str())
            .collect();
        assert_eq!(uses, answered, "message {at}");
    }
    assert_eq!(messages.last().map(|last| &last["role"]), Some(&serde_json::json!("user")));
}

/// Replay gives the same state, and every decision comes out the same again.
fn check_fold(session: &Session) {
    let mut state = Session::default().state;
    for (commit, intake) in &session.commits {
        let wanted = state.summary.harness.clone();
        let again = crate::decide(&state, intake, &mut |view| {
            Ok((crate::registry::find(&wanted).expect("the default harness is there").next)(view))
        });
        assert_eq!(again, *commit, "decision {} is the same again", commit.n);
        state.apply(commit, intake);
    }
    assert_eq!(state, session.state);
}

fn check_rest(session: &Session) {
    let status = session.state.summary.status;
    assert!(status.is_idle() || status == Status::Terminated, "at rest: {status:?}");
    assert!(session.state.pending.is_empty());
    assert!(session.mailbox.is_empty() || status == Status::RequiresAction, "{status:?} with {:?}", session.mailbox);
    let results = results(&session.log);
    let unanswered: Vec<&str> = use_ids(&session.log).filter(|id| !results.contains_key(id)).collect();
    let asked: Vec<String> = session.state.blocked.iter().map(|blocked| blocked.call.tool_use_id.clone()).collect();
    assert_eq!(unanswered, asked.iter().map(String::as_str).collect::<Vec<_>>(), "open calls are asked for");
    if status == Status::RequiresAction {
        let stop = session.log.iter().rev().find_map(|entry| match &entry.event.body {
            EventBody::SessionStatusIdle { stop_reason: StopReason::RequiresAction { event_ids }, .. } => {
                Some(event_ids)
            }
            _ => None,
        });
        assert!(stop.is_some(), "it says what it waits for");
    }
}

#[test]
fn a_missing_harness_ends_the_turn_and_a_message_starts_over() {
    let mut session = Session::default();
    session.message("go");
    session.state.summary.harness.sha256 = "0".repeat(64);
    session.settle();
    let types = session.types();
    assert!(types.contains(&"session.error"), "{types:?}");
    assert_eq!(types.last(), Some(&"session.status_idle"));
    assert!(session.flying.is_empty());
}

#[test]
fn of_a_lost_tool_worker_the_model_is_told() {
    let mut session = Session::default();
    session.message("go");
    session.settle();
    let model = session.flying[0].0.clone();
    session.model_answers(&model, "", &["bash"]);
    session.settle();
    let (provision, Op::Provision { hand }) = session.flying[0].clone() else { panic!("a hand is made") };
    session.hand_is_ready(&provision, &hand);
    session.settle();
    let execute = session.flying[0].0.clone();
    session.finish(&execute, Err(Closed::Failed { message: "schedule to start".to_owned() }));
    session.settle();
    let told = session.log.iter().any(|entry| match &entry.event.body {
        EventBody::AgentToolResult { content, is_error, .. } => {
            *is_error == Some(true) && format!("{content:?}").contains("lost")
        }
        _ => false,
    });
    assert!(told);
    assert!(session.flying.iter().any(|(_, op)| matches!(op, Op::CallModel { .. })), "the turn goes on");
}
