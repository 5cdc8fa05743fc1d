//! `HistoryReader` over a Temporal connection: a cluster's, or the embedded engine's.

use crate::{
    claim::ClaimCheck,
    history::{Error, HistoryReader, Page, Run},
};
use async_trait::async_trait;
use std::sync::Arc;
use store::Blobs;
use temporalio_client::Connection;
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    enums::v1::HistoryEventFilterType,
    history::v1::HistoryEvent,
    workflowservice::v1::{
        DescribeWorkflowExecutionRequest, GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryReverseRequest,
    },
};
use tonic::{Code, IntoRequest, Response, Status};

/// Mostly little or nothing is new: the first page back is short, and each further one longer.
const NEWEST_PAGE_EVENTS: i32 = 4;
const PAGE_GROWTH: i32 = 8;

#[derive(Clone)]
pub struct TemporalReader {
    connection: Connection,
    namespace: String,
    claims: ClaimCheck,
}

impl TemporalReader {
    /// `blobs` is where payloads are claimed from.
    pub fn new(connection: Connection, namespace: impl Into<String>, blobs: Arc<dyn Blobs>) -> Self {
        TemporalReader { connection, namespace: namespace.into(), claims: ClaimCheck::new(blobs) }
    }

    async fn whole(&self, session_id: &str, mut events: Vec<HistoryEvent>, next: Vec<u8>) -> Result<Page, Error> {
        let redeemed = self.claims.redeem_history(&mut events).await;
        let claimed = redeemed.map_err(|source| Error::Claim { session_id: session_id.to_owned(), source })?;
        Ok(Page { events, next, claimed })
    }
}

/// What was asked for, asked a second time where the connection broke under it: a cluster ends each one after some minutes
/// (`frontend.keepAliveMaxConnectionAge`), and reading twice does nothing twice.
async fn asked<R, Answer: Future<Output = Result<Response<R>, Status>>>(
    call: impl Fn() -> Answer,
) -> Result<R, Status> {
    let answer = match call().await {
        Err(status) if matches!(status.code(), Code::Unavailable | Code::Cancelled) => call().await,
        answer => answer,
    };
    answer.map(Response::into_inner)
}

fn error(session_id: &str, status: Status) -> Error {
    let session_id = session_id.to_owned();
    match status.code() {
        Code::NotFound => Error::NotFound { session_id },
        _ => Error::Rpc { session_id, source: Box::new(status) },
    }
}

fn execution(session_id: &str, run_id: &str) -> Option<WorkflowExecution> {
    Some(WorkflowExecution { workflow_id: session_id.to_owned(), run_id: run_id.to_owned() })
}

#[async_trait]
impl HistoryReader for TemporalReader {
    async fn page(&self, run: &Run, next: Vec<u8>, wait: bool) -> Result<Page, Error> {
        let request = GetWorkflowExecutionHistoryRequest {
            namespace: self.namespace.clone(),
            execution: execution(&run.session_id, &run.run_id),
            next_page_token: next,
            wait_new_event: wait,
            history_event_filter_type: HistoryEventFilterType::AllEvent as i32,
            ..Default::default()
        };
        let asked = asked(|| {
            let (mut service, request) = (self.connection.workflow_service(), request.clone().into_request());
            async move { service.get_workflow_execution_history(request).await }
        });
        let response = asked.await.map_err(|status| error(&run.session_id, status))?;
        let events = response.history.map(|history| history.events).unwrap_or_default();
        self.whole(&run.session_id, events, response.next_page_token).await
    }

    async fn newer(&self, run: &Run, known: i64) -> Result<Page, Error> {
        let mut newest_first = Vec::new();
        let mut next_page_token = Vec::new();
        let mut maximum_page_size = NEWEST_PAGE_EVENTS;
        loop {
            let request = GetWorkflowExecutionHistoryReverseRequest {
                namespace: self.namespace.clone(),
                execution: execution(&run.session_id, &run.run_id),
                next_page_token,
                maximum_page_size,
            };
            maximum_page_size = maximum_page_size.saturating_mul(PAGE_GROWTH);
            let asked = asked(|| {
                let (mut service, request) = (self.connection.workflow_service(), request.clone().into_request());
                async move { service.get_workflow_execution_history_reverse(request).await }
            });
            let response = asked.await.map_err(|status| error(&run.session_id, status))?;
            let events = response.history.map(|history| history.events).unwrap_or_default();
            let is_known = events.iter().any(|event| event.event_id <= known);
            newest_first.extend(events.into_iter().filter(|event| event.event_id > known));
            next_page_token = response.next_page_token;
            if is_known || next_page_token.is_empty() {
                newest_first.reverse();
                return self.whole(&run.session_id, newest_first, Vec::new()).await;
            }
        }
    }

    async fn latest_run(&self, session_id: &str) -> Result<(Run, i64), Error> {
        let request = DescribeWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            execution: execution(session_id, ""),
        };
        let asked = asked(|| {
            let (mut service, request) = (self.connection.workflow_service(), request.clone().into_request());
            async move { service.describe_workflow_execution(request).await }
        });
        let response = asked.await.map_err(|status| error(session_id, status))?;
        let info = response.workflow_execution_info.unwrap_or_default();
        let run_id = info.execution.map(|execution| execution.run_id);
        let run_id = run_id.ok_or_else(|| Error::NotFound { session_id: session_id.to_owned() })?;
        Ok((Run { session_id: session_id.to_owned(), run_id }, info.history_length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_connection_that_breaks_is_asked_a_second_time_and_no_third() {
        for (answers, expected, asked_for) in [
            (vec![Ok(1)], Ok(1), 1),
            (vec![Err(Code::Cancelled), Ok(2)], Ok(2), 2),
            (vec![Err(Code::Unavailable), Ok(2)], Ok(2), 2),
            (vec![Err(Code::Unavailable), Err(Code::Unavailable), Ok(3)], Err(Code::Unavailable), 2),
            (vec![Err(Code::NotFound), Ok(2)], Err(Code::NotFound), 1),
            (vec![Err(Code::Internal), Ok(2)], Err(Code::Internal), 1),
        ] {
            let at = AtomicUsize::new(0);
            let answer = || match &answers[at.fetch_add(1, Ordering::Relaxed)] {
                Ok(answer) => Ok(Response::new(*answer)),
                Err(code) => Err(Status::new(*code, "")),
            };
            let call = || std::future::ready(answer());
            assert_eq!(asked(call).await.map_err(|status| status.code()), expected, "{answers:?}");
            assert_eq!(at.into_inner(), asked_for, "{answers:?}");
        }
    }
}
