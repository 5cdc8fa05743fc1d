//! Asking a workflow to cancel itself. Idempotent; a closed run has nothing left to cancel.

use super::external::Asker;
use super::{Input, Refusal, Tx, workflow_task};
use crate::pb::history::v1::WorkflowExecutionCancelRequestedEventAttributes;
use crate::pb::history::v1::history_event::Attributes;

pub struct RequestCancel {
    pub reason: String,
    pub identity: String,
    /// Refuses when the run is not of this chain; empty accepts any.
    pub first_run_id: String,
    /// The workflow that asks, when one does.
    pub from: Option<Asker>,
}

impl Input for RequestCancel {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        if !self.first_run_id.is_empty() && self.first_run_id != tx.state.first_run_id {
            return Err(Refusal::OtherChain);
        }
        if !tx.state.is_open() {
            return Ok(());
        }
        Asker::check(self.from.as_ref(), tx)?;
        if tx.state.cancel_requested {
            return Ok(());
        }
        tx.state.cancel_requested = true;
        tx.occur(Attributes::WorkflowExecutionCancelRequestedEventAttributes(
            WorkflowExecutionCancelRequestedEventAttributes {
                cause: self.reason,
                identity: self.identity,
                external_initiated_event_id: self.from.as_ref().map_or(0, |from| from.initiated_event_id),
                external_workflow_execution: self.from.map(|from| from.execution),
            },
        ));
        workflow_task::ensure(tx);
        Ok(())
    }
}
