//! UpdateWorkflowExecutionOptions: an override of the version that a running workflow belongs to.

use super::{Call, Reply};
use crate::core::versioning::{self, SetOverride};
use crate::pb::workflow::v1::{VersioningOverride, WorkflowExecutionOptions};
use crate::pb::workflowservice::v1::*;
use crate::store::Durability;
use tonic::Status;

pub async fn update(
    call: Call,
    r: UpdateWorkflowExecutionOptionsRequest,
) -> Reply<UpdateWorkflowExecutionOptionsResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let execution = r.workflow_execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    for path in r.update_mask.unwrap_or_default().paths {
        match path.as_str() {
            "versioning_override" | "versioningOverride" => {}
            other => {
                let message = format!("error applying update_options: {other} is not supported by this server");
                return Err(Status::invalid_argument(message));
            }
        }
    }
    let given = r.workflow_execution_options.unwrap_or_default().versioning_override;
    let slot = call.run(namespace, &execution)?;
    let queue = slot.run.lock().state.task_queue.clone();
    let overriding = given.map(|given| checked(&call, namespace, &queue, given)).transpose()?;
    let set = SetOverride { overriding, identity: r.identity };
    let (overriding, is_new) = call.host.transact(&slot, set, Durability::Synced).await?;
    Ok(UpdateWorkflowExecutionOptionsResponse {
        workflow_execution_options: Some(WorkflowExecutionOptions {
            versioning_override: overriding,
            ..Default::default()
        }),
        update_time: is_new.then(|| call.host.clock.now().timestamp()).flatten(),
    })
}

/// An override of a workflow on a task queue: sound, and of a version whose workers poll the queue.
pub fn checked(call: &Call, namespace: &str, queue: &str, given: VersioningOverride) -> Reply<VersioningOverride> {
    let given = versioning::modern(given);
    let named = versioning::named_version(&given).map_err(Status::invalid_argument)?;
    if let Some(version) = named
        && !call.host.queues.deployments.read().polls(namespace, &version, queue, false)
    {
        let message = format!("Pinned version '{version}' is not present in task queue '{queue}' of type 'Workflow'");
        return Err(Status::failed_precondition(message));
    }
    Ok(given)
}
