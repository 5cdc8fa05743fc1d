//! What a history says is open, and what may therefore come next. The shape that every history must have is written
//! here once: debug builds check each transition with it, `verify` every stored run, and the simulation both.

use super::history::closes_run;
use super::state::RunState;
use crate::pb::history::v1::HistoryEvent;
use crate::pb::history::v1::history_event::Attributes;
use crate::time::nanos;
use std::collections::{BTreeMap, BTreeSet};

/// The open ends of a history, event by event.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    next_event_id: i64,
    task: Option<Task>,
    /// The event that completed the last workflow task; zero when it is not known.
    completed_event_id: i64,
    /// By the event that scheduled them; the event that started them, if there is one.
    activities: BTreeMap<i64, Option<i64>>,
    timers: BTreeMap<String, Timer>,
    /// By the event that initiated them; the event that shows them started, if there is one.
    children: BTreeMap<i64, Option<i64>>,
    /// Signals and requests to other runs that have no answer, by the event that initiated them.
    externals: BTreeSet<i64>,
    /// Accepted and not answered, by the events that say so.
    updates: BTreeSet<i64>,
    closed_event_id: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Scheduled { scheduled: i64 },
    Started { scheduled: i64, started: i64 },
}

#[derive(Clone, Debug)]
struct Timer {
    started: i64,
    fires_at: i64,
}

impl Ledger {
    /// Of a history that has no events yet.
    pub fn new() -> Ledger {
        Ledger { next_event_id: 1, ..Default::default() }
    }

    /// Of the history that a run with this state must have.
    #[cfg(debug_assertions)]
    pub fn of(state: &RunState) -> Ledger {
        let timer = |id: &String, started, fires_at| (id.clone(), Timer { started, fires_at });
        let mut timers: BTreeMap<_, _> =
            state.timers.iter().map(|(id, t)| timer(id, t.started_event_id, t.fires_at)).collect();
        let mut activities: BTreeMap<_, _> = state.activities.keys().map(|id| (*id, None)).collect();
        let mut children = known_children(state);
        let mut externals: BTreeSet<_> = state.externals.keys().copied().collect();
        for attributes in state.buffered.iter().filter_map(|event| event.attributes.as_ref()) {
            match attributes {
                Attributes::TimerFiredEventAttributes(a) => timers.extend([timer(&a.timer_id, a.started_event_id, 0)]),
                other => {
                    activities.extend(closed_activity(other).map(|(scheduled, _)| (scheduled, None)));
                    children.extend(closed_child(other).map(|(initiated, started)| (initiated, known(started))));
                    externals.extend(answered(other));
                }
            }
        }
        Ledger {
            next_event_id: state.next_event_id,
            task: expected_task(state),
            completed_event_id: 0,
            activities,
            timers,
            children,
            externals,
            updates: open_updates(state),
            closed_event_id: state.close_event_id,
        }
    }

    /// The id that the next event must have.
    pub fn next_event_id(&self) -> i64 {
        self.next_event_id
    }

    /// The event that closed the run; zero while it is open.
    pub fn closed_event_id(&self) -> i64 {
        self.closed_event_id
    }

    /// Takes the next event; what is wrong with it, in the words of a report.
    pub fn take(&mut self, event: &HistoryEvent) -> Vec<String> {
        let mut wrong = Vec::new();
        let id = event.event_id;
        if id != self.next_event_id {
            wrong.push(format!("event {id} stands where {} belongs", self.next_event_id));
        }
        self.next_event_id = id + 1;
        if self.closed_event_id != 0 {
            wrong.push(format!("event {id} follows the closing event {}", self.closed_event_id));
        }
        let Some(attributes) = &event.attributes else {
            wrong.push(format!("event {id} has no attributes"));
            return wrong;
        };
        if event.event_type != attributes.event_type() as i32 {
            wrong.push(format!("event {id} has the type of another"));
        }
        let first = matches!(attributes, Attributes::WorkflowExecutionStartedEventAttributes(_));
        if first != (id == 1) {
            wrong.push(format!("event {id} is {} the start of the run", if first { "again" } else { "not" }));
        }
        if let Err(what) = self.turn(event, attributes) {
            wrong.push(format!("event {id} {what}"));
        }
        if closes_run(attributes) {
            *self = Ledger { next_event_id: self.next_event_id, closed_event_id: id, ..Default::default() };
        }
        wrong
    }

