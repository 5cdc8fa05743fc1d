//! Workers that say goodbye.

use super::{Call, Reply};
use crate::core::workflow_task::ForgetSticky;
use crate::pb::workflowservice::v1::*;
use crate::store::Durability;

/// Its polls return empty, and what waited for its cache goes to whoever polls the workflow's own queue.
pub async fn shutdown(call: Call, r: ShutdownWorkerRequest) -> Reply<ShutdownWorkerResponse> {
    let namespace = call.namespace(&r.namespace)?;
    for task in call.host.queues.shut_worker(namespace, &r.worker_instance_key, &r.sticky_task_queue) {
        if let Some(slot) = call.host.slot(&task.run)? {
            call.host.transact(&slot, ForgetSticky, Durability::Journaled).await?;
            call.host.redirect_queries(&slot);
        }
    }
    Ok(ShutdownWorkerResponse {})
}
