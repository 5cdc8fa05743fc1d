//! Simulated workers: they look at what they are given as an SDK would, decide by dice, and die.

use super::client::WORKFLOW_IDS;
use super::executor::Kind;
use super::world::{Failed, NAMESPACE, SECOND, World};
use crate::core::ledger::Ledger;
use crate::pb::command::v1::command::Attributes as C;
use crate::pb::command::v1::*;
use crate::pb::common::v1::{ActivityType, Payload, Payloads, RetryPolicy, WorkflowExecution, WorkflowType};
use crate::pb::deployment::v1::WorkerDeploymentOptions;
use crate::pb::enums::v1::{
    ParentClosePolicy, QueryResultType, TaskQueueKind, WorkerVersioningMode, WorkflowIdReusePolicy,
};
use crate::pb::failure::v1::failure::FailureInfo;
use crate::pb::failure::v1::{ApplicationFailureInfo, Failure};
use crate::pb::history::v1::HistoryEvent;
use crate::pb::history::v1::history_event::Attributes as A;
use crate::pb::query::v1::WorkflowQueryResult;
use crate::pb::taskqueue::v1::TaskQueue;
use crate::pb::workflow::v1::versioning_override::Override;
use crate::pb::workflowservice::v1::*;
use crate::time::duration;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

pub const WORKFLOWS: &str = "workflows";
pub const ACTIVITIES: &str = "activities";
/// The signal after which a workflow ends.
pub const FINISH: &str = "finish";

/// What a worker holds of the runs that it knows.
type Cache = Rc<RefCell<BTreeMap<String, Vec<HistoryEvent>>>>;

/// The deployment that simulated workers belong to, if they have a version.
pub const FLEET: &str = "fleet";

fn deployment(build_id: Option<&str>) -> Option<WorkerDeploymentOptions> {
    Some(WorkerDeploymentOptions {
        deployment_name: FLEET.to_owned(),
        build_id: build_id?.to_owned(),
        worker_versioning_mode: WorkerVersioningMode::Versioned as i32,
    })
}

