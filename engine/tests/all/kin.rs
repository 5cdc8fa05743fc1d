//! What descriptions and lists show of parents and children.

use crate::families::{Fate, Leaving, Offspring};
use crate::fixture::{QUEUE, WorkerShape, beside_worker, client, describe, happened, memory};
use temporalio_client::tonic::IntoRequest;
use temporalio_client::{Client, WorkflowGetResultOptions, WorkflowSignalOptions, WorkflowStartOptions};
use temporalio_common::protos::temporal::api::enums::v1::ParentClosePolicy;
use temporalio_common::protos::temporal::api::workflowservice::v1::ListWorkflowExecutionsRequest;

async fn listed(client: &Client, query: &str) -> Vec<String> {
    let request = ListWorkflowExecutionsRequest {
        namespace: "default".to_owned(),
        query: query.to_owned(),
        ..Default::default()
    };
    let mut service = client.connection().workflow_service();
    let page = service.list_workflow_executions(request.into_request()).await.expect("lists").into_inner();
    let mut ids: Vec<_> =
        page.executions.into_iter().map(|run| run.execution.unwrap_or_default().workflow_id).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn parents_show_their_children_and_children_where_they_belong() {
    let engine = memory();
    let client = client(&engine).await;
    beside_worker(&client, WorkerShape::default(), async {
        let options = WorkflowStartOptions::new(QUEUE, "p").build();
        let parent = client.start_workflow(Leaving::run, true, options).await.expect("starts");
        happened(&parent, "WorkflowTaskCompleted x4").await;

        let shown = describe(&client, "p").await;
        let of_parent = shown.workflow_execution_info.expect("is described");
        let execution = of_parent.execution.clone().expect("is named");
        assert_eq!((of_parent.parent_execution, of_parent.root_execution), (None, Some(execution.clone())));
        let children = shown.pending_children;
        let policies: Vec<_> = children.iter().map(|child| child.parent_close_policy()).collect();
        assert_eq!(
            policies,
            [ParentClosePolicy::Terminate, ParentClosePolicy::Abandon, ParentClosePolicy::RequestCancel]
        );
        assert!(children.iter().all(|child| !child.run_id.is_empty() && child.workflow_type_name == "Offspring"));

        let of_child = describe(&client, "p-abandoned").await.workflow_execution_info.expect("is described");
        assert_eq!(of_child.parent_execution.as_ref(), Some(&execution));
        assert_eq!(of_child.root_execution.as_ref(), Some(&execution));
        assert_eq!(of_child.parent_namespace_id.len(), 36);
        let all = ["p-abandoned", "p-cancelled", "p-terminated"];
        assert_eq!(listed(&client, "ParentWorkflowId = 'p'").await, all);
        assert_eq!(listed(&client, &format!("ParentRunId = '{}'", execution.run_id)).await, all);
        assert_eq!(listed(&client, "RootWorkflowId = 'p' AND ParentWorkflowId IS NULL").await, ["p"]);
        assert_eq!(listed(&client, &format!("RootRunId = '{}'", execution.run_id)).await.len(), 4);

        parent.signal(Leaving::leave, false, WorkflowSignalOptions::default()).await.expect("signals");
        parent.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
        assert!(describe(&client, "p").await.pending_children.is_empty());
        let left = client.get_workflow_handle::<Offspring>("p-abandoned");
        left.signal(Offspring::end, Fate::Completes, WorkflowSignalOptions::default()).await.expect("signals");
        left.get_result(WorkflowGetResultOptions::default()).await.expect("completes");
    })
    .await;
    engine.shutdown().await;
    let report = engine.verify().expect("the store can be read");
    assert!(report.is_sound(), "{:#?}", report.problems);
}
