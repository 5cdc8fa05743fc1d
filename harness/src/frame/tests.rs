//! The frame under every schedule: signals, interrupts and completions in any order, late and doubled ones too.
//!
//! A failing schedule prints its seed; `SEED=n cargo test -p steadyhand-harness schedules` runs that one.

use crate::{
    HARNESSES,
    frame::Ask,
    kit::{self, Session},
    registry,
    replay::{With, replay, walk},
    state::Op,
};
use domain::{
    EventBody, Failure, PrivateEntry, Status, Step, Take, agent::HarnessRef, commit::Closed, event::StopReason,
    failure::FailureKind, outcome::ParkOutcome, session::LogEntry,
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
    let harness = &HARNESSES[seed as usize % HARNESSES.len()];
    let mut attributes = kit::attributes();
    // A narrow window: some answers fill it, and whoever makes room has to.
    attributes.agent.window_tokens = 1_000;
    if lot.one_in(2) {
        attributes = kit::with_server(attributes);
    }
    // As a service has it, or as sessions of earlier releases do.
    attributes.tuning.park_after_ms = u64::from(lot.one_in(2));
    let mut session = Session::new(attributes, harness.reference());
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
    check_replay(&session);
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
        3 if lot.one_in(6) => session.give(),
        3 if lot.one_in(6) => session.handed(lot.one_in(3)),
        3 if lot.one_in(10) => session.swap(HARNESSES[lot.below(HARNESSES.len())].reference()),
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
    session.input_tokens = [10, 10, 400, 600, 900][lot.below(5)];
    match op {
        Op::CallModel { .. } | Op::Compact { .. } => match lot.below(10) {
            0 => session.model_fails(activity, Failure::transient(FailureKind::Overloaded, "busy")),
            1 => session.model_fails(activity, Failure::permanent(FailureKind::Authentication, "no")),
            2 => session.model_answers(activity, "", &["bash"]),
            3 => session.model_answers(activity, "several", &["bash", "write", "lookup", "bash"]),
            4 => session.model_answers(activity, "", &["write", "nonsense"]),
            5 => session.model_answers(activity, "custom", &["lookup", "lookup"]),
            6 => session.model_fails(activity, Failure::permanent(FailureKind::ContextLength, "too long")),
            7 => session.model_answers(activity, "", &[]),
            8 => session.model_answers(activity, "outside", &[kit::MCP_TOOL, "bash", kit::MCP_TOOL]),
            _ => session.model_answers(activity, "done, PLAN COMPLETE", &[]),
        },
        Op::Execute { call } => {
            let lost = lot.one_in(10);
            session.tool_returns(activity, call, "output", lost);
        }
        Op::Provision { hand, .. } => {
            if lot.one_in(6) {
                session.hand_fails(activity);
            } else {
                session.hand_is_ready(activity, hand);
            }
        }
        Op::Timer { .. } | Op::Rest { .. } | Op::Discard { .. } | Op::Hand { .. } | Op::Release { .. } => {
            session.finish(activity, Ok(crate::Outcome::Done {}));
        }
        Op::Park { .. } => match lot.below(3) {
            0 => session.park_ends(activity, ParkOutcome::Gone {}),
            1 => {
                let failure = Failure::transient(FailureKind::Internal, "no room");
                session.park_ends(activity, ParkOutcome::Kept { failure });
            }
            _ => session.parked(activity),
        },
        Op::ListTools { .. } => session.tools_listed(activity, lot.one_in(2)),
        Op::Collect { .. } => session.collected(activity),
        Op::Seal { .. } => unreachable!("the kit has one run"),
    }
}

