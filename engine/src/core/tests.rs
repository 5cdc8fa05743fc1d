//! The rules of a run as tables, each named after the rule of the server that it keeps.

mod families;
mod versions;

use super::activity::{self, ActivityRef};
use super::begin::{Begin, begin};
use super::cancel::RequestCancel;
use super::completion::{Complete, Completed};
use super::deadline::Wake;
use super::recover::Recover;
use super::signal::Signal;
use super::state::{Run, Sticky};
use super::terminate::Terminate;
use super::update::{Deliver, News};
use super::versioning::{Poller, Worker};
use super::workflow_task::{self, Started, TaskRef};
use super::{At, Effects, Input, Refusal, Work, apply};
use crate::options::Limits;
use crate::pb::command::v1::command::Attributes as C;
use crate::pb::command::v1::*;
use crate::pb::common::v1::{ActivityType, Payload, Payloads, Priority, RetryPolicy, WorkflowType};
use crate::pb::enums::v1::{RetryState, TimeoutType, WorkflowExecutionStatus, WorkflowTaskFailedCause};
use crate::pb::failure::v1::Failure;
use crate::pb::history::v1::history_event::Attributes as A;
use crate::pb::history::v1::{HistoryEvent, WorkflowExecutionStartedEventAttributes};
use crate::pb::protocol::v1::Message;
use crate::pb::taskqueue::v1::TaskQueue;
use crate::pb::update::v1::{Acceptance, Rejection, Response};
use crate::time::{Time, duration};

const SECOND: i64 = 1_000_000_000;

/// A run under test with its whole history.
struct Bench {
    run: Run,
    events: Vec<HistoryEvent>,
    now: Time,
    limits: Limits,
    started: WorkflowExecutionStartedEventAttributes,
    last: Effects,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(|_| {}, Limits::default())
    }

    fn with(shape: impl FnOnce(&mut WorkflowExecutionStartedEventAttributes), limits: Limits) -> Bench {
        let now = Time(1_700_000_000 * SECOND);
        let mut started = WorkflowExecutionStartedEventAttributes {
            workflow_id: "w".into(),
            workflow_type: Some(WorkflowType { name: "W".into() }),
            task_queue: Some(TaskQueue { name: "q".into(), ..Default::default() }),
            ..Default::default()
        };
        shape(&mut started);
        let made = Begin {
            namespace: "default".into(),
            run_id: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
            seed: 7,
            start_request_id: "r".into(),
            started: started.clone(),
            user_metadata: None,
            signal: None,
            execution_expires_at: Time::UNSET,
        };
        let (run, effects) = begin(made, &At { now, limits: &limits, started: None });
        let events = effects.events.clone();
        Bench { run, events, now, limits, started, last: effects }
    }

    fn apply<I: Input>(&mut self, input: I) -> Result<I::Reply, Refusal> {
        let at = At { now: self.now, limits: &self.limits, started: Some(&self.started) };
        let (reply, effects) = apply(&mut self.run, input, &at)?;
        self.events.extend(effects.events.iter().cloned());
        self.last = effects;
        Ok(reply)
    }

    /// A worker takes the workflow task.
    fn start(&mut self) -> Started {
        let stamp = self.run.state.task.as_ref().expect("a task").stamp;
        let from_sticky = self.run.state.sticky.is_some();
        self.apply(workflow_task::Start { stamp, identity: "worker".into(), from_sticky, poller: Poller::default() })
            .expect("starts")
    }

    fn complete(&mut self, started: &Started, commands: Vec<C>) -> Result<Completed, Refusal> {
        self.complete_with(started, commands, |_| {})
    }

    fn complete_with(
        &mut self,
        started: &Started,
        commands: Vec<C>,
        shape: impl FnOnce(&mut Complete),
    ) -> Result<Completed, Refusal> {
        let command = |attributes| Command { attributes: Some(attributes), ..Default::default() };
        let mut complete = Complete {
            token: TaskRef::of(&started.task),
            commands: commands.into_iter().map(command).collect(),
            messages: vec![],
            identity: "worker".into(),
            sticky: None,
            return_new_task: false,
            force_new_task: false,
            sdk_metadata: None,
            metering_metadata: None,
            worker: Worker::default(),
        };
        shape(&mut complete);
        self.apply(complete)
    }

    /// The workflow's task is done with these commands.
    fn step(&mut self, commands: Vec<C>) {
        let started = self.start();
        let completed = self.complete(&started, commands).expect("completes");
        assert!(matches!(completed, Completed::Accepted { .. }), "{completed:?}");
    }

    fn fail_task(&mut self, started: &Started) {
        let cause = WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure;
        let (token, identity) = (TaskRef::of(&started.task), "worker".into());
        self.apply(workflow_task::Fail { token, cause, failure: None, identity }).expect("fails");
    }

    fn signal(&mut self, name: &str) {
        let signal = Signal {
            name: name.into(),
            input: None,
            identity: String::new(),
            header: None,
            request_id: format!("signal-{name}"),
            from: None,
        };
        self.apply(signal).expect("signals");
    }

    /// Lets time pass and fires what is due.
    fn pass(&mut self, nanos: i64) {
        self.now = self.now.plus(nanos);
        self.apply(Wake).expect("wakes");
    }

    fn start_activity(&mut self) -> ActivityRef {
        let pending = self.run.state.activities.values().find(|a| a.queued).expect("a queued activity").clone();
        let (scheduled_event_id, attempt) = (pending.scheduled_event_id, pending.attempt);
        self.apply(activity::Start { scheduled_event_id, attempt, identity: "hand".into(), poller: Poller::default() })
            .expect("starts");
        ActivityRef::Attempt { scheduled_event_id, attempt }
    }

    fn complete_activity(&mut self, activity: ActivityRef) -> Result<(), Refusal> {
        self.apply(activity::Complete { activity, result: None, identity: "hand".into() })
    }

    fn fail_activity(&mut self, activity: ActivityRef) {
        let failure = Some(Failure { message: "no".into(), ..Default::default() });
        let fail = activity::Fail { activity, failure, last_heartbeat_details: None, identity: "hand".into() };
        self.apply(fail).expect("fails");
    }

    /// The names of all events, or of those from `from` on.
    fn names_from(&self, from: i64) -> Vec<String> {
        let after = self.events.iter().filter(|event| event.event_id >= from);
        after.map(|event| format!("{:?}", event.event_type())).collect()
    }

    fn next_event_id(&self) -> i64 {
        self.run.state.next_event_id
    }
}

