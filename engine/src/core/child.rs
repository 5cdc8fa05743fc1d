//! Children of a workflow, as the parent sees them: the command that wants one, what became of its start, and its end.

#![expect(deprecated, reason = "SDKs still fill the fields, and servers repeat them in the events")]

use super::command::{CommandError, Outcome, id_within, payloads_within, with_values};
use super::external::{bound, same_namespace};
use super::state::Child;
use super::versioning::{self, Heir};
use super::{Input, Refusal, Tx, begin, ids, retry, workflow_task};
use crate::pb::command::v1::StartChildWorkflowExecutionCommandAttributes;
use crate::pb::common::v1::{Memo, SearchAttributes, WorkflowExecution, WorkflowType};
use crate::pb::enums::v1::{
    ParentClosePolicy, StartChildWorkflowExecutionFailedCause as StartFailed, TaskQueueKind, WorkflowIdReusePolicy,
    WorkflowTaskFailedCause as Cause,
};
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    ChildWorkflowExecutionCanceledEventAttributes, ChildWorkflowExecutionCompletedEventAttributes,
    ChildWorkflowExecutionFailedEventAttributes, ChildWorkflowExecutionStartedEventAttributes,
    ChildWorkflowExecutionTerminatedEventAttributes, ChildWorkflowExecutionTimedOutEventAttributes,
    StartChildWorkflowExecutionFailedEventAttributes, StartChildWorkflowExecutionInitiatedEventAttributes,
    WorkflowExecutionStartedEventAttributes,
};
use crate::pb::sdk::v1::UserMetadata;
use crate::pb::taskqueue::v1::TaskQueue;
use crate::time::{duration, nanos};
use prost::Message;
use prost_wkt_types::Duration;

/// The workflow wants a child.
pub fn start(
    tx: &mut Tx<'_>,
    command: StartChildWorkflowExecutionCommandAttributes,
    user_metadata: Option<UserMetadata>,
    completed_event_id: i64,
    outcome: &mut Outcome,
) -> Result<(), CommandError> {
    check(tx, &command)?;
    let parent_close_policy = match command.parent_close_policy() {
        ParentClosePolicy::Unspecified => ParentClosePolicy::Terminate,
        given => given,
    };
    let reuse = match command.workflow_id_reuse_policy() {
        WorkflowIdReusePolicy::Unspecified => WorkflowIdReusePolicy::AllowDuplicate,
        given => given,
    };
    let given = command.task_queue.map(|queue| queue.name).filter(|name| !name.is_empty());
    let queue = given.unwrap_or_else(|| tx.state.task_queue.clone());
    let execution_timeout = nanos(command.workflow_execution_timeout.as_ref());
    let run_timeout = begin::shorter(nanos(command.workflow_run_timeout.as_ref()), execution_timeout);
    let task_timeout = begin::task_timeout(nanos(command.workflow_task_timeout.as_ref()), run_timeout);
    let workflow_type = command.workflow_type.unwrap_or_default();
    let memo = with_values(command.memo.as_ref().map(|memo| &memo.fields));
    let attributes = with_values(command.search_attributes.as_ref().map(|attributes| &attributes.indexed_fields));
    let request_id = ids::request(tx.state);
    let initiated_event_id = tx.append_with(
        Attributes::StartChildWorkflowExecutionInitiatedEventAttributes(
            StartChildWorkflowExecutionInitiatedEventAttributes {
                namespace: tx.state.namespace.clone(),
                namespace_id: ids::namespace(&tx.state.namespace),
                workflow_id: command.workflow_id.clone(),
                workflow_type: Some(workflow_type.clone()),
                task_queue: Some(TaskQueue { name: queue, kind: TaskQueueKind::Normal as i32, ..Default::default() }),
                input: command.input,
                workflow_execution_timeout: command.workflow_execution_timeout,
                workflow_run_timeout: duration(run_timeout),
                workflow_task_timeout: duration(task_timeout),
                parent_close_policy: parent_close_policy as i32,
                control: command.control,
                workflow_task_completed_event_id: completed_event_id,
                workflow_id_reuse_policy: reuse as i32,
                retry_policy: command.retry_policy.map(|policy| retry::with_defaults(Some(&policy))),
                header: command.header,
                memo: memo.map(|fields| Memo { fields }),
                search_attributes: attributes.map(|indexed_fields| SearchAttributes { indexed_fields }),
                inherit_build_id: command.inherit_build_id,
                priority: command.priority,
                versioning_override: command.versioning_override.map(versioning::modern),
                ..Default::default()
            },
        ),
        user_metadata,
    );
    let child = Child {
        workflow_id: command.workflow_id.clone(),
        workflow_type: workflow_type.name,
        parent_close_policy: parent_close_policy as i32,
        request_id,
        ..Default::default()
    };
    tx.state.children.insert(initiated_event_id, child);
    outcome.children.insert(command.workflow_id);
    Ok(())
}

