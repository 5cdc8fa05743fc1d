//! Every history that the suite makes replays: after each scenario with a worker all runs of its server do, by the SDK's own
//! replayer and the workflows that wrote them.

use crate::fixture::{QUEUE, WorkerShape, beside_worker, client, history, memory};
use crate::raw::call;
use crate::workflows::*;
use crate::{families, workflows};
use temporalio_client::tonic::IntoRequest;
use temporalio_client::{Client, WorkflowGetResultOptions, WorkflowHistory, WorkflowStartOptions};
use temporalio_common::protos::temporal::api::common::v1::WorkflowExecution;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_common::protos::temporal::api::history::v1::{History, HistoryEvent};
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    GetWorkflowExecutionHistoryRequest, ListWorkflowExecutionsRequest,
};
use temporalio_sdk::workflow_replayer::{WorkflowReplayResult, WorkflowReplayer, WorkflowReplayerOptions};

/// Replays what the server lists, and fails with the first run that does not. Runs that were played by hand have no code
/// that could replay them.
pub async fn all(client: &Client) {
    let histories = written(client).await;
    for WorkflowReplayResult { history, replay_failure, .. } in replayed(histories).await {
        if let Some(failure) = replay_failure {
            panic!("{:?} does not replay: {failure}\n{:#?}", history.workflow_id(), history.events());
        }
    }
}

async fn replayed(histories: Vec<Vec<HistoryEvent>>) -> Vec<WorkflowReplayResult> {
    let mut options = WorkflowReplayerOptions::new().build();
    workflows::register_again(&mut options);
    families::register_again(&mut options);
    let histories = histories.into_iter().map(|events| WorkflowHistory::from(History { events }));
    let replayer = WorkflowReplayer::new(options).expect("a replayer");
    Box::pin(replayer.replay_workflows(histories)).await.expect("replays")
}

/// Where calls go.
struct Asks<'a> {
    client: &'a Client,
}

/// The histories of all runs whose workflows are here.
async fn written(client: &Client) -> Vec<Vec<HistoryEvent>> {
    let asks = Asks { client };
    let mut histories = Vec::new();
    let mut wanted = ListWorkflowExecutionsRequest { namespace: "default".to_owned(), ..Default::default() };
    loop {
        let page = call!(asks, list_workflow_executions(wanted.clone())).expect("a list");
        for run in page.executions {
            let name = run.r#type.unwrap_or_default().name;
            if workflows::NAMES.iter().chain(families::NAMES).any(|known| *known == name) {
                histories.extend(read(client, run.execution.unwrap_or_default()).await);
            }
        }
        if page.next_page_token.is_empty() {
            return histories;
        }
        wanted.next_page_token = page.next_page_token;
    }
}

/// All events of a run that began: one that never had a task has nothing to replay.
async fn read(client: &Client, execution: WorkflowExecution) -> Option<Vec<HistoryEvent>> {
    let asks = Asks { client };
    let mut wanted = GetWorkflowExecutionHistoryRequest {
        namespace: "default".to_owned(),
        execution: Some(execution),
        ..Default::default()
    };
    let mut events = Vec::new();
    loop {
        let page = call!(asks, get_workflow_execution_history(wanted.clone())).expect("a history");
        events.extend(page.history.unwrap_or_default().events);
        if page.next_page_token.is_empty() {
            break;
        }
        wanted.next_page_token = page.next_page_token;
    }
    let began =
        |event: &HistoryEvent| matches!(event.attributes, Some(Attributes::WorkflowTaskCompletedEventAttributes(_)));
    events.iter().any(began).then_some(events)
}

#[tokio::test]
async fn a_history_that_tells_of_something_else_does_not_replay() {
    let engine = memory();
    let client = client(&engine).await;
    let mut events = beside_worker(&client, WorkerShape::default(), async {
        let options = WorkflowStartOptions::new(QUEUE, "steps").build();
        let handle = client.start_workflow(Steps::run, (2, false), options).await.expect("starts");
        handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        history(&handle).await
    })
    .await;
    engine.shutdown().await;
    let scheduled = events.iter_mut().find_map(|event| match &mut event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(scheduled)) => Some(scheduled),
        _ => None,
    });
    scheduled.expect("an activity").activity_type = None;
    let results = replayed(vec![events]).await;
    assert!(results[0].replay_failure.is_some());
}
