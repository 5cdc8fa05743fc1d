//! Reading histories: pages, waiting for news, only the end, and backwards. Shows what is durable and nothing else.

use super::token::HistoryToken;
use super::{Call, Reply, workflow_task};
use crate::host::{self, Most, Slot};
use crate::pb::enums::v1::HistoryEventFilterType;
use crate::pb::history::v1::History;
use crate::pb::workflowservice::v1::*;
use crate::store::keys;
use prost::Message;
use std::sync::Arc;

pub async fn get(call: Call, r: GetWorkflowExecutionHistoryRequest) -> Reply<GetWorkflowExecutionHistoryResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let mut execution = r.execution.clone().unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    let token = match r.next_page_token.is_empty() {
        true => None,
        false => Some(HistoryToken::decode_from(&r.next_page_token)?),
    };
    if let Some(token) = &token {
        // Pages belong to the run on which the first one was read.
        execution.run_id.clone_from(&token.run_id);
    }
    let slot = call.run(namespace, &execution)?;
    let token = token.unwrap_or_else(|| HistoryToken {
        run_id: keys::run_id(&slot.key),
        next_event_id: 1,
        ..Default::default()
    });
    let (events, token) = if r.history_event_filter_type == HistoryEventFilterType::CloseEvent as i32 {
        close_event(&call, &slot, token, r.wait_new_event).await?
    } else {
        page(&call, &slot, token, &r).await?
    };
    let next_page_token = token.map(|token| token.encode_to_vec()).unwrap_or_default();
    Ok(GetWorkflowExecutionHistoryResponse { history: Some(events), next_page_token, ..Default::default() })
}

type Page = (History, Option<HistoryToken>);

/// The last event, once the run is closed.
async fn close_event(call: &Call, slot: &Arc<Slot>, token: HistoryToken, wait: bool) -> Reply<Page> {
    if wait {
        wait_until(call, slot, |seen| !seen.is_open).await;
    }
    let seen = slot.seen();
    if seen.is_open {
        return Ok((History::default(), wait.then_some(token)));
    }
    let last = seen.next_event_id - 1;
    Ok((History { events: call.host.history(&slot.key, last, last + 1, Most::events(1))? }, None))
}

/// The events that follow the token.
async fn page(
    call: &Call,
    slot: &Arc<Slot>,
    token: HistoryToken,
    r: &GetWorkflowExecutionHistoryRequest,
) -> Reply<Page> {
    let is_bounded = token.end_event_id != 0;
    if r.wait_new_event && !is_bounded {
        wait_until(call, slot, |seen| seen.next_event_id > token.next_event_id || !seen.is_open).await;
    }
    let seen = slot.seen();
    if seen.is_deleted {
        return Err(host::Error::NoRun.into());
    }
    let end = if is_bounded { token.end_event_id } else { seen.next_event_id };
    let most = Most { events: page_size(r.maximum_page_size, call.host.limits.history_page_max), ..largest_page(call) };
    let mut events = call.host.history(&slot.key, token.next_event_id, end, most)?;
    let next = events.last().map_or(token.next_event_id, |event| event.event_id + 1);
    if next < end && !events.is_empty() {
        return Ok((History { events }, Some(HistoryToken { next_event_id: next, ..token })));
    }
    if r.wait_new_event && !is_bounded && seen.is_open {
        return Ok((History { events }, Some(HistoryToken { next_event_id: next, ..token })));
    }
    // A worker that reads on behalf of a task needs the task's own events; people who look do not.
    let for_people = matches!(call.client_name.as_str(), "temporal-cli" | "temporal-ui");
    if token.transient || (!is_bounded && !r.wait_new_event && !for_people) {
        events.extend(workflow_task::transient_of(slot, end));
    }
    Ok((History { events }, None))
}

pub async fn get_reverse(
    call: Call,
    r: GetWorkflowExecutionHistoryReverseRequest,
) -> Reply<GetWorkflowExecutionHistoryReverseResponse> {
    let namespace = call.namespace(&r.namespace)?;
    let mut execution = r.execution.unwrap_or_default();
    call.id("WorkflowId", &execution.workflow_id)?;
    let mut before = None;
    if !r.next_page_token.is_empty() {
        let token = HistoryToken::decode_from(&r.next_page_token)?;
        execution.run_id = token.run_id;
        before = Some(token.next_event_id);
    }
    let slot = call.run(namespace, &execution)?;
    let before = before.unwrap_or_else(|| slot.seen().next_event_id);
    let events = call.host.history_reverse(
        &slot.key,
        before,
        page_size(r.maximum_page_size, call.host.limits.reverse_page_max),
    )?;
    let oldest = events.last().map_or(1, |event| event.event_id);
    let next_page_token = match oldest {
        1 => Vec::new(),
        _ => HistoryToken { run_id: keys::run_id(&slot.key), next_event_id: oldest, ..Default::default() }
            .encode_to_vec(),
    };
    Ok(GetWorkflowExecutionHistoryReverseResponse { history: Some(History { events }), next_page_token })
}

/// What a page of history has at most.
pub fn largest_page(call: &Call) -> Most {
    Most { events: call.host.limits.history_page_max, bytes: call.host.limits.history_page_bytes }
}

fn page_size(asked: i32, max: usize) -> usize {
    usize::try_from(asked).ok().filter(|asked| *asked > 0).map_or(max, |asked| asked.min(max))
}

/// Waits until what is durable of a run satisfies `enough`, the run is deleted, the engine closes, or time is up.
async fn wait_until(call: &Call, slot: &Arc<Slot>, enough: impl Fn(&host::Seen) -> bool) {
    let deadline = call.wait_until(call.host.limits.history_poll_ns);
    let mut seen = slot.watch();
    let news = seen.wait_for(|seen| enough(seen) || seen.is_deleted);
    let time_is_up = async {
        while call.host.clock.now() < deadline {
            call.host.clock.sleep_until(deadline).await;
        }
    };
    tokio::select! {
        biased;
        _ = news => {}
        () = time_is_up => {}
        () = call.host.closing() => {}
    }
}
