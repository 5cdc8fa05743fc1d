//! What a workflow is doing now.

use super::{Call, Reply};
use crate::core::activity;
use crate::core::state::{Activity, Child, RunState, WorkflowTask};
use crate::core::versioning::Version;
use crate::host::run_info;
use crate::pb::common::v1::ActivityType;
use crate::pb::enums::v1::{PendingActivityState, PendingWorkflowTaskState, TaskQueueKind};
use crate::pb::taskqueue::v1::TaskQueue;
use crate::pb::workflow::v1::{
    PendingActivityInfo, PendingChildExecutionInfo, PendingWorkflowTaskInfo, WorkflowExecutionConfig,
    WorkflowExecutionExtendedInfo,
};
use crate::pb::workflowservice::v1::*;
use crate::time::{Time, duration};

pub async fn workflow(call: Call, r: DescribeWorkflowExecutionRequest) -> Reply<DescribeWorkflowExecutionResponse> {
    let execution = r.execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    let slot = call.run(call.namespace(&r.namespace)?, &execution)?;
    let run = slot.run.lock();
    let state = &run.state;
    Ok(DescribeWorkflowExecutionResponse {
        execution_config: Some(config(state)),
        workflow_execution_info: Some(run_info(state)),
        pending_activities: state.activities.values().map(pending_activity).collect(),
        pending_children: state.children.iter().filter(|_| state.is_open()).map(pending_child).collect(),
        pending_workflow_task: state.task.as_ref().map(pending_task),
        workflow_extended_info: Some(WorkflowExecutionExtendedInfo {
            execution_expiration_time: Time(state.execution_expires_at).timestamp(),
            run_expiration_time: Time(state.run_expires_at).timestamp(),
            cancel_requested: state.cancel_requested,
            original_start_time: Time(state.started_at).timestamp(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

fn config(state: &RunState) -> WorkflowExecutionConfig {
    WorkflowExecutionConfig {
        task_queue: Some(TaskQueue {
            name: state.task_queue.clone(),
            kind: TaskQueueKind::Normal as i32,
            normal_name: String::new(),
        }),
        workflow_execution_timeout: duration(state.execution_timeout),
        workflow_run_timeout: duration(state.run_timeout),
        default_workflow_task_timeout: duration(state.task_timeout),
        user_metadata: state.user_metadata.clone(),
    }
}

fn pending_activity(a: &Activity) -> PendingActivityInfo {
    let state = match (a.cancel_requested_event_id != 0, a.is_started()) {
        (true, _) => PendingActivityState::CancelRequested,
        (_, true) => PendingActivityState::Started,
        _ => PendingActivityState::Scheduled,
    };
    let backs_off = !a.is_started() && a.attempt > 1;
    PendingActivityInfo {
        activity_id: a.activity_id.clone(),
        activity_type: Some(ActivityType { name: a.activity_type.clone() }),
        state: state as i32,
        heartbeat_details: a.heartbeat_details.clone(),
        last_heartbeat_time: Time(a.last_heartbeat_at).timestamp(),
        last_started_time: Time(a.started_at).timestamp(),
        attempt: a.attempt,
        maximum_attempts: a.retry_policy.as_ref().map_or(0, |policy| policy.maximum_attempts),
        scheduled_time: Time(a.attempt_scheduled_at).timestamp(),
        expiration_time: activity::expires_at(a).timestamp(),
        last_failure: a.last_failure.clone(),
        last_worker_identity: a.started_by.clone(),
        current_retry_interval: backs_off
            .then(|| duration((a.attempt_scheduled_at - a.last_attempt_completed_at).max(0)))
            .flatten(),
        last_attempt_complete_time: Time(a.last_attempt_completed_at).timestamp(),
        last_deployment_version: a.version.as_ref().map(Version::wire),
        next_attempt_schedule_time: backs_off.then(|| Time(a.attempt_scheduled_at).timestamp()).flatten(),
        ..Default::default()
    }
}

fn pending_child((initiated_id, child): (&i64, &Child)) -> PendingChildExecutionInfo {
    PendingChildExecutionInfo {
        workflow_id: child.workflow_id.clone(),
        run_id: child.run_id.clone(),
        workflow_type_name: child.workflow_type.clone(),
        initiated_id: *initiated_id,
        parent_close_policy: child.parent_close_policy,
    }
}

fn pending_task(task: &WorkflowTask) -> PendingWorkflowTaskInfo {
    let state = match task.started_event_id {
        0 => PendingWorkflowTaskState::Scheduled,
        _ => PendingWorkflowTaskState::Started,
    };
    PendingWorkflowTaskInfo {
        state: state as i32,
        scheduled_time: Time(task.scheduled_at).timestamp(),
        original_scheduled_time: Time(task.original_scheduled_at).timestamp(),
        started_time: Time(task.started_at).timestamp(),
        attempt: task.attempt,
    }
}
