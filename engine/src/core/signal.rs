//! Signals. The same request id is taken once; the number a run takes is bounded.

use super::external::Asker;
use super::{Input, Refusal, Tx, workflow_task};
use crate::pb::common::v1::{Header, Payloads};
use crate::pb::history::v1::WorkflowExecutionSignaledEventAttributes;
use crate::pb::history::v1::history_event::Attributes;

pub struct Signal {
    pub name: String,
    pub input: Option<Payloads>,
    pub identity: String,
    pub header: Option<Header>,
    pub request_id: String,
    /// The workflow that sent it, when one did.
    pub from: Option<Asker>,
}

impl Input for Signal {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        if !tx.state.is_open() {
            return Err(Refusal::Closed);
        }
        Asker::check(self.from.as_ref(), tx)?;
        if tx.has_signal(&self.request_id) {
            return Ok(());
        }
        if tx.state.signals >= tx.at.limits.signals_max {
            return Err(Refusal::TooManySignals);
        }
        record(tx, self);
        Ok(())
    }
}

/// Records a signal that was found acceptable.
pub fn record(tx: &mut Tx<'_>, signal: Signal) {
    tx.state.signals += 1;
    if !signal.request_id.is_empty() {
        tx.effects.signal_ids.push(signal.request_id.clone());
    }
    tx.occur(Attributes::WorkflowExecutionSignaledEventAttributes(WorkflowExecutionSignaledEventAttributes {
        signal_name: signal.name,
        input: signal.input,
        identity: signal.identity,
        header: signal.header,
        request_id: signal.request_id,
        external_workflow_execution: signal.from.map(|from| from.execution),
        ..Default::default()
    }));
    workflow_task::ensure(tx);
}
