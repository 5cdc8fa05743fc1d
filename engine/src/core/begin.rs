//! The beginning of a run: its first event and first workflow task. Used by clients that start a workflow and by runs
//! that continue as new or are retried.

use super::signal::{self, Signal};
use super::state::{Parent, Run, RunState};
use super::{At, Effects, Tx, deadline, versioning, workflow_task};
use crate::pb::enums::v1::{TaskQueueKind, WorkflowExecutionStatus};
use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::sdk::v1::UserMetadata;
use crate::time::{Time, duration, nanos};
use prost_wkt_types::Duration as ProtoDuration;
use std::collections::HashSet;

/// Temporal's default for a workflow task, and the longest one it accepts.
const TASK_TIMEOUT: i64 = 10_000_000_000;
const TASK_TIMEOUT_MAX: i64 = 120_000_000_000;

/// A run to begin. `started` is its first event as the caller filled it in; ids and timeouts are normalised here.
pub struct Begin {
    pub namespace: String,
    pub run_id: String,
    pub seed: u64,
    pub start_request_id: String,
    pub started: WorkflowExecutionStartedEventAttributes,
    pub user_metadata: Option<UserMetadata>,
    /// A signal that comes with the start.
    pub signal: Option<Signal>,
    /// When the whole chain must be over; unset: computed from the execution timeout.
    pub execution_expires_at: Time,
}

/// Makes the run and what is to be stored and done for it.
pub fn begin(begin: Begin, at: &At<'_>) -> (Run, Effects) {
    let mut started = begin.started;
    let delay = nanos(started.first_workflow_task_backoff.as_ref());
    let mut state = RunState {
        namespace: begin.namespace,
        run_id: begin.run_id.clone(),
        seed: begin.seed,
        start_request_id: begin.start_request_id,
        user_metadata: begin.user_metadata.clone(),
        started_at: at.now.0,
        next_event_id: 1,
        status: WorkflowExecutionStatus::Running as i32,
        task_attempt: 1,
        first_task_at: if delay > 0 { at.now.plus(delay).0 } else { 0 },
        ..Default::default()
    };
    set_timeouts(&mut state, &mut started, delay, begin.execution_expires_at);
    if started.first_execution_run_id.is_empty() {
        started.first_execution_run_id = begin.run_id.clone();
    }
    if let Some(queue) = &mut started.task_queue {
        queue.kind = TaskQueueKind::Normal as i32;
        queue.normal_name.clear();
    }
    started.first_workflow_task_backoff = duration(delay);
    started.original_execution_run_id = begin.run_id;
    started.attempt = started.attempt.max(1);
    state.first_run_id = started.first_execution_run_id.clone();
    state.workflow_id = started.workflow_id.clone();
    state.workflow_type = started.workflow_type.as_ref().map(|t| t.name.clone()).unwrap_or_default();
    state.task_queue = started.task_queue.as_ref().map(|q| q.name.clone()).unwrap_or_default();
    state.retry_policy = started.retry_policy.clone();
    state.attempt = started.attempt;
    state.memo = started.memo.clone();
    state.search_attributes = started.search_attributes.clone();
    state.priority = started.priority.clone();
    state.parent = started.parent_workflow_execution.as_ref().map(|parent| Parent {
        namespace: started.parent_workflow_namespace.clone(),
        workflow_id: parent.workflow_id.clone(),
        run_id: parent.run_id.clone(),
        initiated_event_id: started.parent_initiated_event_id,
    });
    state.root = started.root_workflow_execution.clone();
    state.versioning = versioning::begun(&started);

    let no_signals = HashSet::new();
    let mut tx = Tx { state: &mut state, at, effects: Effects::default(), signal_ids: &no_signals };
    tx.effects.listed = true;
    tx.append_with(Attributes::WorkflowExecutionStartedEventAttributes(started), begin.user_metadata);
    if let Some(signal) = begin.signal {
        signal::record(&mut tx, signal);
    }
    workflow_task::ensure(&mut tx);
    let effects = tx.effects;
    state.transitions = 1;
    deadline::arm(&mut state);
    #[cfg(debug_assertions)]
    super::ledger::check(super::ledger::Ledger::new(), &effects.events, &state);
    let signal_ids = effects.signal_ids.iter().cloned().collect();
    (Run { state, signal_ids }, effects)
}

/// The shorter of two lengths of time; zero is none.
pub fn shorter(a: i64, b: i64) -> i64 {
    if b == 0 || (a != 0 && a < b) { a } else { b }
}

/// How long a workflow task may take when `asked` was asked for (zero: nothing was), in a run that may take so long.
pub fn task_timeout(asked: i64, run_timeout: i64) -> i64 {
    shorter(if asked == 0 { TASK_TIMEOUT } else { asked.min(TASK_TIMEOUT_MAX) }, run_timeout)
}

/// Timeouts as the server keeps them: a run may not outlive its chain, and a workflow task has a default and a maximum.
fn set_timeouts(
    state: &mut RunState,
    started: &mut WorkflowExecutionStartedEventAttributes,
    delay: i64,
    execution_expires_at: Time,
) {
    let begins_at = Time(state.started_at).plus(delay);
    state.execution_timeout = nanos(started.workflow_execution_timeout.as_ref());
    state.run_timeout = shorter(nanos(started.workflow_run_timeout.as_ref()), state.execution_timeout);
    state.task_timeout = task_timeout(nanos(started.workflow_task_timeout.as_ref()), state.run_timeout);
    if state.execution_timeout > 0 {
        let computed = begins_at.plus(state.execution_timeout);
        state.execution_expires_at = if execution_expires_at.is_set() { execution_expires_at } else { computed }.0;
    }
    if state.run_timeout > 0 {
        let expires = begins_at.plus(state.run_timeout).0;
        let chain = state.execution_expires_at;
        state.run_expires_at = if chain > 0 { expires.min(chain) } else { expires };
    }
    let shown = |given: Option<ProtoDuration>, settled: i64| given.is_some() || settled > 0;
    if shown(started.workflow_execution_timeout, state.execution_timeout) {
        started.workflow_execution_timeout = duration(state.execution_timeout);
    }
    if shown(started.workflow_run_timeout, state.run_timeout) {
        started.workflow_run_timeout = duration(state.run_timeout);
    }
    started.workflow_task_timeout = duration(state.task_timeout);
    started.workflow_execution_expiration_time = Time(state.execution_expires_at).timestamp();
}