fn timer(id: &str, seconds: i64) -> C {
    C::StartTimerCommandAttributes(StartTimerCommandAttributes {
        timer_id: id.into(),
        start_to_fire_timeout: duration(seconds * SECOND),
    })
}

fn cancel_timer(id: &str) -> C {
    C::CancelTimerCommandAttributes(CancelTimerCommandAttributes { timer_id: id.into() })
}

fn schedule(id: &str, shape: impl FnOnce(&mut ScheduleActivityTaskCommandAttributes)) -> C {
    let mut command = ScheduleActivityTaskCommandAttributes {
        activity_id: id.into(),
        activity_type: Some(ActivityType { name: "A".into() }),
        start_to_close_timeout: duration(10 * SECOND),
        ..Default::default()
    };
    shape(&mut command);
    C::ScheduleActivityTaskCommandAttributes(command)
}

fn finish() -> C {
    C::CompleteWorkflowExecutionCommandAttributes(CompleteWorkflowExecutionCommandAttributes::default())
}

#[test]
fn rule_1_at_most_one_workflow_task_and_news_schedule_one_only_when_there_is_none() {
    let mut bench = Bench::new();
    assert_eq!(bench.names_from(1), ["WorkflowExecutionStarted", "WorkflowTaskScheduled"]);
    bench.signal("a");
    bench.signal("b");
    assert_eq!(bench.names_from(3), ["WorkflowExecutionSignaled", "WorkflowExecutionSignaled"]);
    bench.step(vec![]);
    assert!(bench.run.state.task.is_none());
    bench.signal("c");
    assert_eq!(bench.names_from(7), ["WorkflowExecutionSignaled", "WorkflowTaskScheduled"]);
}

#[test]
fn rule_2_events_behind_a_started_task_wait_and_closes_come_last_with_their_starts_wired() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |_| {}), timer("t", 1)]);
    let activity = bench.start_activity();
    bench.signal("wake");
    let started = bench.start();
    let before = bench.next_event_id();
    bench.complete_activity(activity).expect("completes");
    bench.pass(2 * SECOND);
    bench.signal("late");
    assert_eq!(bench.next_event_id(), before, "nothing is appended");
    bench.complete(&started, vec![]).expect("completes");
    assert_eq!(
        bench.names_from(before),
        [
            "WorkflowTaskCompleted",
            "ActivityTaskStarted",
            "TimerFired",
            "WorkflowExecutionSignaled",
            "ActivityTaskCompleted",
            "WorkflowTaskScheduled"
        ]
    );
    let started_id =
        bench.events.iter().find(|e| matches!(e.attributes, Some(A::ActivityTaskStartedEventAttributes(_))));
    let closed = bench.events.iter().find_map(|event| match &event.attributes {
        Some(A::ActivityTaskCompletedEventAttributes(a)) => Some(a.started_event_id),
        _ => None,
    });
    assert_eq!(closed, started_id.map(|event| event.event_id));
}

#[test]
fn rule_2_a_full_buffer_fails_the_task() {
    let mut bench = Bench::with(|_| {}, Limits { buffered_events_max: 3, ..Limits::default() });
    bench.start();
    for name in ["a", "b", "c"] {
        bench.signal(name);
    }
    assert!(bench.names_from(4).is_empty(), "so many may wait");
    bench.signal("d");
    assert_eq!(
        bench.names_from(4),
        [
            "WorkflowTaskFailed",
            "WorkflowExecutionSignaled",
            "WorkflowExecutionSignaled",
            "WorkflowExecutionSignaled",
            "WorkflowExecutionSignaled",
            "WorkflowTaskScheduled"
        ]
    );
}

