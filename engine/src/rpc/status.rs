//! How errors look to clients: gRPC codes, Temporal's texts, and the typed details that SDKs turn into exceptions.

use crate::core::Refusal;
use crate::host::Error;
use crate::pb::enums::v1::{ResourceExhaustedCause, ResourceExhaustedScope};
use crate::pb::errordetails::v1::{
    NamespaceNotFoundFailure, NotFoundFailure, QueryFailedFailure, ResourceExhaustedFailure,
    WorkflowExecutionAlreadyStartedFailure,
};
use crate::pb::failure::v1::Failure;
use crate::store;
use prost::Message;
use temporalio_protos::google::rpc;
use tonic::{Code, Status};
use tracing::error;

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::NoRun => not_found("workflow execution not found"),
            Error::Refused(refusal) => refused(refusal),
            Error::Store(source) if matches!(*source, store::Error::Closed) => {
                Status::unavailable("the server is shutting down")
            }
            Error::Store(source) if matches!(*source, store::Error::Poisoned | store::Error::Write(_)) => {
                Status::unavailable("the store failed: no writes are accepted until the server is restarted")
            }
            Error::Store(source) if matches!(*source, store::Error::ReadOnly) => {
                Status::failed_precondition("the server was opened to be read")
            }
            other => {
                error!(error = &other as &dyn std::error::Error, "the store could not be read");
                Status::data_loss("the store could not be read")
            }
        }
    }
}

fn refused(refusal: Refusal) -> Status {
    match refusal {
        Refusal::WorkflowTaskNotFound => not_found("Workflow task not found."),
        Refusal::ActivityNotFound => {
            not_found("invalid activityID or activity already timed out or invoking workflow is completed")
        }
        Refusal::NoActivityOfThatId(id) => not_found(&format!(
            "cannot find pending activity with ActivityID {id}, check workflow execution history for more details"
        )),
        Refusal::Closed => not_found("workflow execution already completed"),
        Refusal::OtherParent => not_found("Workflow parent does not match."),
        Refusal::NotAwaited => not_found("Pending child execution not found."),
        Refusal::OtherChain => not_found("workflow execution not found"),
        Refusal::TooManySignals => Status::invalid_argument("exceeded workflow execution limit for signal events"),
        Refusal::NotPinned => Status::failed_precondition(
            "must specify a specific pinned override version because the workflow is not yet pinned to any version",
        ),
        Refusal::Invalid(message) => Status::invalid_argument(message),
    }
}

pub fn not_found(message: &str) -> Status {
    detailed(Code::NotFound, message, "NotFoundFailure", &NotFoundFailure::default())
}

pub fn namespace_not_found(namespace: &str) -> Status {
    let message = format!("Namespace {namespace} is not found.");
    let detail = NamespaceNotFoundFailure { namespace: namespace.to_owned() };
    detailed(Code::NotFound, &message, "NamespaceNotFoundFailure", &detail)
}

pub fn already_started(message: &str, detail: &WorkflowExecutionAlreadyStartedFailure) -> Status {
    detailed(Code::AlreadyExists, message, "WorkflowExecutionAlreadyStartedFailure", detail)
}

/// Something is full: of one workflow, of a namespace or of all. SDKs wait and ask again.
pub fn exhausted(message: &str, cause: ResourceExhaustedCause, scope: ResourceExhaustedScope) -> Status {
    let detail = ResourceExhaustedFailure { cause: cause as i32, scope: scope as i32 };
    detailed(Code::ResourceExhausted, message, "ResourceExhaustedFailure", &detail)
}

pub fn query_failed(message: &str, failure: Option<Failure>) -> Status {
    detailed(Code::InvalidArgument, message, "QueryFailedFailure", &QueryFailedFailure { failure })
}

/// A status with one message of `temporal.api.errordetails.v1` in it.
pub fn detailed<M: Message>(code: Code, message: &str, name: &str, detail: &M) -> Status {
    let detail = prost_wkt_types::Any {
        type_url: format!("type.googleapis.com/temporal.api.errordetails.v1.{name}"),
        value: detail.encode_to_vec(),
    };
    let status = rpc::Status { code: code as i32, message: message.to_owned(), details: vec![detail] };
    Status::with_details(code, message, status.encode_to_vec().into())
}
