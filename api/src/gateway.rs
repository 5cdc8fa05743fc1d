//! The way into the engine: the only file that starts, signals, terminates and deletes workflows, of sessions, rollouts and
//! trials.
//!
//! It speaks the raw RPCs, so it knows workflows by name alone. Every call carries a request id that its caller chose,
//! so a repeated one changes nothing. It never reads a history: that is `log`'s.

use std::sync::Arc;
use std::time::Duration;

use domain::rollout::{self, RolloutInput};
use domain::session::{SessionInput, WORKFLOW_TYPE, queue};
use domain::trial::{self, TrialInput};
use harness::whatif::Input as Trial;
use log::ClaimCheck;
use serde::Serialize;
use serde_json::Value;
use store::Blobs;
use temporalio_client::Connection;
use temporalio_client::tonic::{Code, IntoRequest, Response, Status};
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads, WorkflowExecution, WorkflowType};
use temporalio_common::protos::temporal::api::enums::v1::{
    TaskQueueKind, TaskQueueType, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DeleteWorkflowExecutionRequest, DescribeTaskQueueRequest, DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse, SignalWorkflowExecutionRequest, StartWorkflowExecutionRequest,
    TerminateWorkflowExecutionRequest,
};

use crate::error::{ApiError, Kind};

const IDENTITY: &str = "steadyhand-api";
/// A decision takes milliseconds; a worker that is silent for longer is gone.
pub const WORKFLOW_TASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take before the engine counts as unreachable.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("session {session_id} has no open workflow")]
    NotFound { session_id: String },
    #[error("the engine takes no more of this for session {session_id} now")]
    Exhausted {
        session_id: String,
        #[source]
        source: Box<Status>,
    },
    #[error("reach the engine for session {session_id}")]
    Unreachable {
        session_id: String,
        #[source]
        source: Box<Status>,
    },
    #[error("put a payload of session {session_id} into a blob")]
    Claim {
        session_id: String,
        #[source]
        source: log::blobs::Error,
    },
    #[error("call the engine for session {session_id}")]
    Rpc {
        session_id: String,
        #[source]
        source: Box<Status>,
    },
}

impl Error {
    /// The engine has certainly not done what it was asked to. Of what went wrong on the way nobody knows that.
    pub fn is_refusal(&self) -> bool {
        match self {
            Error::NotFound { .. } | Error::Exhausted { .. } | Error::Claim { .. } => true,
            Error::Unreachable { .. } => false,
            Error::Rpc { source, .. } => matches!(
                source.code(),
                Code::InvalidArgument
                    | Code::FailedPrecondition
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::Unimplemented
                    | Code::OutOfRange
            ),
        }
    }

    fn of(session_id: &str, status: Status) -> Self {
        let session_id = session_id.to_owned();
        let source = Box::new(status);
        match source.code() {
            Code::NotFound => Error::NotFound { session_id },
            Code::ResourceExhausted => Error::Exhausted { session_id, source },
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Error::Unreachable { session_id, source },
            _ => Error::Rpc { session_id, source },
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { ref session_id } => ApiError::not_found("session", session_id).inner(error),
            Error::Exhausted { .. } => {
                ApiError::new(Kind::RateLimit, "the session takes no more requests for the moment")
                    .retry_after_s(1)
                    .inner(error)
            }
            Error::Unreachable { .. } => ApiError::unavailable("the engine cannot be reached").inner(error),
            Error::Claim { .. } | Error::Rpc { .. } => ApiError::internal(error),
        }
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    connection: Connection,
    namespace: Arc<str>,
    claims: ClaimCheck,
}

impl Gateway {
    pub fn new(connection: Connection, namespace: &str, blobs: Arc<dyn Blobs>) -> Self {
        Self { connection, namespace: namespace.into(), claims: ClaimCheck::new(blobs) }
    }

    /// As the SDK's default converter writes and reads it, or a claim to that.
    async fn payloads(&self, session_id: &str, value: &impl Serialize) -> Result<Payloads, Error> {
        let data = serde_json::to_vec(value).expect("inputs and signals are structs with string keys");
        let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
        let checked = self.claims.check(Payload { metadata, data, ..Default::default() }).await;
        let payload = checked.map_err(|source| Error::Claim { session_id: session_id.to_owned(), source })?;
        Ok(Payloads { payloads: vec![payload] })
    }

    /// Starts the workflow of a session. Starting it again with the same id is the same start.
    pub async fn start(&self, input: &SessionInput<Value>) -> Result<(), Error> {
        self.start_as(WORKFLOW_TYPE, &input.session_id, input).await
    }

