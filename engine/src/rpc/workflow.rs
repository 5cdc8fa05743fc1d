//! Acting on a workflow from outside: signal, cancel, terminate, delete.

use super::{Call, Reply};
use crate::core::cancel::RequestCancel;
use crate::core::signal::Signal;
use crate::core::terminate::Terminate;
use crate::pb::common::v1::WorkflowExecution;
use crate::pb::workflowservice::v1::*;
use crate::store::Durability;

pub async fn signal(call: Call, r: SignalWorkflowExecutionRequest) -> Reply<SignalWorkflowExecutionResponse> {
    call.room()?;
    call.id("SignalName", &r.signal_name)?;
    call.id_if_any("RequestId", &r.request_id)?;
    call.blob(r.input.as_ref())?;
    let execution = r.workflow_execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    let slot = call.run(call.namespace(&r.namespace)?, &execution)?;
    let signal = Signal {
        name: r.signal_name,
        input: r.input,
        identity: r.identity,
        header: r.header,
        request_id: r.request_id,
        from: None,
    };
    call.host.transact(&slot, signal, Durability::Synced).await?;
    Ok(SignalWorkflowExecutionResponse::default())
}

pub async fn request_cancel(
    call: Call,
    r: RequestCancelWorkflowExecutionRequest,
) -> Reply<RequestCancelWorkflowExecutionResponse> {
    let execution = chain_or_run(r.workflow_execution.unwrap_or_default(), &r.first_execution_run_id);
    call.id("WorkflowId", &execution.workflow_id)?;
    let slot = call.run(call.namespace(&r.namespace)?, &execution)?;
    let first_run_id = r.first_execution_run_id;
    let cancel = RequestCancel { reason: r.reason, identity: r.identity, first_run_id, from: None };
    call.host.transact(&slot, cancel, Durability::Synced).await?;
    Ok(RequestCancelWorkflowExecutionResponse {})
}

pub async fn terminate(call: Call, r: TerminateWorkflowExecutionRequest) -> Reply<TerminateWorkflowExecutionResponse> {
    let execution = chain_or_run(r.workflow_execution.unwrap_or_default(), &r.first_execution_run_id);
    call.id("WorkflowId", &execution.workflow_id)?;
    let slot = call.run(call.namespace(&r.namespace)?, &execution)?;
    let terminate = Terminate {
        reason: if r.reason.is_empty() { "terminated by user via frontend".to_owned() } else { r.reason },
        details: r.details,
        identity: if r.identity.is_empty() { "frontend-service".to_owned() } else { r.identity },
        first_run_id: r.first_execution_run_id,
        from: None,
    };
    call.host.transact(&slot, terminate, Durability::Synced).await?;
    Ok(TerminateWorkflowExecutionResponse {})
}

pub async fn delete(call: Call, r: DeleteWorkflowExecutionRequest) -> Reply<DeleteWorkflowExecutionResponse> {
    let execution = r.workflow_execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    let slot = call.run(call.namespace(&r.namespace)?, &execution)?;
    call.host.delete(&slot).await?;
    Ok(DeleteWorkflowExecutionResponse {})
}

/// A request that names a chain means its newest run, whichever run it names besides.
fn chain_or_run(execution: WorkflowExecution, first_run_id: &str) -> WorkflowExecution {
    if first_run_id.is_empty() { execution } else { WorkflowExecution { run_id: String::new(), ..execution } }
}
