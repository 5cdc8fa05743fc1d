//! Workflow tasks: handed to workers, with the history that they need, and answered by them.

use super::token::{HistoryToken, TaskToken};
use super::undelivered::Undelivered;
use super::{Call, Reply, activity, deployment, query};
use crate::core::completion::{Complete, Completed};
use crate::core::state::Sticky;
use crate::core::workflow_task::{self, Fail, ForgetSticky, Start, Started, TaskRef};
use crate::dispatch::{Kind, QueueKey, What};
use crate::host::{self, Answer, Slot, Unanswered};
use crate::pb::common::v1::{WorkflowExecution, WorkflowType};
use crate::pb::enums::v1::{TaskQueueKind, WorkflowTaskFailedCause};
use crate::pb::history::v1::History;
use crate::pb::protocol::v1::Message;
use crate::pb::query::v1::WorkflowQuery;
use crate::pb::taskqueue::v1::TaskQueue;
use crate::pb::workflowservice::v1::*;
use crate::store::{Durability, keys};
use crate::time::{Time, nanos};
use prost::Message as _;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Status;

pub async fn poll(call: Call, r: PollWorkflowTaskQueueRequest) -> Reply<PollWorkflowTaskQueueResponse> {
    let queue = r.task_queue.unwrap_or_default();
    call.queue_name(&queue.name)?;
    call.id_if_any("Identity", &r.identity)?;
    let from_sticky = queue.kind == TaskQueueKind::Sticky as i32;
    let namespace = call.namespace(&r.namespace)?.to_owned();
    let version = deployment::of_worker(r.deployment_options.as_ref())?;
    let key = match from_sticky {
        true => QueueKey { namespace, name: queue.name, kind: Kind::Sticky, version: None },
        false => {
            if let Some(version) = &version {
                call.host.register_worker(&namespace, version, &queue.name, false).await?;
            }
            QueueKey { namespace, name: queue.name, kind: Kind::Workflow, version: version.clone() }
        }
    };
    let deadline = call.wait_until(call.host.limits.task_poll_ns);
    while let Some(task) = call.host.queues.take(&key, &r.worker_instance_key, &r.identity, deadline).await {
        let Some(slot) = call.host.slot(&task.run)? else { continue };
        match task.what {
            What::WorkflowTask { stamp } => {
                let poller = call.host.poller(&slot, version.clone());
                let start = Start { stamp, identity: r.identity.clone(), from_sticky, poller };
                let with_company = |started| Task::new(&call, &slot, started);
                match call.host.decide_and(&slot, start, Durability::Journaled, with_company) {
                    Ok((task, done)) => return hand_out(&call, &slot, task, done).await,
                    Err(host::Error::Refused(_) | host::Error::NoRun) => {} // overtaken by events
                    Err(error) => return Err(error.into()),
                }
            }
            What::Query { id } => {
                if let Some(query) = call.host.take_query(&slot, &id) {
                    return query::task(&call, &slot, id, query, from_sticky);
                }
            }
            What::Activity { .. } => {}
        }
    }
    Ok(PollWorkflowTaskQueueResponse::default())
}

/// A started task with the queries and updates that go with it.
struct Task {
    started: Started,
    queries: HashMap<String, WorkflowQuery>,
    messages: Vec<Message>,
}

impl Task {
    /// Called while the run is locked.
    fn new(call: &Call, slot: &Slot, started: Started) -> Task {
        let messages = call.host.attach_updates(slot, started.task.started_event_id);
        Task { queries: call.host.attach_queries(slot), messages, started }
    }
}

/// Gives a started task to its poll once the start is journaled.
async fn hand_out(call: &Call, slot: &Arc<Slot>, task: Task, done: host::Done) -> Reply<PollWorkflowTaskQueueResponse> {
    let undelivered = Undelivered::new(&call.host, slot, Some(TaskRef::of(&task.started.task)), []);
    host::wait(done).await?;
    let response = response(call, slot, task)?;
    undelivered.delivered();
    Ok(response)
}