/// A worker for workflow tasks: one poller for everybody's queue and one for its own.
pub fn workflow_worker(world: &Rc<World>, build_id: Option<&'static str>) {
    let cache = Cache::default();
    let own = world.name("sticky");
    for sticky in [false, true] {
        let (world, cache, own) = (world.clone(), cache.clone(), own.clone());
        let executor = &world.clone().executor;
        executor.spawn(Kind::Outside, async move {
            loop {
                let queue = match sticky {
                    true => TaskQueue {
                        name: own.clone(),
                        kind: TaskQueueKind::Sticky as i32,
                        normal_name: WORKFLOWS.to_owned(),
                    },
                    false => TaskQueue { name: WORKFLOWS.to_owned(), ..Default::default() },
                };
                let poll = PollWorkflowTaskQueueRequest {
                    namespace: NAMESPACE.to_owned(),
                    task_queue: Some(queue),
                    identity: own.clone(),
                    deployment_options: deployment(build_id),
                    ..Default::default()
                };
                let power_losses = world.promises.borrow().power_losses;
                match world.call::<_, PollWorkflowTaskQueueResponse>("PollWorkflowTaskQueue", poll).await {
                    Ok(task) if !task.task_token.is_empty() => {
                        let mut next = Some(Given { task, power_losses });
                        while let Some(task) = next {
                            if !world.calm.get() && world.dice.permille(40) {
                                // The worker dies with its task, and another begins with nothing.
                                cache.borrow_mut().clear();
                                break;
                            }
                            next = work(&world, &cache, (&own, build_id), task).await;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => world.sleep(SECOND / 10).await,
                }
            }
        });
    }
}

/// A task, and how often power had been lost when it was asked for.
struct Given {
    task: PollWorkflowTaskQueueResponse,
    power_losses: u64,
}

/// Processes one task; gives the next one that came with the answer.
async fn work(
    world: &Rc<World>,
    cache: &Cache,
    (own, build_id): (&str, Option<&'static str>),
    task: Given,
) -> Option<Given> {
    let Given { task, power_losses } = task;
    let events = history_of(world, cache, &task).await?;
    if task.query.is_some() {
        let answer = RespondQueryTaskCompletedRequest {
            task_token: task.task_token,
            completed_type: QueryResultType::Answered as i32,
            namespace: NAMESPACE.to_owned(),
            ..Default::default()
        };
        let _gone = world.call::<_, RespondQueryTaskCompletedResponse>("RespondQueryTaskCompleted", answer).await;
        return None;
    }
    let lacks_its_end = check(world, &task, &events, build_id);
    let started_event_id = task.started_event_id;
    let dice = &world.dice;
    if !world.calm.get() && dice.permille(40) {
        let failed = RespondWorkflowTaskFailedRequest { task_token: task.task_token, ..Default::default() };
        let _late = world.call::<_, RespondWorkflowTaskFailedResponse>("RespondWorkflowTaskFailed", failed).await;
        return None;
    }
    if !world.calm.get() && dice.permille(40) {
        world.sleep(dice.between(1, 15) as i64 * SECOND).await; // too slow, perhaps
    }
    let (commands, markers) = decide(world, &events);
    let closes = commands.iter().any(|command| {
        matches!(
            command.attributes,
            Some(
                C::CompleteWorkflowExecutionCommandAttributes(_)
                    | C::ContinueAsNewWorkflowExecutionCommandAttributes(_)
                    | C::FailWorkflowExecutionCommandAttributes(_)
            )
        )
    });
    let run_id = task.workflow_execution.clone().unwrap_or_default().run_id;
    let sticky = dice.permille(700).then(|| crate::pb::taskqueue::v1::StickyExecutionAttributes {
        worker_task_queue: Some(TaskQueue { name: own.to_owned(), kind: 2, normal_name: WORKFLOWS.to_owned() }),
        schedule_to_start_timeout: duration(5 * SECOND),
    });
    let answered = |_| WorkflowQueryResult { result_type: QueryResultType::Answered as i32, ..Default::default() };
    let completed = RespondWorkflowTaskCompletedRequest {
        task_token: task.task_token,
        commands,
        identity: own.to_owned(),
        sticky_attributes: sticky,
        return_new_workflow_task: dice.permille(700),
        force_create_new_workflow_task: !world.calm.get() && dice.permille(30),
        query_results: task.queries.keys().map(|id| (id.clone(), answered(id))).collect(),
        namespace: NAMESPACE.to_owned(),
        deployment_options: deployment(build_id),
        versioning_behavior: build_id.map_or(0, |_| 1 + dice.below(2) as i32),
        ..Default::default()
    };
    let answer: Result<RespondWorkflowTaskCompletedResponse, Failed> =
        world.call("RespondWorkflowTaskCompleted", completed).await;
    match answer {
        Ok(answer) => {
            let mut promises = world.promises.borrow_mut();
            markers.iter().for_each(|marker| promises.acknowledged(marker));
            if closes {
                promises.closed(&run_id);
            }
            // Without its power the engine may have given the same task out again, and this is an answer to both.
            if lacks_its_end && promises.power_losses == power_losses {
                promises.broken(format!("the history of task {started_event_id} of {run_id} lacked its end"));
            }
            drop(promises);
            for activity in answer.activity_tasks {
                let world = world.clone();
                world.clone().executor.spawn(Kind::Outside, async move { perform(&world, activity).await });
            }
            answer.workflow_task.map(|task| Given { task, power_losses })
        }
        Err(_) => {
            // What it thinks of the run may be wrong now.
            cache.borrow_mut().remove(&run_id);
            None
        }
    }
}

/// The whole history that belongs to a task, from what came with it, from the cache, or read anew.
async fn history_of(
    world: &Rc<World>,
    cache: &Cache,
    task: &PollWorkflowTaskQueueResponse,
) -> Option<Vec<HistoryEvent>> {
    let execution = task.workflow_execution.clone().unwrap_or_default();
    let mut events = task.history.clone().unwrap_or_default().events;
    let mut token = task.next_page_token.clone();
    let first = events.first().map(|event| event.event_id);
    if first != Some(1) {
        let known = cache.borrow().get(&execution.run_id).cloned();
        let fits = |known: &Vec<HistoryEvent>| {
            known.last().map(|event| event.event_id + 1) == first.or(Some(task.previous_started_event_id + 1))
                || (task.query.is_some() && first.is_none())
        };
        match known.filter(|known| fits(known) && !(world.dice.permille(100) && token.is_empty())) {
            Some(mut known) => {
                known.extend(events);
                events = known;
            }
            None => {
                events.clear();
                let page = read(world, task, Vec::new()).await?;
                events.extend(page.0);
                token = page.1;
            }
        }
    }
    while !token.is_empty() {
        let page = read(world, task, token).await?;
        events.extend(page.0);
        token = page.1;
    }
    // What a repeated attempt shows is not history: the next task begins behind the last completed one.
    let lasting = events.iter().position(|event| event.event_id > task.started_event_id).unwrap_or(events.len());
    cache.borrow_mut().insert(execution.run_id, events[..lasting].to_vec());
    Some(events)
}

async fn read(
    world: &Rc<World>,
    task: &PollWorkflowTaskQueueResponse,
    next_page_token: Vec<u8>,
) -> Option<(Vec<HistoryEvent>, Vec<u8>)> {
    let request = GetWorkflowExecutionHistoryRequest {
        namespace: NAMESPACE.to_owned(),
        execution: task.workflow_execution.clone(),
        next_page_token,
        ..Default::default()
    };
    let page: GetWorkflowExecutionHistoryResponse = world.call("GetWorkflowExecutionHistory", request).await.ok()?;
    Some((page.history.unwrap_or_default().events, page.next_page_token))
}

/// What an SDK would stumble over. Whether the history lacks its end: a task that was over before its last page was read
/// may lack it, and cannot be completed then.
fn check(world: &World, task: &PollWorkflowTaskQueueResponse, events: &[HistoryEvent], build_id: Option<&str>) -> bool {
    let run_id = task.workflow_execution.clone().unwrap_or_default().run_id;
    let mut ledger = Ledger::new();
    for what in events.iter().flat_map(|event| ledger.take(event)) {
        world.promises.borrow_mut().broken(format!("a worker of {run_id} saw: {what}"));
    }
    let before = events.iter().take_while(|event| event.event_id < task.started_event_id);
    // A repeated attempt has no place in history yet: what is read where it would stand may have come after it.
    if let Some(pinned) = pinned_to(before).filter(|_| task.attempt == 1)
        && build_id != Some(pinned.as_str())
    {
        let what = format!("a worker of version {build_id:?} got {run_id}, which somebody pinned to {pinned}");
        world.promises.borrow_mut().broken(what);
    }
    events.last().is_none_or(|event| event.event_id < task.started_event_id)
}

/// The build id that an operator pinned a run to.
fn pinned_to<'a>(events: impl Iterator<Item = &'a HistoryEvent>) -> Option<String> {
    let mut overriding = None;
    for event in events {
        match &event.attributes {
            Some(A::WorkflowExecutionStartedEventAttributes(a)) => overriding.clone_from(&a.versioning_override),
            Some(A::WorkflowExecutionOptionsUpdatedEventAttributes(a)) => overriding.clone_from(&a.versioning_override),
            _ => {}
        }
    }
    match overriding?.r#override? {
        Override::Pinned(pinned) => pinned.version.map(|version| version.build_id),
        Override::AutoUpgrade(_) | Override::OneTime(_) => None,
    }
}

/// What a workflow has under way, as its history shows it.
#[derive(Default)]
struct Under {
    /// Without those that it asked to cancel: a second request would do nothing.
    activities: BTreeSet<i64>,
    canceling: BTreeSet<i64>,
    timers: BTreeSet<String>,
    /// Workflow ids of children, by the events that initiated them.
    children: BTreeMap<i64, String>,
    /// Signals and requests to other workflows.
    externals: BTreeSet<i64>,
    completed_tasks: u64,
    finish: bool,
}

impl Under {
    fn of(events: &[HistoryEvent]) -> Under {
        let mut under = Under::default();
        for event in events {
            match &event.attributes {
                Some(A::ActivityTaskScheduledEventAttributes(_)) => {
                    under.activities.insert(event.event_id);
                }
                Some(A::ActivityTaskCompletedEventAttributes(a)) => under.ended(a.scheduled_event_id),
                Some(A::ActivityTaskFailedEventAttributes(a)) => under.ended(a.scheduled_event_id),
                Some(A::ActivityTaskTimedOutEventAttributes(a)) => under.ended(a.scheduled_event_id),
                Some(A::ActivityTaskCanceledEventAttributes(a)) => under.ended(a.scheduled_event_id),
                Some(A::ActivityTaskCancelRequestedEventAttributes(a)) => under.canceling(a.scheduled_event_id),
                Some(A::TimerStartedEventAttributes(a)) => {
                    under.timers.insert(a.timer_id.clone());
                }
                Some(A::TimerFiredEventAttributes(a)) => {
                    under.timers.remove(&a.timer_id);
                }
                Some(A::TimerCanceledEventAttributes(a)) => {
                    under.timers.remove(&a.timer_id);
                }
                Some(A::StartChildWorkflowExecutionInitiatedEventAttributes(a)) => {
                    under.children.insert(event.event_id, a.workflow_id.clone());
                }
                Some(
                    A::SignalExternalWorkflowExecutionInitiatedEventAttributes(_)
                    | A::RequestCancelExternalWorkflowExecutionInitiatedEventAttributes(_),
                ) => {
                    under.externals.insert(event.event_id);
                }
                Some(A::StartChildWorkflowExecutionFailedEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::ChildWorkflowExecutionCompletedEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::ChildWorkflowExecutionFailedEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::ChildWorkflowExecutionTimedOutEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::ChildWorkflowExecutionCanceledEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::ChildWorkflowExecutionTerminatedEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::ExternalWorkflowExecutionSignaledEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::SignalExternalWorkflowExecutionFailedEventAttributes(a)) => under.heard(a.initiated_event_id),
                Some(A::ExternalWorkflowExecutionCancelRequestedEventAttributes(a)) => {
                    under.heard(a.initiated_event_id);
                }
                Some(A::RequestCancelExternalWorkflowExecutionFailedEventAttributes(a)) => {
                    under.heard(a.initiated_event_id);
                }
                Some(A::WorkflowTaskCompletedEventAttributes(_)) => under.completed_tasks += 1,
                Some(A::WorkflowExecutionSignaledEventAttributes(a)) => under.finish |= a.signal_name == FINISH,
                _ => {}
            }
        }
        under
    }

    fn canceling(&mut self, scheduled_event_id: i64) {
        if self.activities.remove(&scheduled_event_id) {
            self.canceling.insert(scheduled_event_id);
        }
    }

    fn ended(&mut self, scheduled_event_id: i64) {
        self.activities.remove(&scheduled_event_id);
        self.canceling.remove(&scheduled_event_id);
    }

    /// What another run was asked for, or a child, is not waited for any more.
    fn heard(&mut self, initiated_event_id: i64) {
        self.children.remove(&initiated_event_id);
        self.externals.remove(&initiated_event_id);
    }

    /// Nothing that it began is left to end.
    fn is_idle(&self) -> bool {
        self.activities.is_empty()
            && self.canceling.is_empty()
            && self.timers.is_empty()
            && self.children.is_empty()
            && self.externals.is_empty()
    }
}

/// The commands of a task, and the markers among them.
fn decide(world: &World, events: &[HistoryEvent]) -> (Vec<Command>, Vec<String>) {
    let dice = &world.dice;
    let under = Under::of(events);
    let (mut commands, mut markers) = (Vec::new(), Vec::new());
    let marker = world.name("marker");
    markers.push(marker.clone());
    commands.push(C::RecordMarkerCommandAttributes(RecordMarkerCommandAttributes {
        marker_name: marker,
        ..Default::default()
    }));
    // Something must be under way, or the workflow waits for a signal for good; that is allowed.
    let budget = if world.ending.get() { 0 } else { dice.below(3) };
    for _ in 0..budget {
        match dice.below(8) {
            5 if under.children.len() < 3 => commands.push(child(world)),
            6 => commands.push(signal_other(world)),
            7 => {
                commands.extend(cancel_other(world, &under));
                break;
            }
            0 | 1 if under.activities.len() < 6 => commands.push(activity(world)),
            2 if under.timers.len() < 6 => commands.push(C::StartTimerCommandAttributes(StartTimerCommandAttributes {
                timer_id: world.name("timer"),
                start_to_fire_timeout: duration(dice.below(120) as i64 * SECOND),
            })),
            3 => {
                let ids: Vec<_> = under.activities.iter().copied().collect();
                let cancel = |id: &i64| RequestCancelActivityTaskCommandAttributes { scheduled_event_id: *id };
                commands.extend(dice.pick(&ids).map(cancel).map(C::RequestCancelActivityTaskCommandAttributes));
                break;
            }
            _ => {
                let ids: Vec<_> = under.timers.iter().cloned().collect();
                let cancel = |id: &String| CancelTimerCommandAttributes { timer_id: id.clone() };
                commands.extend(dice.pick(&ids).map(cancel).map(C::CancelTimerCommandAttributes));
                break;
            }
        }
    }
    if !world.calm.get() && dice.permille(15) {
        commands.push(C::CancelTimerCommandAttributes(CancelTimerCommandAttributes { timer_id: "no such".into() }));
    }
    // In the calm it waits for everything that it began: what the engine forgot keeps it open for good.
    if (under.finish && under.is_idle()) || (!world.ending.get() && under.completed_tasks > 40) {
        commands.push(C::CompleteWorkflowExecutionCommandAttributes(Default::default()));
    } else if !world.ending.get() && dice.permille(40) {
        commands.push(C::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default()));
    } else if !world.ending.get() && dice.permille(10) {
        let failure = Some(Failure { message: "simulated".into(), ..Default::default() });
        let fail = FailWorkflowExecutionCommandAttributes { failure };
        commands.push(C::FailWorkflowExecutionCommandAttributes(fail));
    }
    let command = |attributes| Command { attributes: Some(attributes), ..Default::default() };
    (commands.into_iter().map(command).collect(), markers)
}

