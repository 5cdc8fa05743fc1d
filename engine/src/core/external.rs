//! What a workflow asks of another run: a signal, or that it cancels itself. The command writes down what is asked; the
//! answer, once there is one, is news for the workflow.

#![expect(deprecated, reason = "SDKs still fill the fields, and servers repeat them in the events")]

use super::command::{CommandError, Outcome, id_within, payloads_within};
use super::state::External;
use super::{Input, Refusal, Tx, ids, workflow_task};
use crate::pb::command::v1::{
    RequestCancelExternalWorkflowExecutionCommandAttributes, SignalExternalWorkflowExecutionCommandAttributes,
};
use crate::pb::common::v1::WorkflowExecution;
use crate::pb::enums::v1::{
    CancelExternalWorkflowExecutionFailedCause as CancelFailed,
    SignalExternalWorkflowExecutionFailedCause as SignalFailed, WorkflowTaskFailedCause as Cause,
};
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    ExternalWorkflowExecutionCancelRequestedEventAttributes, ExternalWorkflowExecutionSignaledEventAttributes,
    RequestCancelExternalWorkflowExecutionFailedEventAttributes,
    RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    SignalExternalWorkflowExecutionFailedEventAttributes, SignalExternalWorkflowExecutionInitiatedEventAttributes,
};
use crate::pb::sdk::v1::UserMetadata;
use uuid::Uuid;

/// Another run that wants something of this one.
#[derive(Clone, Debug, PartialEq)]
pub struct Asker {
    pub execution: WorkflowExecution,
    /// The event of the asker that initiated it.
    pub initiated_event_id: i64,
    /// Meant only if this run is a child of the asker.
    pub child_only: bool,
}

impl Asker {
    /// Refuses what is meant for a child only, unless the run is one.
    pub fn check(asker: Option<&Asker>, tx: &Tx<'_>) -> Result<(), Refusal> {
        match asker {
            Some(asker) if asker.child_only && !tx.state.is_child_of(&asker.execution) => Err(Refusal::OtherParent),
            _ => Ok(()),
        }
    }
}

/// A workflow signals another one.
pub fn signal(
    tx: &mut Tx<'_>,
    command: SignalExternalWorkflowExecutionCommandAttributes,
    user_metadata: Option<UserMetadata>,
    completed_event_id: i64,
) -> Result<(), CommandError> {
    let what = "SignalExternalWorkflowExecutionCommand";
    let cause = Cause::BadSignalWorkflowExecutionAttributes;
    let bad = |message: String| CommandError::new(cause, message);
    let Some(target) = command.execution else { return Err(bad(format!("Execution is not set on {what}."))) };
    let more = format!("Namespace={} RunId={} SignalName={}", tx.state.namespace, target.run_id, command.signal_name);
    check(tx, &command.namespace, &target, what, &more).map_err(bad)?;
    if command.signal_name.is_empty() {
        return Err(bad(format!("SignalName is not set on {what}.")));
    }
    let limits = tx.at.limits;
    payloads_within(command.input.as_ref(), limits, cause, &format!("{what}Attributes.Input exceeds size limit."))?;
    let pending = tx.state.externals.values().filter(|external| !external.is_cancel).count();
    bound(pending, limits.pending_signals_max, Cause::PendingSignalsLimitExceeded, "signals to external workflows")?;
    let initiated = Attributes::SignalExternalWorkflowExecutionInitiatedEventAttributes(
        SignalExternalWorkflowExecutionInitiatedEventAttributes {
            workflow_task_completed_event_id: completed_event_id,
            namespace: command.namespace,
            namespace_id: ids::namespace(&tx.state.namespace),
            workflow_execution: Some(target),
            signal_name: command.signal_name,
            input: command.input,
            control: command.control,
            child_workflow_only: command.child_workflow_only,
            header: command.header,
        },
    );
    initiate(tx, initiated, user_metadata, false);
    Ok(())
}

/// A workflow asks another one to cancel itself.
pub fn request_cancel(
    tx: &mut Tx<'_>,
    command: RequestCancelExternalWorkflowExecutionCommandAttributes,
    user_metadata: Option<UserMetadata>,
    completed_event_id: i64,
    outcome: &Outcome,
) -> Result<(), CommandError> {
    let what = "RequestCancelExternalWorkflowExecutionCommand";
    let bad = |message| CommandError::new(Cause::BadRequestCancelExternalWorkflowExecutionAttributes, message);
    let target = WorkflowExecution { workflow_id: command.workflow_id, run_id: command.run_id };
    let more = format!("RunId={} Namespace={}", target.run_id, tx.state.namespace);
    check(tx, &command.namespace, &target, what, &more).map_err(bad)?;
    if outcome.children.contains(&target.workflow_id) {
        let message = "Start and RequestCancel for child workflow is not allowed in same workflow task.";
        return Err(bad(format!("{message} WorkflowId={}", target.workflow_id)));
    }
    let pending = tx.state.externals.values().filter(|external| external.is_cancel).count();
    let max = tx.at.limits.pending_cancels_max;
    bound(pending, max, Cause::PendingRequestCancelLimitExceeded, "requests to cancel external workflows")?;
    let initiated = Attributes::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(
        RequestCancelExternalWorkflowExecutionInitiatedEventAttributes {
            workflow_task_completed_event_id: completed_event_id,
            namespace: command.namespace,
            namespace_id: ids::namespace(&tx.state.namespace),
            workflow_execution: Some(target),
            control: command.control,
            child_workflow_only: command.child_workflow_only,
            reason: command.reason,
        },
    );
    initiate(tx, initiated, user_metadata, true);
    Ok(())
}