    /// What a history and the state that was made from it disagree on.
    pub fn disagreements(&self, state: &RunState) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.next_event_id != state.next_event_id {
            let (history, state) = (self.next_event_id - 1, state.next_event_id - 1);
            wrong.push(format!("history ends at {history} and the state expects {state}"));
        }
        if self.closed_event_id != state.close_event_id {
            let (history, state) = (self.closed_event_id, state.close_event_id);
            wrong.push(format!("history closes at {history} and the state says {state}"));
        }
        if state.is_open() == (self.closed_event_id != 0) {
            wrong.push("status and history disagree on whether it is open".to_owned());
        }
        if self.task != expected_task(state) {
            let expected = expected_task(state);
            wrong.push(format!("history leaves {:?} as its workflow task and the state {expected:?}", self.task));
        }
        let (mut activities, mut timers) = (BTreeSet::new(), BTreeSet::new());
        let buffered = state.buffered.iter().filter_map(|event| event.attributes.as_ref());
        for attributes in buffered {
            match attributes {
                Attributes::TimerFiredEventAttributes(a) if !timers.insert(&a.timer_id) => {
                    wrong.push(format!("timer {} fired twice", a.timer_id));
                }
                other => match closed_activity(other) {
                    Some((scheduled, _)) if !activities.insert(scheduled) => {
                        wrong.push(format!("activity {scheduled} ended twice"));
                    }
                    _ => {}
                },
            }
        }
        let both = state.activities.keys().find(|scheduled| !activities.insert(**scheduled));
        wrong.extend(both.map(|scheduled| format!("activity {scheduled} has ended and is pending")));
        let both = state.timers.keys().find(|id| !timers.insert(id));
        wrong.extend(both.map(|id| format!("timer {id} has fired and is running")));
        if state.is_open() && self.updates != open_updates(state) {
            let expected = open_updates(state);
            wrong.push(format!("history leaves the updates {:?} open and the state {expected:?}", self.updates));
        }
        if !activities.iter().eq(self.activities.keys()) {
            let open: Vec<_> = self.activities.keys().collect();
            wrong.push(format!("history leaves the activities {open:?} open and the state {activities:?}"));
        }
        if state.is_open() {
            wrong.extend(self.disagreements_on_others(state));
        }
        if !timers.iter().copied().eq(self.timers.keys()) {
            let open: Vec<_> = self.timers.keys().collect();
            wrong.push(format!("history leaves the timers {open:?} running and the state {timers:?}"));
        }
        wrong
    }

    /// What a history and its state disagree on about children and other runs.
    fn disagreements_on_others(&self, state: &RunState) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut children = known_children(state);
        let mut externals: BTreeSet<_> = state.externals.keys().copied().collect();
        for attributes in state.buffered.iter().filter_map(|event| event.attributes.as_ref()) {
            if let Some((initiated, started)) = closed_child(attributes)
                && children.insert(initiated, known(started)).is_some()
            {
                wrong.push(format!("child {initiated} has ended and is open, or has ended twice"));
            }
            if let Some(initiated) = answered(attributes)
                && !externals.insert(initiated)
            {
                wrong.push(format!("what {initiated} asks of another run was answered and is open, or twice"));
            }
        }
        if children != self.children {
            wrong.push(format!("history leaves the children {:?} open and the state {children:?}", self.children));
        }
        if externals != self.externals {
            let open = &self.externals;
            wrong.push(format!("history leaves {open:?} to other runs unanswered and the state {externals:?}"));
        }
        wrong
    }

    fn turn(&mut self, event: &HistoryEvent, attributes: &Attributes) -> Result<(), String> {
        use Attributes::*;
        match attributes {
            WorkflowTaskScheduledEventAttributes(_) => match self.task {
                None => self.task = Some(Task::Scheduled { scheduled: event.event_id }),
                Some(task) => return Err(format!("schedules a workflow task beside {task:?}")),
            },
            WorkflowTaskStartedEventAttributes(a) => {
                let scheduled = a.scheduled_event_id;
                self.expect_task(Task::Scheduled { scheduled })?;
                self.task = Some(Task::Started { scheduled, started: event.event_id });
            }
            WorkflowTaskCompletedEventAttributes(a) => {
                let (scheduled, started) = (a.scheduled_event_id, a.started_event_id);
                self.expect_task(Task::Started { scheduled, started })?;
                self.task = None;
                self.completed_event_id = event.event_id;
            }
            WorkflowTaskFailedEventAttributes(a) => {
                let (scheduled, started) = (a.scheduled_event_id, a.started_event_id);
                self.expect_task(Task::Started { scheduled, started })?;
                self.task = None;
            }
            WorkflowTaskTimedOutEventAttributes(a) => {
                let (scheduled, started) = (a.scheduled_event_id, a.started_event_id);
                self.expect_task(match started {
                    0 => Task::Scheduled { scheduled },
                    started => Task::Started { scheduled, started },
                })?;
                self.task = None;
            }
            other => {
                if let Some(Task::Started { started, .. }) = self.task {
                    return Err(format!("stands behind the workflow task that {started} started and nothing ended"));
                }
                if let Some(completed) = command_of(other)
                    && self.completed_event_id != 0
                    && completed != self.completed_event_id
                {
                    let last = self.completed_event_id;
                    return Err(format!("is a command of the task that {completed} completed and not of {last}"));
                }
                self.turn_pending(event, other)?;
            }
        }
        Ok(())
    }

    fn turn_pending(&mut self, event: &HistoryEvent, attributes: &Attributes) -> Result<(), String> {
        use Attributes::*;
        match attributes {
            ActivityTaskScheduledEventAttributes(_) => {
                self.activities.insert(event.event_id, None);
            }
            ActivityTaskStartedEventAttributes(a) => match self.activities.get_mut(&a.scheduled_event_id) {
                Some(started @ None) => *started = Some(event.event_id),
                Some(Some(_)) => return Err(format!("starts the activity {} again", a.scheduled_event_id)),
                None => return Err(format!("starts the activity {}, which is not open", a.scheduled_event_id)),
            },
            TimerStartedEventAttributes(a) => {
                let began = event.event_time.as_ref().map_or(0, |t| t.seconds * 1_000_000_000 + i64::from(t.nanos));
                let fires_at = began.saturating_add(nanos(a.start_to_fire_timeout.as_ref()));
                let timer = Timer { started: event.event_id, fires_at };
                if self.timers.insert(a.timer_id.clone(), timer).is_some() {
                    return Err(format!("starts the timer {}, which runs", a.timer_id));
                }
            }
            TimerFiredEventAttributes(a) => {
                let timer = self.end_timer(&a.timer_id, a.started_event_id)?;
                let now = event.event_time.as_ref().map_or(0, |t| t.seconds * 1_000_000_000 + i64::from(t.nanos));
                if now < timer.fires_at {
                    return Err(format!("fires the timer {} {} ns early", a.timer_id, timer.fires_at - now));
                }
            }
            WorkflowExecutionUpdateAcceptedEventAttributes(_) => {
                self.updates.insert(event.event_id);
            }
            WorkflowExecutionUpdateCompletedEventAttributes(a) => {
                if !self.updates.remove(&a.accepted_event_id) {
                    return Err(format!("answers the update of {}, which is not open", a.accepted_event_id));
                }
            }
            TimerCanceledEventAttributes(a) => {
                self.end_timer(&a.timer_id, a.started_event_id)?;
            }
            StartChildWorkflowExecutionInitiatedEventAttributes(_) => {
                self.children.insert(event.event_id, None);
            }
            ChildWorkflowExecutionStartedEventAttributes(a) => match self.children.get_mut(&a.initiated_event_id) {
                Some(started @ None) => *started = Some(event.event_id),
                Some(Some(_)) => return Err(format!("starts the child {} again", a.initiated_event_id)),
                None => return Err(format!("starts the child {}, which is not open", a.initiated_event_id)),
            },
            SignalExternalWorkflowExecutionInitiatedEventAttributes(_)
            | RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_) => {
                self.externals.insert(event.event_id);
            }
            other => {
                if let Some((initiated, started)) = closed_child(other) {
                    match self.children.remove(&initiated) {
                        Some(was) if was == known(started) => {}
                        Some(was) => return Err(format!("ends the child that {was:?} shows started, not {started}")),
                        None => return Err(format!("ends the child {initiated}, which is not open")),
                    }
                }
                if let Some(initiated) = answered(other)
                    && !self.externals.remove(&initiated)
                {
                    return Err(format!("answers what {initiated} asked of another run, which is not open"));
                }
                if let Some((scheduled, started)) = closed_activity(other) {
                    match self.activities.remove(&scheduled) {
                        Some(was) if was.unwrap_or(0) == started => {}
                        Some(was) => {
                            return Err(format!("ends the activity that {was:?} started, as if {started} had"));
                        }
                        None => return Err(format!("ends the activity {scheduled}, which is not open")),
                    }
                }
            }
        }
        Ok(())
    }

    fn expect_task(&self, expected: Task) -> Result<(), String> {
        match self.task {
            Some(task) if task == expected => Ok(()),
            found => Err(format!("follows on {expected:?}, and there is {found:?}")),
        }
    }

    fn end_timer(&mut self, id: &str, started: i64) -> Result<Timer, String> {
        match self.timers.remove(id) {
            Some(timer) if timer.started == started => Ok(timer),
            Some(timer) => Err(format!("ends the timer {id} of {started}, and {} started it", timer.started)),
            None => Err(format!("ends the timer {id}, which does not run")),
        }
    }
}

