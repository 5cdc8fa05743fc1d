//! The end of a run, and the run that may follow it: completion, failure with the workflow's retry policy, cancellation,
//! continue-as-new, timeouts, and the hard limits on history.

#![expect(deprecated, reason = "SDKs still fill the fields, and servers repeat them in the events")]

use super::begin::{Begin, begin};
use super::command::{CommandError, id_within, payloads_within};
use super::retry::{self, Verdict};
use super::versioning::{self, Heir};
use super::{Tx, ids, terminate, workflow_task};
use crate::pb::command::v1::{
    CancelWorkflowExecutionCommandAttributes, CompleteWorkflowExecutionCommandAttributes,
    ContinueAsNewWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
};
use crate::pb::common::v1::{WorkflowExecution, WorkflowType};
use crate::pb::enums::v1::{
    ContinueAsNewInitiator, ContinueAsNewVersioningBehavior as Initially, ParentClosePolicy, RetryState, TaskQueueKind,
    TimeoutType, WorkflowExecutionStatus, WorkflowTaskFailedCause,
};
use crate::pb::failure::v1::failure::FailureInfo;
use crate::pb::failure::v1::{Failure, TimeoutFailureInfo};
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    WorkflowExecutionCanceledEventAttributes, WorkflowExecutionCompletedEventAttributes,
    WorkflowExecutionContinuedAsNewEventAttributes, WorkflowExecutionFailedEventAttributes,
    WorkflowExecutionStartedEventAttributes, WorkflowExecutionTimedOutEventAttributes,
};
use crate::pb::taskqueue::v1::TaskQueue;
use crate::time::{Time, duration, nanos};
use prost::Message;
use std::collections::BTreeSet;

/// Writes the closing event and drops everything that was pending.
pub fn close(tx: &mut Tx<'_>, status: WorkflowExecutionStatus, attributes: Attributes) {
    let close_event_id = tx.append(attributes);
    let now = tx.now().0;
    let state = &mut *tx.state;
    state.status = status as i32;
    state.closed_at = now;
    state.close_event_id = close_event_id;
    state.task = None;
    state.sticky = None;
    state.activities.clear();
    state.timers.clear();
    state.externals.clear();
    // A child that was not started by now never is; the others hear of this end as they were promised.
    state.children.retain(|_, child| child.is_started() && child.parent_close_policy() != ParentClosePolicy::Abandon);
    state.owes_parent = state.parent.is_some();
    tx.effects.listed = true;
    tx.effects.work.clear();
}

/// A run that ends from outside first ends its started workflow task, and then shows what was buffered.
pub fn abandon_task(tx: &mut Tx<'_>) {
    if tx.state.started_task().is_some() {
        workflow_task::fail(tx, WorkflowTaskFailedCause::ForceCloseCommand, None, String::new());
    }
    tx.state.task = None;
    tx.flush_buffered();
}

pub fn complete(
    tx: &mut Tx<'_>,
    command: CompleteWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) -> Result<(), CommandError> {
    // The cause that a server gives.
    let cause = WorkflowTaskFailedCause::BadScheduleActivityAttributes;
    let message = "CompleteWorkflowExecutionCommandAttributes.Result exceeds size limit.";
    payloads_within(command.result.as_ref(), tx.at.limits, cause, message)?;
    close(
        tx,
        WorkflowExecutionStatus::Completed,
        Attributes::WorkflowExecutionCompletedEventAttributes(WorkflowExecutionCompletedEventAttributes {
            result: command.result,
            workflow_task_completed_event_id: completed_event_id,
            ..Default::default()
        }),
    );
    Ok(())
}

pub fn cancel(tx: &mut Tx<'_>, command: CancelWorkflowExecutionCommandAttributes, completed_event_id: i64) {
    close(
        tx,
        WorkflowExecutionStatus::Canceled,
        Attributes::WorkflowExecutionCanceledEventAttributes(WorkflowExecutionCanceledEventAttributes {
            workflow_task_completed_event_id: completed_event_id,
            details: command.details,
        }),
    );
}

/// The workflow failed: its retry policy may begin another run.
pub fn fail(
    tx: &mut Tx<'_>,
    command: FailWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
) -> Result<(), CommandError> {
    let Some(failure) = command.failure else {
        let cause = WorkflowTaskFailedCause::BadFailWorkflowExecutionAttributes;
        return Err(CommandError::new(cause, "Failure is not set on FailWorkflowExecutionCommand."));
    };
    if failure.encoded_len() > tx.at.limits.blob_bytes_max {
        let cause = WorkflowTaskFailedCause::BadFailWorkflowExecutionAttributes;
        let message = "FailWorkflowExecutionCommandAttributes.Failure exceeds size limit.";
        return Err(CommandError::fatal(cause, message));
    }
    let (retry_state, successor) = retry_run(tx, &failure);
    close(
        tx,
        WorkflowExecutionStatus::Failed,
        Attributes::WorkflowExecutionFailedEventAttributes(WorkflowExecutionFailedEventAttributes {
            failure: Some(failure),
            retry_state: retry_state as i32,
            workflow_task_completed_event_id: completed_event_id,
            new_execution_run_id: successor.as_ref().map(|begin| begin.run_id.clone()).unwrap_or_default(),
        }),
    );
    succeed(tx, successor);
    Ok(())
}

