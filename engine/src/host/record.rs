//! How a transition is written down: history, state, and the indexes that changed, in one batch.

use crate::core::state::{Run, RunState};
use crate::core::versioning::Version;
use crate::core::{Effects, errand, ids};
use crate::pb::common::v1::{WorkflowExecution, WorkflowType};
use crate::pb::history::v1::History;
use crate::pb::workflow::v1::WorkflowExecutionInfo;
use crate::store::keys::{self, RunKey};
use crate::store::{Batch, Space};
use crate::time::Time;
use prost::Message;
use std::collections::BTreeSet;

/// What the indexes held before a transition.
pub struct Before {
    wake_at: i64,
    busy: bool,
    listed: bool,
    closed: bool,
    errands: BTreeSet<i64>,
    pinned: Option<Version>,
}

impl Before {
    pub fn of(state: &RunState) -> Self {
        Before {
            wake_at: state.wake_at,
            busy: state.is_busy(),
            listed: true,
            closed: !state.is_open(),
            errands: errands(state),
            pinned: state.pinned_to(),
        }
    }

    /// The run did not exist.
    pub fn nothing() -> Self {
        Before { wake_at: 0, busy: false, listed: false, closed: false, errands: BTreeSet::new(), pinned: None }
    }
}

fn errands(state: &RunState) -> BTreeSet<i64> {
    errand::errands(state).map(|errand| errand.event_id).collect()
}

/// Adds a transition of `run` to `batch`; takes the events out of its effects.
pub fn transition(batch: &mut Batch, key: &RunKey, run: &Run, effects: &mut Effects, before: Before) {
    let state = &run.state;
    if let Some(first_event_id) = effects.events.first().map(|event| event.event_id) {
        let history = History { events: std::mem::take(&mut effects.events) };
        batch.put(Space::History, keys::history(key, first_event_id), history.encode_to_vec());
    }
    batch.put(Space::Run, key.to_vec(), state.encode_to_vec());
    for request_id in &effects.signal_ids {
        batch.put(Space::Signal, keys::signal(key, request_id), Vec::new());
    }
    if before.wake_at != state.wake_at {
        if before.wake_at != 0 {
            batch.remove(Space::Timer, keys::timer(Time(before.wake_at), key));
        }
        if state.wake_at != 0 {
            batch.put(Space::Timer, keys::timer(Time(state.wake_at), key), Vec::new());
        }
    }
    match (before.busy, state.is_busy()) {
        (false, true) => batch.put(Space::Busy, key.to_vec(), Vec::new()),
        (true, false) => batch.remove(Space::Busy, key.to_vec()),
        _ => {}
    }
    let pinned = state.pinned_to();
    if before.pinned != pinned {
        let key = |version: &Version| keys::pinned(&state.namespace, version, key);
        if let Some(version) = &before.pinned {
            batch.remove(Space::Pinned, key(version));
        }
        if let Some(version) = &pinned {
            batch.put(Space::Pinned, key(version), Vec::new());
        }
    }
    let errands = errands(state);
    for done in before.errands.difference(&errands) {
        batch.remove(Space::Errand, keys::errand(key, *done));
    }
    for owed in errands.difference(&before.errands) {
        batch.put(Space::Errand, keys::errand(key, *owed), Vec::new());
    }
    if !before.closed {
        closed_entries(state, key).into_iter().for_each(|(space, entry)| batch.put(space, entry, Vec::new()));
    }
    if effects.listed || !before.listed {
        let started_at = Time(state.started_at);
        batch.put(Space::Listed, keys::listed(&state.namespace, started_at, key), info(state).encode_to_vec());
    }
    if !before.listed {
        let started_at = Time(state.started_at);
        let key = keys::by_workflow(&state.namespace, &state.workflow_id, started_at, key);
        batch.put(Space::ByWorkflow, key, Vec::new());
    }
}

/// What the indexes say of a run since it closed, until its history is packed and it is removed.
pub fn closed_entries(state: &RunState, key: &RunKey) -> Vec<(Space, Vec<u8>)> {
    if state.is_open() {
        return Vec::new();
    }
    let closed_at = Time(state.closed_at);
    vec![(Space::Closed, keys::closed(&state.namespace, closed_at, key)), (Space::Loose, keys::loose(closed_at, key))]
}

/// Makes `run` the one that its workflow id means.
pub fn make_current(batch: &mut Batch, run: &Run) {
    if let Some(key) = keys::run(&run.state.run_id) {
        let current = keys::current(&run.state.namespace, &run.state.workflow_id);
        batch.put(Space::Current, current, key.to_vec());
    }
}

/// A run as lists and descriptions show it.
pub fn info(state: &RunState) -> WorkflowExecutionInfo {
    let begins_at = if state.first_task_at != 0 { state.first_task_at } else { state.started_at };
    let is_closed = !state.is_open();
    WorkflowExecutionInfo {
        execution: Some(state.execution()),
        r#type: Some(WorkflowType { name: state.workflow_type.clone() }),
        start_time: Time(state.started_at).timestamp(),
        close_time: Time(state.closed_at).timestamp(),
        status: state.status,
        history_length: state.next_event_id - 1,
        execution_time: Time(begins_at).timestamp(),
        memo: state.memo.clone(),
        search_attributes: state.search_attributes.clone(),
        task_queue: state.task_queue.clone(),
        state_transition_count: state.transitions,
        history_size_bytes: state.history_bytes,
        execution_duration: is_closed.then(|| crate::time::duration(state.closed_at - begins_at)).flatten(),
        parent_namespace_id: state.parent.as_ref().map(|of| ids::namespace(&of.namespace)).unwrap_or_default(),
        parent_execution: state
            .parent
            .as_ref()
            .map(|of| WorkflowExecution { workflow_id: of.workflow_id.clone(), run_id: of.run_id.clone() }),
        root_execution: Some(state.root()),
        first_run_id: state.first_run_id.clone(),
        versioning_info: state.versioning_info(),
        worker_deployment_name: state.deployment_name.clone(),
        ..Default::default()
    }
}
