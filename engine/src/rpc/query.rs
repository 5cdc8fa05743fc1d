//! Queries of a workflow, and the answers of workers.

use super::token::TaskToken;
use super::{Call, Reply, status, workflow_task};
use crate::host::{Answer, QueryError, Slot};
use crate::pb::enums::v1::{
    QueryRejectCondition, ResourceExhaustedCause, ResourceExhaustedScope, WorkflowExecutionStatus,
};
use crate::pb::query::v1::{QueryRejected, WorkflowQuery, WorkflowQueryResult};
use crate::pb::workflowservice::v1::*;
use tonic::Status;

pub async fn query(call: Call, r: QueryWorkflowRequest) -> Reply<QueryWorkflowResponse> {
    call.room()?;
    let query = r.query.unwrap_or_default();
    call.id("QueryType", &query.query_type)?;
    call.blob(query.query_args.as_ref())?;
    let execution = r.execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    let slot = call.run(call.namespace(&r.namespace)?, &execution)?;
    let status = slot.run.lock().state.status;
    if is_rejected(r.query_reject_condition, status) {
        return Ok(QueryWorkflowResponse { query_rejected: Some(QueryRejected { status }), ..Default::default() });
    }
    let deadline = call.wait_until(call.host.limits.query_ns);
    match call.host.query(&slot, query, deadline).await {
        Ok(Answer::Result(query_result)) => Ok(QueryWorkflowResponse { query_result, ..Default::default() }),
        Ok(Answer::Failed { message, failure }) => Err(status::query_failed(&message, failure.map(|failure| *failure))),
        Err(error @ QueryError::TooMany) => {
            let (cause, scope) = (ResourceExhaustedCause::BusyWorkflow, ResourceExhaustedScope::Namespace);
            Err(status::exhausted(&error.to_string(), cause, scope))
        }
        Err(error @ (QueryError::Deadline | QueryError::Gone)) => Err(Status::deadline_exceeded(error.to_string())),
    }
}

fn is_rejected(condition: i32, status: i32) -> bool {
    let open = status == WorkflowExecutionStatus::Running as i32;
    let completed = status == WorkflowExecutionStatus::Completed as i32;
    match QueryRejectCondition::try_from(condition) {
        Ok(QueryRejectCondition::NotOpen) => !open,
        Ok(QueryRejectCondition::NotCompletedCleanly) => !open && !completed,
        _ => false,
    }
}

/// A query as a task of its own.
pub fn task(
    call: &Call,
    slot: &Slot,
    query_id: String,
    query: WorkflowQuery,
    from_sticky: bool,
) -> Reply<PollWorkflowTaskQueueResponse> {
    let token = TaskToken { query_id, ..Default::default() };
    workflow_task::query_response(call, slot, query, token, from_sticky)
}

pub async fn respond(call: Call, r: RespondQueryTaskCompletedRequest) -> Reply<RespondQueryTaskCompletedResponse> {
    let token = TaskToken::decode_from(&r.task_token)?;
    let slot = workflow_task::slot_of(&call, &token)?;
    let answer = Answer::of(WorkflowQueryResult {
        result_type: r.completed_type,
        answer: r.query_result,
        error_message: r.error_message,
        failure: r.failure,
    });
    if !call.host.answer_query(&slot, &token.query_id, answer) {
        return Err(status::not_found("query task not found, or already expired"));
    }
    Ok(RespondQueryTaskCompletedResponse {})
}
