//! Activity tasks: handed to workers and answered by token or by id.

use super::token::TaskToken;
use super::undelivered::Undelivered;
use super::workflow_task::slot_of;
use super::{Call, Reply, deployment};
use crate::core::activity::{ActivityRef, Canceled, Complete, Fail, Heartbeat, Start};
use crate::core::state::Activity;
use crate::dispatch::{Kind, QueueKey, What};
use crate::host::{self, Most, Slot};
use crate::pb::common::v1::{ActivityType, Payloads, WorkflowExecution, WorkflowType};
use crate::pb::failure::v1::Failure;
use crate::pb::history::v1::ActivityTaskScheduledEventAttributes;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::workflowservice::v1::*;
use crate::store::Durability;
use crate::time::{Time, duration};
use prost::Message;
use std::sync::Arc;

pub async fn poll(call: Call, r: PollActivityTaskQueueRequest) -> Reply<PollActivityTaskQueueResponse> {
    let name = r.task_queue.unwrap_or_default().name;
    call.queue_name(&name)?;
    call.id_if_any("Identity", &r.identity)?;
    let namespace = call.namespace(&r.namespace)?.to_owned();
    let version = deployment::of_worker(r.deployment_options.as_ref())?;
    if let Some(version) = &version {
        call.host.register_worker(&namespace, version, &name, true).await?;
    }
    let key = QueueKey { namespace, name, kind: Kind::Activity, version };
    let deadline = call.wait_until(call.host.limits.task_poll_ns);
    while let Some(task) = call.host.queues.take(&key, &r.worker_instance_key, &r.identity, deadline).await {
        let What::Activity { scheduled_event_id, attempt } = task.what else { continue };
        let Some(slot) = call.host.slot(&task.run)? else { continue };
        let poller = call.host.poller(&slot, key.version.clone());
        let start = Start { scheduled_event_id, attempt, identity: r.identity.clone(), poller };
        match call.host.decide(&slot, start, Durability::Journaled) {
            // The run goes to this worker's version first.
            Ok((None, _)) => {}
            Ok((Some(activity), done)) => {
                let undelivered = Undelivered::new(&call.host, &slot, None, [&activity]);
                host::wait(done).await?;
                let response = response(&call, &slot, &activity)?;
                undelivered.delivered();
                return Ok(response);
            }
            Err(host::Error::Refused(_) | host::Error::NoRun) => {} // overtaken by events
            Err(error) => return Err(error.into()),
        }
    }
    Ok(PollActivityTaskQueueResponse::default())
}

/// A started attempt as the worker is told of it; what was given at scheduling comes from history.
pub fn response(call: &Call, slot: &Slot, activity: &Activity) -> Reply<PollActivityTaskQueueResponse> {
    let scheduled = scheduled(call, slot, activity.scheduled_event_id)?;
    let (namespace, workflow_id, run_id, workflow_type) = {
        let run = slot.run.lock();
        let state = &run.state;
        (state.namespace.clone(), state.workflow_id.clone(), state.run_id.clone(), state.workflow_type.clone())
    };
    let token = TaskToken {
        namespace: namespace.clone(),
        run_id: run_id.clone(),
        scheduled_event_id: activity.scheduled_event_id,
        attempt: activity.attempt,
        ..Default::default()
    };
    Ok(PollActivityTaskQueueResponse {
        task_token: token.encode_to_vec(),
        workflow_namespace: namespace,
        workflow_type: Some(WorkflowType { name: workflow_type }),
        workflow_execution: Some(WorkflowExecution { workflow_id, run_id }),
        activity_type: Some(ActivityType { name: activity.activity_type.clone() }),
        activity_id: activity.activity_id.clone(),
        header: scheduled.header,
        input: scheduled.input,
        heartbeat_details: activity.heartbeat_details.clone(),
        scheduled_time: Time(activity.first_scheduled_at).timestamp(),
        current_attempt_scheduled_time: Time(activity.attempt_scheduled_at).timestamp(),
        started_time: Time(activity.started_at).timestamp(),
        attempt: activity.attempt,
        schedule_to_close_timeout: duration(activity.schedule_to_close),
        start_to_close_timeout: duration(activity.start_to_close),
        heartbeat_timeout: duration(activity.heartbeat),
        retry_policy: activity.retry_policy.clone(),
        priority: scheduled.priority,
        ..Default::default()
    })
}