fn open_updates(state: &RunState) -> BTreeSet<i64> {
    let open = state.updates.values().filter(|update| update.completed_event_id == 0);
    open.map(|update| update.accepted_event_id).collect()
}

/// The workflow task as far as history shows it: a repeated attempt is not in it.
fn expected_task(state: &RunState) -> Option<Task> {
    let task = state.task.as_ref().filter(|task| task.attempt == 1)?;
    let scheduled = task.scheduled_event_id;
    Some(match task.started_event_id {
        0 => Task::Scheduled { scheduled },
        started => Task::Started { scheduled, started },
    })
}

/// The activity that an event ends, and the event that started it.
fn closed_activity(attributes: &Attributes) -> Option<(i64, i64)> {
    Some(match attributes {
        Attributes::ActivityTaskCompletedEventAttributes(a) => (a.scheduled_event_id, a.started_event_id),
        Attributes::ActivityTaskFailedEventAttributes(a) => (a.scheduled_event_id, a.started_event_id),
        Attributes::ActivityTaskTimedOutEventAttributes(a) => (a.scheduled_event_id, a.started_event_id),
        Attributes::ActivityTaskCanceledEventAttributes(a) => (a.scheduled_event_id, a.started_event_id),
        _ => return None,
    })
}

/// Children whose end is not known, as far as history shows them.
fn known_children(state: &RunState) -> BTreeMap<i64, Option<i64>> {
    state.children.iter().map(|(initiated, child)| (*initiated, known(child.started_event_id))).collect()
}