/// The run's time is over. Only a run timeout is retried: the chain's own timeout ends the chain.
pub fn time_out(tx: &mut Tx<'_>) {
    abandon_task(tx);
    let chain_over = tx.state.execution_expires_at > 0 && tx.state.execution_expires_at <= tx.now().0;
    let failure = Failure {
        message: "workflow timeout".to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: TimeoutType::StartToClose as i32,
            ..Default::default()
        })),
        ..Default::default()
    };
    let (retry_state, successor) = if chain_over { (RetryState::Timeout, None) } else { retry_run(tx, &failure) };
    close(
        tx,
        WorkflowExecutionStatus::TimedOut,
        Attributes::WorkflowExecutionTimedOutEventAttributes(WorkflowExecutionTimedOutEventAttributes {
            retry_state: retry_state as i32,
            new_execution_run_id: successor.as_ref().map(|begin| begin.run_id.clone()).unwrap_or_default(),
        }),
    );
    succeed(tx, successor);
}

/// What the workflow's retry policy makes of a failure, and the run that it begins.
fn retry_run(tx: &mut Tx<'_>, failure: &Failure) -> (RetryState, Option<Begin>) {
    let Some(policy) = tx.state.retry_policy.clone() else { return (RetryState::RetryPolicyNotSet, None) };
    let expires_at = Time(tx.state.execution_expires_at);
    let wait = match retry::decide(&policy, tx.state.attempt, failure, tx.now(), expires_at) {
        Verdict::Stop(state) => return (state, None),
        Verdict::Retry(wait) => wait,
    };
    let original = tx.at.started.cloned().unwrap_or_default();
    let mut started = WorkflowExecutionStartedEventAttributes {
        initiator: ContinueAsNewInitiator::Retry as i32,
        continued_failure: Some(failure.clone()),
        attempt: tx.state.attempt + 1,
        first_workflow_task_backoff: duration(wait),
        ..original.clone()
    };
    versioning::pass_on(tx.state, Heir::Retry(Box::new(original)), true, &mut started);
    (RetryState::InProgress, Some(next_run(tx, started)))
}

pub fn continue_as_new(
    tx: &mut Tx<'_>,
    command: ContinueAsNewWorkflowExecutionCommandAttributes,
    completed_event_id: i64,
    queues: &BTreeSet<String>,
) -> Result<(), CommandError> {
    let cause = WorkflowTaskFailedCause::BadContinueAsNewAttributes;
    const WHAT: &str = "ContinueAsNewWorkflowExecutionCommand";
    let input_too_large = format!("{WHAT}Attributes. Input exceeds size limit.");
    payloads_within(command.input.as_ref(), tx.at.limits, cause, &input_too_large)?;
    if command.memo.as_ref().is_some_and(|memo| memo.encoded_len() > tx.at.limits.memo_bytes_max) {
        return Err(CommandError::fatal(cause, format!("{WHAT}Attributes. Memo exceeds size limit.")));
    }
    let name = command.workflow_type.as_ref().map_or("", |t| &t.name);
    id_within(name, tx.at.limits).map_err(|length| {
        let message = format!("WorkflowType on {WHAT} exceeds length limit. WorkflowType={name} {length}");
        CommandError::new(cause, message)
    })?;
    id_within(command.task_queue.as_ref().map_or("", |queue| &queue.name), tx.at.limits)
        .map_err(|_| CommandError::new(cause, "taskQueue length exceeds limit"))?;
    let state = &*tx.state;
    let workflow_type = command.workflow_type.filter(|t| !t.name.is_empty());
    let workflow_type = workflow_type.unwrap_or_else(|| WorkflowType { name: state.workflow_type.clone() });
    let task_queue = command.task_queue.filter(|queue| !queue.name.is_empty()).unwrap_or_else(|| TaskQueue {
        name: state.task_queue.clone(),
        kind: TaskQueueKind::Normal as i32,
        normal_name: String::new(),
    });
    let run_timeout = match nanos(command.workflow_run_timeout.as_ref()) {
        0 => state.run_timeout,
        asked => asked,
    };
    let task_timeout = match nanos(command.workflow_task_timeout.as_ref()) {
        0 => state.task_timeout,
        asked => asked,
    };
    let memo = command.memo.or_else(|| state.memo.clone());
    let search_attributes = command.search_attributes.or_else(|| state.search_attributes.clone());
    let backoff = command.backoff_start_interval.filter(|d| nanos(Some(d)) > 0);
    let initiator = match command.initiator {
        0 => ContinueAsNewInitiator::Workflow as i32,
        given => given,
    };
    let mut started = WorkflowExecutionStartedEventAttributes {
        workflow_type: Some(workflow_type.clone()),
        task_queue: Some(task_queue.clone()),
        input: command.input.clone(),
        workflow_execution_timeout: (tx.state.execution_timeout > 0)
            .then(|| duration(tx.state.execution_timeout))
            .flatten(),
        workflow_run_timeout: duration(run_timeout),
        workflow_task_timeout: duration(task_timeout),
        initiator,
        continued_failure: command.failure.clone(),
        last_completion_result: command.last_completion_result.clone(),
        retry_policy: command.retry_policy.or_else(|| tx.state.retry_policy.clone()),
        attempt: 1,
        first_workflow_task_backoff: backoff,
        memo: memo.clone(),
        search_attributes: search_attributes.clone(),
        priority: tx.state.priority.clone(),
        header: command.header.clone(),
        ..Default::default()
    };
    let in_version = task_queue.name == tx.state.task_queue || queues.contains(&task_queue.name);
    let initially = Initially::try_from(command.initial_versioning_behavior).unwrap_or_default();
    let heir = Heir::ContinueAsNew(initially);
    versioning::pass_on(tx.state, heir, in_version, &mut started);
    let begin = next_run(tx, started);
    close(
        tx,
        WorkflowExecutionStatus::ContinuedAsNew,
        Attributes::WorkflowExecutionContinuedAsNewEventAttributes(WorkflowExecutionContinuedAsNewEventAttributes {
            new_execution_run_id: begin.run_id.clone(),
            workflow_type: Some(workflow_type),
            task_queue: Some(task_queue),
            input: command.input,
            workflow_run_timeout: duration(run_timeout),
            workflow_task_timeout: duration(task_timeout),
            workflow_task_completed_event_id: completed_event_id,
            backoff_start_interval: backoff,
            initiator: command.initiator,
            last_completion_result: command.last_completion_result,
            header: command.header,
            memo,
            search_attributes,
            initial_versioning_behavior: command.initial_versioning_behavior,
            inherit_build_id: command.inherit_build_id,
            ..Default::default()
        }),
    );
    succeed(tx, Some(begin));
    Ok(())
}

