//! The state machine, moved by hand.

use super::*;
use domain::rollout::{Gate, Observed, Watch};

fn harness(version: u32) -> HarnessRef {
    HarnessRef { name: "loop".into(), version, sha256: format!("{version:064}") }
}

fn rollout(gate: u32, stages: &[u8]) -> Rollout {
    let spec = Spec {
        from: harness(1),
        to: harness(2),
        agent_id: None,
        gate: Gate { sample: BlobRef { blob: "00".into(), bytes: 2 }, sessions: gate, strict: false },
        stages: stages.to_vec(),
        live: false,
        watch: Watch { sessions_min: 20, stage_ms: 1_000, alpha: 0.001, tolerance: 0.25, price: None },
        decisions_per_run: 0,
    };
    Rollout::created("rollout_1", Time::from_ms(0), spec)
}

fn at(ms: i64) -> Intake {
    Intake { now: Time::from_ms(ms), ..Intake::default() }
}

fn order(id: &str, to: Order) -> Intake {
    Intake { mail: vec![Mail::Command { command: Command { id: id.into(), to } }], ..at(0) }
}

/// Sessions of both versions, each with some that failed.
fn observed(ms: i64, old: (u64, u64), new: (u64, u64)) -> Intake {
    let figures = |(sessions, failed): (u64, u64)| Figures { sessions, failed, ..Figures::default() };
    let observed = Box::new(Observed { old: figures(old), new: figures(new) });
    Intake { mail: vec![Mail::Observed { observed }], ..at(ms) }
}

fn gated(next: u32, failure: Option<&str>) -> Intake {
    let failure = failure.map(|why| GateFailure { why: why.into(), at: None });
    Intake { gated: Some(Ok(GateReport { next, decisions: 7, failure, ..GateReport::default() })), ..at(5) }
}

fn stage(rollout: &Rollout) -> Option<usize> {
    match rollout.phase {
        Phase::Ramping { stage } => Some(stage),
        _ => None,
    }
}

#[test]
fn the_gate_goes_through_the_sample_part_by_part() {
    let rollout = rollout(20, &[10, 100]);
    assert_eq!(rollout.gate_wanted(), None, "nothing happens before the first decision");
    assert!(rollout.is_due(&at(0)));
    let rollout = rollout.decided(at(0));
    assert!(!rollout.is_due(&at(9)));
    let wanted = rollout.gate_wanted().expect("the gate is on");
    assert_eq!((wanted.from, wanted.sessions), (0, 16));
    let rollout = rollout.decided(gated(16, None));
    let wanted = rollout.gate_wanted().expect("there is more");
    assert_eq!((wanted.from, wanted.sessions, rollout.percent()), (16, 4, 0));
    let rollout = rollout.decided(gated(4, None));
    assert_eq!((rollout.gate_wanted(), stage(&rollout), rollout.percent()), (None, Some(0), 10));
    assert_eq!(rollout.notes[0].what, "gate passed: 20 sessions, 14 decisions, 0 of them other ones");
}

#[test]
fn a_harness_that_breaks_a_recorded_session_goes_no_further() {
    let rollout = rollout(20, &[10, 100]).decided(at(0)).decided(gated(3, Some("it panicked")));
    assert_eq!(rollout.phase, Phase::Stopped { reason: "the gate was not passed: it panicked".into() });
    assert_eq!((rollout.percent(), rollout.gate_wanted(), rollout.is_over()), (0, None, true));
    assert!(!rollout.is_due(&order("late", Order::Promote)));
}

#[test]
fn a_stage_lasts_until_enough_was_seen_for_long_enough() {
    let rollout = rollout(0, &[10, 100]).decided(at(0));
    assert_eq!((stage(&rollout), rollout.wakes_at()), (Some(0), Some(Time::from_ms(1_000))));
    let rollout = rollout.decided(observed(500, (200, 2), (30, 0)));
    assert_eq!(stage(&rollout), Some(0), "enough sessions, too early");
    let rollout = rollout.decided(at(1_000));
    assert_eq!((stage(&rollout), rollout.percent(), rollout.stage_base), (Some(1), 100, 30));
    let rollout = rollout.decided(observed(2_500, (200, 2), (49, 0)));
    assert_eq!(stage(&rollout), Some(1), "late enough, too few sessions in this stage");
    let rollout = rollout.decided(observed(2_600, (200, 2), (50, 0)));
    assert_eq!((rollout.phase.clone(), rollout.percent()), (Phase::Promoted {}, 100));
}

#[test]
fn a_higher_error_rate_rolls_back_and_a_paused_rollout_too() {
    let start = || rollout(0, &[10, 100]).decided(at(0));
    let worse = observed(10, (200, 2), (20, 8));
    let back = start().decided(worse.clone());
    let Phase::RolledBack { reason } = &back.phase else { panic!("{:?}", back.phase) };
    assert!(reason.starts_with("error rate rose from 0.0100 to 0.4000 at 10 percent (p = "), "{reason}");
    assert_eq!(back.percent(), 0);
    let paused = start().decided(order("a", Order::Pause));
    assert!(matches!(paused.clone().decided(worse).phase, Phase::RolledBack { .. }));
    let held = paused.decided(observed(5_000, (200, 2), (30, 0)));
    assert_eq!((stage(&held), held.wakes_at()), (Some(0), None), "it stays where it is");
    assert_eq!(stage(&held.decided(order("b", Order::Resume))), Some(1), "and goes on from there");
}

#[test]
fn orders_count_once_and_only_where_they_can_be_followed() {
    let gating = rollout(20, &[10, 100]).decided(order("a", Order::Promote));
    assert_eq!((gating.phase.clone(), gating.notes.len()), (Phase::Gating {}, 1), "the gate is not passed");
    assert_eq!(gating.clone().decided(order("a", Order::Promote)).notes.len(), 1, "delivered again");
    assert!(matches!(gating.decided(order("b", Order::Rollback)).phase, Phase::Stopped { .. }));
    let ramping = rollout(0, &[10]).decided(at(0));
    assert_eq!(ramping.clone().decided(order("a", Order::Promote)).phase, Phase::Promoted {});
    assert!(matches!(ramping.decided(order("b", Order::Rollback)).phase, Phase::RolledBack { .. }));
}

#[test]
fn a_last_stage_below_all_waits_for_a_word() {
    let rollout = rollout(0, &[10]).decided(at(0)).decided(observed(2_000, (200, 0), (30, 0)));
    assert_eq!((stage(&rollout), rollout.wakes_at()), (Some(0), None));
}

#[test]
fn the_state_survives_history() {
    let rollout = rollout(2, &[10]).decided(at(0)).decided(gated(2, None)).decided(observed(2_000, (20, 0), (30, 0)));
    let written = serde_json::to_string(&rollout).unwrap();
    assert_eq!(serde_json::from_str::<Rollout>(&written).unwrap(), rollout);
}
