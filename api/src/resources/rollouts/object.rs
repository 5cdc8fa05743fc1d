//! A rollout as clients see it.

use harness::rollout::Phase;
use serde_json::{Value, json};

use super::row::RolloutRow;
use crate::time;

pub fn of(row: &RolloutRow) -> Value {
    let state = &row.state;
    let (status, reason) = match &state.phase {
        Phase::Gating {} => ("gating", None),
        Phase::Ramping { .. } => ("ramping", None),
        Phase::Promoted {} => ("promoted", None),
        Phase::RolledBack { reason } => ("rolled_back", Some(reason)),
        Phase::Stopped { reason } => ("stopped", Some(reason)),
    };
    let stage = match state.phase {
        Phase::Ramping { stage } => Some(stage),
        _ => None,
    };
    let spec = &state.spec;
    let mut gate = json!(state.gate);
    gate["sessions"] = json!(spec.gate.sessions);
    gate["strict"] = json!(spec.gate.strict);
    gate["shown"] = gate["next"].take();
    json!({
        "type": "harness_rollout",
        "id": row.id,
        "created_at": time::text(row.created_at),
        "updated_at": state.now,
        "from": spec.from,
        "to": spec.to,
        "agent_id": spec.agent_id,
        "status": status,
        "reason": reason,
        "paused": state.paused,
        "percent": state.percent(),
        "stage": stage,
        "stages": spec.stages,
        "live": spec.live,
        "gate": gate,
        "watch": spec.watch,
        "old": state.old,
        "new": state.new,
        "verdicts": state.verdicts,
        "notes": state.notes,
    })
}
