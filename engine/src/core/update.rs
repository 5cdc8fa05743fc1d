//! Updates: requests that a workflow accepts or refuses, and answers. A request travels in a message beside a workflow
//! task, never in history; what the workflow makes of it comes back as messages beside the task's completion, and becomes
//! history when it is accepted and when it is answered. A refusal leaves no trace.

use super::command::CommandError;
use super::state::Update;
use super::{Input, Refusal, Tx, workflow_task};
use crate::pb::enums::v1::WorkflowTaskFailedCause;
use crate::pb::failure::v1::Failure;
use crate::pb::history::v1::history_event::Attributes;
use crate::pb::history::v1::{
    WorkflowExecutionUpdateAcceptedEventAttributes, WorkflowExecutionUpdateCompletedEventAttributes,
};
use crate::pb::protocol::v1::Message;
use crate::pb::update::v1::{Acceptance, Outcome, Rejection, Request, Response, outcome};
use prost::Message as _;
use std::collections::BTreeMap;

/// What became of an update, for whoever asked for it.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Accepted,
    Completed(Box<Outcome>),
}

/// The messages of a completion, by their ids, until a command or the end of the task takes them.
pub struct Messages(BTreeMap<String, Message>);

impl Messages {
    pub fn new(messages: Vec<Message>) -> Messages {
        Messages(messages.into_iter().map(|message| (message.id.clone(), message)).collect())
    }

    /// A command says that it is this message's turn.
    pub fn perform(&mut self, tx: &mut Tx<'_>, message_id: &str) -> Result<(), CommandError> {
        let message = self.0.remove(message_id).ok_or_else(|| bad("a command names a message that is not there"))?;
        receive(tx, message)
    }

    /// Messages that no command names: refusals.
    pub fn perform_rest(self, tx: &mut Tx<'_>) -> Result<(), CommandError> {
        self.0.into_values().try_for_each(|message| receive(tx, message))
    }
}

/// The message that carries a request to the workflow. `started_event_id` is that of the task it goes with.
pub fn request_message(request: &Request, started_event_id: i64) -> Message {
    use crate::pb::protocol::v1::message::SequencingId;
    let id = request.meta.clone().unwrap_or_default().update_id;
    Message {
        id: format!("{id}/request"),
        protocol_instance_id: id,
        sequencing_id: Some(SequencingId::EventId(started_event_id - 1)),
        body: Some(prost_wkt_types::Any {
            type_url: "type.googleapis.com/temporal.api.update.v1.Request".to_owned(),
            value: request.encode_to_vec(),
        }),
    }
}

/// The answer to an update that its workflow accepted and did not live to answer.
pub fn outlived() -> Outcome {
    use crate::pb::failure::v1::{ApplicationFailureInfo, failure::FailureInfo};
    failed(Failure {
        message: "Workflow Update failed because the Workflow completed before the Update completed.".to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
            r#type: "AcceptedUpdateCompletedWorkflow".to_owned(),
            non_retryable: true,
            ..Default::default()
        })),
        ..Default::default()
    })
}

/// The answer to an update that the worker took no notice of.
pub fn unprocessed() -> Outcome {
    use crate::pb::failure::v1::{ApplicationFailureInfo, failure::FailureInfo};
    failed(Failure {
        message: "Workflow Update is rejected because it wasn't processed by worker. Probably, Workflow Update is not \
                  supported by the worker."
            .to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
            r#type: "UnprocessedUpdate".to_owned(),
            non_retryable: true,
            ..Default::default()
        })),
        ..Default::default()
    })
}

fn failed(failure: Failure) -> Outcome {
    Outcome { value: Some(outcome::Value::Failure(failure)) }
}

fn bad(message: impl AsRef<str>) -> CommandError {
    CommandError::new(WorkflowTaskFailedCause::BadUpdateWorkflowExecutionMessage, message)
}

fn receive(tx: &mut Tx<'_>, message: Message) -> Result<(), CommandError> {
    let id = message.protocol_instance_id;
    let body = message.body.unwrap_or_default();
    let malformed = |error: prost::DecodeError| bad(format!("a message cannot be decoded: {error}"));
    match body.type_url.rsplit('.').next() {
        Some("Acceptance") => accept(tx, id, Acceptance::decode(body.value.as_slice()).map_err(malformed)?),
        Some("Response") => complete(tx, id, Response::decode(body.value.as_slice()).map_err(malformed)?),
        Some("Rejection") => reject(tx, id, Rejection::decode(body.value.as_slice()).map_err(malformed)?),
        _ => Err(bad(format!("a message of type {} is not understood", body.type_url))),
    }
}

fn accept(tx: &mut Tx<'_>, id: String, acceptance: Acceptance) -> Result<(), CommandError> {
    if tx.state.updates.contains_key(&id) {
        return Err(bad(format!("update {id} was accepted before")));
    }
    if acceptance.accepted_request.is_none() {
        return Err(bad(format!("update {id} is accepted without its request")));
    }
    let accepted_event_id = tx.append(Attributes::WorkflowExecutionUpdateAcceptedEventAttributes(
        WorkflowExecutionUpdateAcceptedEventAttributes {
            protocol_instance_id: id.clone(),
            accepted_request_message_id: acceptance.accepted_request_message_id,
            accepted_request_sequencing_event_id: acceptance.accepted_request_sequencing_event_id,
            accepted_request: acceptance.accepted_request,
        },
    ));
    tx.state.updates.insert(id.clone(), Update { accepted_event_id, completed_event_id: 0 });
    tx.effects.updates.push((id, News::Accepted));
    Ok(())
}

fn complete(tx: &mut Tx<'_>, id: String, response: Response) -> Result<(), CommandError> {
    let open = tx.state.updates.get(&id).filter(|update| update.completed_event_id == 0);
    let Some(accepted_event_id) = open.map(|update| update.accepted_event_id) else {
        return Err(bad(format!("update {id} is answered and not open")));
    };
    let outcome = response.outcome.unwrap_or_default();
    let completed_event_id = tx.append(Attributes::WorkflowExecutionUpdateCompletedEventAttributes(
        WorkflowExecutionUpdateCompletedEventAttributes {
            meta: response.meta,
            accepted_event_id,
            outcome: Some(outcome.clone()),
        },
    ));
    tx.state.updates.insert(id.clone(), Update { accepted_event_id, completed_event_id });
    tx.effects.updates.push((id, News::Completed(Box::new(outcome))));
    Ok(())
}

fn reject(tx: &mut Tx<'_>, id: String, rejection: Rejection) -> Result<(), CommandError> {
    if tx.state.updates.contains_key(&id) {
        return Err(bad(format!("update {id} is refused after it was accepted")));
    }
    let outcome = failed(rejection.failure.unwrap_or_default());
    tx.effects.updates.push((id, News::Completed(Box::new(outcome))));
    Ok(())
}

/// Requests wait: the workflow needs a task that they go with.
pub struct Deliver;

impl Input for Deliver {
    type Reply = ();

    fn apply(self, tx: &mut Tx<'_>) -> Result<(), Refusal> {
        if !tx.state.is_open() {
            return Err(Refusal::Closed);
        }
        workflow_task::ensure(tx);
        Ok(())
    }
}
