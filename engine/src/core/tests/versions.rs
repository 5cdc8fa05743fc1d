//! To which version of its workers a run belongs, and when it moves.

use super::*;
use crate::core::child;
use crate::core::state::RunState;
use crate::core::versioning::{self, SetOverride, Target, Version};
use crate::pb::enums::v1::{ContinueAsNewVersioningBehavior as Initially, VersioningBehavior as Behavior};
use crate::pb::history::v1::StartChildWorkflowExecutionInitiatedEventAttributes as Initiated;
use crate::pb::workflow::v1::VersioningOverride;
use crate::pb::workflow::v1::versioning_override::{OneTimeOverride, Override, PinnedOverride, PinnedOverrideBehavior};

fn version(build_id: &str) -> Version {
    Version { deployment: "d".into(), build_id: build_id.into() }
}

/// A worker of a version (empty: of none) where task queues go to `target`.
fn poller(build_id: &str, target: &str) -> Poller {
    let of = |build_id: &str| (!build_id.is_empty()).then(|| version(build_id));
    Poller { version: of(build_id), revision: 1, target: Target { version: of(target), revision: 1 } }
}

fn worker(build_id: &str, behavior: Behavior) -> Worker {
    if build_id.is_empty() {
        return Worker::default();
    }
    Worker { deployment: "d".into(), version: Some(version(build_id)), behavior, queues: ["q".into()].into() }
}

fn pin(build_id: &str) -> Option<VersioningOverride> {
    let behavior = PinnedOverrideBehavior::Pinned as i32;
    let version = (!build_id.is_empty()).then(|| version(build_id).wire());
    let pinned = Override::Pinned(PinnedOverride { behavior, version });
    Some(VersioningOverride { r#override: Some(pinned), ..Default::default() })
}

impl Bench {
    fn start_as(&mut self, poller: Poller) -> Result<Started, Refusal> {
        let stamp = self.run.state.task.as_ref().expect("a task").stamp;
        let from_sticky = self.run.state.sticky.is_some();
        self.apply(workflow_task::Start { stamp, identity: "worker".into(), from_sticky, poller })
    }

    fn complete_as(&mut self, started: &Started, worker: Worker, commands: Vec<C>) -> Completed {
        let sticky = Some(Sticky { queue: "sticky".into(), schedule_to_start: 10 * SECOND });
        let shape = |complete: &mut Complete| {
            complete.worker = worker;
            complete.sticky = sticky;
            complete.return_new_task = true;
        };
        self.complete_with(started, commands, shape).expect("completes")
    }

    /// A worker of a version, which the queue goes to, takes the task and completes it.
    fn turn(&mut self, build_id: &str, behavior: Behavior, commands: Vec<C>) {
        let started = self.start_as(poller(build_id, build_id)).expect("starts");
        self.complete_as(&started, worker(build_id, behavior), commands);
    }

    fn set_override(&mut self, overriding: Option<VersioningOverride>) -> bool {
        self.apply(SetOverride { overriding, identity: "operator".into() }).expect("overrides").1
    }

    fn stands(&self) -> (Behavior, Option<String>, bool) {
        let state = &self.run.state;
        (state.behavior(), state.version().map(|version| version.build_id), state.is_in_transition())
    }
}

fn on(build_id: &str) -> Option<String> {
    Some(build_id.to_owned())
}

#[test]
fn versions_a_run_takes_the_version_and_the_behavior_of_the_worker_that_completes_its_task() {
    for behavior in [Behavior::Pinned, Behavior::AutoUpgrade] {
        let mut bench = Bench::new();
        assert_eq!(bench.stands(), (Behavior::Unspecified, None, false));
        let started = bench.start_as(poller("1", "1")).expect("starts");
        assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("1"), true), "until the task completes");
        bench.complete_as(&started, worker("1", behavior), vec![]);
        assert_eq!(bench.stands(), (behavior, on("1"), false));
        let Some(A::WorkflowTaskCompletedEventAttributes(completed)) = &bench.events[3].attributes else {
            panic!("{:?}", bench.events[3])
        };
        assert_eq!(completed.versioning_behavior(), behavior);
        assert_eq!(completed.deployment_version, Some(version("1").wire()));
        assert_eq!(completed.worker_deployment_name, "d");
        assert_eq!(bench.run.state.pinned_to().is_some(), behavior == Behavior::Pinned);
    }
}

