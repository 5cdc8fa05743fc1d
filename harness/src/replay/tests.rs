use super::*;
use crate::{intake::Waiting, kit::Session, registry, state::Op};

fn own(wanted: &HarnessRef) -> Option<Box<dyn Ask>> {
    registry::find(wanted).map(|found| Box::new(found) as Box<dyn Ask>)
}

/// A turn with a call, by a harness.
fn recorded(name: &str, version: u32) -> Session {
    let harness = registry::named(name, version).expect("it is in this build");
    let mut session = Session::new(crate::kit::attributes(), harness.reference());
    session.message("go");
    session.settle();
    let mut called = false;
    while let Some((activity, op)) = session.flying.first().cloned() {
        match op {
            Op::CallModel { .. } if !called => {
                called = true;
                session.model_answers(&activity, "looking", &["bash", "bash"]);
            }
            Op::CallModel { .. } => session.model_answers(&activity, "PLAN COMPLETE", &[]),
            Op::Provision { hand, .. } => session.hand_is_ready(&activity, &hand),
            Op::Execute { call } => session.tool_returns(&activity, &call, "output", false),
            Op::Collect { .. } => session.collected(&activity),
            other => panic!("{other:?}"),
        }
        session.settle();
    }
    session
}

#[test]
fn a_harness_decides_the_same_again() {
    for harness in registry::HARNESSES {
        let session = recorded(harness.name, harness.version);
        let report = replay(&session.recording(), With::Own(&mut own)).unwrap();
        assert_eq!(report.divergence, None, "{}@{}", harness.name, harness.version);
        assert_eq!(report.commits, session.committed.len() as u64);
        assert!(report.decisions >= 4, "{report:?}");
    }
}

#[test]
fn a_recording_survives_being_written_down() {
    let session = recorded("loop", 2);
    let written = serde_json::to_string(&session.recording()).unwrap();
    let read: Recording = serde_json::from_str(&written).unwrap();
    assert_eq!(replay(&read, With::Own(&mut own)).unwrap().divergence, None);
}

/// Builds before this one began the turn behind a swap in the swap's own commit, and asked the harness that was on its way out.
#[test]
fn a_swap_that_an_earlier_build_recorded_decides_the_same_again() {
    let reference = |name| registry::named(name, 1).expect("it is in this build").reference();
    let mut session = Session::new(crate::kit::attributes(), reference("plan-act"));
    session.message("one");
    session.settle();
    let (activity, _) = session.flying.first().cloned().expect("it asks the model");
    session.swap(reference("loop"));
    session.message("two");
    session.model_answers(&activity, "PLAN COMPLETE", &[]);
    session.settle();
    while session.state.summary.turn < 2 {
        let (activity, _) = session.flying.first().cloned().expect("it asks the model");
        session.model_answers(&activity, "PLAN COMPLETE", &[]);
        session.settle();
    }
    let new = session.recording();
    let is_swap = |committed: &Committed| private_names(&committed.commit).any(|name| name == "swapped");
    let at = new.commits.iter().position(is_swap).expect("it was swapped");
    assert!(matches!(new.commits[at].commit.step, Step::Idle { .. }), "this build swaps with the end of the turn");

    // The same as that build: the turn ends, and another decision swaps and begins the next turn.
    let mut before = None;
    walk(&new, |state, intake, committed| {
        before = before.take().or_else(|| is_swap(committed).then(|| (state.clone(), intake.clone())));
        Ok(())
    })
    .unwrap();
    let (mut state, mut intake) = before.expect("it was walked over");
    let mut leaving = registry::named("plan-act", 1).unwrap();
    let mut old = new.clone();
    old.commits.truncate(at);
    let end = &new.commits[at];
    let mut recorded = end.commit.clone();
    recorded.takes.retain(|take| !matches!(take, Take::Private { entry: PrivateEntry::Swapped { .. } }));
    let commit = frame::decide_again(&state, &intake, &mut leaving, &recorded);
    assert_eq!(commit.takes, recorded.takes, "nothing but the swap is left to the next one");
    state.apply(&commit, &intake);
    old.commits.push(Committed { commit, ..end.clone() });

    let position = state.summary.position;
    let mail: Vec<Mail> = new.commits[at + 1..].iter().flat_map(|committed| committed.mail.clone()).collect();
    intake.mail = mail.iter().map(Waiting::of).collect();
    intake.closed.clear();
    recorded.takes =
        [PrivateEntry::Swapped { from: reference("plan-act"), to: reference("loop") }, PrivateEntry::TurnBegun {}]
            .map(|entry| Take::Private { entry })
            .to_vec();
    let commit = frame::decide_again(&state, &intake, &mut leaving, &recorded);
    assert_eq!(private_names(&commit).collect::<Vec<_>>(), ["swapped", "turn_begun"]);
    assert!(matches!(&commit.step, Step::CallModel { suffix, .. } if suffix.len() == 1), "by the harness that leaves");
    old.commits.push(Committed { commit, position, mail, results: Vec::new() });

    let report = replay(&old, With::Own(&mut own)).unwrap();
    assert_eq!((report.divergence, report.commits), (None, at as u64 + 2));
    assert_eq!(replay(&new, With::Own(&mut own)).unwrap().divergence, None);
}