fn child(world: &World) -> C {
    #[expect(deprecated, reason = "SDKs still offer it")]
    const TERMINATE_IF_RUNNING: WorkflowIdReusePolicy = WorkflowIdReusePolicy::TerminateIfRunning;
    let dice = &world.dice;
    let policies = [ParentClosePolicy::Terminate, ParentClosePolicy::Abandon, ParentClosePolicy::RequestCancel];
    let policy = dice.pick(&policies).copied().unwrap_or_default();
    let reuse = if dice.permille(200) { TERMINATE_IF_RUNNING } else { WorkflowIdReusePolicy::AllowDuplicate };
    C::StartChildWorkflowExecutionCommandAttributes(StartChildWorkflowExecutionCommandAttributes {
        workflow_id: format!("c{}", dice.below(4)),
        workflow_type: Some(WorkflowType { name: "W".into() }),
        task_queue: Some(TaskQueue { name: WORKFLOWS.into(), ..Default::default() }),
        parent_close_policy: policy as i32,
        workflow_id_reuse_policy: reuse as i32,
        workflow_run_timeout: dice.permille(200).then(|| duration(60 * SECOND)).flatten(),
        retry_policy: dice.permille(200).then(|| RetryPolicy { maximum_attempts: 3, ..Default::default() }),
        ..Default::default()
    })
}