#[test]
fn versions_a_pinned_run_refuses_workers_of_others_and_hears_that_its_queue_goes_elsewhere() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::Pinned, vec![]);
    bench.run.state.sticky = None;
    bench.signal("news");
    assert_eq!(bench.run.state.route().pinned, Some(version("1")));
    assert_eq!(bench.start_as(poller("2", "2")).expect_err("is not its own"), Refusal::WorkflowTaskNotFound);
    let started = bench.start_as(poller("1", "2")).expect("starts");
    assert!(started.task.target_changed);
    bench.complete_as(&started, worker("1", Behavior::Pinned), vec![]);
    assert_eq!(bench.stands(), (Behavior::Pinned, on("1"), false));
    bench.signal("more");
    let started = bench.start_as(poller("1", "1")).expect("starts");
    assert!(!started.task.target_changed, "its queue came back");
}

#[test]
fn versions_an_auto_upgrade_run_moves_when_a_worker_of_the_next_version_takes_its_task() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![]);
    bench.signal("news");
    assert_eq!(bench.run.state.route().pinned, None);
    let started = bench.start_as(poller("2", "2")).expect("starts");
    assert!(!started.partial_history, "its cache is with the other version");
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), true));
    bench.complete_as(&started, worker("2", Behavior::AutoUpgrade), vec![]);
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), false));
    bench.signal("back to workers without a version");
    let started = bench.start_as(poller("", "")).expect("starts");
    bench.complete_as(&started, worker("", Behavior::Unspecified), vec![]);
    assert_eq!(bench.stands(), (Behavior::Unspecified, None, false));
}

#[test]
fn versions_a_transition_lasts_through_failed_tasks() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![]);
    bench.signal("news");
    let started = bench.start_as(poller("2", "2")).expect("starts");
    bench.fail_task(&started);
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), true));
    let started = bench.start_as(poller("1", "1")).expect("the queue was sent back");
    bench.complete_as(&started, worker("1", Behavior::AutoUpgrade), vec![]);
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("1"), false));
}

#[test]
fn versions_an_activity_that_a_worker_of_the_next_version_takes_moves_its_run_first() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![schedule("a", |_| {})]);
    let (id, attempt) = (5, 1);
    let start = |poller| activity::Start { scheduled_event_id: id, attempt, identity: "hand".into(), poller };
    assert_eq!(bench.apply(start(poller("2", "2"))).expect("is heard"), None);
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), true));
    let during = bench.apply(start(poller("2", "2"))).expect_err("waits for the run");
    assert_eq!(during, Refusal::ActivityNotFound);
    let started = bench.start_as(poller("2", "2")).expect("a task was scheduled");
    bench.complete_as(&started, worker("2", Behavior::AutoUpgrade), vec![]);
    let again = |work: &Work| matches!(work, Work::Activity { scheduled_event_id, .. } if *scheduled_event_id == id);
    assert!(bench.last.work.iter().any(again), "it is queued again: {:?}", bench.last.work);
    let taken = bench.apply(start(poller("2", "2"))).expect("starts").expect("is there");
    assert_eq!(taken.version, Some(version("2")));
}

#[test]
fn versions_an_activity_of_another_deployment_moves_nothing() {
    for behavior in [Behavior::Pinned, Behavior::AutoUpgrade] {
        let mut bench = Bench::new();
        bench.turn("1", behavior, vec![schedule("a", |_| {})]);
        let poller = poller("elsewhere", "1");
        let start = activity::Start { scheduled_event_id: 5, attempt: 1, identity: "hand".into(), poller };
        assert!(bench.apply(start).expect("starts").is_some());
        assert_eq!(bench.stands(), (behavior, on("1"), false));
    }
}