fn scheduled(call: &Call, slot: &Slot, event_id: i64) -> Reply<ActivityTaskScheduledEventAttributes> {
    let event = call.host.history(&slot.key, event_id, event_id + 1, Most::events(1))?.pop();
    match event.and_then(|event| event.attributes) {
        Some(Attributes::ActivityTaskScheduledEventAttributes(attributes)) => Ok(attributes),
        _ => Err(tonic::Status::data_loss("the event that scheduled the activity is missing")),
    }
}

fn by_id(call: &Call, namespace: &str, workflow_id: String, run_id: String, activity_id: &str) -> Reply<Arc<Slot>> {
    call.id("WorkflowId", &workflow_id)?;
    call.id("ActivityId", activity_id)?;
    call.run(call.namespace(namespace)?, &WorkflowExecution { workflow_id, run_id })
}

fn is_too_large<M: Message>(call: &Call, said: Option<&M>) -> bool {
    said.is_some_and(|said| said.encoded_len() > call.host.limits.blob_bytes_max)
}

/// What a worker says is too large for history: the activity has failed for good, whatever it was.
async fn fail_instead(call: &Call, slot: &Arc<Slot>, activity: ActivityRef, why: &str, identity: String) -> Reply<()> {
    let failure = Failure { source: String::new(), ..crate::core::server_failure(why) };
    let fail = Fail { activity, failure: Some(failure), last_heartbeat_details: None, identity };
    Ok(call.host.transact(slot, fail, Durability::Synced).await?)
}

async fn complete(
    call: &Call,
    slot: &Arc<Slot>,
    activity: ActivityRef,
    result: Option<Payloads>,
    identity: String,
) -> Reply<()> {
    if is_too_large(call, result.as_ref()) {
        return fail_instead(call, slot, activity, "Complete result exceeds size limit.", identity).await;
    }
    Ok(call.host.transact(slot, Complete { activity, result, identity }, Durability::Synced).await?)
}

pub async fn respond_completed(
    call: Call,
    r: RespondActivityTaskCompletedRequest,
) -> Reply<RespondActivityTaskCompletedResponse> {
    let token = TaskToken::decode_from(&r.task_token)?;
    let slot = slot_of(&call, &token)?;
    complete(&call, &slot, token.activity(), r.result, r.identity).await?;
    Ok(RespondActivityTaskCompletedResponse {})
}

pub async fn respond_completed_by_id(
    call: Call,
    r: RespondActivityTaskCompletedByIdRequest,
) -> Reply<RespondActivityTaskCompletedByIdResponse> {
    let slot = by_id(&call, &r.namespace, r.workflow_id, r.run_id, &r.activity_id)?;
    complete(&call, &slot, ActivityRef::Id(r.activity_id), r.result, r.identity).await?;
    Ok(RespondActivityTaskCompletedByIdResponse {})
}

async fn fail(
    call: &Call,
    slot: &Arc<Slot>,
    activity: ActivityRef,
    failure: Option<Failure>,
    last_heartbeat_details: Option<Payloads>,
    identity: String,
) -> Reply<()> {
    if is_too_large(call, failure.as_ref()) {
        return fail_instead(call, slot, activity, "Failure exceeds size limit.", identity).await;
    }
    call.blob(last_heartbeat_details.as_ref())?;
    let fail = Fail { activity, failure, last_heartbeat_details, identity };
    Ok(call.host.transact(slot, fail, Durability::Synced).await?)
}