#[test]
fn rule_3_repeated_attempts_leave_one_failure_and_appear_when_they_complete() {
    let mut bench = Bench::new();
    let first = bench.start();
    bench.fail_task(&first);
    let second = bench.start();
    assert_eq!((second.task.attempt, second.task.scheduled_event_id, second.task.started_event_id), (2, 5, 6));
    assert_eq!(second.transient.iter().map(|e| e.event_id).collect::<Vec<_>>(), [5, 6]);
    bench.fail_task(&second);
    let third = bench.start();
    assert_eq!(third.task.attempt, 3);
    assert_eq!(bench.names_from(4), ["WorkflowTaskFailed"], "only the first failure is written");
    bench.complete(&third, vec![]).expect("completes");
    assert_eq!(bench.names_from(5), ["WorkflowTaskScheduled", "WorkflowTaskStarted", "WorkflowTaskCompleted"]);
    match &bench.events[4].attributes {
        Some(A::WorkflowTaskScheduledEventAttributes(a)) => assert_eq!(a.attempt, 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_3_news_before_a_repeated_attempt_starts_make_it_an_ordinary_task() {
    let mut bench = Bench::new();
    let first = bench.start();
    bench.fail_task(&first);
    bench.signal("news");
    let second = bench.start();
    assert_eq!(second.task.attempt, 1);
    assert!(second.transient.is_empty());
    assert_eq!(bench.names_from(5), ["WorkflowExecutionSignaled", "WorkflowTaskScheduled", "WorkflowTaskStarted"]);
}

#[test]
fn rule_3_what_was_buffered_behind_a_failed_task_makes_the_next_an_ordinary_one() {
    let mut bench = Bench::new();
    let first = bench.start();
    bench.signal("news");
    bench.fail_task(&first);
    assert_eq!(bench.names_from(4), ["WorkflowTaskFailed", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]);
    assert_eq!(bench.run.state.task.as_ref().map(|task| task.attempt), Some(1));
}

#[test]
fn rule_4_a_task_that_keeps_failing_gets_more_time() {
    let mut bench = Bench::new();
    let mut timeouts = Vec::new();
    for _ in 0..6 {
        let started = bench.start();
        timeouts.push(started.task.timeout / SECOND);
        bench.pass(started.task.timeout);
    }
    assert_eq!(timeouts, [10, 10, 10, 15, 20, 30]);
    assert_eq!(bench.names_from(4), ["WorkflowTaskTimedOut"]);
}

#[test]
fn rule_5_a_sticky_task_that_nobody_takes_goes_to_everybody_and_costs_no_attempt() {
    let mut bench = Bench::new();
    let started = bench.start();
    let sticky = Sticky { queue: "mine".into(), schedule_to_start: 5 * SECOND };
    bench.complete_with(&started, vec![], |complete| complete.sticky = Some(sticky)).expect("completes");
    bench.signal("a");
    assert!(matches!(&bench.last.work[..], [Work::WorkflowTask { queue, sticky: true, .. }] if queue == "mine"));
    bench.pass(5 * SECOND);
    assert_eq!(
        bench.names_from(5),
        ["WorkflowExecutionSignaled", "WorkflowTaskScheduled", "WorkflowTaskTimedOut", "WorkflowTaskScheduled"]
    );
    assert!(matches!(&bench.last.work[..], [Work::WorkflowTask { queue, sticky: false, .. }] if queue == "q"));
    let again = bench.start();
    assert_eq!((again.task.attempt, again.partial_history), (1, false));
}

#[test]
fn rule_6_every_field_of_a_token_is_checked() {
    let mut bench = Bench::new();
    let started = bench.start();
    let good = TaskRef::of(&started.task);
    let wrong = [
        TaskRef { scheduled_event_id: 9, ..good.clone() },
        TaskRef { started_event_id: 9, ..good.clone() },
        TaskRef { attempt: 2, ..good.clone() },
        TaskRef { started_at: 1, ..good.clone() },
        TaskRef { stamp: 9, ..good.clone() },
    ];
    for token in wrong {
        let result = bench.complete_with(&started, vec![], |complete| complete.token = token);
        assert_eq!(result, Err(Refusal::WorkflowTaskNotFound));
    }
    bench.complete(&started, vec![]).expect("the right one completes");
    assert_eq!(bench.complete(&started, vec![]), Err(Refusal::WorkflowTaskNotFound), "once");
    let stale =
        workflow_task::Start { stamp: 1, identity: String::new(), from_sticky: false, poller: Poller::default() };
    assert_eq!(bench.apply(stale), Err(Refusal::WorkflowTaskNotFound));
}

/// Found by simulation: an answer to an attempt that a restart had ended was taken for an answer to the next.
#[test]
fn rule_6_a_repeated_attempt_is_not_the_one_before_even_if_both_started_at_the_same_moment() {
    let mut bench = Bench::new();
    let first = bench.start();
    bench.fail_task(&first);
    let before = bench.start();
    bench.apply(Recover).expect("recovers");
    let after = bench.start();
    let ids = |started: &Started| (started.task.started_event_id, started.task.attempt, started.task.started_at);
    assert_eq!(ids(&before), ids(&after));
    assert_eq!(bench.complete(&before, vec![]), Err(Refusal::WorkflowTaskNotFound));
    bench.complete(&after, vec![]).expect("completes");
}

#[test]
fn rule_7_a_close_with_news_behind_it_is_refused_and_nothing_of_its_batch_stays() {
    let can = C::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default());
    for close in [finish(), can] {
        let mut bench = Bench::new();
        let started = bench.start();
        bench.signal("news");
        let completed = bench.complete(&started, vec![timer("t", 1), close]).expect("is answered");
        assert!(matches!(completed, Completed::Failed { .. }));
        assert_eq!(bench.names_from(4), ["WorkflowTaskFailed", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]);
        match &bench.events[3].attributes {
            Some(A::WorkflowTaskFailedEventAttributes(a)) => {
                assert_eq!(a.cause, WorkflowTaskFailedCause::UnhandledCommand as i32);
            }
            other => panic!("{other:?}"),
        }
        assert!(bench.run.state.timers.is_empty() && bench.run.state.is_open() && bench.last.successor.is_none());
    }
}

#[test]
fn rule_7_cancelling_a_timer_takes_its_buffered_firing_back_and_then_closing_is_allowed() {
    let mut bench = Bench::new();
    bench.step(vec![timer("t", 1)]);
    bench.signal("wake");
    let started = bench.start();
    bench.pass(2 * SECOND);
    assert_eq!(bench.run.state.buffered.len(), 1);
    let before = bench.next_event_id();
    let completed = bench.complete(&started, vec![cancel_timer("t"), finish()]).expect("completes");
    assert!(matches!(completed, Completed::Accepted { .. }));
    assert_eq!(bench.names_from(before), ["WorkflowTaskCompleted", "TimerCanceled", "WorkflowExecutionCompleted"]);
}

#[test]
fn rule_7_cancelling_an_activity_that_was_not_started_ends_it_and_wakes_the_workflow() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |_| {})]);
    bench.signal("wake");
    let before = bench.next_event_id();
    let cancel = C::RequestCancelActivityTaskCommandAttributes(RequestCancelActivityTaskCommandAttributes {
        scheduled_event_id: 5,
    });
    bench.step(vec![cancel]);
    assert_eq!(
        bench.names_from(before + 1),
        ["WorkflowTaskCompleted", "ActivityTaskCancelRequested", "ActivityTaskCanceled", "WorkflowTaskScheduled"]
    );
    assert!(bench.run.state.activities.is_empty());
}

