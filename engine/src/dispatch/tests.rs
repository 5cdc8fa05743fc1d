//! What polls and queues owe each other.

use super::*;
use crate::clock::SimulatedClock;
use std::time::Duration;

const NOW: Time = Time(1_000_000_000_000);
const MINUTE: i64 = 60_000_000_000;

fn queues() -> (SimulatedClock, Arc<Queues>, QueueKey) {
    let clock = SimulatedClock::new(NOW);
    let key = QueueKey { namespace: "default".into(), name: "q".into(), kind: Kind::Workflow, version: None };
    (clock.clone(), Arc::new(Queues::new(Arc::new(clock))), key)
}

fn task(stamp: i64) -> Task {
    Task { run: [7; 16], what: What::WorkflowTask { stamp }, queue: "q".into(), route: Route::default() }
}

fn push(queues: &Queues, stamp: i64) {
    queues.push_workflow("default", None, task(stamp));
}

#[tokio::test]
async fn tasks_come_in_order_and_a_poll_waits_for_one() {
    let (_clock, queues, key) = queues();
    push(&queues, 1);
    push(&queues, 2);
    assert_eq!(queues.take(&key, "", "w", NOW.plus(MINUTE)).await, Some(task(1)));
    assert_eq!(queues.take(&key, "", "w", NOW.plus(MINUTE)).await, Some(task(2)));
    let mut waiting = Box::pin(queues.take(&key, "", "w", NOW.plus(MINUTE)));
    assert!(futures::poll!(&mut waiting).is_pending());
    push(&queues, 3);
    assert_eq!(waiting.await, Some(task(3)));
}

#[tokio::test]
async fn a_dropped_poll_loses_neither_the_task_nor_the_wake_up_of_the_next_poll() {
    let (_clock, queues, key) = queues();
    let mut first = Box::pin(queues.take(&key, "", "w", NOW.plus(MINUTE)));
    let mut second = Box::pin(queues.take(&key, "", "w", NOW.plus(MINUTE)));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    push(&queues, 1);
    drop(first); // it was woken and never looked
    assert_eq!(second.await, Some(task(1)));
}

#[tokio::test]
async fn a_poll_returns_empty_at_its_deadline() {
    let (clock, queues, key) = queues();
    let mut waiting = Box::pin(queues.take(&key, "", "w", NOW.plus(MINUTE)));
    assert!(futures::poll!(&mut waiting).is_pending());
    clock.advance(Duration::from_secs(60));
    assert_eq!(waiting.await, None);
}

#[tokio::test]
async fn a_worker_that_says_goodbye_gets_its_polls_back_and_leaves_its_sticky_tasks() {
    let (_clock, queues, key) = queues();
    let sticky = QueueKey { name: "sticky".into(), kind: Kind::Sticky, ..key.clone() };
    let mut normal_poll = Box::pin(queues.take(&key, "worker-1", "w", NOW.plus(MINUTE)));
    let mut other_poll = Box::pin(queues.take(&key, "worker-2", "w", NOW.plus(MINUTE)));
    let mut sticky_poll = Box::pin(queues.take(&sticky, "worker-1", "w", NOW.plus(MINUTE)));
    assert!(futures::poll!(&mut normal_poll).is_pending());
    assert!(futures::poll!(&mut other_poll).is_pending());
    assert!(futures::poll!(&mut sticky_poll).is_pending());
    queues.push_workflow("default", Some("sticky".into()), task(1));
    assert_eq!(queues.shut_worker("default", "worker-1", "sticky"), vec![task(1)]);
    assert_eq!(normal_poll.await, None);
    assert_eq!(sticky_poll.await, None);
    queues.push_workflow("default", Some("sticky".into()), task(2));
    assert_eq!(other_poll.await, Some(task(2)), "the sticky queue is dead: the normal one gets the task");
}

#[tokio::test]
async fn a_goodbye_that_names_a_queue_of_everybody_takes_nothing_from_it() {
    let (_clock, queues, key) = queues();
    push(&queues, 1);
    assert_eq!(queues.shut_worker("default", "worker-1", "q"), Vec::new());
    assert_eq!(queues.take(&key, "worker-2", "w", NOW.plus(MINUTE)).await, Some(task(1)));
    let mut waiting = Box::pin(queues.take(&key, "worker-2", "w", NOW.plus(MINUTE)));
    assert!(futures::poll!(&mut waiting).is_pending());
    queues.shut_worker("default", "worker-1", "q");
    assert!(futures::poll!(&mut waiting).is_pending(), "only polls of the worker's own queue return");
}

