//! Workflows and their children, and workflows that reach out to others.

use super::{conforms, options};
use crate::families::{Fate, Leaving, Offspring, Plan, Raising, Reaching};
use crate::fixture::{happened, history};
use temporalio_client::{
    Client, WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions, WorkflowTerminateOptions,
};
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;

fn offspring(client: &Client, id: &str) -> WorkflowHandle<Client, Offspring> {
    client.get_workflow_handle(id)
}

async fn tell(child: &WorkflowHandle<Client, Offspring>, fate: Fate) {
    child.signal(Offspring::end, fate, WorkflowSignalOptions::default()).await.expect("signals");
}

/// A parent with a plan; what it says in the end, and its history followed by that of its child.
async fn raised<F>(
    client: Client,
    id: String,
    plan: Plan,
    meanwhile: impl FnOnce(WorkflowHandle<Client, Offspring>) -> F,
) -> (String, Vec<HistoryEvent>)
where
    F: Future<Output = ()>,
{
    let child_id = format!("{id}-child");
    let parent = client.start_workflow(Raising::run, plan, options(&id)).await.expect("starts");
    happened(&parent, "ChildWorkflowExecutionStarted").await;
    let child = offspring(&client, &child_id);
    happened(&child, "WorkflowTaskCompleted").await;
    happened(&parent, "WorkflowTaskCompleted x2").await;
    meanwhile(child).await;
    let said = parent.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
    let mut events = history(&parent).await;
    events.extend(history(&offspring(&client, &child_id)).await);
    (said, events)
}

#[tokio::test]
async fn a_child_that_completes() {
    conforms("child_completes", |client, id| async move {
        let (said, events) =
            raised(client, id, Plan::Waits, |child| async move { tell(&child, Fate::Completes).await }).await;
        assert_eq!(said, "it is done");
        events
    })
    .await;
}

#[tokio::test]
async fn a_child_that_fails() {
    conforms("child_fails", |client, id| async move {
        let (said, events) =
            raised(client, id, Plan::Waits, |child| async move { tell(&child, Fate::Fails).await }).await;
        assert_eq!(said, "it did not do well");
        events
    })
    .await;
}

#[tokio::test]
async fn a_child_that_runs_out_of_time() {
    conforms("child_runs_out_of_time", |client, id| async move {
        raised(client, id, Plan::Limits, |_child| async {}).await.1
    })
    .await;
}

#[tokio::test]
async fn a_child_that_somebody_terminates() {
    conforms("child_is_terminated", |client, id| async move {
        let terminated = raised(client, id, Plan::Waits, |child| async move {
            child.terminate(WorkflowTerminateOptions::default()).await.expect("terminates");
        });
        terminated.await.1
    })
    .await;
}

#[tokio::test]
async fn a_child_that_its_parent_cancels() {
    conforms("child_is_cancelled", |client, id| async move {
        let (said, events) = raised(client, id, Plan::Cancels, |_child| async {}).await;
        assert_eq!(said, "it did not do well");
        events
    })
    .await;
}

#[tokio::test]
async fn a_child_that_its_parent_signals() {
    conforms("child_is_signalled", |client, id| async move {
        let (said, events) = raised(client, id, Plan::Signals, |_child| async {}).await;
        assert_eq!(said, "it is done");
        events
    })
    .await;
}

#[tokio::test]
async fn a_child_that_continues_as_new_is_the_same_child() {
    conforms("child_continues_as_new", |client, id| async move {
        let child_id = format!("{id}-child");
        let (said, events) = raised(client.clone(), id, Plan::Waits, |child| async move {
            tell(&child, Fate::ContinuesAsNew).await;
            happened(&child, "WorkflowExecutionContinuedAsNew").await;
            let next = offspring(&client, &child_id);
            happened(&next, "WorkflowTaskCompleted").await;
            tell(&next, Fate::Completes).await;
        })
        .await;
        assert_eq!(said, "it again is done");
        events
    })
    .await;
}

#[tokio::test]
async fn a_child_whose_id_is_taken_is_not_started() {
    conforms("child_is_not_started", |client, id| async move {
        let taken = format!("{id}-child");
        client.start_workflow(Offspring::run, "it".to_owned(), options(&taken)).await.expect("starts");
        let parent = client.start_workflow(Raising::run, Plan::Waits, options(&id)).await.expect("starts");
        let said = parent.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        assert_eq!(said, "it was not started");
        tell(&offspring(&client, &taken), Fate::Completes).await;
        history(&parent).await
    })
    .await;
}

#[tokio::test]
async fn children_end_with_their_parent_as_their_policies_say() {
    left("parent_closes", false).await;
}

#[tokio::test]
async fn children_are_left_by_a_parent_that_continues_as_new() {
    left("parent_continues_as_new", true).await;
}

/// A parent that leaves its children: its history, and theirs.
async fn left(name: &str, begins_again: bool) {
    conforms(name, |client, id| async move {
        let parent = client.start_workflow(Leaving::run, true, options(&id)).await.expect("starts");
        happened(&parent, "WorkflowTaskCompleted x4").await;
        let children = ["terminated", "abandoned", "cancelled"].map(|name| offspring(&client, &format!("{id}-{name}")));
        for child in &children {
            happened(child, "WorkflowTaskCompleted").await;
        }
        parent.signal(Leaving::leave, begins_again, WorkflowSignalOptions::default()).await.expect("signals");
        parent.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        let mut events = history(&parent).await;
        let [terminated, abandoned, cancelled] = &children;
        for child in [terminated, cancelled] {
            child.get_result(WorkflowGetResultOptions::default()).await.expect_err("ends with its parent");
        }
        tell(abandoned, Fate::Completes).await;
        abandoned.get_result(WorkflowGetResultOptions::default()).await.expect("outlives its parent");
        for child in &children {
            events.extend(history(child).await);
        }
        events
    })
    .await;
}

#[tokio::test]
async fn a_workflow_that_signals_and_cancels_others() {
    conforms("reaches_others", |client, id| async move {
        let target = format!("{id}-target");
        let other = client.start_workflow(Offspring::run, "it".to_owned(), options(&target)).await.expect("starts");
        happened(&other, "WorkflowTaskCompleted").await;
        let reaching = client.start_workflow(Reaching::run, (), options(&id)).await.expect("starts");
        happened(&other, "WorkflowExecutionContinuedAsNew").await;
        happened(&offspring(&client, &target), "WorkflowTaskCompleted").await;
        happened(&reaching, "WorkflowTaskCompleted x2").await;
        reaching.signal(Reaching::go_on, (), WorkflowSignalOptions::default()).await.expect("signals");
        let reached = reaching.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        assert_eq!(reached, [true, true, false, false]);
        let last = offspring(&client, &target);
        last.get_result(WorkflowGetResultOptions::default()).await.expect_err("is cancelled");
        let mut events = history(&reaching).await;
        events.extend(history(&other).await);
        events.extend(history(&last).await);
        events
    })
    .await;
}