fn stranger(world: &World) -> String {
    world.dice.pick(&WORKFLOW_IDS).map(|id| (*id).to_owned()).unwrap_or_default()
}

fn signal_other(world: &World) -> C {
    let token = world.name("message");
    C::SignalExternalWorkflowExecutionCommandAttributes(SignalExternalWorkflowExecutionCommandAttributes {
        execution: Some(WorkflowExecution { workflow_id: stranger(world), run_id: String::new() }),
        signal_name: "news".into(),
        input: Some(payloads(&token)),
        child_workflow_only: world.dice.permille(300),
        ..Default::default()
    })
}

/// Asks a child or, rarely, anybody to cancel itself.
fn cancel_other(world: &World, under: &Under) -> Option<C> {
    let children: Vec<_> = under.children.values().cloned().collect();
    let child_workflow_only = world.dice.permille(800);
    let whom = if child_workflow_only { world.dice.pick(&children).cloned()? } else { stranger(world) };
    Some(C::RequestCancelExternalWorkflowExecutionCommandAttributes(
        RequestCancelExternalWorkflowExecutionCommandAttributes {
            workflow_id: whom,
            child_workflow_only,
            ..Default::default()
        },
    ))
}

fn activity(world: &World) -> C {
    let dice = &world.dice;
    let maybe = |n, seconds: i64| dice.permille(n).then(|| duration(seconds * SECOND)).flatten();
    C::ScheduleActivityTaskCommandAttributes(ScheduleActivityTaskCommandAttributes {
        activity_id: world.name("activity"),
        activity_type: Some(ActivityType { name: "A".into() }),
        task_queue: Some(TaskQueue { name: ACTIVITIES.into(), ..Default::default() }),
        start_to_close_timeout: duration(dice.between(5, 60) as i64 * SECOND),
        schedule_to_close_timeout: maybe(300, 90),
        schedule_to_start_timeout: maybe(150, 30),
        heartbeat_timeout: maybe(400, 4),
        retry_policy: dice
            .permille(700)
            .then(|| RetryPolicy { maximum_attempts: dice.below(5) as i32, ..Default::default() }),
        request_eager_execution: dice.permille(200),
        ..Default::default()
    })
}

