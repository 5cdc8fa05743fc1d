//! StartWorkflowExecution and SignalWithStartWorkflowExecution.

use super::filter::attribute::type_name;
use super::{Call, Reply, options, status};
use crate::core::retry;
use crate::core::signal::Signal;
use crate::host::{Start, StartOutcome};
use crate::pb::common::v1::RetryPolicy;
use crate::pb::enums::v1::{WorkflowExecutionStatus, WorkflowIdConflictPolicy, WorkflowIdReusePolicy};
use crate::pb::errordetails::v1::WorkflowExecutionAlreadyStartedFailure;
use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
use crate::pb::workflow::v1::versioning_override::Override;
use crate::pb::workflowservice::v1::*;
use prost_wkt_types::Duration;
use tonic::Status;

pub async fn start(call: Call, r: StartWorkflowExecutionRequest) -> Reply<StartWorkflowExecutionResponse> {
    call.room()?;
    call.namespace(&r.namespace)?;
    unsupported("cron schedules", !r.cron_schedule.is_empty())?;
    unsupported("completion callbacks", !r.completion_callbacks.is_empty())?;
    unsupported("time skipping", r.time_skipping_config.is_some())?;
    let (reuse, conflict) = policies(r.workflow_id_reuse_policy, r.workflow_id_conflict_policy)?;
    let started = WorkflowExecutionStartedEventAttributes {
        workflow_id: r.workflow_id.clone(),
        workflow_type: r.workflow_type,
        task_queue: r.task_queue,
        input: r.input,
        workflow_execution_timeout: r.workflow_execution_timeout,
        workflow_run_timeout: r.workflow_run_timeout,
        workflow_task_timeout: r.workflow_task_timeout,
        continued_failure: r.continued_failure,
        last_completion_result: r.last_completion_result,
        identity: r.identity,
        retry_policy: r.retry_policy,
        first_workflow_task_backoff: r.workflow_start_delay,
        memo: r.memo,
        search_attributes: r.search_attributes,
        header: r.header,
        priority: r.priority,
        versioning_override: r.versioning_override,
        ..Default::default()
    };
    let started = checked(&call, &r.namespace, started)?;
    call.id_if_any("RequestId", &r.request_id)?;
    let (request_id, user_metadata) = (r.request_id, r.user_metadata);
    let start = Start { namespace: r.namespace, request_id, started, user_metadata, reuse, conflict, signal: None };
    Ok(match outcome(&call, start).await? {
        Created::New(run_id) => StartWorkflowExecutionResponse {
            first_execution_run_id: run_id.clone(),
            run_id,
            started: true,
            status: WorkflowExecutionStatus::Running as i32,
            ..Default::default()
        },
        Created::Existing { run_id, first_execution_run_id, status } => {
            StartWorkflowExecutionResponse { run_id, first_execution_run_id, status, ..Default::default() }
        }
    })
}

pub async fn signal_with_start(
    call: Call,
    r: SignalWithStartWorkflowExecutionRequest,
) -> Reply<SignalWithStartWorkflowExecutionResponse> {
    call.room()?;
    call.namespace(&r.namespace)?;
    call.measured_id("signal name", &r.signal_name)?;
    call.id("SignalName", &r.signal_name)?;
    call.id_if_any("RequestId", &r.request_id)?;
    call.blob(r.signal_input.as_ref())?;
    unsupported("cron schedules", !r.cron_schedule.is_empty())?;
    unsupported("time skipping", r.time_skipping_config.is_some())?;
    let (reuse, conflict) = policies(r.workflow_id_reuse_policy, r.workflow_id_conflict_policy)?;
    if conflict == WorkflowIdConflictPolicy::Fail {
        return Err(Status::invalid_argument(
            "Invalid WorkflowIDConflictPolicy: WORKFLOW_ID_CONFLICT_POLICY_FAIL is not supported for this operation.",
        ));
    }
    let started = WorkflowExecutionStartedEventAttributes {
        workflow_id: r.workflow_id.clone(),
        workflow_type: r.workflow_type,
        task_queue: r.task_queue,
        input: r.input,
        workflow_execution_timeout: r.workflow_execution_timeout,
        workflow_run_timeout: r.workflow_run_timeout,
        workflow_task_timeout: r.workflow_task_timeout,
        identity: r.identity.clone(),
        retry_policy: r.retry_policy,
        first_workflow_task_backoff: r.workflow_start_delay,
        memo: r.memo,
        search_attributes: r.search_attributes,
        header: r.header.clone(),
        priority: r.priority,
        versioning_override: r.versioning_override,
        ..Default::default()
    };
    let started = checked(&call, &r.namespace, started)?;
    let signal = Signal {
        name: r.signal_name,
        input: r.signal_input,
        identity: r.identity,
        header: r.header,
        request_id: r.request_id.clone(),
        from: None,
    };
    let (request_id, user_metadata) = (r.request_id, r.user_metadata);
    let signal = Some(signal);
    let start = Start { namespace: r.namespace, request_id, started, user_metadata, reuse, conflict, signal };
    Ok(match outcome(&call, start).await? {
        Created::New(run_id) => SignalWithStartWorkflowExecutionResponse {
            first_execution_run_id: run_id.clone(),
            run_id,
            started: true,
            ..Default::default()
        },
        Created::Existing { run_id, first_execution_run_id, .. } => {
            SignalWithStartWorkflowExecutionResponse { run_id, first_execution_run_id, ..Default::default() }
        }
    })
}