#[test]
fn rule_8_the_next_task_comes_inline_when_there_is_news_or_a_heartbeat() {
    let mut bench = Bench::new();
    let started = bench.start();
    let quiet = bench.complete_with(&started, vec![], |complete| complete.return_new_task = true);
    assert_eq!(quiet, Ok(Completed::Accepted { next: None, eager: vec![] }));
    bench.signal("wake");
    let mut started = bench.start();
    bench.signal("news");
    for round in 0..3 {
        bench.now = bench.now.plus(SECOND);
        let completed = bench.complete_with(&started, vec![], |complete| {
            complete.return_new_task = true;
            complete.force_new_task = round > 0;
        });
        let Ok(Completed::Accepted { next: Some(next), .. }) = completed else { panic!("{completed:?}") };
        assert!(bench.last.work.is_empty(), "it is handed back, not queued");
        started = next;
    }
    bench.now = bench.now.plus(Limits::default().task_heartbeat_ns);
    let over = bench.complete_with(&started, vec![], |complete| complete.force_new_task = true);
    assert_eq!(over, Ok(Completed::HeartbeatTimedOut));
}

#[test]
fn rule_9_a_bad_command_fails_the_first_attempt_and_is_dropped_after_that() {
    let mut bench = Bench::new();
    let bad = || schedule("a", |command| command.start_to_close_timeout = None);
    let first = bench.start();
    assert!(matches!(bench.complete(&first, vec![timer("t", 1), bad()]), Ok(Completed::Failed { .. })));
    assert_eq!(bench.names_from(4), ["WorkflowTaskFailed"]);
    let second = bench.start();
    assert!(matches!(bench.complete(&second, vec![bad()]), Err(Refusal::Invalid(_))));
    assert_eq!(bench.run.state.started_task().map(|task| task.attempt), Some(2), "it goes on until its timeout");
}