pub async fn respond_failed(
    call: Call,
    r: RespondActivityTaskFailedRequest,
) -> Reply<RespondActivityTaskFailedResponse> {
    let token = TaskToken::decode_from(&r.task_token)?;
    let slot = slot_of(&call, &token)?;
    fail(&call, &slot, token.activity(), r.failure, r.last_heartbeat_details, r.identity).await?;
    Ok(RespondActivityTaskFailedResponse::default())
}

pub async fn respond_failed_by_id(
    call: Call,
    r: RespondActivityTaskFailedByIdRequest,
) -> Reply<RespondActivityTaskFailedByIdResponse> {
    let slot = by_id(&call, &r.namespace, r.workflow_id, r.run_id, &r.activity_id)?;
    let activity = ActivityRef::Id(r.activity_id);
    fail(&call, &slot, activity, r.failure, r.last_heartbeat_details, r.identity).await?;
    Ok(RespondActivityTaskFailedByIdResponse::default())
}

async fn cancel(
    call: &Call,
    slot: &Arc<Slot>,
    activity: ActivityRef,
    details: Option<Payloads>,
    identity: String,
) -> Reply<()> {
    if is_too_large(call, details.as_ref()) {
        return fail_instead(call, slot, activity, "Cancel details exceed size limit.", identity).await;
    }
    Ok(call.host.transact(slot, Canceled { activity, details, identity }, Durability::Synced).await?)
}

pub async fn respond_canceled(
    call: Call,
    r: RespondActivityTaskCanceledRequest,
) -> Reply<RespondActivityTaskCanceledResponse> {
    let token = TaskToken::decode_from(&r.task_token)?;
    let slot = slot_of(&call, &token)?;
    cancel(&call, &slot, token.activity(), r.details, r.identity).await?;
    Ok(RespondActivityTaskCanceledResponse {})
}

pub async fn respond_canceled_by_id(
    call: Call,
    r: RespondActivityTaskCanceledByIdRequest,
) -> Reply<RespondActivityTaskCanceledByIdResponse> {
    let slot = by_id(&call, &r.namespace, r.workflow_id, r.run_id, &r.activity_id)?;
    cancel(&call, &slot, ActivityRef::Id(r.activity_id), r.details, r.identity).await?;
    Ok(RespondActivityTaskCanceledByIdResponse {})
}

/// A bare sign of life is journaled; details are synced, as a retry is promised to see them. A worker whose details are too
/// large is told to stop.
async fn beat(
    call: &Call,
    slot: &Arc<Slot>,
    activity: ActivityRef,
    details: Option<Payloads>,
    identity: String,
) -> Reply<bool> {
    if is_too_large(call, details.as_ref()) {
        fail_instead(call, slot, activity, "Heartbeat details exceed size limit.", identity).await?;
        return Ok(true);
    }
    let durability = if details.is_some() { Durability::Synced } else { Durability::Journaled };
    Ok(call.host.transact(slot, Heartbeat { activity, details }, durability).await?)
}

pub async fn heartbeat(
    call: Call,
    r: RecordActivityTaskHeartbeatRequest,
) -> Reply<RecordActivityTaskHeartbeatResponse> {
    let token = TaskToken::decode_from(&r.task_token)?;
    let slot = slot_of(&call, &token)?;
    let cancel_requested = beat(&call, &slot, token.activity(), r.details, r.identity).await?;
    Ok(RecordActivityTaskHeartbeatResponse { cancel_requested, ..Default::default() })
}

pub async fn heartbeat_by_id(
    call: Call,
    r: RecordActivityTaskHeartbeatByIdRequest,
) -> Reply<RecordActivityTaskHeartbeatByIdResponse> {
    let slot = by_id(&call, &r.namespace, r.workflow_id, r.run_id, &r.activity_id)?;
    let cancel_requested = beat(&call, &slot, ActivityRef::Id(r.activity_id), r.details, r.identity).await?;
    Ok(RecordActivityTaskHeartbeatByIdResponse { cancel_requested, ..Default::default() })
}
