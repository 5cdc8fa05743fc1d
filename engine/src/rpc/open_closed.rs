//! ListOpenWorkflowExecutions and ListClosedWorkflowExecutions, which are older than queries and know a few filters. Both
//! list as queries do: the newest start first.

use super::visibility::{cut, page_size};
use super::{Call, Reply};
use crate::host::ListPage;
use crate::pb::enums::v1::WorkflowExecutionStatus;
use crate::pb::filter::v1::StartTimeFilter;
use crate::pb::workflow::v1::WorkflowExecutionInfo;
use crate::pb::workflowservice::v1::list_closed_workflow_executions_request::Filters as Closed;
use crate::pb::workflowservice::v1::list_open_workflow_executions_request::Filters as Open;
use crate::pb::workflowservice::v1::*;
use crate::time::Time;
use prost_wkt_types::Timestamp;
use tonic::Status;

const RUNNING: i32 = WorkflowExecutionStatus::Running as i32;

/// What a run must be to be listed.
enum Wanted {
    Any,
    Workflow(String),
    Type(String),
    Status(i32),
}

pub async fn list_open(call: Call, r: ListOpenWorkflowExecutionsRequest) -> Reply<ListOpenWorkflowExecutionsResponse> {
    let wanted = match r.filters {
        None => Wanted::Any,
        Some(Open::ExecutionFilter(filter)) => Wanted::Workflow(filter.workflow_id),
        Some(Open::TypeFilter(filter)) => Wanted::Type(filter.name),
    };
    let within = Span::of(r.start_time_filter)?;
    let keep = |run: &WorkflowExecutionInfo| run.status == RUNNING && within.has(run.start_time.as_ref());
    let page = page(&call, &r.namespace, wanted, keep, r.maximum_page_size, &r.next_page_token)?;
    Ok(ListOpenWorkflowExecutionsResponse { executions: page.runs, next_page_token: page.next })
}

pub async fn list_closed(
    call: Call,
    r: ListClosedWorkflowExecutionsRequest,
) -> Reply<ListClosedWorkflowExecutionsResponse> {
    let wanted = match r.filters {
        None => Wanted::Any,
        Some(Closed::ExecutionFilter(filter)) => Wanted::Workflow(filter.workflow_id),
        Some(Closed::TypeFilter(filter)) => Wanted::Type(filter.name),
        Some(Closed::StatusFilter(filter)) if [0, RUNNING].contains(&filter.status) => {
            return Err(Status::invalid_argument("StatusFilter must be specified and must be not Running."));
        }
        Some(Closed::StatusFilter(filter)) => Wanted::Status(filter.status),
    };
    // Whatever its name: of closed runs a server compares the times of their ends.
    let within = Span::of(r.start_time_filter)?;
    let keep = |run: &WorkflowExecutionInfo| run.status != RUNNING && within.has(run.close_time.as_ref());
    let page = page(&call, &r.namespace, wanted, keep, r.maximum_page_size, &r.next_page_token)?;
    Ok(ListClosedWorkflowExecutionsResponse { executions: page.runs, next_page_token: page.next })
}

fn page(
    call: &Call,
    namespace: &str,
    wanted: Wanted,
    keep: impl Fn(&WorkflowExecutionInfo) -> bool,
    size: i32,
    token: &[u8],
) -> Reply<ListPage> {
    let (namespace, limit) = (call.namespace(namespace)?, page_size(call, size));
    let type_of = |run: &WorkflowExecutionInfo| run.r#type.as_ref().map(|t| t.name.clone()).unwrap_or_default();
    Ok(match wanted {
        Wanted::Workflow(id) => {
            let mut runs = call.host.list_workflow(namespace, &id)?;
            runs.retain(keep);
            cut(runs, None, token, limit)
        }
        Wanted::Any => call.host.list(namespace, keep, token, limit)?,
        Wanted::Type(name) => call.host.list(namespace, |run| keep(run) && type_of(run) == name, token, limit)?,
        Wanted::Status(status) => call.host.list(namespace, |run| keep(run) && run.status == status, token, limit)?,
    })
}

/// From one moment to another, both included.
struct Span {
    earliest: Time,
    latest: Option<Time>,
}

impl Span {
    fn of(filter: Option<StartTimeFilter>) -> Reply<Span> {
        let StartTimeFilter { earliest_time, latest_time } = filter.unwrap_or_default();
        let span = Span {
            earliest: earliest_time.as_ref().map_or(Time::UNSET, Time::of),
            latest: latest_time.as_ref().map(Time::of),
        };
        if span.latest.is_some_and(|latest| latest < span.earliest) {
            let message = "EarliestTime in StartTimeFilter should not be larger than LatestTime.";
            return Err(Status::invalid_argument(message));
        }
        Ok(span)
    }

    fn has(&self, moment: Option<&Timestamp>) -> bool {
        moment
            .map(Time::of)
            .is_some_and(|moment| self.earliest <= moment && self.latest.is_none_or(|latest| moment <= latest))
    }
}