#[tokio::test]
async fn a_sticky_queue_that_nobody_polls_any_more_is_passed_over() {
    let (clock, queues, key) = queues();
    let sticky = QueueKey { name: "sticky".into(), kind: Kind::Sticky, ..key.clone() };
    let mut poll = Box::pin(queues.take(&sticky, "", "w", NOW.plus(MINUTE)));
    assert!(futures::poll!(&mut poll).is_pending());
    drop(poll);
    assert!(queues.has_poller(&sticky), "a moment ago");
    clock.advance(Duration::from_secs(11));
    assert!(!queues.has_poller(&sticky));
    queues.push_workflow("default", Some("sticky".into()), task(1));
    assert_eq!(queues.take(&key, "", "w", NOW.plus(10 * MINUTE)).await, Some(task(1)));
}

#[tokio::test]
async fn what_waits_goes_to_another_version_when_the_routing_changes() {
    use crate::deployments::state::{Deployment, VersionQueue, Wish};
    use crate::pb::enums::v1::WorkerDeploymentVersionStatus as Status;
    let (_clock, queues, key) = queues();
    let version = Version { deployment: "d".into(), build_id: "1".into() };
    let own = QueueKey { version: Some(version), ..key.clone() };
    let mut deployment = Deployment::new("d", NOW);
    deployment.add("1", Status::Inactive, NOW).queues = vec![VersionQueue { name: "q".into(), is_activity: false }];
    queues.deployments.put("default", deployment.clone());
    push(&queues, 1);
    push(&queues, 2);
    let mut versioned = Box::pin(queues.take(&own, "", "w", NOW.plus(MINUTE)));
    assert!(futures::poll!(&mut versioned).is_pending(), "it is not for this version");
    deployment.set_current(Some("1"), &Wish::default(), NOW).expect("sets");
    queues.deployments.put("default", deployment.clone());
    queues.reroute("default");
    assert_eq!(versioned.await, Some(task(1)), "a poll that waited is woken");
    assert_eq!(queues.describe("default", "q", Kind::Workflow, |_| true).traffic.waiting, 1);
    deployment.set_current(None, &Wish { identity: "x".into(), ..Wish::default() }, NOW.plus(1)).expect("sets");
    queues.deployments.put("default", deployment);
    queues.reroute("default");
    assert_eq!(queues.take(&key, "", "w", NOW.plus(MINUTE)).await, Some(task(2)));
}

#[tokio::test]
async fn what_waits_is_counted_wherever_it_goes() {
    let (clock, queues, key) = queues();
    for stamp in 1..=3 {
        push(&queues, stamp);
        clock.advance(Duration::from_secs(1));
    }
    let traffic = queues.describe("default", "q", Kind::Workflow, |version| version.is_none()).traffic;
    assert_eq!((queues.waiting(), traffic.waiting, traffic.oldest), (3, 3, Some(NOW)));
    assert_eq!((traffic.added_per_s, traffic.taken_per_s), (1.0, 0.0));
    assert!(queues.describe("default", "q", Kind::Workflow, |version| version.is_some()).traffic.oldest.is_none());
    queues.take(&key, "", "w", clock.now().plus(MINUTE)).await.expect("a task");
    queues.reroute("default");
    assert_eq!(queues.waiting(), 2, "put elsewhere, they still wait");
    let sticky = QueueKey { name: "mine".into(), kind: Kind::Sticky, ..key };
    let mut poll = Box::pin(queues.take(&sticky, "", "w", clock.now().plus(MINUTE)));
    assert!(futures::poll!(&mut poll).is_pending());
    drop(poll);
    queues.push_workflow("default", Some("mine".into()), task(4));
    assert_eq!(queues.waiting(), 3);
    assert_eq!(queues.shut_worker("default", "", "mine"), [task(4)]);
    assert_eq!(queues.waiting(), 2);
}
