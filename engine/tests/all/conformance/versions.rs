//! Pinned workflows, whose workers have versions.

use super::conforms;
use crate::fixture::{beside_worker, happened, history};
use crate::fleet::{PINNED, QUEUE, set_current, worker};
use crate::workflows::*;
use std::time::Duration;
use temporalio_client::{
    Client, WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions, WorkflowStartOptions,
};
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
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
