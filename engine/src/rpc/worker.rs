//! Workers: how they are, who they are, and that they stop.

use super::filter::{Filter, Query, worker};
use super::{Call, Reply, status};
use crate::core::workflow_task::ForgetSticky;
use crate::pb::worker::v1::{WorkerHeartbeat, WorkerInfo, WorkerListInfo};
use crate::pb::workflowservice::v1::*;
use crate::store::Durability;
use tonic::Status;

/// Its polls return empty, and what waited for its cache goes to whoever polls the workflow's own queue.
pub async fn shutdown(call: Call, r: ShutdownWorkerRequest) -> Reply<ShutdownWorkerResponse> {
    let namespace = call.namespace(&r.namespace)?;
    record(&call, namespace, r.worker_heartbeat.into_iter().collect());
    for task in call.host.queues.shut_worker(namespace, &r.worker_instance_key, &r.sticky_task_queue) {
        if let Some(slot) = call.host.slot(&task.run)? {
            call.host.transact(&slot, ForgetSticky, Durability::Journaled).await?;
            call.host.redirect_queries(&slot);
        }
    }
    Ok(ShutdownWorkerResponse {})
}

pub async fn record_heartbeat(call: Call, r: RecordWorkerHeartbeatRequest) -> Reply<RecordWorkerHeartbeatResponse> {
    record(&call, call.namespace(&r.namespace)?, r.worker_heartbeat);
    Ok(RecordWorkerHeartbeatResponse {})
}

fn record(call: &Call, namespace: &str, heartbeats: Vec<WorkerHeartbeat>) {
    call.host.workers.record(namespace, heartbeats, call.host.clock.now(), call.host.limits.workers_max);
}

/// The living workers that a query means, from behind the key `after`.
fn found(call: &Call, namespace: &str, query: &str, after: &str) -> Reply<Vec<WorkerHeartbeat>> {
    let namespace = call.namespace(namespace)?;
    let filter = filter(query)?;
    let mut workers = call.host.workers.list(namespace, after, call.host.clock.now());
    workers.retain(|worker| filter.matches(worker));
    Ok(workers)
}

fn filter(query: &str) -> Reply<Filter> {
    match Query::parse_by(query, &worker::attribute) {
        Ok(Query { filter, order: None }) => Ok(filter),
        Ok(_) => Err(Status::invalid_argument("invalid query: ORDER BY is not supported for workers")),
        Err(error) => Err(Status::invalid_argument(format!("invalid query: {error}"))),
    }
}

pub async fn list(call: Call, r: ListWorkersRequest) -> Reply<ListWorkersResponse> {
    let after = String::from_utf8(r.next_page_token).map_err(|_| Status::invalid_argument("Invalid NextPageToken."))?;
    let mut workers = found(&call, &r.namespace, &r.query, &after)?;
    let size = usize::try_from(r.page_size).ok().filter(|size| *size > 0).unwrap_or(usize::MAX);
    let has_more = workers.len() > size;
    workers.truncate(size);
    let last = workers.last().filter(|_| has_more).map(|worker| worker.worker_instance_key.clone());
    #[expect(deprecated, reason = "older tools read only this field")]
    Ok(ListWorkersResponse {
        workers: workers.iter().map(list_info).collect(),
        workers_info: workers.into_iter().map(|worker| WorkerInfo { worker_heartbeat: Some(worker) }).collect(),
        next_page_token: last.unwrap_or_default().into_bytes(),
    })
}

fn list_info(worker: &WorkerHeartbeat) -> WorkerListInfo {
    let host = worker.host_info.clone().unwrap_or_default();
    WorkerListInfo {
        worker_instance_key: worker.worker_instance_key.clone(),
        worker_identity: worker.worker_identity.clone(),
        task_queue: worker.task_queue.clone(),
        deployment_version: worker.deployment_version.clone(),
        sdk_name: worker.sdk_name.clone(),
        sdk_version: worker.sdk_version.clone(),
        status: worker.status,
        start_time: worker.start_time,
        host_name: host.host_name,
        worker_grouping_key: host.worker_grouping_key,
        process_id: host.process_id,
        plugins: worker.plugins.clone(),
        drivers: worker.drivers.clone(),
    }
}

pub async fn count(call: Call, r: CountWorkersRequest) -> Reply<CountWorkersResponse> {
    let workers = found(&call, &r.namespace, &r.query, "")?;
    Ok(CountWorkersResponse { count: workers.len() as i64 })
}

pub async fn describe(call: Call, r: DescribeWorkerRequest) -> Reply<DescribeWorkerResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let worker = call.host.workers.get(namespace, &r.worker_instance_key, call.host.clock.now());
    match worker {
        Some(worker) => Ok(DescribeWorkerResponse { worker_info: Some(WorkerInfo { worker_heartbeat: Some(worker) }) }),
        None => Err(status::not_found(&format!("worker {} not found", r.worker_instance_key))),
    }
}
