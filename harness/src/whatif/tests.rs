//! Sessions of the test kit, gone through again.

use super::{Asked, Changes, End, Input, Need, Record, Report, Side, Trial, Variant, What};
use crate::{
    context::{self, Shape},
    frame::Ask,
    kit::{self, Session},
    registry,
    replay::{Recording, With, replay},
    state::Op,
};
use domain::{
    Failure, PrivateEntry, Status, Take, Time, Usage,
    agent::{HarnessRef, StrategyRef},
    commit::Fork,
    content::{BlobRef, Json},
    failure::FailureKind,
    ids,
    limits::TRIAL_TURNS_TOLD_MAX,
    model::{ModelPrivate, Recipe},
    outcome::{BlockDigest, Call, ModelDigest, ModelOutcome},
    rollout::Recorded,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a session of the kit is answered, in order: text, tools, tokens of input.
type Said = (&'static str, &'static [&'static str], u64);

/// Turns of a session, each with what the model says in it.
fn recorded(harness: (&str, u32), turns: &[&[Said]]) -> Session {
    let harness = registry::named(harness.0, harness.1).unwrap().reference();
    gone_through(Session::new(kit::attributes(), harness), turns)
}

fn gone_through(mut session: Session, turns: &[&[Said]]) -> Session {
    for (turn, said) in turns.iter().enumerate() {
        session.message(&format!("task {turn}"));
        session.settle();
        play(&mut session, said, turn > 0);
    }
    session
}

/// `is_there`: the MCP server, if the agent has one.
fn play(session: &mut Session, said: &[Said], is_there: bool) {
    let mut said = said.iter();
    let mut results = 0;
    loop {
        for blocked in session.state.blocked.clone() {
            match blocked.on {
                crate::state::Blocker::Ask => session.confirm(&blocked.call.tool_use_id, true),
                _ => session.answer(&blocked.call.tool_use_id, "from the client"),
            };
            session.settle();
        }
        let Some((activity, op)) = session.flying.first().cloned() else { break };
        match op {
            Op::CallModel { .. } | Op::Compact { .. } => {
                let (text, tools, tokens) = said.next().expect("the script is long enough");
                session.input_tokens = *tokens;
                match *text {
                    "overloaded" => session.model_fails(&activity, Failure::transient(FailureKind::Overloaded, "busy")),
                    _ => session.model_answers(&activity, text, tools),
                }
            }
            Op::Provision { hand, .. } => session.hand_is_ready(&activity, &hand),
            Op::Execute { call } => {
                results += 1;
                session.tool_returns(&activity, &call, &format!("output {results}"), false);
            }
            Op::Timer { .. } => session.finish(&activity, Ok(crate::Outcome::Done {})),
            Op::Collect { .. } => session.collected(&activity),
            Op::ListTools { .. } => session.tools_listed(&activity, is_there),
            other => panic!("{other:?}"),
        }
        session.settle();
    }
    assert_eq!(said.next(), None, "everything was said");
}

fn input(turn: u64, variant: Variant) -> Input {
    let session = Recorded { session_id: kit::SESSION.into(), sealed: None };
    Input { id: "sesn_whatif".into(), session, turn, turns: None, variant, requests_max: 10, expect: None, live: false }
}

type Model<'a> = &'a mut dyn FnMut(&Asked, &Value) -> ModelOutcome;

fn whatif(recording: &Recording, input: &Input, model: Option<Model<'_>>) -> (Report, Vec<u64>) {
    let (trial, pauses) = tried(recording, input, model);
    (trial.report(input, &BTreeMap::new()), pauses)
}

fn tried(recording: &Recording, input: &Input, mut model: Option<Model<'_>>) -> (Trial, Vec<u64>) {
    let record = Record::of(recording, input.turn).unwrap();
    let Variant { harness, strategy, shims_off, .. } = input.variant.clone();
    let mut attributes = record.before.summary.attributes.clone();
    attributes.agent.strategy = strategy.unwrap_or(attributes.agent.strategy);
    attributes.agent.shims_off.extend(shims_off);
    let harness = harness.unwrap_or_else(|| record.before.summary.harness.clone());
    let mut ask = registry::find(&harness).unwrap();
    let mut trial = Trial::new(record, input, attributes, harness);
    let mut pauses = Vec::new();
    loop {
        match trial.go_on(&mut ask) {
            Need::Nothing => return (trial, pauses),
            Need::Pause { ms } => pauses.push(ms),
            Need::Request(asked) => {
                let super::record::Shape { strategy, suffix, purpose, .. } = &asked.shape;
                let body = kit::body(&asked.entries, Shape { strategy, suffix, purpose: *purpose });
                let bytes = context::serialize(&body);
                if trial.recall(&asked, &ids::content_hash(&bytes)) {
                    continue;
                }
                match &mut model {
                    Some(model) => trial.told(&asked, model(&asked, &body)),
                    None => trial.stop(bytes.len() as u64),
                }
            }
        }
    }
}

/// A model's answer without calls.
fn says(asked: &Asked, text: &str) -> ModelOutcome {
    let blocks = json!([{"type": "text", "text": text}]);
    let id = ids::activity_event("sesn_whatif", &asked.activity, 1, 0);
    let body = domain::EventBody::AgentMessage { content: domain::Content::text(text) };
    let block = BlockDigest {
        kind: "text".into(),
        bytes: 10,
        head: text.into(),
        tail: String::new(),
        tool: None,
        input_sha256: None,
    };
    let digest = ModelDigest::Answer {
        stop_reason: "end_turn".into(),
        usage: Usage { input_tokens: 7, output_tokens: 3, ..Usage::default() },
        blocks: vec![block],
        calls: Vec::new(),
        refusal: None,
    };
    let super::record::Shape { purpose, slice, strategy, suffix, snapshot } = asked.shape.clone();
    let recipe = Recipe {
        from: slice.from,
        to: slice.to,
        keep: slice.keep,
        purpose,
        strategy,
        snapshot,
        serializer: context::SERIALIZER,
        suffix,
        request_sha256: String::new(),
    };
    let private = ModelPrivate { blocks: Json::Inline { value: blocks }, tool_ids: BTreeMap::new(), recipe };
    ModelOutcome { digest, events: vec![domain::Event { id, body, processed_at: None }], private: Some(private) }
}

/// A model's answer that makes calls, side by side.
fn calls(asked: &Asked, like: &[Call]) -> ModelOutcome {
    let mut said = says(asked, "let me see");
    if let ModelDigest::Answer { calls, stop_reason, .. } = &mut said.digest {
        *stop_reason = "tool_use".into();
        calls.extend(like.iter().enumerate().map(|(at, like)| Call {
            tool_use_id: ids::derive("sevt", &[&asked.activity, &at.to_string()]),
            ..like.clone()
        }));
    }
    said.events.extend(like_events(asked, like));
    said
}

fn like_events(asked: &Asked, like: &[Call]) -> Vec<domain::Event> {
    let event = |(at, like): (usize, &Call)| {
        let (name, input) = (like.name.clone(), like.input.clone());
        let body = match like.kind {
            domain::agent::ToolKind::Custom => domain::EventBody::AgentCustomToolUse { name, input },
            _ => domain::EventBody::AgentToolUse {
                name,
                input,
                evaluated_permission: Some(like.permission),
                evaluation: None,
            },
        };
        domain::Event { id: ids::derive("sevt", &[&asked.activity, &at.to_string()]), body, processed_at: None }
    };
    like.iter().enumerate().map(event).collect()
}

/// The first call of a recorded session.
fn first_call(session: &Session) -> Call {
    let called = session.commits.iter().find_map(|(_, intake)| {
        intake.closed.iter().find_map(|closing| match &closing.outcome {
            Some(crate::Outcome::Model { digest: ModelDigest::Answer { calls, .. }, .. }) => calls.first().cloned(),
            _ => None,
        })
    });
    called.expect("it called a tool")
}

fn named(name: &str, version: u32) -> Option<HarnessRef> {
    Some(registry::named(name, version).unwrap().reference())
}

const TURNS: &[&[Said]] = &[
    &[("looking", &["bash", "bash"], 10), ("asking", &["lookup", "write"], 20), ("done", &[], 30)],
    &[("overloaded", &[], 0), ("more", &["bash"], 40), ("done again", &[], 50)],
    &[("and done", &[], 60)],
];

#[test]
fn nothing_otherwise_is_answered_by_the_record_alone() {
    for harness in [("loop", 1), ("loop", 2)] {
        let recording = recorded(harness, TURNS).recording();
        for turn in 1..=3 {
            let (report, pauses) = whatif(&recording, &input(turn, Variant::default()), None);
            assert_eq!(report.end, End::Complete {}, "{report:#?}");
            assert_eq!((report.first_step, report.first_request), (None, None));
            assert_eq!(report.turns.len() as u64, 4 - turn);
            for pair in &report.turns {
                assert_eq!(pair.tried.as_ref(), Some(&pair.recorded));
                assert!(pair.recorded.ended_well() && pair.recorded.requests > 0);
            }
            assert_eq!((report.answered.requests_live, report.left_out), (0, 0));
            assert_eq!(pauses, [0u64; 0], "what was waited for then is not waited for again");
        }
    }
    let recording = recorded(("loop", 1), TURNS).recording();
    let (report, _) = whatif(&recording, &Input { turns: Some(1), ..input(1, Variant::default()) }, None);
    assert_eq!((report.turns.len(), report.answered.calls_recorded), (1, 4), "{report:#?}");
}

#[test]
fn another_strategy_is_comparable_up_to_its_first_other_request() {
    let recording = recorded(("loop", 1), TURNS).recording();
    let strategy = StrategyRef { name: "window".into(), version: 1, params: json!({"rounds": 1, "leap": 1}) };
    let variant = Variant { strategy: Some(strategy), ..Variant::default() };
    let (report, _) = whatif(&recording, &input(1, variant.clone()), None);
    let End::Request { turn, round, bytes } = report.end else { panic!("{report:#?}") };
    assert_eq!((turn, round), (1, 3), "with two rounds before it the window moves on");
    assert!(bytes > 0);
    let parts = report.first_request.expect("there its bytes part");
    assert_eq!((parts.turn, parts.round), (1, 3));
    assert_eq!(report.first_step, None, "it did the same as far as anybody can know");
    assert_eq!(report.answered.requests_recorded, 2);

    // A model is asked for what is not in the record, and only for that.
    let mut asked = 0;
    let mut model = |request: &Asked, _: &Value| {
        asked += 1;
        says(request, "short")
    };
    let (report, _) = whatif(&recording, &input(1, variant), Some(&mut model));
    assert_eq!(report.end, End::Complete {}, "{report:#?}");
    assert_eq!((report.answered.requests_recorded, report.answered.requests_live), (2, asked));
    let tried = |at: usize| report.turns[at].tried.clone().unwrap();
    assert_eq!((tried(0).requests, tried(0).usage.input_tokens), (3, 37), "10 and 20 from the record, 7 of its own");
    assert!(tried(1).requests < report.turns[1].recorded.requests, "it calls no tool in the second turn");
    let parts = report.first_step.expect("the model did otherwise");
    assert_eq!((parts.turn, parts.tried.what), (2, What::Idle { reason: domain::commit::IdleReason::EndTurn {} }));
}

#[test]
fn a_call_that_was_not_made_then_ends_it() {
    // plan-act@1 asks for a plan first: other bytes; its model calls what the record has not.
    let recording = recorded(("loop", 1), TURNS).recording();
    let variant = Variant { harness: named("plan-act", 1), ..Variant::default() };
    let (report, _) = whatif(&recording, &input(1, variant.clone()), None);
    assert!(matches!(report.end, End::Request { turn: 1, round: 1, .. }), "{report:#?}");
    assert_eq!(report.same_steps, 1);

    let session = recorded(("loop", 1), &[&[("looking", &["bash"], 10), ("done", &[], 10)]]);
    let call = first_call(&session);
    let other = |name: &str, sha: &str| {
        let mut model = |request: &Asked, _: &Value| {
            let mut said = says(request, "let me see");
            if let ModelDigest::Answer { calls, stop_reason, .. } = &mut said.digest {
                *stop_reason = "tool_use".into();
                let tool_use_id = ids::derive("sevt", &[&request.activity, "call"]);
                calls.push(Call { tool_use_id, name: name.into(), input_sha256: sha.into(), ..call.clone() });
            }
            said
        };
        let strategy = StrategyRef { name: "full".into(), version: 2, params: Value::Null };
        let suffixed = Variant { harness: named("plan-act", 1), strategy: Some(strategy), ..Variant::default() };
        whatif(&session.recording(), &input(1, suffixed), Some(&mut model)).0
    };
    let again = other("bash", &call.input_sha256);
    assert_eq!(again.answered.calls_recorded, 1, "the one that was recorded; the next time it is another one");
    assert_eq!(again.end, End::Call { turn: 1, round: 2, name: "bash".into() }, "{again:#?}");
    let differs = other("bash", "00");
    assert_eq!(
        (differs.end, differs.answered.calls_recorded),
        (End::Call { turn: 1, round: 1, name: "bash".into() }, 0)
    );
}

#[test]
fn where_both_sides_part_it_is_known_what_each_did() {
    let recording = recorded(("loop", 1), TURNS).recording();
    let (same, _) = tried(&recording, &input(1, Variant::default()), None);
    assert!(same.sides().iter().all(Option::is_none));

    let strategy = StrategyRef { name: "window".into(), version: 1, params: json!({"rounds": 1, "leap": 1}) };
    let (trial, _) = tried(&recording, &input(1, Variant { strategy: Some(strategy), ..Variant::default() }), None);
    let [None, Some((recorded_side, tried_side))] = trial.sides() else { panic!("only a request is another one") };
    let body = |side: Side| match side {
        Side::Request { shape, entries } => {
            kit::body(&entries, Shape { strategy: &shape.strategy, suffix: &shape.suffix, purpose: shape.purpose })
        }
        Side::Calls(calls) => panic!("{calls:?}"),
    };
    let (one, other) = (body(recorded_side), body(tried_side));
    let count = |body: &Value| body["messages"].as_array().unwrap().len();
    assert!(count(&one) > count(&other), "the window is narrower");
    let changes = Changes::between(&one, &other);
    assert!(changes.shown[0].at.starts_with("messages["), "{changes:?}");
    assert_eq!(trial.report(&input(1, Variant::default()), &BTreeMap::new()).strategies, ["window@1"]);

    let session = recorded(("loop", 1), &[&[("looking", &["bash"], 10), ("done", &[], 10)]]);
    let other = json!({"command": "make test"});
    let call = Call { input_sha256: "00".into(), input: Json::Inline { value: other.clone() }, ..first_call(&session) };
    let mut model = |request: &Asked, _: &Value| calls(request, std::slice::from_ref(&call));
    let planned = input(1, Variant { harness: named("plan-act", 1), ..Variant::default() });
    let (trial, _) = tried(&session.recording(), &planned, Some(&mut model));
    let [Some((Side::Calls(then), Side::Calls(now))), Some(_)] = trial.sides() else { panic!("{:?}", trial.sides()) };
    let inputs = |side: &[domain::session::LogEntry]| match &side {
        [domain::session::LogEntry { event: domain::Event { body, .. }, .. }] => match body {
            domain::EventBody::AgentToolUse { input: Json::Inline { value }, .. } => value.clone(),
            other => panic!("{other:?}"),
        },
        calls => panic!("{calls:?}"),
    };
    assert_eq!(inputs(&now), other);
    assert_ne!(inputs(&then), other);
}

#[test]
fn a_shim_that_is_switched_off_shows_in_the_steps() {
    let window = kit::attributes().agent.window_tokens;
    let full = window * 78 / 100;
    let turn: &[Said] =
        &[("looking", &["bash"], 10), ("more", &["bash"], full), ("the hand-off", &[], full), ("done", &[], 20)];
    let recording = recorded(("loop", 2), &[turn]).recording();
    let off = Variant { shims_off: vec!["context-reset".into()], ..Variant::default() };
    let mut model = |request: &Asked, _: &Value| says(request, "I had better stop here");
    let expect = Input { expect: Some("done".into()), ..input(1, off) };
    let (report, _) = whatif(&recording, &expect, Some(&mut model));
    let parts = report.first_step.clone().expect("no hand-off is asked for");
    let purposes = [parts.recorded.unwrap().what, parts.tried.what].map(|what| match what {
        What::Request { purpose, .. } => purpose,
        other => panic!("{other:?}"),
    });
    assert_eq!(purposes, [domain::model::Purpose::Summary, domain::model::Purpose::Answer]);
    let [pair] = &report.turns[..] else { panic!("{report:#?}") };
    assert_eq!((pair.recorded.as_expected, pair.tried.as_ref().unwrap().as_expected), (Some(true), Some(false)));
    assert!(!report.totals().is_good, "it did not do the task");
    assert_eq!((pair.recorded.requests, pair.tried.as_ref().unwrap().requests), (4, 3));
}

#[test]
fn what_a_live_model_asks_to_wait_for_is_waited_for() {
    let recording = recorded(("loop", 1), &[&[("done", &[], 10)]]).recording();
    let variant = Variant { harness: named("plan-act", 1), ..Variant::default() };
    let mut tries = 0;
    let mut model = |request: &Asked, _: &Value| {
        tries += 1;
        match tries {
            1 => ModelOutcome {
                digest: ModelDigest::Failed { failure: Failure::transient(FailureKind::Overloaded, "busy") },
                events: Vec::new(),
                private: None,
            },
            _ => says(request, "PLAN COMPLETE"),
        }
    };
    let (report, pauses) = whatif(&recording, &input(1, variant), Some(&mut model));
    assert_eq!(report.end, End::Complete {}, "{report:#?}");
    assert_eq!(pauses.len(), 1);
    assert!(pauses[0] >= 1_000, "{pauses:?}");
    assert_eq!(report.turns[0].tried.as_ref().unwrap().failed_requests, 1);
}

#[test]
fn a_turn_that_began_without_a_pause_is_gone_through_with_the_one_before() {
    let mut session = recorded(("loop", 1), &[&[("done", &[], 10)]]);
    session.message("two");
    session.settle();
    session.message("three");
    play(&mut session, &[("second", &[], 10), ("third", &[], 10)], true);
    let recording = session.recording();
    let (report, _) = whatif(&recording, &input(3, Variant::default()), None);
    assert_eq!((report.turn, report.end, report.turns.len()), (2, End::Complete {}, 2));
    assert!(report.turns.iter().all(|pair| pair.tried.as_ref().is_some_and(|tried| tried.requests == 1)));
    // The turn before it is not the one that was asked for.
    let (one, _) = whatif(&recording, &Input { turns: Some(1), ..input(3, Variant::default()) }, None);
    assert_eq!(one.turns, report.turns);
    let (before, _) = whatif(&recording, &Input { turns: Some(1), ..input(2, Variant::default()) }, None);
    assert_eq!(before.turns, report.turns[..1]);
    let missing = Record::of(&recording, 4).err().unwrap().to_string();
    assert_eq!(missing, "find turn 4 in session sesn_test, which has 3");
}

/// A session of an agent with an MCP server that was down in the first turn.
fn with_server() -> Recording {
    let harness = registry::named("loop", 1).unwrap().reference();
    let session = Session::new(kit::with_server(kit::attributes()), harness);
    let turns: &[&[Said]] = &[&[("no tools", &[], 10)], &[("searching", &[kit::MCP_TOOL], 20), ("found", &[], 30)]];
    gone_through(session, turns).recording()
}

#[test]
fn servers_say_again_what_they_said_then() {
    let recording = with_server();
    let (trial, _) = tried(&recording, &input(1, Variant::default()), None);
    let report = trial.report(&input(1, Variant::default()), &BTreeMap::new());
    assert_eq!(
        (&report.end, &report.first_step, &report.first_request),
        (&End::Complete {}, &None, &None),
        "{report:#?}"
    );
    for pair in &report.turns {
        assert_eq!(pair.tried.as_ref(), Some(&pair.recorded));
    }
    assert_eq!(report.turns[0].recorded.errors, 1, "it was down");
    let agent = &trial.state.summary.attributes.agent;
    assert!(agent.mcp[0].listed && agent.tools.iter().any(|tool| tool.name == kit::MCP_TOOL), "{agent:?}");
    assert_eq!(agent.snapshot.blob, "1".repeat(64), "requests are made of what was listed");
}

#[test]
fn a_call_of_a_server_after_a_live_answer_has_its_result() {
    let recording = with_server();
    let call = recording.commits.iter().flat_map(|committed| &committed.results).find_map(|named| {
        let digest: ModelDigest = serde_json::from_value(named.result.rest.get("digest")?.clone()).ok()?;
        match digest {
            ModelDigest::Answer { calls, .. } => calls.into_iter().next(),
            ModelDigest::Failed { .. } => None,
        }
    });
    let call = call.expect("it called the server");
    let mut bodies = Vec::new();
    let mut model = |request: &Asked, body: &Value| {
        bodies.push(body.clone());
        if bodies.len() > 1 {
            return says(request, "PLAN COMPLETE");
        }
        let mut said = says(request, "");
        let tool_use_id = ids::activity_event("sesn_whatif", &request.activity, 1, 1);
        let body = domain::EventBody::AgentMcpToolUse {
            name: "search".into(),
            mcp_server_name: "docs".into(),
            input: call.input.clone(),
            evaluated_permission: Some(call.permission),
            evaluation: None,
        };
        said.events = vec![domain::Event { id: tool_use_id.clone(), body, processed_at: None }];
        let private = said.private.as_mut().unwrap();
        let block = json!({"type": "tool_use", "id": "toolu_live", "name": kit::MCP_TOOL, "input": {}});
        private.blocks = Json::Inline { value: json!([block]) };
        private.tool_ids = [(tool_use_id.clone(), "toolu_live".to_owned())].into();
        if let ModelDigest::Answer { calls, stop_reason, .. } = &mut said.digest {
            *stop_reason = "tool_use".into();
            calls.push(domain::outcome::Call { tool_use_id, ..call.clone() });
        }
        said
    };
    let variant = Variant { harness: named("plan-act", 1), ..Variant::default() };
    let (report, _) = whatif(&recording, &input(2, variant), Some(&mut model));
    assert_eq!((&report.end, report.answered.calls_recorded), (&End::Complete {}, 1), "{report:#?}");
    let results: Vec<&Value> = bodies[1]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|message| message["content"].as_array().into_iter().flatten())
        .filter(|block| block["type"] == "tool_result")
        .collect();
    assert_eq!(results.len(), 1, "{:#}", bodies[1]);
    assert_eq!(results[0]["tool_use_id"], "toolu_live");
    assert!(results[0].to_string().contains("output 1"), "{:#}", results[0]);
}

#[test]
fn turns_that_are_not_told_of_one_by_one_count_all_the_same() {
    let turn: &[Said] = &[("going on", &[], 10)];
    let last: &[Said] = &[("I give up", &[], 10)];
    let many = TRIAL_TURNS_TOLD_MAX + 1;
    let turns: Vec<&[Said]> = (1..many).map(|_| turn).chain([last]).collect();
    let recording = recorded(("loop", 1), &turns).recording();
    let expect = Input { expect: Some("going on".into()), ..input(1, Variant::default()) };
    let (report, _) = whatif(&recording, &expect, None);
    assert_eq!((&report.end, report.turns.len()), (&End::Complete {}, TRIAL_TURNS_TOLD_MAX));
    let totals = report.totals();
    assert_eq!((totals.turns, totals.tried.requests, totals.all.requests), (many as u64, many as u64, many as u64));
    assert_eq!(totals.recorded, totals.tried);
    assert!(!totals.is_good, "what the last message says is not told of, and counts");
    // As an earlier build would have told it.
    let older = Report { totals: None, ..report };
    assert_eq!(older.totals().turns, TRIAL_TURNS_TOLD_MAX as u64);
}

#[test]
fn a_last_message_that_is_kept_by_reference_is_the_last_message() {
    let mut recording =
        recorded(("loop", 1), &[&[("ALL DONE? No:", &["bash"], 10), ("ALL DONE", &[], 20)]]).recording();
    let blob = BlobRef { blob: "a".repeat(64), bytes: 40_000 };
    let messages = recording.commits.iter_mut().flat_map(|committed| &mut committed.results);
    let messages = messages.flat_map(|named| &mut named.result.events).filter_map(|event| match &mut event.body {
        domain::EventBody::AgentMessage { content } => Some(content),
        _ => None,
    });
    *messages.last().expect("it said something") = domain::Content::Blob(blob.clone());
    let expect = Input { expect: Some("DONE".into()), ..input(1, Variant::default()) };
    let (trial, _) = tried(&recording, &expect, None);
    let words = trial.last_words(&expect);
    assert_eq!(words.into_iter().collect::<Vec<_>>(), [(blob.blob.clone(), blob.clone())]);
    for (told, expected) in [(None, None), (Some(true), Some(true)), (Some(false), Some(false))] {
        let known = told.map(|says| (blob.blob.clone(), says)).into_iter().collect();
        let report = trial.report(&expect, &known);
        let pair = &report.turns[0];
        assert_eq!((pair.recorded.as_expected, pair.tried.as_ref().unwrap().as_expected), (expected, expected));
        assert_eq!(report.totals().is_good, told != Some(false));
    }
}

/// The session that goes on from what is left, through the turn that is on: its report, and the calls that it made.
fn gone_on(recording: &Recording, trial: &Trial, input: &Input) -> (Report, Vec<Call>) {
    let mut report = trial.report(input, &BTreeMap::new());
    assert!(matches!(report.end, End::Call { .. }), "{report:#?}");
    let left = trial.left(input, &BTreeMap::new()).expect("it ended at a call");
    let fork = Fork {
        parent: kit::SESSION.into(),
        session_id: "sesn_whatif".into(),
        created_at: Time::from_ms(90_000),
        attributes: left.state.summary.attributes.clone(),
        harness: left.state.summary.harness.clone(),
        goes_on: true,
    };
    let state = left.state.clone().forked(fork.clone());
    assert_eq!(state.clone().forked(fork), state, "forked again it is what it was");
    let shared = left.began.summary.n as usize;
    let commits: Vec<_> = recording.commits.iter().take(shared).chain(&left.commits).cloned().collect();
    let count = commits.len();
    let mut on = Session::of(state, Recording { commits, ..recording.clone() }, count);
    on.settle();
    let mut made = Vec::new();
    loop {
        for blocked in on.state.blocked.clone() {
            match blocked.on {
                crate::state::Blocker::Ask => on.confirm(&blocked.call.tool_use_id, true),
                crate::state::Blocker::Allowed => continue,
                _ => on.answer(&blocked.call.tool_use_id, "from the client"),
            };
            on.settle();
        }
        let Some((activity, op)) = on.flying.first().cloned() else { break };
        match op {
            Op::Provision { hand, .. } => on.hand_is_ready(&activity, &hand),
            Op::Execute { call } => {
                on.tool_returns(&activity, &call, "something else", false);
                made.push(call);
            }
            Op::CallModel { .. } => on.model_answers(&activity, "PLAN COMPLETE", &[]),
            Op::Collect { .. } => on.collected(&activity),
            other => panic!("{other:?}"),
        }
        on.settle();
    }
    assert_eq!((on.state.summary.status, on.state.summary.turn), (Status::Idle, left.state.summary.turn));
    let whole = Recording { session_id: "sesn_whatif".into(), ..on.recording() };
    assert_eq!(whole.commits.len(), on.committed.len());
    let mut own = |wanted: &HarnessRef| registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>);
    let replayed = replay(&whole, With::Own(&mut own)).unwrap();
    assert_eq!((replayed.divergence, replayed.commits), (None, whole.commits.len() as u64));
    report.went_on("sesn_whatif", &left, &whole.commits[shared..], false, &NOTHING_EXPECTED);
    (report, made)
}

const NOTHING_EXPECTED: super::Words<'static> = super::Words { expected: None, kept: &BTreeMap::new() };

/// The state goes over into a session of its own: the call is made there, in a new hand, and the whole log replays.
#[test]
fn what_is_left_goes_on_in_a_session_of_its_own() {
    let session = recorded(
        ("loop", 1),
        &[&[("first", &[], 10)], &[("looking", &["bash"], 10), ("done", &[], 10)], &[("last", &[], 10)]],
    );
    let (recording, like) = (session.recording(), first_call(&session));
    let variant = Variant { harness: named("plan-act", 1), ..Variant::default() };
    let input = Input { live: true, ..input(2, variant) };
    // The first call is in the record; the second one is not.
    let mut asked = 0;
    let mut model = |request: &Asked, _: &Value| {
        asked += 1;
        let input_sha256 = if asked == 1 { like.input_sha256.clone() } else { "00".into() };
        calls(request, &[Call { input_sha256, ..like.clone() }])
    };
    let (trial, _) = tried(&recording, &input, Some(&mut model));
    let left = trial.left(&input, &BTreeMap::new()).expect("it ended at a call");
    assert_eq!((left.inputs.len(), left.recorded.len()), (1, 2), "one turn is left");
    let (report, made) = gone_on(&recording, &trial, &input);
    assert!(matches!(&report.end, End::WentOn { turn: 2, round: 2, waits: false, .. }), "{report:#?}");
    assert_eq!((report.answered.calls_recorded, report.answered.calls_live, made.len()), (1, 1, 1));
    let tried = report.turns[0].tried.as_ref().expect("the turn was gone through");
    assert!(tried.ended_well(), "{report:#?}");
    assert_eq!(report.answered.requests_live, tried.requests);
    assert!(report.turns[1].tried.is_none(), "the last turn was not begun");
}

/// Calls of one answer, some of which the record answers: in whatever order they come, those keep their results, and only the others
/// are made.
#[test]
fn of_calls_side_by_side_only_those_are_made_that_the_record_does_not_answer() {
    let turns: &[&[Said]] = &[&[
        ("looking", &["bash"], 10),
        ("looking on", &["bash"], 20),
        ("asking", &["bash", "lookup", "write"], 30),
        ("done", &[], 40),
    ]];
    let session = recorded(("loop", 1), turns);
    let recording = session.recording();
    let known: Vec<Call> = session
        .commits
        .iter()
        .flat_map(|(_, intake)| &intake.closed)
        .filter_map(|closing| match &closing.outcome {
            Some(crate::Outcome::Model { digest: ModelDigest::Answer { calls, .. }, .. }) if calls.len() == 3 => {
                Some(calls.clone())
            }
            _ => None,
        })
        .next()
        .expect("it made three calls at once");
    let other = |call: &Call| Call { input_sha256: "00".into(), ..call.clone() };
    let (bash, lookup, write) = (&known[0], &known[1], &known[2]);
    let strategy = StrategyRef { name: "window".into(), version: 1, params: json!({"rounds": 1, "leap": 1}) };
    let input = Input { live: true, ..input(1, Variant { strategy: Some(strategy), ..Variant::default() }) };
    // What is called, how many of that the record answers, and what the session makes that goes on. `lookup` a client answers, and
    // `write` somebody has to allow.
    for (called, answered, makes) in [
        (vec![bash.clone(), other(bash)], 1, vec![("bash", true)]),
        (vec![other(bash), bash.clone()], 1, vec![("bash", true)]),
        (vec![other(bash), other(bash)], 0, vec![("bash", true); 2]),
        (vec![lookup.clone(), other(bash)], 1, vec![("bash", true)]),
        (vec![bash.clone(), lookup.clone(), other(write)], 2, vec![("write", true)]),
        // What was allowed is made where everything else is answered: there.
        (vec![bash.clone(), other(lookup), write.clone()], 1, vec![("write", false)]),
        (vec![other(write), other(bash), bash.clone()], 1, vec![("bash", true), ("write", true)]),
    ] {
        let is_new = |call: &Call| (call.name.clone(), call.input_sha256 == "00");
        let what: Vec<(String, bool)> = called.iter().map(is_new).collect();
        let mut model = |request: &Asked, _: &Value| calls(request, &called);
        let (trial, _) = tried(&recording, &input, Some(&mut model));
        let before = trial.report(&input, &BTreeMap::new());
        let (report, made) = gone_on(&recording, &trial, &input);
        // Two calls came before, one an answer.
        assert_eq!(report.answered.calls_recorded, 2 + answered, "{what:?}: {report:#?}");
        let made: Vec<(String, bool)> = made.iter().map(is_new).collect();
        assert!(made.iter().map(|(name, is_new)| (name.as_str(), *is_new)).eq(makes), "{what:?}: {made:?}");
        assert_eq!(report.answered.calls_live + before.answered.calls_recorded, 2 + called.len() as u64, "{what:?}");
        let tried = report.turns[0].tried.as_ref().expect("the turn was gone through");
        assert_eq!((tried.calls, tried.ended_well()), (2 + called.len() as u64, true), "{what:?}: {report:#?}");
    }
}

/// Sums are over all of its turns, though not all are told of one by one; and over none that somebody began behind them.
#[test]
fn every_turn_of_a_session_that_went_on_counts_and_no_other() {
    let many = TRIAL_TURNS_TOLD_MAX + 2;
    let first: &[Said] = &[("looking", &["bash"], 10), ("done", &[], 10)];
    let turn: &[Said] = &[("done", &[], 10)];
    let turns: Vec<&[Said]> = [first].into_iter().chain(std::iter::repeat_n(turn, many)).collect();
    let session = recorded(("loop", 1), &turns);
    let (longer, like) = (session.recording(), first_call(&session));
    let begins = |committed: &&domain::Committed| {
        committed.commit.takes.iter().any(|take| matches!(take, Take::Private { entry: PrivateEntry::TurnBegun {} }))
    };
    let end = longer.commits.iter().filter(begins).nth(many).expect("a turn more").commit.n as usize;
    let recording = Recording { commits: longer.commits[..end].to_vec(), ..longer.clone() };
    let variant = Variant { harness: named("plan-act", 1), ..Variant::default() };
    let input = Input { live: true, ..input(1, variant) };
    let mut model = |request: &Asked, _: &Value| calls(request, &[Call { input_sha256: "00".into(), ..like.clone() }]);
    let (trial, _) = tried(&recording, &input, Some(&mut model));
    let left = trial.left(&input, &BTreeMap::new()).expect("it ended at a call");
    // As if the session that went on had done what was recorded; and then somebody had gone on with it.
    let told = |commits: &[domain::Committed]| {
        let mut report = trial.report(&input, &BTreeMap::new());
        report.went_on("sesn_whatif", &left, commits, false, &NOTHING_EXPECTED);
        report
    };
    let report = told(&recording.commits);
    assert_eq!(report.turns.len(), TRIAL_TURNS_TOLD_MAX);
    let totals = report.totals();
    assert_eq!((totals.turns, totals.tried.requests, totals.recorded.calls), (many as u64, many as u64 + 1, 1));
    assert_eq!(told(&longer.commits), report, "what is sent to it later is its own");
    let older = super::Left { recorded: Vec::new(), ..left.clone() };
    let mut report = trial.report(&input, &BTreeMap::new());
    report.went_on("sesn_whatif", &older, &recording.commits, false, &NOTHING_EXPECTED);
    assert_eq!(report.totals().turns, TRIAL_TURNS_TOLD_MAX as u64, "all that an earlier build had kept");
}