/// The next run of this chain, with what every successor inherits.
fn next_run(tx: &mut Tx<'_>, started: WorkflowExecutionStartedEventAttributes) -> Begin {
    let now = tx.now();
    let run_id = ids::ordered(tx.state, now);
    let seed = ids::seed(tx.state);
    let parent = tx.state.parent.clone().unwrap_or_default();
    Begin {
        namespace: tx.state.namespace.clone(),
        run_id,
        seed,
        start_request_id: ids::request(tx.state),
        started: WorkflowExecutionStartedEventAttributes {
            workflow_id: tx.state.workflow_id.clone(),
            continued_execution_run_id: tx.state.run_id.clone(),
            first_execution_run_id: tx.state.first_run_id.clone(),
            original_execution_run_id: String::new(),
            identity: String::new(),
            parent_workflow_namespace: parent.namespace.clone(),
            parent_workflow_namespace_id: match parent.namespace.as_str() {
                "" => String::new(),
                namespace => ids::namespace(namespace),
            },
            parent_workflow_execution: tx.state.parent.as_ref().map(|parent| WorkflowExecution {
                workflow_id: parent.workflow_id.clone(),
                run_id: parent.run_id.clone(),
            }),
            parent_initiated_event_id: parent.initiated_event_id,
            root_workflow_execution: tx.state.root.clone(),
            ..started
        },
        user_metadata: tx.state.user_metadata.clone(),
        signal: None,
        execution_expires_at: Time(tx.state.execution_expires_at),
    }
}

fn succeed(tx: &mut Tx<'_>, successor: Option<Begin>) {
    if let Some(successor) = successor {
        tx.state.successor = successor.run_id.clone();
        tx.state.owes_parent = false; // the successor does
        tx.effects.successor = Some(Box::new(begin(successor, tx.at)));
    }
}

/// A run whose history outgrew the hard limits is terminated.
pub fn bound_history(tx: &mut Tx<'_>) {
    if let Some(reason) = outgrown(tx) {
        terminate::terminate(tx, reason.to_owned(), None, terminate::BY_THE_ENGINE.to_owned());
    }
}

/// Which hard limit the history of an open run is beyond.
pub fn outgrown(tx: &Tx<'_>) -> Option<&'static str> {
    if !tx.state.is_open() {
        return None;
    }
    if tx.state.history_bytes > tx.at.limits.history_bytes_max {
        return Some("Workflow history size exceeds limit.");
    }
    (tx.state.next_event_id - 1 > tx.at.limits.history_events_max).then_some("Workflow history count exceeds limit.")
}