#[test]
fn rule_9_each_unacceptable_command_has_its_cause() {
    use WorkflowTaskFailedCause as Cause;
    let nexus = C::ScheduleNexusOperationCommandAttributes(Default::default());
    let table = [
        (vec![schedule("", |_| {})], Cause::BadScheduleActivityAttributes),
        (vec![schedule("a", |_| {}), schedule("a", |_| {})], Cause::ScheduleActivityDuplicateId),
        (vec![timer("", 1)], Cause::BadStartTimerAttributes),
        (vec![timer("t", 1), timer("t", 1)], Cause::StartTimerDuplicateId),
        (vec![cancel_timer("t")], Cause::BadCancelTimerAttributes),
        (vec![C::RecordMarkerCommandAttributes(Default::default())], Cause::BadRecordMarkerAttributes),
        (
            vec![C::RequestCancelActivityTaskCommandAttributes(RequestCancelActivityTaskCommandAttributes {
                scheduled_event_id: 99,
            })],
            Cause::BadRequestCancelActivityAttributes,
        ),
        (
            vec![C::FailWorkflowExecutionCommandAttributes(Default::default())],
            Cause::BadFailWorkflowExecutionAttributes,
        ),
        (vec![C::UpsertWorkflowSearchAttributesCommandAttributes(Default::default())], Cause::BadSearchAttributes),
        (
            vec![C::ModifyWorkflowPropertiesCommandAttributes(Default::default())],
            Cause::BadModifyWorkflowPropertiesAttributes,
        ),
        (vec![nexus], Cause::FeatureDisabled),
    ];
    for (commands, expected) in table {
        let mut bench = Bench::new();
        let started = bench.start();
        bench.complete(&started, commands).expect("is answered");
        match bench.events.last().and_then(|event| event.attributes.clone()) {
            Some(A::WorkflowTaskFailedEventAttributes(a)) => assert_eq!(a.cause(), expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
}

#[test]
fn rule_10_a_long_history_suggests_to_continue_as_new_and_a_too_long_one_ends() {
    let limits = Limits { suggest_history_events: 8, history_events_max: 12, ..Limits::default() };
    let mut bench = Bench::with(|_| {}, limits);
    let first = bench.start();
    assert!(first.task.suggest_reasons.is_empty());
    bench.complete(&first, vec![]).expect("completes");
    for name in ["a", "b", "c"] {
        bench.signal(name);
    }
    let second = bench.start();
    assert_eq!(second.task.suggest_reasons.len(), 1);
    bench.complete(&second, vec![timer("t", 1), timer("u", 1), timer("v", 1)]).expect("completes");
    assert_eq!(bench.run.state.status, WorkflowExecutionStatus::Terminated as i32);
    assert_eq!(bench.names_from(14), ["WorkflowExecutionTerminated"]);
}

#[test]
fn rule_10_a_run_whose_history_has_too_many_bytes_ends_and_its_worker_is_told() {
    let mut bench = Bench::with(|_| {}, Limits { history_bytes_max: 2_000, ..Limits::default() });
    let marker = || {
        C::RecordMarkerCommandAttributes(RecordMarkerCommandAttributes {
            marker_name: "m".repeat(900),
            ..Default::default()
        })
    };
    bench.step(vec![marker()]);
    bench.signal("a");
    let started = bench.start();
    let completed = bench.complete_with(&started, vec![marker(), marker()], |c| c.force_new_task = true);
    let message = "Workflow history size exceeds limit.".to_owned();
    assert_eq!(completed, Ok(Completed::Failed { message }));
    assert_eq!(bench.run.state.status, WorkflowExecutionStatus::Terminated as i32);
}

#[test]
fn rule_9_a_command_that_is_too_large_for_a_history_ends_the_run_in_whichever_attempt() {
    for failures in [0, 1] {
        let mut bench = Bench::with(|_| {}, Limits { blob_bytes_max: 100, ..Limits::default() });
        for _ in 0..failures {
            let started = bench.start();
            bench.fail_task(&started);
        }
        let started = bench.start();
        let large = Payloads { payloads: vec![Payload { data: vec![7; 101], ..Default::default() }] };
        let commands = vec![timer("t", 1), schedule("a", |a| a.input = Some(large))];
        let message = "BadScheduleActivityAttributes: ScheduleActivityTaskCommandAttributes.Input exceeds size limit.";
        assert_eq!(bench.complete(&started, commands), Ok(Completed::Failed { message: message.to_owned() }));
        assert!(bench.run.state.timers.is_empty(), "nothing of the batch stays");
        match bench.events.last().and_then(|event| event.attributes.as_ref()) {
            Some(A::WorkflowExecutionTerminatedEventAttributes(a)) => assert_eq!(a.reason, message),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn rule_11_retries_leave_no_events_until_the_end() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |_| {})]);
    let before = bench.next_event_id();
    for attempt in 1..=3 {
        let activity = bench.start_activity();
        assert_eq!(activity, ActivityRef::Attempt { scheduled_event_id: 5, attempt });
        bench.fail_activity(activity);
        assert!(bench.run.state.task.is_none());
        bench.pass(8 * SECOND);
    }
    assert_eq!(bench.next_event_id(), before);
    let activity = bench.start_activity();
    bench.complete_activity(activity).expect("completes");
    assert_eq!(bench.names_from(before), ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]);
    match &bench.events[before as usize - 1].attributes {
        Some(A::ActivityTaskStartedEventAttributes(a)) => {
            assert_eq!((a.attempt, a.last_failure.as_ref().map(|f| f.message.as_str())), (4, Some("no")));
        }
        other => panic!("{other:?}"),
    }
}

/// How an activity's timeout ended it, if it did.
fn ending(bench: &Bench) -> Option<(RetryState, TimeoutType)> {
    use crate::pb::failure::v1::failure::FailureInfo;
    bench.events.iter().find_map(|event| match &event.attributes {
        Some(A::ActivityTaskTimedOutEventAttributes(a)) => match &a.failure.as_ref()?.failure_info {
            Some(FailureInfo::TimeoutFailureInfo(info)) => Some((a.retry_state(), info.timeout_type())),
            _ => None,
        },
        _ => None,
    })
}

#[test]
fn rule_13_the_four_timeouts() {
    type Shape = fn(&mut ScheduleActivityTaskCommandAttributes);
    let once = || Some(RetryPolicy { maximum_attempts: 1, ..Default::default() });
    let spent = RetryState::MaximumAttemptsReached;
    type Ending = Option<(RetryState, TimeoutType)>;
    let table: [(&str, Shape, bool, i64, Ending); 6] = [
        ("start-to-close", |_| {}, true, 10, Some((spent, TimeoutType::StartToClose))),
        ("not before", |_| {}, true, 9, None),
        (
            "schedule-to-start",
            |c| c.schedule_to_start_timeout = duration(3 * SECOND),
            false,
            3,
            Some((RetryState::Timeout, TimeoutType::ScheduleToStart)),
        ),
        (
            "schedule-to-close while queued",
            |c| c.schedule_to_close_timeout = duration(4 * SECOND),
            false,
            4,
            Some((RetryState::Timeout, TimeoutType::ScheduleToStart)),
        ),
        ("heartbeat", |c| c.heartbeat_timeout = duration(2 * SECOND), true, 2, Some((spent, TimeoutType::Heartbeat))),
        ("no heartbeat asked for", |c| c.heartbeat_timeout = None, true, 5, None),
    ];
    for (what, shape, is_started, seconds, expected) in table {
        let mut bench = Bench::new();
        bench.step(vec![schedule("a", |command| {
            command.retry_policy = once();
            shape(command);
        })]);
        if is_started {
            bench.start_activity();
        }
        bench.pass(seconds * SECOND);
        assert_eq!(ending(&bench), expected, "{what}");
    }
}

#[test]
fn rule_13_a_heartbeat_postpones_and_tells_of_a_cancellation() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |command| command.heartbeat_timeout = duration(2 * SECOND))]);
    let activity = bench.start_activity();
    for _ in 0..4 {
        bench.pass(SECOND);
        let beat = activity::Heartbeat { activity: activity.clone(), details: None };
        assert_eq!(bench.apply(beat), Ok(false));
    }
    bench.signal("wake");
    let cancel = C::RequestCancelActivityTaskCommandAttributes(RequestCancelActivityTaskCommandAttributes {
        scheduled_event_id: 5,
    });
    bench.step(vec![cancel]);
    let beat = activity::Heartbeat { activity: activity.clone(), details: None };
    assert_eq!(bench.apply(beat), Ok(true));
    let canceled = activity::Canceled { activity, details: None, identity: "hand".into() };
    bench.apply(canceled).expect("gives in");
    assert_eq!(bench.names_from(bench.next_event_id() - 3)[..2], ["ActivityTaskStarted", "ActivityTaskCanceled"]);
}