/// An event id, if it is one.
fn known(event_id: i64) -> Option<i64> {
    (event_id != 0).then_some(event_id)
}

/// The child that an event ends, by the event that initiated it, and the event that shows it started.
fn closed_child(attributes: &Attributes) -> Option<(i64, i64)> {
    use Attributes::*;
    Some(match attributes {
        StartChildWorkflowExecutionFailedEventAttributes(a) => (a.initiated_event_id, 0),
        ChildWorkflowExecutionCompletedEventAttributes(a) => (a.initiated_event_id, a.started_event_id),
        ChildWorkflowExecutionFailedEventAttributes(a) => (a.initiated_event_id, a.started_event_id),
        ChildWorkflowExecutionTimedOutEventAttributes(a) => (a.initiated_event_id, a.started_event_id),
        ChildWorkflowExecutionCanceledEventAttributes(a) => (a.initiated_event_id, a.started_event_id),
        ChildWorkflowExecutionTerminatedEventAttributes(a) => (a.initiated_event_id, a.started_event_id),
        _ => return None,
    })
}

/// What was asked of another run and is answered by an event, by the event that initiated it.
fn answered(attributes: &Attributes) -> Option<i64> {
    use Attributes::*;
    Some(match attributes {
        ExternalWorkflowExecutionSignaledEventAttributes(a) => a.initiated_event_id,
        SignalExternalWorkflowExecutionFailedEventAttributes(a) => a.initiated_event_id,
        ExternalWorkflowExecutionCancelRequestedEventAttributes(a) => a.initiated_event_id,
        RequestCancelExternalWorkflowExecutionFailedEventAttributes(a) => a.initiated_event_id,
        _ => return None,
    })
}

/// The completed workflow task that an event is a command of.
fn command_of(attributes: &Attributes) -> Option<i64> {
    use Attributes::*;
    Some(match attributes {
        ActivityTaskScheduledEventAttributes(a) => a.workflow_task_completed_event_id,
        ActivityTaskCancelRequestedEventAttributes(a) => a.workflow_task_completed_event_id,
        TimerStartedEventAttributes(a) => a.workflow_task_completed_event_id,
        TimerCanceledEventAttributes(a) => a.workflow_task_completed_event_id,
        StartChildWorkflowExecutionInitiatedEventAttributes(a) => a.workflow_task_completed_event_id,
        SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => a.workflow_task_completed_event_id,
        RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(a) => a.workflow_task_completed_event_id,
        MarkerRecordedEventAttributes(a) => a.workflow_task_completed_event_id,
        WorkflowPropertiesModifiedEventAttributes(a) => a.workflow_task_completed_event_id,
        UpsertWorkflowSearchAttributesEventAttributes(a) => a.workflow_task_completed_event_id,
        WorkflowExecutionCompletedEventAttributes(a) => a.workflow_task_completed_event_id,
        WorkflowExecutionFailedEventAttributes(a) => a.workflow_task_completed_event_id,
        WorkflowExecutionCanceledEventAttributes(a) => a.workflow_task_completed_event_id,
        WorkflowExecutionContinuedAsNewEventAttributes(a) => a.workflow_task_completed_event_id,
        _ => return None,
    })
}

/// Panics when `events`, appended to the history of a run in state `before`, do not make what `after` stands for.
#[cfg(debug_assertions)]
pub fn check(mut before: Ledger, events: &[HistoryEvent], after: &RunState) {
    let mut wrong: Vec<_> = events.iter().flat_map(|event| before.take(event)).collect();
    wrong.extend(before.disagreements(after));
    assert!(wrong.is_empty(), "history of run {} would be wrong: {wrong:?}", after.run_id);
}
