//! The lists of before there were queries, asked of a server as clients of that time do. A real Temporal server (1.32.0) said
//! the same (`golden/lists.txt`); to record it again, `STEADYHAND_LISTS_REFERENCE=HOST:PORT` names one.

use crate::fixture::{connect_once, memory, over, within};
use crate::raw::{Raw, call, finish, kind};
use std::path::Path;
use std::time::Duration;
use temporalio_client::tonic::{IntoRequest, Status};
use temporalio_client::{Client, RetryOptions};
use temporalio_common::protos::temporal::api::enums::v1::WorkflowExecutionStatus;
use temporalio_common::protos::temporal::api::filter::v1::{
    StartTimeFilter, StatusFilter, WorkflowExecutionFilter, WorkflowTypeFilter,
};
use temporalio_common::protos::temporal::api::workflow::v1::WorkflowExecutionInfo;
use temporalio_common::protos::temporal::api::workflowservice::v1::list_closed_workflow_executions_request::Filters as Closed;
use temporalio_common::protos::temporal::api::workflowservice::v1::list_open_workflow_executions_request::Filters as Open;
use temporalio_common::protos::temporal::api::workflowservice::v1::*;

#[tokio::test]
async fn what_lists_of_open_and_closed_runs_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/golden/lists.txt");
    if let Ok(reference) = std::env::var("STEADYHAND_LISTS_REFERENCE") {
        let said = play(connect_once(&reference).await, format!("l{}", std::process::id())).await;
        std::fs::write(path, said).expect("the golden file can be written");
        return;
    }
    let engine = memory();
    let said = within(play(over(&engine, RetryOptions::no_retries()).await, "lists".to_owned())).await;
    engine.shutdown().await;
    assert_eq!(said, std::fs::read_to_string(&path).expect("a golden file"));
}

async fn play(client: Client, name: String) -> String {
    let raw = Raw::new(client, name);
    // Types are the scenario's own, as a server may know other runs.
    for (id, of_type) in [("a", "A"), ("b", "B"), ("c", "A"), ("d", "B")] {
        let of_type = kind(&raw.id(of_type));
        let request = StartWorkflowExecutionRequest { workflow_type: of_type, ..raw.start_request(id) };
        call!(raw, start_workflow_execution(request)).expect("starts");
    }
    let task = raw.take("b").await;
    raw.complete(task.task_token, vec![finish()]).await.expect("completes");
    let request = TerminateWorkflowExecutionRequest {
        namespace: raw.namespace(),
        workflow_execution: raw.execution("c"),
        ..Default::default()
    };
    call!(raw, terminate_workflow_execution(request)).expect("terminates");
    let lists = Lists(raw);
    // A server lists some time later.
    while lists.open(None, AROUND).await.map(|ids| ids.len()).unwrap_or(0) != "a d".len()
        || lists.closed(None, AROUND).await.map(|ids| ids.len()).unwrap_or(0) != "b c".len()
    {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    lists.said().await
}

/// Seconds before and after now.
type Span = Option<(Option<i64>, Option<i64>)>;

const AROUND: Span = Some((Some(-3_600), Some(3_600)));

struct Lists(Raw);

impl Lists {
    async fn said(&self) -> String {
        let by_id = |id: &str| WorkflowExecutionFilter { workflow_id: self.0.id(id), run_id: String::new() };
        let by_type = |name: &str| WorkflowTypeFilter { name: self.0.id(name) };
        let by_status = |status: WorkflowExecutionStatus| StatusFilter { status: status as i32 };
        let mut said = String::new();
        let mut say = |what: &str, found: Result<String, Status>| {
            let found = found.unwrap_or_else(|status| format!("{:?}: {}", status.code(), status.message()));
            said.push_str(&format!("{what}: {found}\n"));
        };
        let spans: [(&str, Span); 5] = [
            ("around now", AROUND),
            ("before", Some((Some(-7_200), Some(-3_600)))),
            ("since", Some((Some(-3_600), None))),
            ("until", Some((None, Some(3_600)))),
            ("backwards", Some((Some(3_600), Some(-3_600)))),
        ];
        for (what, span) in spans {
            say(&format!("open {what}"), self.open(None, span).await);
            say(&format!("closed {what}"), self.closed(None, span).await);
        }
        for name in ["A", "B"] {
            say(&format!("open of {name}"), self.open(Some(Open::TypeFilter(by_type(name))), AROUND).await);
            say(&format!("closed of {name}"), self.closed(Some(Closed::TypeFilter(by_type(name))), AROUND).await);
        }
        for id in ["a", "b", "nobody"] {
            say(&format!("open {id}"), self.open(Some(Open::ExecutionFilter(by_id(id))), AROUND).await);
            say(&format!("closed {id}"), self.closed(Some(Closed::ExecutionFilter(by_id(id))), AROUND).await);
        }
        for status in [
            WorkflowExecutionStatus::Completed,
            WorkflowExecutionStatus::Terminated,
            WorkflowExecutionStatus::Failed,
            WorkflowExecutionStatus::Running,
            WorkflowExecutionStatus::Unspecified,
        ] {
            say(
                &format!("closed, {status:?}"),
                self.closed(Some(Closed::StatusFilter(by_status(status))), AROUND).await,
            );
        }
        said
    }

    async fn open(&self, filters: Option<Open>, span: Span) -> Result<String, Status> {
        let request = ListOpenWorkflowExecutionsRequest {
            namespace: self.0.namespace(),
            start_time_filter: span.map(filter),
            filters,
            ..Default::default()
        };
        Ok(self.ids(call!(self.0, list_open_workflow_executions(request))?.executions))
    }

    async fn closed(&self, filters: Option<Closed>, span: Span) -> Result<String, Status> {
        let request = ListClosedWorkflowExecutionsRequest {
            namespace: self.0.namespace(),
            start_time_filter: span.map(filter),
            filters,
            ..Default::default()
        };
        Ok(self.ids(call!(self.0, list_closed_workflow_executions(request))?.executions))
    }

    fn ids(&self, runs: Vec<WorkflowExecutionInfo>) -> String {
        let mut ids: Vec<String> = runs.into_iter().map(|run| run.execution.unwrap_or_default().workflow_id).collect();
        ids.retain(|id| id.starts_with(&self.0.name));
        ids.sort();
        ids.iter().filter_map(|id| id.rsplit('-').next()).collect::<Vec<_>>().join(" ")
    }
}

fn filter((earliest, latest): (Option<i64>, Option<i64>)) -> StartTimeFilter {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs() as i64;
    let at = |seconds: i64| prost_wkt_types::Timestamp { seconds: now + seconds, nanos: 0 };
    StartTimeFilter { earliest_time: earliest.map(at), latest_time: latest.map(at) }
}