#[test]
fn rule_13_a_late_answer_finds_nothing_and_the_next_attempt_is_not_its() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |_| {})]);
    let first = bench.start_activity();
    bench.pass(10 * SECOND);
    assert_eq!(bench.complete_activity(first.clone()), Err(Refusal::ActivityNotFound), "it backs off");
    bench.pass(SECOND);
    let second = bench.start_activity();
    assert_eq!(bench.complete_activity(first), Err(Refusal::ActivityNotFound), "another attempt has it");
    bench.complete_activity(second.clone()).expect("completes");
    assert_eq!(bench.complete_activity(second), Err(Refusal::ActivityNotFound));
}

#[test]
fn rule_13_an_answer_by_id_needs_no_start() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |_| {})]);
    bench.complete_activity(ActivityRef::Id("a".into())).expect("completes");
    assert_eq!(bench.names_from(6), ["ActivityTaskStarted", "ActivityTaskCompleted", "WorkflowTaskScheduled"]);
}

#[test]
fn rule_14_missing_timeouts_follow_from_the_others() {
    let table = [
        // given: to close, to start, start to close, run; settled: the first three
        ([0, 0, 5, 0], [0, 0, 5]),
        ([7, 0, 0, 0], [7, 7, 7]),
        ([7, 9, 9, 0], [7, 7, 7]),
        ([0, 0, 5, 60], [60, 60, 5]),
        ([0, 0, 90, 60], [60, 60, 60]),
    ];
    for (given, settled) in table {
        let mut bench =
            Bench::with(|started| started.workflow_run_timeout = duration(given[3] * SECOND), Limits::default());
        bench.step(vec![schedule("a", |command| {
            command.schedule_to_close_timeout = duration(given[0] * SECOND);
            command.schedule_to_start_timeout = duration(given[1] * SECOND);
            command.start_to_close_timeout = duration(given[2] * SECOND);
        })]);
        let activity = &bench.run.state.activities[&5];
        let found = [activity.schedule_to_close, activity.schedule_to_start, activity.start_to_close];
        assert_eq!(found.map(|nanos| nanos / SECOND), settled, "{given:?}");
    }
}