/// A worker for activities.
pub fn activity_worker(world: &Rc<World>, build_id: Option<&'static str>) {
    let world = world.clone();
    world.clone().executor.spawn(Kind::Outside, async move {
        loop {
            let poll = PollActivityTaskQueueRequest {
                namespace: NAMESPACE.to_owned(),
                task_queue: Some(TaskQueue { name: ACTIVITIES.to_owned(), ..Default::default() }),
                deployment_options: deployment(build_id),
                ..Default::default()
            };
            match world.call::<_, PollActivityTaskQueueResponse>("PollActivityTaskQueue", poll).await {
                Ok(task) if !task.task_token.is_empty() => perform(&world, task).await,
                Ok(_) => {}
                Err(_) => world.sleep(SECOND / 10).await,
            }
        }
    });
}

/// Does what an attempt asks for, or dies of it.
async fn perform(world: &Rc<World>, task: PollActivityTaskQueueResponse) {
    let dice = &world.dice;
    let mut canceled = false;
    for _ in 0..dice.below(4) {
        if !world.calm.get() && dice.permille(100) {
            return;
        }
        world.sleep(dice.below(6) as i64 * SECOND / 2).await;
        let beat = RecordActivityTaskHeartbeatRequest {
            task_token: task.task_token.clone(),
            details: dice.permille(300).then(|| payloads(&world.name("beat"))),
            ..Default::default()
        };
        match world.call::<_, RecordActivityTaskHeartbeatResponse>("RecordActivityTaskHeartbeat", beat).await {
            Ok(answer) => canceled |= answer.cancel_requested,
            Err(failed) if failed.is_not_found() => return,
            Err(_) => {}
        }
    }
    if canceled && dice.permille(700) {
        let gave_in = RespondActivityTaskCanceledRequest { task_token: task.task_token, ..Default::default() };
        let _late = world.call::<_, RespondActivityTaskCanceledResponse>("RespondActivityTaskCanceled", gave_in).await;
    } else if !world.calm.get() && dice.permille(300) {
        let info = ApplicationFailureInfo { non_retryable: dice.permille(200), ..Default::default() };
        let failure = Failure { failure_info: Some(FailureInfo::ApplicationFailureInfo(info)), ..Default::default() };
        let failed = RespondActivityTaskFailedRequest {
            task_token: task.task_token,
            failure: Some(failure),
            ..Default::default()
        };
        let _late = world.call::<_, RespondActivityTaskFailedResponse>("RespondActivityTaskFailed", failed).await;
    } else {
        let result = world.name("result");
        let completed = RespondActivityTaskCompletedRequest {
            task_token: task.task_token,
            result: Some(payloads(&result)),
            ..Default::default()
        };
        let answer: Result<RespondActivityTaskCompletedResponse, _> =
            world.call("RespondActivityTaskCompleted", completed).await;
        if answer.is_ok() {
            world.promises.borrow_mut().acknowledged(&result);
        }
    }
}

pub fn payloads(text: &str) -> Payloads {
    let metadata = HashMap::from([("encoding".to_owned(), b"binary/plain".to_vec())]);
    Payloads { payloads: vec![Payload { metadata, data: text.as_bytes().to_vec(), ..Default::default() }] }
}
