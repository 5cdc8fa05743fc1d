//! Lists and counts of runs, and the attributes by which they can be found.

use super::filter::attribute::{BUILT_IN, Registered, keyword_payload, status_name};
use super::filter::{Order, Query, split_group_by_status};
use super::{Call, Reply};
use crate::host::ListPage;
use crate::pb::enums::v1::{IndexedValueType, WorkflowExecutionStatus};
use crate::pb::operatorservice::v1::*;
use crate::pb::workflow::v1::WorkflowExecutionInfo;
use crate::pb::workflowservice::v1::count_workflow_executions_response::AggregationGroup;
use crate::pb::workflowservice::v1::*;
use std::collections::{BTreeMap, HashMap};
use tonic::Status;

/// Runs in a page when the request does not say.
const PAGE: usize = 100;

/// Runs that are sorted for one answer; the order in which they are stored has no bound.
const SORTED_MAX: usize = 10_000;

fn parse(call: &Call, namespace: &str, query: &str) -> Reply<Query> {
    let parsed = Query::parse(query, &call.namespaces.attributes(namespace));
    parsed.map_err(|error| Status::invalid_argument(format!("invalid query: {error}")))
}

fn page(call: &Call, namespace: &str, query: &str, size: i32, token: &[u8]) -> Reply<ListPage> {
    let namespace = call.namespace(namespace)?;
    let Query { filter, order } = parse(call, namespace, query)?;
    let limit = page_size(call, size);
    if let Some(workflow_id) = filter.only_workflow_id() {
        // One workflow id has an index of its own and seldom more than a page of runs.
        let mut runs = call.host.list_workflow(namespace, workflow_id)?;
        runs.retain(|run| filter.matches(run));
        return Ok(cut(runs, order.as_ref(), token, limit));
    }
    match order.filter(|order| !order.is_newest_first()) {
        None => Ok(call.host.list(namespace, |run| filter.matches(run), token, limit)?),
        Some(order) => {
            let all = call.host.list(namespace, |run| filter.matches(run), &[], SORTED_MAX)?;
            if !all.next.is_empty() {
                let message = format!("ORDER BY is supported for up to {SORTED_MAX} runs: narrow the query");
                return Err(Status::invalid_argument(message));
            }
            Ok(cut(all.runs, Some(&order), token, limit))
        }
    }
}

/// How many runs a page has when a request asks for so many.
pub fn page_size(call: &Call, asked: i32) -> usize {
    usize::try_from(asked).ok().filter(|size| *size > 0).unwrap_or(PAGE).min(call.host.limits.list_page_max)
}

/// A page of runs that are all at hand; the token counts those before it.
pub fn cut(mut runs: Vec<WorkflowExecutionInfo>, order: Option<&Order>, token: &[u8], limit: usize) -> ListPage {
    if let Some(order) = order {
        runs.sort_by(|a, b| order.compare(a, b));
    }
    let skip = token.try_into().map(u32::from_be_bytes).unwrap_or(0) as usize;
    let rest = runs.len() > skip + limit;
    let runs = runs.into_iter().skip(skip).take(limit).collect();
    let next = if rest { ((skip + limit) as u32).to_be_bytes().to_vec() } else { Vec::new() };
    ListPage { runs, next }
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
    let (query, by_status) = split_group_by_status(&r.query);
    let filter = parse(&call, namespace, query)?.filter;
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
        let name = WorkflowExecutionStatus::try_from(status).map(status_name).unwrap_or_default();
        AggregationGroup { group_values: vec![keyword_payload(name)], count }
    });
    Ok(CountWorkflowExecutionsResponse { count, groups: groups.collect() })
}

fn built_in() -> HashMap<String, i32> {
    BUILT_IN.iter().map(|(name, kind)| ((*name).to_owned(), *kind as i32)).collect()
}

fn numbers(registered: &Registered) -> HashMap<String, i32> {
    registered.iter().map(|(name, kind)| (name.clone(), *kind as i32)).collect()
}

/// Those that every run of any namespace has.
pub async fn search_attributes(_: Call, _: GetSearchAttributesRequest) -> Reply<GetSearchAttributesResponse> {
    Ok(GetSearchAttributesResponse { keys: built_in() })
}

pub async fn list_search_attributes(call: Call, r: ListSearchAttributesRequest) -> Reply<ListSearchAttributesResponse> {
    let registered = call.namespaces.attributes(call.namespace(&r.namespace)?);
    Ok(ListSearchAttributesResponse {
        custom_attributes: numbers(&registered),
        system_attributes: built_in(),
        ..Default::default()
    })
}

pub async fn add_search_attributes(call: Call, r: AddSearchAttributesRequest) -> Reply<AddSearchAttributesResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let known = call.namespaces.attributes(namespace);
    let mut wanted = Vec::new();
    for (name, kind) in r.search_attributes {
        call.id("SearchAttribute", &name)?;
        let kind = IndexedValueType::try_from(kind).unwrap_or_default();
        if kind == IndexedValueType::Unspecified {
            return Err(Status::invalid_argument(format!("Search attribute {name} has an unknown type.")));
        }
        if BUILT_IN.iter().any(|built_in| built_in.0 == name) {
            return Err(Status::invalid_argument(format!("Search attribute {name} is reserved by system.")));
        }
        match known.get(&name) {
            None => wanted.push((name, kind)),
            Some(same) if *same == kind => {}
            Some(_) => return Err(Status::already_exists(format!("Search attribute {name} already exists."))),
        }
    }
    if !wanted.is_empty() {
        call.host.store_attributes(namespace, &wanted).await?;
        call.namespaces.add_attributes(namespace, wanted);
    }
    Ok(AddSearchAttributesResponse {})
}

pub async fn remove_search_attributes(
    call: Call,
    r: RemoveSearchAttributesRequest,
) -> Reply<RemoveSearchAttributesResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let known = call.namespaces.attributes(namespace);
    if let Some(name) = r.search_attributes.iter().find(|name| !known.contains_key(*name)) {
        return Err(super::status::not_found(&format!("Search attribute {name} doesn't exist.")));
    }
    call.host.remove_attributes(namespace, &r.search_attributes).await?;
    call.namespaces.remove_attributes(namespace, &r.search_attributes);
    Ok(RemoveSearchAttributesResponse {})
}