/// Lets everything that is under way end well.
fn finish(session: &mut Session) {
    for _ in 0..1_000 {
        session.settle();
        let Some((activity, op)) = session.flying.first().cloned() else { return };
        session.input_tokens = 10;
        match &op {
            Op::CallModel { .. } | Op::Compact { .. } => session.model_answers(&activity, "done, PLAN COMPLETE", &[]),
            Op::Execute { call } => session.tool_returns(&activity, call, "output", false),
            Op::Provision { hand, .. } => session.hand_is_ready(&activity, hand),
            Op::ListTools { .. } => session.tools_listed(&activity, true),
            Op::Collect { .. } => session.collected(&activity),
            Op::Park { .. } => session.parked(&activity),
            Op::Timer { .. }
            | Op::Rest { .. }
            | Op::Discard { .. }
            | Op::Hand { .. }
            | Op::Release { .. }
            | Op::Seal { .. } => {
                session.finish(&activity, Ok(crate::Outcome::Done {}));
            }
        }
    }
    panic!("the session does not come to rest");
}

fn use_ids(log: &[LogEntry]) -> impl Iterator<Item = &str> {
    log.iter().filter_map(|entry| match &entry.event.body {
        EventBody::AgentToolUse { .. } | EventBody::AgentCustomToolUse { .. } | EventBody::AgentMcpToolUse { .. } => {
            Some(entry.event.id.as_str())
        }
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
        | EventBody::AgentMcpToolResult { mcp_tool_use_id: id, .. }
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
    let open = session
        .state
        .pending
        .iter()
        .filter(|pending| matches!(pending.op, Op::CallModel { .. } | Op::Compact { .. }))
        .count();
    assert!(open <= 1, "one model request at a time");
    assert_eq!(starts, ends + open, "every span has one end");
    let results = results(log);
    assert!(results.values().all(|count| *count == 1), "a call has one result that counts");
    if matches!(step, Step::CallModel { .. } | Step::Compact { .. }) {
        let asked = session.state.pending.iter().find_map(|pending| session.request(&pending.op));
        check_request(&asked.expect("the request is pending"));
    }
}

/// What a provider demands of a request: every use is answered by the very next message, and nothing else is.
fn check_request(request: &serde_json::Value) {
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

/// From the log alone, without what the shell knew, every decision comes out the same again, and the same state.
fn check_replay(session: &Session) {
    let recording = session.recording();
    let mut own = |wanted: &HarnessRef| registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>);
    let report = replay(&recording, With::Own(&mut own)).expect("the log is whole");
    assert_eq!(report.divergence, None);
    assert_eq!(report.commits, session.commits.len() as u64);
    let state = walk(&recording, |_, _, _| Ok(())).expect("the log is whole");
    assert_eq!(state, session.state);
}

fn check_rest(session: &Session) {
    let status = session.state.summary.status;
    assert!(status.is_idle() || status == Status::Terminated, "at rest: {status:?}");
    assert!(session.state.pending.is_empty());
    assert!(session.mailbox.is_empty() || status == Status::RequiresAction, "{status:?} with {:?}", session.mailbox);
    let results = results(&session.log);
    let unanswered: BTreeSet<&str> = use_ids(&session.log).filter(|id| !results.contains_key(id)).collect();
    let asked = session.state.blocked.iter().map(|blocked| blocked.call.tool_use_id.as_str());
    // A harness that runs one call at a time has decided nothing about the others yet.
    let undecided = session.state.calls.iter().map(|call| call.tool_use_id.as_str());
    assert_eq!(unanswered, asked.chain(undecided).collect(), "open calls are asked for");
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
fn servers_are_asked_before_the_model_and_again_when_they_were_not_there() {
    let mut session = Session::new(kit::with_server(kit::attributes()), registry::default_harness());
    let flying = |session: &Session| match &session.flying[..] {
        [(activity, op)] => (activity.clone(), op.clone()),
        other => panic!("one at a time: {other:?}"),
    };
    for is_there in [false, true] {
        session.message("go");
        session.settle();
        let (list, Op::ListTools { .. }) = flying(&session) else { panic!("asked first") };
        session.tools_listed(&list, is_there);
        session.settle();
        let errors = session.types().into_iter().filter(|name| *name == "session.error").count();
        assert_eq!(errors, 1, "said once, and the turn goes on");
        let (model, Op::CallModel { .. }) = flying(&session) else { panic!("the model's turn") };
        session.model_answers(&model, "", &[kit::MCP_TOOL]);
        session.settle();
        // The kit's model calls it whether or not it was offered it.
        let (execute, Op::Execute { call }) = flying(&session) else { panic!("no hand is made for it") };
        session.tool_returns(&execute, &call, "found", false);
        session.settle();
        let (model, _) = flying(&session);
        session.model_answers(&model, "done", &[]);
        session.settle();
        assert!(session.flying.is_empty(), "no hand, so nothing to collect");
    }
    let agent = &session.state.summary.attributes.agent;
    assert!(agent.mcp[0].listed && agent.tools.iter().any(|tool| tool.name == kit::MCP_TOOL));
    session.message("go");
    session.settle();
    let (_, Op::CallModel { .. }) = flying(&session) else { panic!("it said so already") };
    let results = session.types().into_iter().filter(|name| *name == "agent.mcp_tool_result").count();
    assert_eq!(results, 2);
}

#[test]
fn of_a_lost_tool_worker_the_model_is_told() {
    let mut session = Session::default();
    session.message("go");
    session.settle();
    let model = session.flying[0].0.clone();
    session.model_answers(&model, "", &["bash"]);
    session.settle();
    let (provision, Op::Provision { hand, .. }) = session.flying[0].clone() else { panic!("a hand is made") };
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

/// A harness that answers the same to everything.
struct Says(Step);

impl Ask for Says {
    fn view_version(&self) -> u32 {
        crate::view::VERSION
    }

    fn ask(&mut self, _view: &crate::View, _views: &super::Views) -> Result<crate::Decision, super::HarnessError> {
        Ok(self.0.clone().into())
    }
}

#[test]
fn a_step_that_leads_nowhere_ends_the_turn() {
    let magic = || domain::agent::StrategyRef { name: "magic".into(), version: 7, params: serde_json::Value::Null };
    let steps = [
        (Step::Continue {}, "decided nothing"),
        (Step::Execute { calls: Vec::new() }, "asked to run no call that is open"),
        (Step::Execute { calls: vec!["sevt_unknown".into()] }, "asked to run no call that is open"),
        (Step::Compact { strategy: None }, "asked for a summary for full@1, which reads none"),
        (
            Step::CallModel { strategy: Some(magic()), suffix: Vec::new() },
            "asked for the context strategy magic@7, which is not in this build",
        ),
    ];
    for (step, why) in steps {
        let mut session = Session::default();
        session.message("go");
        session.decide_with(&mut Says(step));
        let error = session.log.iter().find_map(|entry| match &entry.event.body {
            EventBody::SessionError { error } => Some(error.message.clone()),
            _ => None,
        });
        assert_eq!(error.as_deref(), Some(format!("harness loop@1 {why}").as_str()));
        assert_eq!(session.types().last(), Some(&"session.status_idle"));
        assert!(!session.is_due(), "it is at rest");
    }
}

#[test]
fn summaries_without_end_are_ended() {
    let compact = domain::agent::StrategyRef { name: "compact".into(), version: 1, params: serde_json::Value::Null };
    let mut says = Says(Step::Compact { strategy: Some(compact) });
    let mut session = Session::default();
    session.message("go");
    session.decide_with(&mut says);
    let mut summaries = 0;
    while let Some((activity, Op::Compact { .. })) = session.flying.first().cloned() {
        summaries += 1;
        session.model_answers(&activity, "so far nothing", &[]);
        while session.is_due() {
            session.decide_with(&mut says);
        }
    }
    assert_eq!(summaries, domain::limits::COMPACTIONS_MAX);
    assert_eq!(session.types().last(), Some(&"session.status_idle"));
}

#[test]
fn a_summary_takes_the_place_of_what_it_stands_for() {
    let mut attributes = kit::attributes();
    attributes.agent.window_tokens = 1_000;
    let loop_2 = registry::named("loop", 2).expect("it is in this build");
    let mut session = Session::new(attributes, loop_2.reference());
    session.message("the task");
    session.settle();
    session.input_tokens = 900;
    let (model, _) = session.flying[0].clone();
    session.model_answers(&model, "working", &["bash"]);
    session.settle();
    let (provision, Op::Provision { hand, .. }) = session.flying[0].clone() else { panic!("a hand is made") };
    session.hand_is_ready(&provision, &hand);
    session.settle();
    let (execute, Op::Execute { call }) = session.flying[0].clone() else { panic!("a call runs") };
    session.tool_returns(&execute, &call, "a long result", false);
    session.settle();

    let (summary, op) = session.flying[0].clone();
    assert!(matches!(op, Op::Compact { .. }), "{op:?}");
    let asked = session.request(&op).expect("it is a request").to_string();
    assert!(asked.contains("a long result") && asked.contains("Write the hand-off"), "{asked}");
    session.input_tokens = 20;
    session.model_answers(&summary, "half is done", &[]);
    session.settle();
    assert!(session.types().contains(&"agent.thread_context_compacted"));
    assert!(!session.types().iter().skip(10).any(|name| *name == "agent.message"), "a summary is no message");

    let (_, op) = session.flying[0].clone();
    let Op::CallModel { slice, .. } = &op else { panic!("the turn goes on: {op:?}") };
    assert!(slice.from > 0, "what was summarised is not read again");
    let asked = session.request(&op).expect("it is a request").to_string();
    assert!(asked.contains("the task") && asked.contains("half is done"), "{asked}");
    assert!(!asked.contains("a long result"), "{asked}");
}

#[test]
fn a_call_that_runs_on_a_lost_hand_is_not_said_to_have_done_nothing() {
    let mut session = Session::default();
    session.message("go");
    session.settle();
    let (model, _) = session.flying[0].clone();
    session.model_answers(&model, "", &["bash", "bash"]);
    session.settle();
    let (provision, hand) = session
        .flying
        .iter()
        .find_map(|(activity, op)| match op {
            Op::Provision { hand, .. } => Some((activity.clone(), hand.clone())),
            _ => None,
        })
        .expect("a hand is made");
    session.hand_is_ready(&provision, &hand);
    session.settle();
    let (first, Op::Execute { call }) = session.flying[0].clone() else { panic!("calls run") };
    // The hand dies under the first call, and somebody interrupts at the same moment.
    session.tool_returns(&first, &call, "lost", true);
    session.interrupt();
    session.settle();
    let (second, _) = session.flying[0].clone();
    assert!(session.state.pending(&second).expect("its end is awaited").cancelling);
}

#[test]
fn the_turn_behind_a_swap_is_the_new_harness_s_from_its_first_step() {
    let planning = registry::named("plan-act", 1).expect("it is in this build").reference();
    let mut session = Session::default();
    session.message("one");
    session.settle();
    let (activity, _) = session.flying.first().cloned().expect("it asks the model");
    session.swap(planning.clone());
    session.message("two");
    session.model_answers(&activity, "done", &[]);
    session.settle();
    assert_eq!((&session.state.summary.harness, session.state.summary.turn), (&planning, 2));
    let suffix = session.flying.iter().find_map(|(_, op)| match op {
        Op::CallModel { suffix, .. } => Some(suffix.len()),
        _ => None,
    });
    assert_eq!(suffix, Some(1), "it asks for a plan");
    let swapped = session.commits.iter().find(|(commit, _)| {
        commit.takes.iter().any(|take| matches!(take, Take::Private { entry: PrivateEntry::Swapped { .. } }))
    });
    assert!(matches!(swapped.expect("it was swapped").0.step, Step::Idle { .. }), "with the end of the turn before");
}

/// Nobody sends anything any more: the swap does not wait for that.
#[test]
fn a_swap_is_applied_with_the_end_of_the_turn() {
    let planning = registry::named("plan-act", 1).expect("it is in this build").reference();
    let mut session = Session::default();
    session.message("one");
    session.settle();
    session.swap(planning.clone());
    session.settle();
    let (activity, _) = session.flying.first().cloned().expect("it asks the model");
    assert_ne!(session.state.summary.harness, planning, "not before");
    session.model_answers(&activity, "done", &[]);
    session.settle();
    assert_eq!((&session.state.summary.harness, &session.state.swap), (&planning, &None));
    assert!(!session.is_due());
}