fn initiate(tx: &mut Tx<'_>, initiated: Attributes, user_metadata: Option<UserMetadata>, is_cancel: bool) {
    let request_id = ids::request(tx.state);
    let initiated_event_id = tx.append_with(initiated, user_metadata);
    tx.state.externals.insert(initiated_event_id, External { is_cancel, request_id });
}

/// `more`: what else is said of a command whose workflow id is too long.
fn check(tx: &Tx<'_>, namespace: &str, target: &WorkflowExecution, what: &str, more: &str) -> Result<(), String> {
    same_namespace(tx, namespace)?;
    if target.workflow_id.is_empty() {
        return Err(format!("WorkflowId is not set on {what}."));
    }
    let id = &target.workflow_id;
    id_within(id, tx.at.limits)
        .map_err(|length| format!("WorkflowId on {what} exceeds length limit. WorkflowId={id} {length} {more}"))?;
    if !target.run_id.is_empty() && Uuid::parse_str(&target.run_id).is_err() {
        return Err(format!("Invalid RunId set on {what}. RunId={}", target.run_id));
    }
    Ok(())
}

/// A workflow reaches no other namespace, as on a server that was not told otherwise.
pub fn same_namespace(tx: &Tx<'_>, namespace: &str) -> Result<(), String> {
    match namespace.is_empty() || namespace == tx.state.namespace {
        true => Ok(()),
        false => Err("cross namespace commands are not allowed".to_owned()),
    }
}

/// Refuses one more of what may only be so many.
pub fn bound(pending: usize, max: usize, cause: Cause, what: &str) -> Result<(), CommandError> {
    match pending >= max {
        true => {
            let reached = format!("has reached the per-workflow limit of {max}");
            Err(CommandError::new(cause, format!("the number of pending {what}, {pending}, {reached}")))
        }
        false => Ok(()),
    }
}

/// The signal was sent, or could not be.
pub struct Signaled {
    pub initiated_event_id: i64,
    pub initiated: SignalExternalWorkflowExecutionInitiatedEventAttributes,
    pub outcome: Result<(), SignalFailed>,
}

impl Input for Signaled {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let Signaled { initiated_event_id, initiated, outcome } = self;
        let attributes = match outcome {
            Ok(()) => Attributes::ExternalWorkflowExecutionSignaledEventAttributes(
                ExternalWorkflowExecutionSignaledEventAttributes {
                    initiated_event_id,
                    namespace: tx.state.namespace.clone(),
                    namespace_id: initiated.namespace_id,
                    workflow_execution: initiated.workflow_execution,
                    control: initiated.control,
                },
            ),
            Err(cause) => Attributes::SignalExternalWorkflowExecutionFailedEventAttributes(
                SignalExternalWorkflowExecutionFailedEventAttributes {
                    cause: cause as i32,
                    workflow_task_completed_event_id: 0,
                    namespace: tx.state.namespace.clone(),
                    namespace_id: initiated.namespace_id,
                    workflow_execution: initiated.workflow_execution,
                    initiated_event_id,
                    control: initiated.control,
                },
            ),
        };
        answered(tx, initiated_event_id, false, attributes)
    }
}

/// The other run was asked to cancel itself, or could not be.
pub struct CancelRequested {
    pub initiated_event_id: i64,
    pub initiated: RequestCancelExternalWorkflowExecutionInitiatedEventAttributes,
    pub outcome: Result<(), CancelFailed>,
}

impl Input for CancelRequested {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let CancelRequested { initiated_event_id, initiated, outcome } = self;
        let attributes = match outcome {
            Ok(()) => Attributes::ExternalWorkflowExecutionCancelRequestedEventAttributes(
                ExternalWorkflowExecutionCancelRequestedEventAttributes {
                    initiated_event_id,
                    namespace: tx.state.namespace.clone(),
                    namespace_id: initiated.namespace_id,
                    workflow_execution: initiated.workflow_execution,
                },
            ),
            Err(cause) => Attributes::RequestCancelExternalWorkflowExecutionFailedEventAttributes(
                RequestCancelExternalWorkflowExecutionFailedEventAttributes {
                    cause: cause as i32,
                    workflow_task_completed_event_id: 0,
                    namespace: tx.state.namespace.clone(),
                    namespace_id: initiated.namespace_id,
                    workflow_execution: initiated.workflow_execution,
                    initiated_event_id,
                    control: String::new(),
                },
            ),
        };
        answered(tx, initiated_event_id, true, attributes)
    }
}

fn answered(tx: &mut Tx<'_>, initiated: i64, is_cancel: bool, attributes: Attributes) -> Result<(), Refusal> {
    let awaited = tx.state.externals.get(&initiated).is_some_and(|external| external.is_cancel == is_cancel);
    if !awaited || !tx.state.is_open() {
        return Err(Refusal::NotAwaited);
    }
    tx.state.externals.remove(&initiated);
    tx.occur(attributes);
    workflow_task::ensure(tx);
    Ok(())
}