enum Created {
    New(String),
    Existing { run_id: String, first_execution_run_id: String, status: i32 },
}

async fn outcome(call: &Call, start: Start) -> Reply<Created> {
    let workflow_id = start.started.workflow_id.clone();
    match call.host.start(start).await? {
        StartOutcome::Started { run_id } => Ok(Created::New(run_id)),
        StartOutcome::Existing { run_id, first_run_id, status } => {
            Ok(Created::Existing { run_id, first_execution_run_id: first_run_id, status })
        }
        StartOutcome::Refused { run_id, first_run_id, start_request_id, is_open } => {
            let what = if is_open { "is already running" } else { "already finished successfully" };
            let message = format!("Workflow execution {what}. WorkflowId: {workflow_id}, RunId: {run_id}.");
            let detail = WorkflowExecutionAlreadyStartedFailure {
                start_request_id,
                run_id,
                first_execution_run_id: first_run_id,
            };
            Err(status::already_started(&message, &detail))
        }
    }
}

/// The first event of a new run, checked as the server checks it and with the retry policy completed.
fn checked(
    call: &Call,
    namespace: &str,
    mut started: WorkflowExecutionStartedEventAttributes,
) -> Reply<WorkflowExecutionStartedEventAttributes> {
    call.measured_id("WorkflowId", &started.workflow_id)?;
    call.id("WorkflowId", &started.workflow_id)?;
    call.id("WorkflowType", started.workflow_type.as_ref().map_or("", |t| &t.name))?;
    call.queue_name(started.task_queue.as_ref().map_or("", |queue| &queue.name))?;
    call.blob(started.input.as_ref())?;
    if started.memo.as_ref().is_some_and(|memo| prost::Message::encoded_len(memo) > call.host.limits.memo_bytes_max) {
        return Err(Status::invalid_argument("Memo size exceeds limit."));
    }
    if let Some(given) = &mut started.search_attributes {
        let known = call.namespaces.attributes(namespace);
        for (name, payload) in &mut given.indexed_fields {
            let Some(kind) = known.get(name) else {
                let message = format!("Namespace {namespace} has no mapping defined for search attribute {name}");
                return Err(Status::invalid_argument(message));
            };
            // Whoever reads the value knows what it is, whether or not the client said so.
            payload.metadata.insert("type".to_owned(), type_name(*kind).into());
        }
    }
    let negative = |d: &Option<Duration>| d.as_ref().is_some_and(|d| d.seconds < 0 || d.nanos < 0);
    let timeouts = [
        ("WorkflowExecutionTimeout", &started.workflow_execution_timeout),
        ("WorkflowRunTimeout", &started.workflow_run_timeout),
        ("WorkflowTaskTimeout", &started.workflow_task_timeout),
        ("WorkflowStartDelay", &started.first_workflow_task_backoff),
    ];
    for (what, timeout) in timeouts {
        if negative(timeout) {
            return Err(Status::invalid_argument(format!("An invalid {what} is set on request.")));
        }
    }
    if let Some(given) = started.versioning_override.take() {
        let queue = started.task_queue.as_ref().map_or("", |queue| &queue.name);
        let given = options::checked(call, namespace, queue, given)?;
        if matches!(&given.r#override, Some(Override::Pinned(pinned)) if pinned.version.is_none()) {
            return Err(Status::invalid_argument("must provide version if override is pinned."));
        }
        started.versioning_override = Some(given);
    }
    if let Some(policy) = started.retry_policy.take() {
        started.retry_policy = Some(checked_policy(&policy)?);
    }
    Ok(started)
}

fn checked_policy(policy: &RetryPolicy) -> Reply<RetryPolicy> {
    match retry::invalid(policy) {
        Some(message) => Err(Status::invalid_argument(message)),
        None => Ok(retry::with_defaults(Some(policy))),
    }
}

/// The two policies of a request. The deprecated reuse policy `TERMINATE_IF_RUNNING` means what became a conflict policy.
fn policies(reuse: i32, conflict: i32) -> Reply<(WorkflowIdReusePolicy, WorkflowIdConflictPolicy)> {
    #[expect(deprecated, reason = "older SDKs still send it")]
    const TERMINATE_IF_RUNNING: WorkflowIdReusePolicy = WorkflowIdReusePolicy::TerminateIfRunning;
    let reuse = WorkflowIdReusePolicy::try_from(reuse).unwrap_or_default();
    let conflict = WorkflowIdConflictPolicy::try_from(conflict).unwrap_or_default();
    match (reuse, conflict) {
        (TERMINATE_IF_RUNNING, WorkflowIdConflictPolicy::Unspecified) => {
            Ok((WorkflowIdReusePolicy::AllowDuplicate, WorkflowIdConflictPolicy::TerminateExisting))
        }
        (TERMINATE_IF_RUNNING, _) => Err(Status::invalid_argument(
            "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING cannot be used together with a \
             WorkflowIDConflictPolicy.",
        )),
        (WorkflowIdReusePolicy::RejectDuplicate, WorkflowIdConflictPolicy::TerminateExisting) => {
            Err(Status::invalid_argument(
                "Invalid WorkflowIDReusePolicy: WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE cannot be used together with \
                 WorkflowIdConflictPolicy WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING.",
            ))
        }
        fine => Ok(fine),
    }
}

fn unsupported(what: &str, is_asked_for: bool) -> Reply<()> {
    if is_asked_for { Err(Status::unimplemented(format!("{what} are not supported by this server"))) } else { Ok(()) }
}