#[test]
fn rule_15_timers_that_are_due_fire_together_in_order_of_time_then_of_start() {
    let mut bench = Bench::new();
    bench.step(vec![timer("late", 3), timer("b", 1), timer("a", 1), timer("never", 60)]);
    bench.pass(5 * SECOND);
    let fired: Vec<_> = bench
        .last
        .events
        .iter()
        .filter_map(|event| match &event.attributes {
            Some(A::TimerFiredEventAttributes(a)) => Some(a.timer_id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(fired, ["b", "a", "late"]);
    assert_eq!(bench.run.state.timers.len(), 1);
    assert_eq!(bench.last.work.len(), 1, "one workflow task for all");
}

/// A worker's message about an update.
fn message<M: prost::Message>(id: &str, update: &str, name: &str, body: &M) -> Message {
    Message {
        id: id.into(),
        protocol_instance_id: update.into(),
        body: Some(prost_wkt_types::Any {
            type_url: format!("type.googleapis.com/temporal.api.update.v1.{name}"),
            value: body.encode_to_vec(),
        }),
        ..Default::default()
    }
}

fn acceptance(update: &str) -> Message {
    let body = Acceptance { accepted_request: Some(Default::default()), ..Default::default() };
    message(&format!("{update}/accept"), update, "Acceptance", &body)
}

fn response(update: &str) -> Message {
    message(&format!("{update}/complete"), update, "Response", &Response::default())
}

fn rejection(update: &str) -> Message {
    message(&format!("{update}/reject"), update, "Rejection", &Rejection::default())
}

/// The turn of a message.
fn turn(id: &str) -> C {
    C::ProtocolMessageCommandAttributes(ProtocolMessageCommandAttributes { message_id: id.into() })
}

#[test]
fn rule_17_commands_give_the_order_of_what_is_said_to_updates_and_a_refusal_leaves_no_event() {
    let mut bench = Bench::new();
    let started = bench.start();
    let commands = vec![timer("before", 1), turn("a/accept"), timer("between", 1), turn("a/complete")];
    let messages = vec![rejection("b"), response("a"), acceptance("a")];
    bench.complete_with(&started, commands, |complete| complete.messages = messages).expect("completes");
    assert_eq!(
        bench.names_from(4),
        [
            "WorkflowTaskCompleted",
            "TimerStarted",
            "WorkflowExecutionUpdateAccepted",
            "TimerStarted",
            "WorkflowExecutionUpdateCompleted"
        ]
    );
    let told: Vec<_> = bench.last.updates.iter().map(|(id, news)| (id.as_str(), *news == News::Accepted)).collect();
    assert_eq!(told, [("a", true), ("a", false), ("b", false)]);
    assert_eq!(bench.run.state.updates.keys().collect::<Vec<_>>(), ["a"], "what was refused is not remembered");
}

#[test]
fn rule_17_an_update_is_accepted_once_and_answered_once_and_only_by_its_message() {
    let table: [(&str, Vec<C>, Vec<Message>); 6] = [
        ("no such message", vec![turn("a/accept")], vec![]),
        ("answered before it is accepted", vec![turn("a/complete")], vec![response("a")]),
        (
            "accepted without its request",
            vec![turn("x")],
            vec![message("x", "a", "Acceptance", &Acceptance::default())],
        ),
        ("not understood", vec![turn("x")], vec![message("x", "a", "Surprise", &Response::default())]),
        ("accepted again", vec![turn("old/accept")], vec![acceptance("old")]),
        ("refused after it was accepted", vec![], vec![rejection("old")]),
    ];
    for (what, commands, messages) in table {
        let mut bench = Bench::new();
        let started = bench.start();
        bench
            .complete_with(&started, vec![turn("old/accept")], |complete| complete.messages = vec![acceptance("old")])
            .expect("completes");
        bench.signal("wake");
        let started = bench.start();
        let completed = bench.complete_with(&started, commands, |complete| complete.messages = messages);
        assert!(matches!(completed, Ok(Completed::Failed { .. })), "{what}: {completed:?}");
        assert!(bench.last.updates.is_empty(), "{what}: nobody hears of it");
    }
}

#[test]
fn rule_17_a_request_makes_a_workflow_task_only_when_there_is_none() {
    let mut bench = Bench::new();
    bench.apply(Deliver).expect("is told");
    assert_eq!(bench.names_from(3), Vec::<String>::new(), "it goes with the first one");
    bench.step(vec![]);
    bench.apply(Deliver).expect("is told");
    assert_eq!(bench.names_from(5), ["WorkflowTaskScheduled"]);
    bench.step(vec![finish()]);
    assert_eq!(bench.apply(Deliver), Err(Refusal::Closed));
}

#[test]
fn rule_18_continue_as_new_carries_what_the_chain_needs() {
    let mut bench = Bench::with(
        |started| {
            started.workflow_execution_timeout = duration(100 * SECOND);
            started.workflow_run_timeout = duration(50 * SECOND);
            started.priority = Some(Priority { priority_key: 2, ..Default::default() });
        },
        Limits::default(),
    );
    bench.now = bench.now.plus(30 * SECOND);
    bench.step(vec![C::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default())]);
    let (next, effects) = *bench.last.successor.take().expect("a successor");
    let old = &bench.run.state;
    assert_eq!((old.status, &old.successor), (WorkflowExecutionStatus::ContinuedAsNew as i32, &next.state.run_id));
    assert_eq!(next.state.first_run_id, old.run_id);
    assert_eq!((&next.state.workflow_type, &next.state.task_queue), (&old.workflow_type, &old.task_queue));
    assert_eq!(next.state.run_timeout, old.run_timeout);
    assert_eq!(next.state.execution_expires_at, old.execution_expires_at, "the chain ends when it always did");
    assert_eq!(uuid::Uuid::parse_str(&next.state.run_id).map(|id| id.get_version_num()), Ok(7));
    match effects.events.first().and_then(|event| event.attributes.as_ref()) {
        Some(A::WorkflowExecutionStartedEventAttributes(a)) => {
            assert_eq!(a.continued_execution_run_id, old.run_id);
            assert_eq!(a.priority.as_ref().map(|priority| priority.priority_key), Some(2));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn rule_18_a_signal_is_taken_once_by_its_request_id() {
    let mut bench = Bench::new();
    bench.signal("a");
    bench.signal("a");
    assert_eq!(bench.run.state.signals, 1);
    assert_eq!(bench.names_from(3), ["WorkflowExecutionSignaled"]);
}

#[test]
fn rule_20_terminating_ends_the_task_and_shows_what_was_buffered() {
    let mut bench = Bench::new();
    bench.start();
    bench.signal("late");
    let terminate = Terminate {
        reason: String::new(),
        details: None,
        identity: String::new(),
        first_run_id: String::new(),
        from: None,
    };
    bench.apply(terminate).expect("terminates");
    assert_eq!(bench.names_from(4), ["WorkflowTaskFailed", "WorkflowExecutionSignaled", "WorkflowExecutionTerminated"]);
    assert!(bench.last.work.is_empty());
    assert_eq!(bench.run.state.wake_at, 0, "nothing wakes a closed run");
}

#[test]
fn a_cancel_request_is_idempotent_and_bound_to_its_chain() {
    let mut bench = Bench::new();
    let cancel = |first_run_id: &str| RequestCancel {
        reason: String::new(),
        identity: String::new(),
        first_run_id: first_run_id.into(),
        from: None,
    };
    assert_eq!(bench.apply(cancel("another")), Err(Refusal::OtherChain));
    for _ in 0..2 {
        bench.apply(cancel("")).expect("asks");
    }
    assert_eq!(bench.names_from(3), ["WorkflowExecutionCancelRequested"]);
}

#[test]
fn a_restart_ends_a_started_task_at_once_and_queues_what_was_queued() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |_| {})]);
    bench.signal("wake");
    bench.start();
    bench.apply(Recover).expect("recovers");
    assert_eq!(bench.names_from(9), ["WorkflowTaskTimedOut", "WorkflowTaskScheduled"]);
    assert_eq!(bench.run.state.task.as_ref().map(|task| task.attempt), Some(1));
    let has = |activity: bool| {
        bench.last.work.iter().filter(|work| matches!(work, Work::Activity { .. }) == activity).count()
    };
    assert_eq!((has(true), has(false)), (1, 1));
}

#[test]
fn a_lost_hand_out_is_given_out_again_at_once() {
    let mut bench = Bench::new();
    bench.step(vec![schedule("a", |_| {})]);
    let ActivityRef::Attempt { scheduled_event_id, attempt } = bench.start_activity() else { panic!() };
    bench.apply(activity::Lost { scheduled_event_id, attempt }).expect("is put back");
    assert_eq!(bench.start_activity(), ActivityRef::Attempt { scheduled_event_id, attempt });
    bench.signal("wake");
    let started = bench.start();
    bench.apply(workflow_task::Lost { token: TaskRef::of(&started.task) }).expect("is ended");
    assert_eq!(bench.start().task.attempt, 1);
}

#[test]
fn a_delayed_start_takes_signals_and_makes_its_first_task_when_the_delay_is_over() {
    let mut bench =
        Bench::with(|started| started.first_workflow_task_backoff = duration(30 * SECOND), Limits::default());
    bench.signal("early");
    assert!(bench.run.state.task.is_none());
    bench.pass(30 * SECOND);
    assert_eq!(bench.names_from(1), ["WorkflowExecutionStarted", "WorkflowExecutionSignaled", "WorkflowTaskScheduled"]);
}

#[test]
fn a_workflow_is_retried_after_a_failure_and_a_run_timeout_but_not_beyond_its_chain() {
    let policy = RetryPolicy { maximum_attempts: 3, ..super::retry::with_defaults(None) };
    let shape = |started: &mut WorkflowExecutionStartedEventAttributes| {
        started.retry_policy = Some(policy.clone());
        started.workflow_run_timeout = duration(20 * SECOND);
        started.workflow_execution_timeout = duration(60 * SECOND);
    };
    let mut failed = Bench::with(shape, Limits::default());
    failed.step(vec![C::FailWorkflowExecutionCommandAttributes(FailWorkflowExecutionCommandAttributes {
        failure: Some(Failure::default()),
    })]);
    let (next, effects) = *failed.last.successor.take().expect("another try");
    assert_eq!((next.state.attempt, next.state.is_delayed(failed.now)), (2, true));
    assert!(effects.work.is_empty(), "it backs off first");

    let mut slow = Bench::with(shape, Limits::default());
    slow.pass(20 * SECOND);
    assert_eq!(slow.run.state.status, WorkflowExecutionStatus::TimedOut as i32);
    assert!(slow.last.successor.is_some());

    let mut over = Bench::with(shape, Limits::default());
    over.now = over.now.plus(60 * SECOND);
    over.apply(Wake).expect("wakes");
    assert!(over.last.successor.is_none());
}

#[test]
fn what_a_command_says_about_groups_stands_in_its_event() {
    use crate::pb::sdk::v1::{EventGroupMarker, event_group_marker};
    let label = event_group_marker::Label { id: "g".into(), ..Default::default() };
    let markers = vec![EventGroupMarker { variant: Some(event_group_marker::Variant::Label(label)) }];
    let mut bench = Bench::new();
    let started = bench.start();
    let first = bench.next_event_id() + 1;
    let commands = vec![timer("t", 5), timer("u", 5)];
    bench
        .complete_with(&started, commands, |complete| complete.commands[0].event_group_markers = markers.clone())
        .expect("completes");
    let grouped: Vec<_> =
        bench.events.iter().filter(|event| !event.event_group_markers.is_empty()).map(|event| event.event_id).collect();
    assert_eq!(grouped, [first]);
    let bytes: usize = bench.events.iter().map(prost::Message::encoded_len).sum();
    assert_eq!(bench.run.state.history_bytes, bytes as i64);
}
