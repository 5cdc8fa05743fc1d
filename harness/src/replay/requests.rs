//! Every model request of a recorded session: what it was made of, and what another strategy would have made it of.

use super::{Error, Recording, walk};
use crate::{
    context,
    marks::Marks,
    state::{Op, Slice},
};
use domain::{
    Step,
    agent::{AgentFacts, StrategyRef},
    model::Purpose,
};
use serde_json::Value;

/// A request, as it was decided.
#[derive(Clone, Debug)]
pub struct Requested {
    pub commit: u64,
    /// The activity that makes it.
    pub activity: String,
    pub turn: u64,
    /// Which request of the turn it is, from 1. A summary counts with the round before it.
    pub round: u32,
    pub purpose: Purpose,
    pub slice: Slice,
    pub strategy: StrategyRef,
    pub suffix: Vec<Value>,
    pub agent: AgentFacts,
    /// Id of its `span.model_request_start`.
    pub span_id: String,
    marks: Marks,
}

impl Requested {
    /// The same request by another strategy.
    pub fn by(&self, strategy: StrategyRef) -> Self {
        let from = context::reach(&strategy, &self.marks);
        let slice = Slice { from, to: self.slice.to, keep: self.marks.keep(from) };
        Requested { slice, strategy, ..self.clone() }
    }
}

/// All of them, in order.
pub fn requests(recording: &Recording) -> Result<Vec<Requested>, Error> {
    let mut requests = Vec::new();
    walk(recording, |state, intake, committed| {
        let commit = &committed.commit;
        if !matches!(commit.step, Step::CallModel { .. } | Step::Compact { .. }) {
            return Ok(());
        }
        let mut state = state.clone();
        for take in &commit.takes {
            state.take(take, commit.now, intake);
        }
        let marks = state.marks.clone();
        state.step(&commit.step, commit.n, commit.now);
        let made = state.pending.iter().find_map(|pending| match &pending.op {
            Op::CallModel { span_id, slice, strategy, suffix } => {
                Some((&pending.activity, Purpose::Answer, span_id, slice, strategy, suffix.as_slice()))
            }
            Op::Compact { span_id, slice, strategy } => {
                Some((&pending.activity, Purpose::Summary, span_id, slice, strategy, [].as_slice()))
            }
            _ => None,
        });
        if let Some((activity, purpose, span_id, slice, strategy, suffix)) = made {
            requests.push(Requested {
                commit: commit.n,
                activity: activity.clone(),
                turn: state.summary.turn,
                round: state.round,
                purpose,
                slice: slice.clone(),
                strategy: strategy.clone(),
                suffix: suffix.to_vec(),
                agent: state.summary.attributes.agent.clone(),
                span_id: span_id.clone(),
                marks,
            });
        }
        Ok(())
    })?;
    Ok(requests)
}