    /// Starts the workflow of a rollout, which has its id.
    pub async fn start_rollout(&self, input: &RolloutInput<Value>) -> Result<(), Error> {
        self.start_as(rollout::WORKFLOW_TYPE, &input.rollout_id, input).await
    }

    /// Starts the workflow of a trial, which has its id.
    pub async fn start_trial(&self, input: &TrialInput<Trial>) -> Result<(), Error> {
        self.start_as(trial::WORKFLOW_TYPE, &input.trial_id, input).await
    }

    async fn start_as(&self, kind: &str, id: &str, input: &(impl Serialize + Sync)) -> Result<(), Error> {
        let request = StartWorkflowExecutionRequest {
            namespace: self.namespace.to_string(),
            workflow_id: id.to_owned(),
            workflow_type: Some(WorkflowType { name: kind.to_owned() }),
            task_queue: Some(task_queue(queue::BRAIN)),
            input: Some(self.payloads(id, input).await?),
            workflow_task_timeout: WORKFLOW_TASK_TIMEOUT.try_into().ok(),
            identity: IDENTITY.to_owned(),
            request_id: format!("start-{id}"),
            workflow_id_reuse_policy: WorkflowIdReusePolicy::RejectDuplicate as i32,
            workflow_id_conflict_policy: WorkflowIdConflictPolicy::Fail as i32,
            ..Default::default()
        };
        let mut service = self.connection.workflow_service();
        let started = service.start_workflow_execution(request.into_request());
        within(id, started).await.map(drop)
    }

    /// Sends a signal to the latest run. `request_id` makes a repeated one count once.
    pub async fn signal(
        &self,
        session_id: &str,
        name: &str,
        input: &(impl Serialize + Sync),
        request_id: &str,
    ) -> Result<(), Error> {
        let request = SignalWorkflowExecutionRequest {
            namespace: self.namespace.to_string(),
            workflow_execution: execution(session_id, ""),
            signal_name: name.to_owned(),
            input: Some(self.payloads(session_id, input).await?),
            identity: IDENTITY.to_owned(),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let mut service = self.connection.workflow_service();
        let signaled = service.signal_workflow_execution(request.into_request());
        within(session_id, signaled).await.map(drop)
    }

    /// Ends the latest run from outside: nothing of the session runs any more.
    pub async fn terminate(&self, session_id: &str, reason: &str) -> Result<(), Error> {
        let request = TerminateWorkflowExecutionRequest {
            namespace: self.namespace.to_string(),
            workflow_execution: execution(session_id, ""),
            reason: reason.to_owned(),
            identity: IDENTITY.to_owned(),
            ..Default::default()
        };
        let mut service = self.connection.workflow_service();
        let terminated = service.terminate_workflow_execution(request.into_request());
        within(session_id, terminated).await.map(drop)
    }

    /// Deletes one run with its history. A run that is gone already is deleted.
    pub async fn delete(&self, session_id: &str, run_id: &str) -> Result<(), Error> {
        let request = DeleteWorkflowExecutionRequest {
            namespace: self.namespace.to_string(),
            workflow_execution: execution(session_id, run_id),
        };
        let mut service = self.connection.workflow_service();
        let deleted = service.delete_workflow_execution(request.into_request());
        match within(session_id, deleted).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the engine says about the latest run: its status, activities under way, an open workflow task.
    pub async fn describe(&self, session_id: &str) -> Result<DescribeWorkflowExecutionResponse, Error> {
        let request = DescribeWorkflowExecutionRequest {
            namespace: self.namespace.to_string(),
            execution: execution(session_id, ""),
        };
        let mut service = self.connection.workflow_service();
        let described = service.describe_workflow_execution(request.into_request());
        within(session_id, described).await
    }

    /// How many workers poll a queue for tasks of a kind.
    pub async fn pollers(&self, session_id: &str, queue: &str, kind: TaskQueueType) -> Result<usize, Error> {
        let request = DescribeTaskQueueRequest {
            namespace: self.namespace.to_string(),
            task_queue: Some(task_queue(queue)),
            task_queue_type: kind as i32,
            ..Default::default()
        };
        let mut service = self.connection.workflow_service();
        let described = service.describe_task_queue(request.into_request());
        Ok(within(session_id, described).await?.pollers.len())
    }
}

async fn within<T>(session_id: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    let answer = tokio::time::timeout(CALL_TIME_MAX, call).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    answer.map(Response::into_inner).map_err(|status| Error::of(session_id, status))
}

fn execution(session_id: &str, run_id: &str) -> Option<WorkflowExecution> {
    Some(WorkflowExecution { workflow_id: session_id.to_owned(), run_id: run_id.to_owned() })
}

fn task_queue(name: &str) -> TaskQueue {
    TaskQueue { name: name.to_owned(), kind: TaskQueueKind::Normal as i32, ..Default::default() }
}