/// A started task as the worker is told of it.
fn response(call: &Call, slot: &Slot, task: Task) -> Reply<PollWorkflowTaskQueueResponse> {
    let Task { started, queries, messages } = task;
    let task = &started.task;
    let first = if started.partial_history { started.previous_started_event_id + 1 } else { 1 };
    let is_transient = !started.transient.is_empty();
    let end = if is_transient { task.scheduled_event_id } else { task.started_event_id + 1 };
    let page = HistoryToken {
        run_id: keys::run_id(&slot.key),
        next_event_id: first,
        end_event_id: end,
        transient: is_transient,
    };
    let (history, next_page_token) = first_page(call, slot, page, started.transient)?;
    let (execution, workflow_type, normal_queue, namespace) = names(slot);
    let token = TaskToken {
        namespace,
        run_id: execution.run_id.clone(),
        scheduled_event_id: task.scheduled_event_id,
        started_event_id: task.started_event_id,
        attempt: task.attempt,
        started_at: task.started_at,
        query_id: String::new(),
        stamp: task.stamp,
    };
    Ok(PollWorkflowTaskQueueResponse {
        task_token: token.encode_to_vec(),
        workflow_execution: Some(execution),
        workflow_type: Some(workflow_type),
        previous_started_event_id: started.previous_started_event_id,
        started_event_id: task.started_event_id,
        attempt: task.attempt,
        history: Some(history),
        next_page_token,
        workflow_execution_task_queue: Some(normal_queue),
        scheduled_time: Time(task.scheduled_at).timestamp(),
        started_time: Time(task.started_at).timestamp(),
        queries,
        messages,
        ..Default::default()
    })
}

/// A query on its own way, as the worker is told of it.
pub fn query_response(
    call: &Call,
    slot: &Slot,
    query: WorkflowQuery,
    token: TaskToken,
    from_sticky: bool,
) -> Reply<PollWorkflowTaskQueueResponse> {
    let (execution, workflow_type, normal_queue, namespace) = names(slot);
    let (next_event_id, previous_started_event_id) = {
        let run = slot.run.lock();
        (run.state.next_event_id, run.state.previous_started_event_id)
    };
    let next_event_id = next_event_id.min(slot.seen().next_event_id);
    let (history, next_page_token) = if from_sticky {
        (History::default(), Vec::new()) // the worker has the run in its cache
    } else {
        let page = HistoryToken {
            run_id: execution.run_id.clone(),
            next_event_id: 1,
            end_event_id: next_event_id,
            transient: false,
        };
        first_page(call, slot, page, Vec::new())?
    };
    let token = TaskToken { namespace, run_id: execution.run_id.clone(), ..token };
    Ok(PollWorkflowTaskQueueResponse {
        task_token: token.encode_to_vec(),
        workflow_execution: Some(execution),
        workflow_type: Some(workflow_type),
        previous_started_event_id,
        // Zero says that the task is nothing but a query: SDKs keep such tasks beside each other, and replace any other.
        started_event_id: 0,
        attempt: 1,
        history: Some(history),
        next_page_token,
        query: Some(query),
        workflow_execution_task_queue: Some(normal_queue),
        ..Default::default()
    })
}

/// The first page of a task's history and the token of the next.
fn first_page(
    call: &Call,
    slot: &Slot,
    page: HistoryToken,
    transient: Vec<crate::pb::history::v1::HistoryEvent>,
) -> Reply<(History, Vec<u8>)> {
    let most = super::history::largest_page(call);
    let mut events = call.host.history(&slot.key, page.next_event_id, page.end_event_id, most)?;
    let next = events.last().map_or(page.next_event_id, |event| event.event_id + 1);
    if next < page.end_event_id && !events.is_empty() {
        return Ok((History { events }, HistoryToken { next_event_id: next, ..page }.encode_to_vec()));
    }
    events.extend(transient);
    Ok((History { events }, Vec::new()))
}

fn names(slot: &Slot) -> (WorkflowExecution, WorkflowType, TaskQueue, String) {
    let run = slot.run.lock();
    let state = &run.state;
    let execution = WorkflowExecution { workflow_id: state.workflow_id.clone(), run_id: state.run_id.clone() };
    let queue =
        TaskQueue { name: state.task_queue.clone(), kind: TaskQueueKind::Normal as i32, normal_name: String::new() };
    (execution, WorkflowType { name: state.workflow_type.clone() }, queue, state.namespace.clone())
}

/// The run that a token belongs to.
pub fn slot_of(call: &Call, token: &TaskToken) -> Reply<Arc<Slot>> {
    let slot = keys::run(&token.run_id).map(|key| call.host.slot(&key)).transpose()?.flatten();
    Ok(slot.ok_or(host::Error::NoRun)?)
}