#[test]
fn versions_a_task_under_way_when_its_run_moves_may_end_where_it_is_and_another_follows() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![schedule("a", |_| {})]);
    bench.signal("news");
    let started = bench.start_as(poller("1", "1")).expect("starts");
    let start =
        activity::Start { scheduled_event_id: 5, attempt: 1, identity: "hand".into(), poller: poller("2", "2") };
    assert_eq!(bench.apply(start).expect("is heard"), None);
    let completed = bench.complete_as(&started, worker("1", Behavior::AutoUpgrade), vec![]);
    assert_eq!(completed, Completed::Accepted { next: None, eager: vec![] }, "the next is not for this worker");
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), true));
    assert!(bench.run.state.sticky.is_none());
    bench.turn("2", Behavior::AutoUpgrade, vec![]);
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), false));
}

#[test]
fn versions_an_override_wins_over_what_workers_say_until_it_is_taken_back() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![]);
    bench.signal("news");
    let stamp = bench.run.state.task.as_ref().expect("a task").stamp;
    assert!(bench.set_override(pin("2")));
    assert_eq!(bench.stands(), (Behavior::Pinned, on("2"), false));
    assert!(bench.run.state.task.as_ref().expect("the task").stamp > stamp, "it stands in another queue now");
    assert!(!bench.set_override(pin("2")), "nothing new");
    let count =
        |bench: &Bench| bench.names_from(0).iter().filter(|name| *name == "WorkflowExecutionOptionsUpdated").count();
    assert_eq!(count(&bench), 1);
    bench.start_as(poller("1", "1")).expect_err("is pinned elsewhere");
    bench.turn("2", Behavior::AutoUpgrade, vec![]);
    assert_eq!(bench.stands(), (Behavior::Pinned, on("2"), false), "whatever the worker says");
    assert!(bench.set_override(None));
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), false));
    assert_eq!(count(&bench), 2);
}

#[test]
fn versions_an_override_while_a_task_is_started_takes_the_run_from_its_worker_afterwards() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![]);
    bench.signal("news");
    let started = bench.start_as(poller("1", "1")).expect("starts");
    bench.set_override(pin("2"));
    bench.signal("more");
    let completed = bench.complete_as(&started, worker("1", Behavior::AutoUpgrade), vec![]);
    assert_eq!(completed, Completed::Accepted { next: None, eager: vec![] });
    assert!(bench.run.state.sticky.is_none());
    bench.turn("2", Behavior::AutoUpgrade, vec![]);
}

/// Found by simulation: the run went on to where it was going, and a worker of that version got what was pinned elsewhere.
#[test]
fn versions_an_override_ends_a_transition() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![]);
    bench.signal("news");
    let started = bench.start_as(poller("2", "2")).expect("starts");
    bench.fail_task(&started);
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), true));
    bench.set_override(pin("1"));
    assert_eq!(bench.stands(), (Behavior::Pinned, on("1"), false));
    bench.start_as(poller("2", "2")).expect_err("is pinned elsewhere");
    bench.turn("1", Behavior::AutoUpgrade, vec![]);
}