fn private_names(commit: &Commit) -> impl Iterator<Item = String> {
    commit.takes.iter().filter_map(|take| match take {
        Take::Private { entry } => Some(private_name(entry)),
        _ => None,
    })
}

#[test]
fn another_harness_is_shown_where_it_parts() {
    let session = recorded("loop", 1);
    let with = |name, version| {
        let mut harness = registry::named(name, version).unwrap();
        replay(&session.recording(), With::Other(&harness.reference(), &mut harness)).unwrap()
    };
    let next = with("loop", 2);
    assert_eq!(next.divergence, None, "where no shim is needed loop@2 does what loop@1 does");
    assert!(next.other_context > 0, "and says that it would ask otherwise");

    let divergence = with("plan-act", 1).divergence.expect("it is another idea");
    assert_eq!((divergence.kind, divergence.commit), (DivergenceKind::Decision, 0));
    assert_eq!(divergence.recorded.step, Step::CallModel { strategy: None, suffix: Vec::new() });
    assert!(matches!(&divergence.replayed.step, Step::CallModel { suffix, .. } if !suffix.is_empty()));
}

#[test]
fn a_log_that_was_touched_does_not_give_its_views() {
    let mut recording = recorded("loop", 1).recording();
    let tool = |committed: &&mut Committed| committed.results.iter().any(|named| named.activity.starts_with("execute"));
    let touched = recording.commits.iter_mut().find(tool).expect("a tool ran");
    for named in &mut touched.results {
        named.result.rest["digest"]["head"] = "something else".into();
    }
    let divergence = replay(&recording, With::Own(&mut own)).unwrap().divergence.expect("the hash tells");
    assert_eq!(divergence.kind, DivergenceKind::View);
}

#[test]
fn what_is_missing_is_named() {
    let mut recording = recorded("loop", 1).recording();
    recording.commits[0].mail.clear();
    let error = replay(&recording, With::Own(&mut own)).unwrap_err();
    assert!(matches!(error, Error::Missing { commit: 0, source: Missing::Mail(_), .. }), "{error:?}");

    let recording = recorded("loop", 1).recording();
    let error = replay(&recording, With::Own(&mut |_| None)).unwrap_err();
    assert!(matches!(error, Error::Gone { commit: 0, .. }), "{error:?}");
}

#[test]
fn every_request_is_found_and_can_be_made_by_another_strategy() {
    let session = recorded("loop", 2);
    let found = requests(&session.recording()).unwrap();
    let recipes: Vec<_> = session.log.iter().filter_map(|entry| entry.private.as_ref()).collect();
    assert_eq!(found.len(), recipes.len());
    for (found, private) in found.iter().zip(recipes) {
        assert_eq!((found.slice.from, found.slice.to), (private.recipe.from, private.recipe.to));
        assert_eq!((&found.strategy, &found.suffix), (&private.recipe.strategy, &private.recipe.suffix));
    }
    let window = StrategyRef { name: "window".into(), version: 1, params: serde_json::json!({"rounds": 1, "leap": 1}) };
    let narrow = found[1].by(window);
    assert_eq!((narrow.slice.from, narrow.slice.to), (0, found[1].slice.to), "the first round is still within it");
}

/// Decides as it is told, whatever it sees.
struct Told(fn(&View) -> Decision);

impl Ask for Told {
    fn view_version(&self) -> u32 {
        view::VERSION
    }

    fn ask(&mut self, view: &View, _views: &Views) -> Result<Decision, HarnessError> {
        Ok((self.0)(view))
    }
}

fn judged(next: fn(&View) -> Decision) -> Judgement {
    let told = HarnessRef { name: "told".into(), version: 1, sha256: "00".repeat(32) };
    judge(&recorded("loop", 1).recording(), &told, &mut Told(next)).unwrap()
}

#[test]
fn a_harness_that_is_meant_to_differ_is_asked_at_every_moment() {
    let session = recorded("loop", 1);
    let mut other = registry::named("plan-act", 1).unwrap();
    let judged = judge(&session.recording(), &other.reference(), &mut other).unwrap();
    let asked = session.committed.iter().filter(|committed| committed.commit.view_hash.is_some()).count();
    assert_eq!(judged.decisions, asked as u64);
    assert!(judged.differing > 1, "{judged:?}");
    assert_eq!(judged.broken, None, "to differ is not to break");
    assert_eq!(judged.first.map(|first| first.commit), Some(0));
    let mut same = registry::named("loop", 1).unwrap();
    let judged = judge(&session.recording(), &same.reference(), &mut same).unwrap();
    assert_eq!((judged.decisions, judged.differing, judged.first), (asked as u64, 0, None));
}

