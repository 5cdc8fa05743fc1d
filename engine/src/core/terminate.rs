//! Ending a run from outside, at once and without asking the workflow.

use super::external::Asker;
use super::{Input, Refusal, Tx, close};
use crate::pb::common::v1::Payloads;
use crate::pb::enums::v1::WorkflowExecutionStatus;
use crate::pb::history::v1::WorkflowExecutionTerminatedEventAttributes;
use crate::pb::history::v1::history_event::Attributes;

#[derive(Default)]
pub struct Terminate {
    pub reason: String,
    pub details: Option<Payloads>,
    pub identity: String,
    /// Refuses when the run is not of this chain; empty accepts any.
    pub first_run_id: String,
    /// The workflow that ends it, when one does.
    pub from: Option<Asker>,
}

impl Input for Terminate {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        if !self.first_run_id.is_empty() && self.first_run_id != tx.state.first_run_id {
            return Err(Refusal::OtherChain);
        }
        if !tx.state.is_open() {
            return Err(Refusal::Closed);
        }
        Asker::check(self.from.as_ref(), tx)?;
        terminate(tx, self.reason, self.details, self.identity);
        Ok(())
    }
}

/// The identity behind terminations that nobody asked for, as on a server.
pub const BY_THE_ENGINE: &str = "history-service";

/// Terminates an open run.
pub fn terminate(tx: &mut Tx<'_>, reason: String, details: Option<Payloads>, identity: String) {
    close::abandon_task(tx);
    close::close(
        tx,
        WorkflowExecutionStatus::Terminated,
        Attributes::WorkflowExecutionTerminatedEventAttributes(WorkflowExecutionTerminatedEventAttributes {
            reason,
            details,
            identity,
        }),
    );
}
