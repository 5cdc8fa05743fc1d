//! Lists and counts of runs.

use super::filter::{self, Filter};
use super::{Call, Reply};
use crate::host::ListPage;
use crate::pb::enums::v1::{IndexedValueType, WorkflowExecutionStatus};
use crate::pb::operatorservice::v1::{ListSearchAttributesRequest, ListSearchAttributesResponse};
use crate::pb::workflowservice::v1::count_workflow_executions_response::AggregationGroup;
use crate::pb::workflowservice::v1::*;
use std::collections::{BTreeMap, HashMap};
use tonic::Status;

/// Runs in a page when the request does not say.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

fn parse(query: &str) -> Reply<Filter> {
    Filter::parse(query).map_err(|error| Status::invalid_argument(format!("invalid query: {error}")))
}

fn page(call: &Call, namespace: &str, query: &str, size: i32, token: &[u8]) -> Reply<ListPage> {
    let namespace = call.namespace(namespace)?;
    let filter = parse(query)?;
    let limit = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(PAGE).min(PAGE_MAX);
    if let Some(workflow_id) = filter.only_workflow_id() {
        // One workflow id has an index of its own and seldom more than a page of runs.
        let mut runs = call.host.list_workflow(namespace, workflow_id)?;
        runs.retain(|run| filter.matches(run));
        let skip = token.try_into().map(u32::from_be_bytes).unwrap_or(0) as usize;
        let rest = runs.len() > skip + limit;
        let runs = runs.into_iter().skip(skip).take(limit).collect();
        let next = if rest { ((skip + limit) as u32).to_be_bytes().to_vec() } else { Vec::new() };
        return Ok(ListPage { runs, next });
    }
    Ok(call.host.list(namespace, |run| filter.matches(run), token, limit)?)
}

pub async fn list(call: Call, r: ListWorkflowExecutionsRequest) -> Reply<ListWorkflowExecutionsResponse> {
    let page = page(&call, &r.namespace, &r.query, r.page_size, &r.next_page_token)?;
    Ok(ListWorkflowExecutionsResponse { executions: page.runs, next_page_token: page.next })
}

pub async fn scan(call: Call, r: ScanWorkflowExecutionsRequest) -> Reply<ScanWorkflowExecutionsResponse> {
    let page = page(&call, &r.namespace, &r.query, r.page_size, &r.next_page_token)?;
    Ok(ScanWorkflowExecutionsResponse { executions: page.runs, next_page_token: page.next })
}

pub async fn count(call: Call, r: CountWorkflowExecutionsRequest) -> Reply<CountWorkflowExecutionsResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let (query, by_status) = filter::split_group_by_status(&r.query);
    let filter = parse(query)?;
    let mut groups: BTreeMap<i32, i64> = BTreeMap::new();
    let counted = std::cell::RefCell::new(&mut groups);
    // Nothing is kept of a run but its status.
    call.host.list(
        namespace,
        |run| {
            if filter.matches(run) {
                *counted.borrow_mut().entry(run.status).or_default() += 1;
            }
            false
        },
        &[],
        1,
    )?;
    let count = groups.values().sum();
    let groups = groups.into_iter().filter(|_| by_status).map(|(status, count)| {
        let name = WorkflowExecutionStatus::try_from(status).map(filter::status_name).unwrap_or_default();
        AggregationGroup { group_values: vec![filter::keyword_payload(name)], count }
    });
    Ok(CountWorkflowExecutionsResponse { count, groups: groups.collect() })
}

/// The attributes that queries understand.
fn system_attributes() -> HashMap<String, i32> {
    filter::FIELDS.iter().map(|name| ((*name).to_owned(), IndexedValueType::Keyword as i32)).collect()
}

pub async fn search_attributes(_: Call, _: GetSearchAttributesRequest) -> Reply<GetSearchAttributesResponse> {
    Ok(GetSearchAttributesResponse { keys: system_attributes() })
}

pub async fn operator_search_attributes(
    _: Call,
    _: ListSearchAttributesRequest,
) -> Reply<ListSearchAttributesResponse> {
    Ok(ListSearchAttributesResponse { system_attributes: system_attributes(), ..Default::default() })
}