#[test]
fn what_cannot_stand_breaks_wherever_it_comes() {
    assert_eq!(judged(|_| Step::CallModel { strategy: None, suffix: Vec::new() }.into()).broken, None);
    let crash =
        judged(
            |view| if view.round == 0 { panic!("lost") } else { Step::Idle { reason: IdleReason::EndTurn {} }.into() },
        );
    assert_eq!(crash.broken.unwrap().why, "harness told@1 panicked");
    // Good at first: the moment at which it breaks comes behind a difference.
    let late = judged(|view| match view.round {
        0 => Decision::from(Step::CallModel { strategy: None, suffix: vec![serde_json::json!({"role": "user"})] }),
        _ => Step::Execute { calls: vec!["none".into()] }.into(),
    });
    assert_eq!((late.decisions, late.differing), (2, 2));
    let broken = late.broken.expect("it asked to run what is not there");
    assert_eq!(broken.why, "harness loop@1 asked to run no call that is open");
    assert!(broken.at.commit > late.first.expect("the first difference").commit);
    let refused = judged(|_| Step::Fail { message: "no".into() }.into());
    assert_eq!(refused.broken.unwrap().why, "no");
}

/// Wherever a session is forked, the fork rests with nothing under way, every use has its result, and it goes on to decide
/// the same when it is replayed.
#[test]
fn a_fork_at_any_commit_rests_and_replays() {
    for harness in registry::HARNESSES {
        let session = recorded(harness.name, harness.version);
        let whole = session.recording();
        for end in 0..=whole.commits.len() {
            let Genesis { created_at, attributes, harness: first } = whole.genesis.clone();
            let begun = SessionState::created(&whole.session_id, created_at, attributes.clone(), first.clone());
            let state = state_after(begun, whole.commits[..end].to_vec()).unwrap();
            let fork = domain::commit::Fork {
                parent: whole.session_id.clone(),
                session_id: "sesn_fork".into(),
                created_at: domain::Time::from_ms(9_000),
                attributes,
                harness: first,
                goes_on: false,
            };
            let mut forked = Session::of(state.forked(fork), whole.clone(), end);
            forked.settle();
            assert!(forked.state.pending.is_empty() && forked.state.blocked.is_empty(), "{:?}", forked.state.pending);
            assert!(forked.state.calls.is_empty(), "every use has a result");
            assert_eq!((forked.state.summary.status, forked.flying.len()), (domain::Status::Idle, 0));
            forked.message("and now");
            forked.settle();
            let (activity, _) = forked.flying.first().cloned().expect("it asks the model");
            forked.model_answers(&activity, "PLAN COMPLETE", &[]);
            forked.settle();
            let mut recording = forked.recording();
            recording.session_id = "sesn_fork".into();
            let report = replay(&recording, With::Own(&mut own)).unwrap();
            assert_eq!(report.divergence, None, "{}@{} forked at {end}", harness.name, harness.version);
            assert_eq!(report.commits, recording.commits.len() as u64);
        }
    }
}

#[test]
fn a_strategy_is_changed_for_good_or_for_a_turn() {
    let window = |turn| domain::session::Change {
        strategy: Some(Box::new(domain::session::StrategyChange {
            strategy: StrategyRef { name: "window".into(), version: 1, params: serde_json::json!({"rounds": 2}) },
            turn,
        })),
        ..domain::session::Change::of(if turn { "chg_turn" } else { "chg_good" })
    };
    let turn = |session: &mut Session| {
        session.message("go");
        session.settle();
        let (activity, _) = session.flying.first().cloned().expect("it asks the model");
        session.model_answers(&activity, "done", &[]);
        session.settle();
    };
    let strategies = |session: &Session| -> Vec<String> {
        let made = session.log.iter().filter_map(|entry| entry.private.as_ref());
        made.map(|private| private.recipe.strategy.name.clone()).collect()
    };
    let mut session = Session::new(crate::kit::attributes(), registry::named("loop", 1).unwrap().reference());
    turn(&mut session);
    session.change(window(true));
    turn(&mut session);
    turn(&mut session);
    // Under way: the request that is out is not made again, the next one is another one.
    session.message("go");
    session.settle();
    session.change(window(false));
    session.settle();
    let (activity, _) = session.flying.first().cloned().expect("it asks the model");
    session.model_answers(&activity, "done", &[]);
    session.settle();
    turn(&mut session);
    assert_eq!(strategies(&session), ["full", "window", "full", "full", "window"]);
    assert_eq!(replay(&session.recording(), With::Own(&mut own)).unwrap().divergence, None);
}
