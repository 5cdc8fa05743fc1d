//! Appending to history, and the buffer: what happens to a run while a worker holds its workflow task waits, and is
//! appended when the task ends, with the closing events of activities last.

use super::Tx;
use super::state::RunState;
use crate::pb::history::v1::HistoryEvent;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::sdk::v1::{EventGroupMarker, UserMetadata};
use prost::Message;
use std::collections::HashMap;

/// `task_id` of an event is a number of the server's own; only its order matters.
const TASK_ID_BASE: i64 = 1_048_576;

impl Tx<'_> {
    /// Appends an event and returns its id.
    pub fn append(&mut self, attributes: Attributes) -> i64 {
        self.append_with(attributes, None)
    }

    /// Appends an event that shows a user's summary or details.
    pub fn append_with(&mut self, attributes: Attributes, user_metadata: Option<UserMetadata>) -> i64 {
        let event = HistoryEvent { user_metadata, ..self.unnumbered(attributes) };
        self.push(event)
    }

    /// Gives an event of this transition, by its place in it, the markers by which viewers put events into groups.
    pub fn group(&mut self, place: usize, markers: Vec<EventGroupMarker>) {
        if let Some(event) = self.effects.events.get_mut(place).filter(|_| !markers.is_empty()) {
            let before = event.encoded_len();
            event.event_group_markers = markers;
            self.state.history_bytes += (event.encoded_len() - before) as i64;
        }
    }

    /// Something happened outside the workflow: appended, or buffered while a workflow task is started.
    pub fn occur(&mut self, attributes: Attributes) {
        let event = self.unnumbered(attributes);
        if self.state.started_task().is_some() {
            self.state.buffered.push(event);
        } else {
            self.push(event);
        }
    }

    /// An activity ended: `started`, where it was, is recorded together with `closed`, which is given its id.
    pub fn occur_closed(&mut self, started: Option<Attributes>, closed: Attributes) {
        if self.state.started_task().is_some() {
            let events = started.into_iter().chain([closed]).map(|attributes| self.unnumbered(attributes));
            let events: Vec<_> = events.collect();
            self.state.buffered.extend(events);
        } else {
            let started_id = started.map(|attributes| self.append(attributes));
            let mut event = self.unnumbered(closed);
            if let Some(id) = started_id {
                wire(&mut event, id);
            }
            self.push(event);
        }
    }

    /// Appends what was buffered; whether there was anything.
    pub fn flush_buffered(&mut self) -> bool {
        let buffered = std::mem::take(&mut self.state.buffered);
        let had_any = !buffered.is_empty();
        let (closing, others): (Vec<_>, Vec<_>) = buffered.into_iter().partition(is_closing);
        let mut started_ids = HashMap::new();
        for event in others {
            let began = began(&event);
            let id = self.push(event);
            started_ids.extend(began.map(|began| (began, id)));
        }
        for mut event in closing {
            if let Some(id) = ended(&event).and_then(|ended| started_ids.get(&ended)) {
                wire(&mut event, *id);
            }
            self.push(event);
        }
        had_any
    }

    fn unnumbered(&self, attributes: Attributes) -> HistoryEvent {
        HistoryEvent {
            event_time: self.now().timestamp(),
            event_type: attributes.event_type() as i32,
            attributes: Some(attributes),
            ..Default::default()
        }
    }

    fn push(&mut self, mut event: HistoryEvent) -> i64 {
        let id = self.state.next_event_id;
        event.event_id = id;
        event.task_id = TASK_ID_BASE + id;
        self.state.next_event_id += 1;
        self.state.history_bytes += event.encoded_len() as i64;
        if let Some(Attributes::ChildWorkflowExecutionStartedEventAttributes(a)) = &event.attributes
            && let Some(child) = self.state.children.get_mut(&a.initiated_event_id)
        {
            child.started_event_id = id;
        }
        self.effects.events.push(event);
        id
    }
}

/// The events that go behind all others when a buffer is flushed: their started event must come before them.
fn is_closing(event: &HistoryEvent) -> bool {
    use Attributes::*;
    matches!(
        event.attributes,
        Some(
            ActivityTaskCompletedEventAttributes(_)
                | ActivityTaskFailedEventAttributes(_)
                | ActivityTaskTimedOutEventAttributes(_)
                | ActivityTaskCanceledEventAttributes(_)
                | ChildWorkflowExecutionCompletedEventAttributes(_)
                | ChildWorkflowExecutionFailedEventAttributes(_)
                | ChildWorkflowExecutionTimedOutEventAttributes(_)
                | ChildWorkflowExecutionCanceledEventAttributes(_)
                | ChildWorkflowExecutionTerminatedEventAttributes(_)
        )
    )
}

/// The event that scheduled an activity or initiated a child, of the event that shows it started.
fn began(event: &HistoryEvent) -> Option<i64> {
    match event.attributes.as_ref()? {
        Attributes::ActivityTaskStartedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ChildWorkflowExecutionStartedEventAttributes(a) => Some(a.initiated_event_id),
        _ => None,
    }
}

/// The event that scheduled an activity or initiated a child, of the event that shows its end.
fn ended(event: &HistoryEvent) -> Option<i64> {
    match event.attributes.as_ref()? {
        Attributes::ChildWorkflowExecutionCompletedEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionFailedEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionCanceledEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ActivityTaskCompletedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskFailedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskTimedOutEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskCanceledEventAttributes(a) => Some(a.scheduled_event_id),
        _ => None,
    }
}

/// Gives the closing event of an activity or a child the id of its started event.
fn wire(event: &mut HistoryEvent, started_event_id: i64) {
    match &mut event.attributes {
        Some(Attributes::ActivityTaskCompletedEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ActivityTaskFailedEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ActivityTaskTimedOutEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ActivityTaskCanceledEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ChildWorkflowExecutionCompletedEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ChildWorkflowExecutionFailedEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ChildWorkflowExecutionCanceledEventAttributes(a)) => a.started_event_id = started_event_id,
        Some(Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a)) => a.started_event_id = started_event_id,
        _ => {}
    }
}

/// Bytes that wait in the buffer.
pub fn buffered_bytes(state: &RunState) -> usize {
    state.buffered.iter().map(Message::encoded_len).sum()
}

/// Whether an event ends its run.
pub fn closes_run(attributes: &Attributes) -> bool {
    use Attributes::*;
    matches!(
        attributes,
        WorkflowExecutionCompletedEventAttributes(_)
            | WorkflowExecutionFailedEventAttributes(_)
            | WorkflowExecutionTimedOutEventAttributes(_)
            | WorkflowExecutionCanceledEventAttributes(_)
            | WorkflowExecutionTerminatedEventAttributes(_)
            | WorkflowExecutionContinuedAsNewEventAttributes(_)
    )
}
