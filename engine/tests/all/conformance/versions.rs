//! Pinned workflows, whose workers have versions.

use super::conforms;
use crate::fixture::{beside_worker, happened, history};
use crate::fleet::{FLEET, PINNED, QUEUE, set_current, worker};
use crate::raw::{Raw, call, child, finish, queue, version};
use crate::workflows::*;
use std::time::Duration;
use temporalio_client::tonic::IntoRequest;
use temporalio_client::{
    Client, WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions, WorkflowStartOptions,
};
use temporalio_common::protos::temporal::api::deployment::v1::WorkerDeploymentVersion;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_common::protos::temporal::api::workflow::v1::VersioningOverride;
use temporalio_common::protos::temporal::api::workflow::v1::versioning_override::{
    Override, PinnedOverride, PinnedOverrideBehavior,
};
use temporalio_common::protos::temporal::api::workflowservice::v1::StartWorkflowExecutionRequest;
use temporalio_common::worker::VersioningBehavior;

fn options(id: &str) -> WorkflowStartOptions {
    WorkflowStartOptions::new(QUEUE, id).task_timeout(Duration::from_secs(5)).build()
}

async fn post(handle: &WorkflowHandle<Client, Mailbox>, mail: &str) {
    handle.signal(Mailbox::post, mail.to_owned(), WorkflowSignalOptions::default()).await.expect("signals");
}

/// A workflow that begins on version 1, something that is done to it, then a signal and its end.
async fn told<F>(
    client: Client,
    id: String,
    behavior: VersioningBehavior,
    then: impl FnOnce(Client, String) -> F,
) -> Vec<HistoryEvent>
where
    F: Future<Output = ()>,
{
    let scenario = async {
        set_current(&client, "1").await;
        client.start_workflow(Mailbox::run, (), options(&id)).await.expect("starts");
        let handle = client.get_workflow_handle::<Mailbox>(id.clone());
        happened(&handle, "WorkflowTaskCompleted").await;
        then(client.clone(), id).await;
        post(&handle, "news").await;
        happened(&handle, "WorkflowTaskCompleted x2").await;
        post(&handle, "stop").await;
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        history(&handle).await
    };
    beside_worker(&client, worker("1", behavior), beside_worker(&client, worker("2", behavior), scenario)).await
}

#[tokio::test]
async fn a_pinned_workflow_stays_and_hears_of_the_next_version() {
    conforms("version_pinned", |client, id| {
        told(client, id, PINNED, async |client, _| set_current(&client, "2").await)
    })
    .await;
}

#[tokio::test]
async fn a_pinned_workflow_that_continues_as_new_keeps_its_version() {
    conforms("version_continue_as_new", |client, id| async move {
        let scenario = async {
            set_current(&client, "1").await;
            let handle = client.start_workflow(Counted::run, 1, options(&id)).await.expect("starts");
            handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
            let mut events = history(&handle).await;
            events.extend(history(&client.get_workflow_handle::<Counted>(id.clone())).await);
            events
        };
        beside_worker(&client, worker("1", PINNED), scenario).await
    })
    .await;
}

/// A parent that is pinned to version 1 has a child with a version of its own. By hand: the SDK does not offer it.
async fn pinned_child(name: &str, pinned_to: WorkerDeploymentVersion) {
    let is_started = !pinned_to.build_id.is_empty();
    conforms(name, |client, id| async move {
        let raw = Raw::new(client.clone(), id.clone());
        let take = |build_id: &'static str| {
            let raw = raw.clone();
            tokio::spawn(async move { raw.take_from(QUEUE, Some(version(FLEET, build_id))).await })
        };
        let (first, second) = (take("1"), take("2"));
        // Both versions are there before anything begins.
        set_current(&client, "2").await;
        set_current(&client, "1").await;
        let start = StartWorkflowExecutionRequest { task_queue: queue(QUEUE), ..raw.start_request("parent") };
        call!(raw, start_workflow_execution(start)).expect("starts");
        let child = child(|child| {
            let pinned = PinnedOverride { behavior: PinnedOverrideBehavior::Pinned as i32, version: Some(pinned_to) };
            child.workflow_id = raw.id("child");
            child.task_queue = queue(QUEUE);
            child.versioning_override =
                Some(VersioningOverride { r#override: Some(Override::Pinned(pinned)), ..Default::default() });
        });
        let task = first.await.expect("takes");
        raw.complete_pinned(task.task_token, vec![child], version(FLEET, "1")).await.expect("completes");
        let mut then = take("1");
        if is_started {
            let task = then.await.expect("takes");
            raw.complete_pinned(task.task_token, vec![], version(FLEET, "1")).await.expect("completes");
            then = take("1");
            let task = second.await.expect("takes");
            raw.complete_pinned(task.task_token, vec![finish()], version(FLEET, "2")).await.expect("completes");
        } else {
            second.abort();
        }
        let task = then.await.expect("takes");
        raw.complete_pinned(task.task_token, vec![finish()], version(FLEET, "1")).await.expect("completes");
        let mut events = history(&client.get_workflow_handle::<Counted>(raw.id("parent"))).await;
        if is_started {
            events.extend(history(&client.get_workflow_handle::<Counted>(raw.id("child"))).await);
        }
        events
    })
    .await;
}

#[tokio::test]
async fn a_child_that_its_parent_pins_to_another_version() {
    let (deployment_name, build_id) = (FLEET.to_owned(), "2".to_owned());
    pinned_child("version_child_pinned", WorkerDeploymentVersion { deployment_name, build_id }).await;
}

#[tokio::test]
async fn a_child_that_its_parent_pins_to_what_is_no_version() {
    pinned_child("version_child_not_started", WorkerDeploymentVersion::default()).await;
}