fn check(tx: &Tx<'_>, command: &StartChildWorkflowExecutionCommandAttributes) -> Result<(), CommandError> {
    const WHAT: &str = "StartChildWorkflowExecutionCommand";
    let cause = Cause::BadStartChildExecutionAttributes;
    let bad = |message: String| CommandError::new(cause, message);
    let limits = tx.at.limits;
    same_namespace(tx, &command.namespace).map_err(bad)?;
    let workflow_type = command.workflow_type.as_ref().map_or("", |t| &t.name);
    if command.workflow_id.is_empty() {
        return Err(bad(format!("Required field WorkflowId is not set on {WHAT}. WorkflowType={workflow_type}")));
    }
    if workflow_type.is_empty() {
        let id = &command.workflow_id;
        return Err(bad(format!("Required field WorkflowType is not set on {WHAT}. WorkflowId={id}")));
    }
    let queue = command.task_queue.as_ref().map_or("", |queue| &queue.name);
    let (id, namespace) = (&command.workflow_id, &tx.state.namespace);
    id_within(id, limits).map_err(|length| {
        let said = format!("WorkflowId={id} {length} WorkflowType={workflow_type} Namespace={namespace}");
        bad(format!("WorkflowId on {WHAT} exceeds length limit. {said}"))
    })?;
    id_within(workflow_type, limits).map_err(|length| {
        let said = format!("WorkflowId={id} WorkflowType={workflow_type} {length} Namespace={namespace}");
        bad(format!("WorkflowType on {WHAT} exceeds length limit. {said}"))
    })?;
    id_within(queue, limits).map_err(|_| bad("taskQueue length exceeds limit".to_owned()))?;
    let timeouts = [
        ("WorkflowExecutionTimeout", &command.workflow_execution_timeout),
        ("WorkflowRunTimeout", &command.workflow_run_timeout),
        ("WorkflowTaskTimeout", &command.workflow_task_timeout),
    ];
    for (name, timeout) in timeouts {
        if timeout.as_ref().is_some_and(|Duration { seconds, nanos }| *seconds < 0 || *nanos < 0) {
            return Err(bad(format!("Invalid {name} on {WHAT}.")));
        }
    }
    if let Some(message) = command.retry_policy.as_ref().and_then(retry::invalid) {
        return Err(bad(format!("invalid WorkflowRetryPolicy on {WHAT}: {message}")));
    }
    if !command.cron_schedule.is_empty() {
        return Err(bad("cron schedules are not supported by this server".to_owned()));
    }
    payloads_within(command.input.as_ref(), limits, cause, &format!("{WHAT}Attributes. Input exceeds size limit."))?;
    if command.memo.as_ref().is_some_and(|memo| memo.encoded_len() > limits.memo_bytes_max) {
        return Err(CommandError::fatal(cause, format!("{WHAT}Attributes.Memo exceeds size limit.")));
    }
    let pending = tx.state.children.len();
    bound(pending, limits.pending_children_max, Cause::PendingChildWorkflowsLimitExceeded, "child workflow executions")
}

/// The first event of a child of the run `parent`, for the event of the parent that initiated it. `in_version`: workers
/// of the parent's version take workflow tasks from the child's queue.
pub fn started(
    parent: &super::state::RunState,
    initiated_event_id: i64,
    initiated: StartChildWorkflowExecutionInitiatedEventAttributes,
    in_version: bool,
) -> WorkflowExecutionStartedEventAttributes {
    let mut started = WorkflowExecutionStartedEventAttributes {
        workflow_id: initiated.workflow_id,
        workflow_type: initiated.workflow_type,
        parent_workflow_namespace: parent.namespace.clone(),
        parent_workflow_namespace_id: ids::namespace(&parent.namespace),
        parent_workflow_execution: Some(parent.execution()),
        parent_initiated_event_id: initiated_event_id,
        root_workflow_execution: Some(parent.root()),
        task_queue: initiated.task_queue,
        input: initiated.input,
        workflow_execution_timeout: initiated.workflow_execution_timeout,
        workflow_run_timeout: initiated.workflow_run_timeout,
        workflow_task_timeout: initiated.workflow_task_timeout,
        retry_policy: initiated.retry_policy,
        memo: initiated.memo,
        search_attributes: initiated.search_attributes,
        header: initiated.header,
        priority: initiated.priority,
        ..Default::default()
    };
    versioning::pass_on(parent, Heir::Child, in_version, &mut started);
    // What the parent wants for this child comes before what it has itself.
    if initiated.versioning_override.is_some() {
        started.versioning_override = initiated.versioning_override;
        started.inherited_pinned_version = None;
    }
    started
}

