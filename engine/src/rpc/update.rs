//! Updates: asked for, and waited for.

use super::{Call, Reply, status};
use crate::host::{Slot, Stage, Until, UpdateError};
use crate::pb::common::v1::WorkflowExecution;
use crate::pb::enums::v1::{
    ResourceExhaustedCause, ResourceExhaustedScope, UpdateWorkflowExecutionLifecycleStage as Lifecycle,
};
use crate::pb::update::v1::{Outcome, UpdateRef, WaitPolicy};
use crate::pb::workflowservice::v1::*;
use crate::store::keys;
use tonic::Status;

pub async fn update(call: Call, r: UpdateWorkflowExecutionRequest) -> Reply<UpdateWorkflowExecutionResponse> {
    call.room()?;
    let namespace = call.namespace(&r.namespace)?;
    let mut request = r.request.unwrap_or_default();
    let input = request.input.clone().unwrap_or_default();
    call.id("UpdateName", &input.name)?;
    call.blob(input.args.as_ref())?;
    if !request.completion_callbacks.is_empty() {
        return Err(Status::unimplemented("completion callbacks are not supported by this server"));
    }
    let mut execution = r.workflow_execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    if !r.first_execution_run_id.is_empty() {
        execution.run_id.clear(); // the newest run of the chain
    }
    let slot = call.run(namespace, &execution)?;
    if !r.first_execution_run_id.is_empty() && slot.run.lock().state.first_run_id != r.first_execution_run_id {
        return Err(status::not_found("workflow execution not found"));
    }
    let meta = request.meta.get_or_insert_default();
    if meta.update_id.is_empty() {
        meta.update_id = call.host.fresh_id();
    }
    let id = meta.update_id.clone();
    call.id("UpdateId", &id)?;
    let (until, deadline) = (until(r.wait_policy), call.wait_until(call.host.limits.history_poll_ns));
    let stage = call.host.update(&slot, request, until, deadline).await?;
    let (stage, outcome) = answered(stage)?;
    let update_ref = Some(reference(&slot, id));
    Ok(UpdateWorkflowExecutionResponse { update_ref, outcome, stage: stage as i32, ..Default::default() })
}

pub async fn poll(call: Call, r: PollWorkflowExecutionUpdateRequest) -> Reply<PollWorkflowExecutionUpdateResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let UpdateRef { workflow_execution, update_id } = r.update_ref.unwrap_or_default();
    let execution = workflow_execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    call.id("UpdateId", &update_id)?;
    let slot = call.run(namespace, &execution)?;
    let (until, deadline) = (until(r.wait_policy), call.wait_until(call.host.limits.history_poll_ns));
    let stage = call.host.poll_update(&slot, &update_id, until, deadline).await?;
    let (stage, outcome) = answered(stage)?;
    let update_ref = Some(reference(&slot, update_id));
    Ok(PollWorkflowExecutionUpdateResponse { outcome, stage: stage as i32, update_ref })
}

fn until(policy: Option<WaitPolicy>) -> Until {
    match policy.unwrap_or_default().lifecycle_stage() {
        Lifecycle::Completed => Until::Completed,
        Lifecycle::Accepted => Until::Accepted,
        Lifecycle::Admitted | Lifecycle::Unspecified => Until::Admitted,
    }
}

fn answered(stage: Stage) -> Reply<(Lifecycle, Option<Outcome>)> {
    match stage {
        Stage::Admitted => Ok((Lifecycle::Admitted, None)),
        Stage::Accepted => Ok((Lifecycle::Accepted, None)),
        Stage::Completed(outcome) => Ok((Lifecycle::Completed, Some(*outcome))),
        Stage::Aborted => Err(status::not_found("workflow execution already completed")),
    }
}

fn reference(slot: &Slot, update_id: String) -> UpdateRef {
    let workflow_id = slot.run.lock().state.workflow_id.clone();
    let execution = WorkflowExecution { workflow_id, run_id: keys::run_id(&slot.key) };
    UpdateRef { workflow_execution: Some(execution), update_id }
}

impl From<UpdateError> for Status {
    fn from(error: UpdateError) -> Status {
        match error {
            UpdateError::Host(error) => error.into(),
            UpdateError::Unknown(_) => status::not_found(&error.to_string()),
            UpdateError::TooManyInFlight(_) => {
                let (cause, scope) = (ResourceExhaustedCause::ConcurrentLimit, ResourceExhaustedScope::Namespace);
                status::exhausted(&error.to_string(), cause, scope)
            }
            UpdateError::TooMany(_) => Status::failed_precondition(error.to_string()),
        }
    }
}