pub async fn respond_completed(
    call: Call,
    r: RespondWorkflowTaskCompletedRequest,
) -> Reply<RespondWorkflowTaskCompletedResponse> {
    let token = TaskToken::decode_from(&r.task_token)?;
    if r.intermediate_page || r.page_number != 0 {
        return Err(Status::unimplemented("paged workflow task completions are not supported by this server"));
    }
    let slot = slot_of(&call, &token)?;
    let sticky = r.sticky_attributes.and_then(|sticky| {
        let queue = sticky.worker_task_queue.filter(|queue| !queue.name.is_empty())?.name;
        let schedule_to_start = nanos(sticky.schedule_to_start_timeout.as_ref());
        (schedule_to_start > 0).then_some(Sticky { queue, schedule_to_start })
    });
    let spoken_of = r.messages.iter().map(|message| message.protocol_instance_id.clone()).collect();
    let complete = Complete {
        token: token.workflow_task(),
        commands: r.commands,
        messages: r.messages,
        identity: r.identity,
        sticky,
        return_new_task: r.return_new_workflow_task,
        force_new_task: r.force_create_new_workflow_task,
        sdk_metadata: r.sdk_metadata,
        metering_metadata: r.metering_metadata,
        worker: deployment::worker(&call, &token.namespace, r.deployment_options, r.versioning_behavior)?,
    };
    let (host, results) = (&call.host, &r.query_results);
    let ((completed, next, unanswered), done) = host.decide_and(&slot, complete, Durability::Synced, |completed| {
        let is_accepted = matches!(completed, Completed::Accepted { .. });
        host.detach_queries(&slot, results.keys().filter(|_| is_accepted));
        let unanswered = if is_accepted { host.settle_updates(&slot, &spoken_of) } else { Vec::new() };
        let next = completed.handed_out().0.cloned().map(|next| Task::new(&call, &slot, next));
        (completed, next, unanswered)
    })?;
    let (started, eager) = completed.handed_out();
    let undelivered = Undelivered::new(&call.host, &slot, started.map(|next| TaskRef::of(&next.task)), eager);
    host::wait(done).await?;
    unanswered.into_iter().for_each(Unanswered::tell);
    match completed {
        Completed::Accepted { eager, .. } => {
            for (id, result) in r.query_results {
                call.host.answer_query(&slot, &id, Answer::of(result));
            }
            let workflow_task = next.map(|task| response(&call, &slot, task)).transpose()?;
            let activity_tasks = eager.iter().map(|a| activity::response(&call, &slot, a)).collect::<Reply<_>>()?;
            undelivered.delivered();
            Ok(RespondWorkflowTaskCompletedResponse { workflow_task, activity_tasks, reset_history_event_id: 0 })
        }
        Completed::Failed { message } => Err(Status::invalid_argument(message)),
        Completed::HeartbeatTimedOut => Err(super::status::not_found("workflow task heartbeat timeout")),
    }
}

pub async fn respond_failed(
    call: Call,
    r: RespondWorkflowTaskFailedRequest,
) -> Reply<RespondWorkflowTaskFailedResponse> {
    let token = TaskToken::decode_from(&r.task_token)?;
    let slot = slot_of(&call, &token)?;
    let fail = Fail {
        token: token.workflow_task(),
        cause: WorkflowTaskFailedCause::try_from(r.cause).unwrap_or_default(),
        failure: r.failure,
        identity: r.identity,
    };
    call.host.transact(&slot, fail, Durability::Synced).await?;
    Ok(RespondWorkflowTaskFailedResponse {})
}

pub async fn reset_sticky(call: Call, r: ResetStickyTaskQueueRequest) -> Reply<ResetStickyTaskQueueResponse> {
    let slot = call.run(call.namespace(&r.namespace)?, &r.execution.unwrap_or_default())?;
    call.host.transact(&slot, ForgetSticky, Durability::Journaled).await?;
    Ok(ResetStickyTaskQueueResponse {})
}

/// The events of the current task that history does not hold, if it is still the one that a page belongs to.
pub fn transient_of(slot: &Slot, end_event_id: i64) -> Vec<crate::pb::history::v1::HistoryEvent> {
    let run = slot.run.lock();
    let events = workflow_task::transient_events(&run.state);
    if events.first().is_some_and(|event| event.event_id == end_event_id) { events } else { Vec::new() }
}