#[test]
fn versions_an_override_for_one_task_ends_with_it() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::Pinned, vec![]);
    let once = Override::OneTime(OneTimeOverride { target_deployment_version: Some(version("2").wire()) });
    bench.set_override(Some(VersioningOverride { r#override: Some(once), ..Default::default() }));
    assert_eq!(bench.stands(), (Behavior::Pinned, on("2"), false));
    bench.signal("news");
    bench.turn("2", Behavior::AutoUpgrade, vec![]);
    assert_eq!(bench.stands(), (Behavior::AutoUpgrade, on("2"), false));
}

#[test]
fn versions_a_pin_without_a_version_means_the_one_that_the_run_is_pinned_to() {
    let mut bench = Bench::new();
    let unpinned = bench.apply(SetOverride { overriding: pin(""), identity: String::new() });
    assert_eq!(unpinned.expect_err("it has none"), Refusal::NotPinned);
    bench.turn("1", Behavior::Pinned, vec![]);
    bench.set_override(pin(""));
    assert_eq!(bench.stands(), (Behavior::Pinned, on("1"), false));
}

#[test]
fn versions_what_a_run_passes_on_when_it_continues_as_new() {
    let again = |queue: &str, initially: Initially| {
        C::ContinueAsNewWorkflowExecutionCommandAttributes(ContinueAsNewWorkflowExecutionCommandAttributes {
            task_queue: Some(TaskQueue { name: queue.into(), ..Default::default() }),
            initial_versioning_behavior: initially as i32,
            ..Default::default()
        })
    };
    let (own, upgrade) = (Initially::Unspecified, Initially::AutoUpgrade);
    // Behavior, queue, what the command wants; the next run's behavior and version.
    let table = [
        (Behavior::Pinned, "q", own, (Behavior::Pinned, on("1"))),
        (Behavior::Pinned, "elsewhere", own, (Behavior::Unspecified, None)),
        (Behavior::Pinned, "q", upgrade, (Behavior::AutoUpgrade, on("1"))),
        (Behavior::AutoUpgrade, "q", own, (Behavior::AutoUpgrade, on("1"))),
        (Behavior::AutoUpgrade, "elsewhere", own, (Behavior::Unspecified, None)),
    ];
    for (behavior, queue, initially, expected) in table {
        let mut bench = Bench::new();
        bench.turn("1", behavior, vec![]);
        bench.signal("news");
        let started = bench.start_as(poller("1", "1")).expect("starts");
        bench.complete_as(&started, worker("1", behavior), vec![again(queue, initially)]);
        let next = bench.last.successor.take().expect("a successor").0.state;
        let found = (next.behavior(), next.version().map(|version| version.build_id));
        assert_eq!(found, expected, "{behavior:?} {queue} {initially:?}");
        assert!(bench.run.state.pinned_to().is_none(), "a closed run holds no version");
    }
    let mut bench = Bench::new();
    bench.turn("1", Behavior::AutoUpgrade, vec![]);
    bench.set_override(pin("1"));
    bench.signal("news");
    bench.turn("1", Behavior::AutoUpgrade, vec![again("q", own)]);
    let next = bench.last.successor.take().expect("a successor").0.state;
    let overriding = next.versioning.and_then(|versioning| versioning.overriding);
    assert_eq!(overriding, pin("1"), "a pin is passed on");
}

#[test]
fn versions_a_pinned_run_that_stayed_is_not_told_again_of_the_same_version() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::Pinned, vec![]);
    bench.signal("news");
    let mut at = poller("1", "2");
    at.target.revision = 5;
    let started = bench.start_as(at.clone()).expect("starts");
    assert!(started.task.target_changed);
    let again = C::ContinueAsNewWorkflowExecutionCommandAttributes(Default::default());
    bench.complete_as(&started, worker("1", Behavior::Pinned), vec![again]);
    bench.run = bench.last.successor.take().expect("a successor").0;
    assert!(!bench.start_as(at.clone()).expect("starts").task.target_changed);
    bench
        .apply(workflow_task::Fail {
            token: TaskRef::of(bench.run.state.task.as_ref().expect("a task")),
            cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure,
            failure: None,
            identity: String::new(),
        })
        .expect("fails");
    at.target = Target { version: Some(version("3")), revision: 6 };
    assert!(bench.start_as(at).expect("starts").task.target_changed, "another one is news");
}

#[test]
fn versions_a_child_has_the_version_that_its_parent_wants_for_it_rather_than_its_parents() {
    let mut bench = Bench::new();
    bench.turn("1", Behavior::Pinned, vec![]);
    let once = OneTimeOverride { target_deployment_version: Some(version("2").wire()) };
    let once = VersioningOverride { r#override: Some(Override::OneTime(once)), ..Default::default() };
    for (wanted, expected) in [(None, "1"), (pin("2"), "2"), (Some(once), "2")] {
        let initiated = Initiated { versioning_override: wanted.clone(), ..Default::default() };
        let started = child::started(&bench.run.state, 5, initiated, true);
        assert_eq!(started.inherited_pinned_version.is_some(), wanted.is_none());
        assert_eq!(started.versioning_override, wanted);
        let state = RunState { versioning: versioning::begun(&started), ..Default::default() };
        assert_eq!(state.route().pinned, Some(version(expected)));
    }
}