/// The child was started, or could not be.
pub struct Start {
    pub initiated_event_id: i64,
    pub initiated: StartChildWorkflowExecutionInitiatedEventAttributes,
    /// Its first run.
    pub outcome: Result<String, StartFailed>,
}

impl Input for Start {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let Start { initiated_event_id, initiated, outcome } = self;
        let awaited = tx.state.children.get(&initiated_event_id).is_some_and(|child| !child.is_started());
        if !awaited || !tx.state.is_open() {
            return Err(Refusal::NotAwaited);
        }
        match outcome {
            Ok(run_id) => {
                if let Some(child) = tx.state.children.get_mut(&initiated_event_id) {
                    child.run_id.clone_from(&run_id);
                }
                tx.occur(Attributes::ChildWorkflowExecutionStartedEventAttributes(
                    ChildWorkflowExecutionStartedEventAttributes {
                        namespace: initiated.namespace,
                        namespace_id: initiated.namespace_id,
                        initiated_event_id,
                        workflow_execution: Some(WorkflowExecution { workflow_id: initiated.workflow_id, run_id }),
                        workflow_type: initiated.workflow_type,
                        header: initiated.header,
                    },
                ));
            }
            Err(cause) => {
                tx.state.children.remove(&initiated_event_id);
                tx.occur(Attributes::StartChildWorkflowExecutionFailedEventAttributes(
                    StartChildWorkflowExecutionFailedEventAttributes {
                        namespace: initiated.namespace,
                        namespace_id: initiated.namespace_id,
                        workflow_id: initiated.workflow_id,
                        workflow_type: initiated.workflow_type,
                        cause: cause as i32,
                        control: initiated.control,
                        initiated_event_id,
                        workflow_task_completed_event_id: 0,
                    },
                ));
            }
        }
        workflow_task::ensure(tx);
        Ok(())
    }
}

/// The child's chain of runs ended, and how.
pub struct Ended {
    pub initiated_event_id: i64,
    pub first_run_id: String,
    /// Its last run.
    pub execution: WorkflowExecution,
    /// The event that closed the last run.
    pub closing: Attributes,
}

impl Input for Ended {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        let initiated_event_id = self.initiated_event_id;
        let child = tx.state.children.get(&initiated_event_id);
        let child =
            child.filter(|child| child.workflow_id == self.execution.workflow_id && child.run_id == self.first_run_id);
        let (true, Some(child)) = (tx.state.is_open(), child) else { return Err(Refusal::NotAwaited) };
        let namespace = tx.state.namespace.clone();
        let namespace_id = ids::namespace(&namespace);
        let workflow_execution = Some(self.execution);
        let workflow_type = Some(WorkflowType { name: child.workflow_type.clone() });
        let started_event_id = child.started_event_id;
        macro_rules! ended {
            ($attributes:ident { $($field:ident: $value:expr),* $(,)? }) => {
                Attributes::$attributes($attributes {
                    namespace,
                    namespace_id,
                    workflow_execution,
                    workflow_type,
                    initiated_event_id,
                    started_event_id,
                    $($field: $value),*
                })
            };
        }
        let attributes = match self.closing {
            Attributes::WorkflowExecutionCompletedEventAttributes(a) => {
                ended!(ChildWorkflowExecutionCompletedEventAttributes { result: a.result })
            }
            Attributes::WorkflowExecutionFailedEventAttributes(a) => {
                ended!(ChildWorkflowExecutionFailedEventAttributes { failure: a.failure, retry_state: a.retry_state })
            }
            Attributes::WorkflowExecutionCanceledEventAttributes(a) => {
                ended!(ChildWorkflowExecutionCanceledEventAttributes { details: a.details })
            }
            Attributes::WorkflowExecutionTimedOutEventAttributes(a) => {
                ended!(ChildWorkflowExecutionTimedOutEventAttributes { retry_state: a.retry_state })
            }
            Attributes::WorkflowExecutionTerminatedEventAttributes(_) => {
                ended!(ChildWorkflowExecutionTerminatedEventAttributes {})
            }
            _ => return Err(Refusal::NotAwaited),
        };
        tx.state.children.remove(&initiated_event_id);
        tx.occur(attributes);
        workflow_task::ensure(tx);
        Ok(())
    }
}
