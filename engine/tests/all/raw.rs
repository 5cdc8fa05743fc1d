//! Requests as they go over the wire, by a client and a worker without an SDK: they may ask what no SDK would, and nobody
//! tries again for them.

#![expect(deprecated, reason = "a server still wants the namespace of commands about other workflows")]

use std::collections::HashMap;
use temporalio_client::Client;
use temporalio_client::tonic::{IntoRequest, Status};
use temporalio_common::protos::temporal::api::command::v1::command::Attributes as C;
use temporalio_common::protos::temporal::api::command::v1::*;
use temporalio_common::protos::temporal::api::common::v1::{
    ActivityType, Payload, Payloads, RetryPolicy, WorkflowExecution, WorkflowType,
};
use temporalio_common::protos::temporal::api::deployment::v1::WorkerDeploymentOptions;
use temporalio_common::protos::temporal::api::enums::v1::{
    CommandType, UpdateWorkflowExecutionLifecycleStage as Lifecycle, VersioningBehavior, WorkerVersioningMode,
    WorkflowIdReusePolicy,
};
use temporalio_common::protos::temporal::api::protocol;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::update::v1 as update;
use temporalio_common::protos::temporal::api::workflowservice::v1::*;

const SECOND: prost_wkt_types::Duration = prost_wkt_types::Duration { seconds: 1, nanos: 0 };
const MINUTE: prost_wkt_types::Duration = prost_wkt_types::Duration { seconds: 60, nanos: 0 };

/// One call, once.
macro_rules! call {
    ($stage:expr, $rpc:ident($request:expr)) => {
        $stage.client.connection().workflow_service().$rpc($request.into_request()).await.map(|r| r.into_inner())
    };
}

pub(crate) use call;

/// A client, and what its ids and task queues begin with.
#[derive(Clone)]
pub struct Raw {
    pub client: Client,
    pub name: String,
}

impl Raw {
    pub fn new(client: Client, name: String) -> Raw {
        Raw { client, name }
    }

    pub fn id(&self, id: &str) -> String {
        format!("{}-{id}", self.name)
    }

    pub fn execution(&self, id: &str) -> Option<WorkflowExecution> {
        Some(WorkflowExecution { workflow_id: self.id(id), run_id: String::new() })
    }

    pub fn namespace(&self) -> String {
        "default".to_owned()
    }

    pub fn start_request(&self, id: &str) -> StartWorkflowExecutionRequest {
        StartWorkflowExecutionRequest {
            namespace: self.namespace(),
            workflow_id: self.id(id),
            workflow_type: kind("W"),
            task_queue: queue(self.id(id)),
            request_id: self.id("request"),
            workflow_id_reuse_policy: WorkflowIdReusePolicy::AllowDuplicate as i32,
            ..Default::default()
        }
    }

    pub async fn start(&self, id: &str) {
        call!(self, start_workflow_execution(self.start_request(id))).expect("starts");
    }

    pub fn signal_request(&self, id: &str, name: &str) -> SignalWorkflowExecutionRequest {
        SignalWorkflowExecutionRequest {
            namespace: self.namespace(),
            workflow_execution: self.execution(id),
            signal_name: name.to_owned(),
            ..Default::default()
        }
    }

    pub fn update_request(&self, id: &str, name: &str, update: &str) -> UpdateWorkflowExecutionRequest {
        UpdateWorkflowExecutionRequest {
            namespace: self.namespace(),
            workflow_execution: self.execution(id),
            wait_policy: Some(update::WaitPolicy { lifecycle_stage: Lifecycle::Completed as i32 }),
            request: Some(update::Request {
                meta: Some(update::Meta { update_id: update.to_owned(), identity: String::new() }),
                input: Some(update::Input { name: name.to_owned(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A worker takes the workflow task.
    pub async fn take(&self, id: &str) -> PollWorkflowTaskQueueResponse {
        self.take_from(self.id(id), None).await
    }

    /// A worker, of a version or of none, takes a workflow task from a queue.
    pub async fn take_from(
        &self,
        queue_name: impl Into<String>,
        deployment_options: Option<WorkerDeploymentOptions>,
    ) -> PollWorkflowTaskQueueResponse {
        let request = PollWorkflowTaskQueueRequest {
            namespace: self.namespace(),
            task_queue: queue(queue_name),
            identity: "worker".to_owned(),
            deployment_options,
            ..Default::default()
        };
        let task = call!(self, poll_workflow_task_queue(request)).expect("is answered");
        assert!(!task.task_token.is_empty(), "a task");
        task
    }

    pub async fn complete(&self, task_token: Vec<u8>, commands: Vec<(CommandType, C)>) -> Result<(), Status> {
        self.complete_with(task_token, commands, Vec::new()).await
    }

    pub async fn complete_with(
        &self,
        task_token: Vec<u8>,
        commands: Vec<(CommandType, C)>,
        messages: Vec<protocol::v1::Message>,
    ) -> Result<(), Status> {
        let request = RespondWorkflowTaskCompletedRequest { messages, ..self.completion(task_token, commands) };
        call!(self, respond_workflow_task_completed(request)).map(drop)
    }

    /// The same, pinned to the version of the worker.
    pub async fn complete_pinned(
        &self,
        task_token: Vec<u8>,
        commands: Vec<(CommandType, C)>,
        worker: WorkerDeploymentOptions,
    ) -> Result<(), Status> {
        let request = RespondWorkflowTaskCompletedRequest {
            deployment_options: Some(worker),
            versioning_behavior: VersioningBehavior::Pinned as i32,
            ..self.completion(task_token, commands)
        };
        call!(self, respond_workflow_task_completed(request)).map(drop)
    }

    fn completion(&self, task_token: Vec<u8>, commands: Vec<(CommandType, C)>) -> RespondWorkflowTaskCompletedRequest {
        let command = |(kind, attributes)| Command {
            command_type: kind as i32,
            attributes: Some(attributes),
            ..Default::default()
        };
        RespondWorkflowTaskCompletedRequest {
            namespace: self.namespace(),
            task_token,
            identity: "worker".to_owned(),
            commands: commands.into_iter().map(command).collect(),
            ..Default::default()
        }
    }
}

/// What a worker of a version says of itself.
pub fn version(deployment: &str, build_id: &str) -> WorkerDeploymentOptions {
    WorkerDeploymentOptions {
        deployment_name: deployment.to_owned(),
        build_id: build_id.to_owned(),
        worker_versioning_mode: WorkerVersioningMode::Versioned as i32,
    }
}

pub fn finish() -> (CommandType, C) {
    let attributes = CompleteWorkflowExecutionCommandAttributes::default();
    (CommandType::CompleteWorkflowExecution, C::CompleteWorkflowExecutionCommandAttributes(attributes))
}

pub fn blob(bytes: usize) -> Payload {
    let metadata = HashMap::from([("encoding".to_owned(), b"binary/plain".to_vec())]);
    Payload { metadata, data: vec![7; bytes], ..Default::default() }
}

pub fn queue(name: impl Into<String>) -> Option<TaskQueue> {
    Some(TaskQueue { name: name.into(), kind: 1, ..Default::default() })
}

pub fn kind(name: &str) -> Option<WorkflowType> {
    Some(WorkflowType { name: name.to_owned() })
}

pub fn activity(shape: impl FnOnce(&mut ScheduleActivityTaskCommandAttributes)) -> (CommandType, C) {
    let mut attributes = ScheduleActivityTaskCommandAttributes {
        activity_id: "a".to_owned(),
        activity_type: Some(ActivityType { name: "A".to_owned() }),
        task_queue: queue("activities"),
        start_to_close_timeout: Some(MINUTE),
        retry_policy: Some(RetryPolicy { maximum_attempts: 1, ..Default::default() }),
        ..Default::default()
    };
    shape(&mut attributes);
    (CommandType::ScheduleActivityTask, C::ScheduleActivityTaskCommandAttributes(attributes))
}

pub fn timer(id: &str) -> (CommandType, C) {
    let attributes = StartTimerCommandAttributes { timer_id: id.to_owned(), start_to_fire_timeout: Some(MINUTE) };
    (CommandType::StartTimer, C::StartTimerCommandAttributes(attributes))
}

pub fn marker(name: &str, bytes: usize) -> (CommandType, C) {
    let details = Payloads { payloads: vec![blob(bytes)] };
    let attributes = RecordMarkerCommandAttributes {
        marker_name: name.to_owned(),
        details: HashMap::from([("d".to_owned(), details)]),
        ..Default::default()
    };
    (CommandType::RecordMarker, C::RecordMarkerCommandAttributes(attributes))
}

pub fn child(shape: impl FnOnce(&mut StartChildWorkflowExecutionCommandAttributes)) -> (CommandType, C) {
    let mut attributes = StartChildWorkflowExecutionCommandAttributes {
        namespace: "default".to_owned(),
        workflow_id: "child".to_owned(),
        workflow_type: kind("C"),
        task_queue: queue("children"),
        workflow_task_timeout: Some(SECOND),
        ..Default::default()
    };
    shape(&mut attributes);
    (CommandType::StartChildWorkflowExecution, C::StartChildWorkflowExecutionCommandAttributes(attributes))
}

pub fn signal_to(
    workflow_id: &str,
    shape: impl FnOnce(&mut SignalExternalWorkflowExecutionCommandAttributes),
) -> (CommandType, C) {
    let mut attributes = SignalExternalWorkflowExecutionCommandAttributes {
        namespace: "default".to_owned(),
        execution: Some(WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: String::new() }),
        signal_name: "s".to_owned(),
        ..Default::default()
    };
    shape(&mut attributes);
    (CommandType::SignalExternalWorkflowExecution, C::SignalExternalWorkflowExecutionCommandAttributes(attributes))
}

pub fn cancel_of(workflow_id: &str) -> (CommandType, C) {
    let attributes = RequestCancelExternalWorkflowExecutionCommandAttributes {
        namespace: "default".to_owned(),
        workflow_id: workflow_id.to_owned(),
        ..Default::default()
    };
    let attributes = C::RequestCancelExternalWorkflowExecutionCommandAttributes(attributes);
    (CommandType::RequestCancelExternalWorkflowExecution, attributes)
}

pub fn continue_as_new(shape: impl FnOnce(&mut ContinueAsNewWorkflowExecutionCommandAttributes)) -> (CommandType, C) {
    let mut attributes = ContinueAsNewWorkflowExecutionCommandAttributes {
        workflow_type: kind("W"),
        task_queue: queue("again"),
        ..Default::default()
    };
    shape(&mut attributes);
    (CommandType::ContinueAsNewWorkflowExecution, C::ContinueAsNewWorkflowExecutionCommandAttributes(attributes))
}

/// What a workflow says that accepts an update and answers it at once.
pub fn taken_and_answered(asking: &protocol::v1::Message) -> (Vec<(CommandType, C)>, Vec<protocol::v1::Message>) {
    let body = asking.body.clone().expect("a request");
    let request = <update::Request as prost::Message>::decode(body.value.as_slice()).expect("a request");
    let said = |id: &str, name: &str, value: Vec<u8>| protocol::v1::Message {
        id: id.to_owned(),
        protocol_instance_id: asking.protocol_instance_id.clone(),
        body: Some(prost_wkt_types::Any {
            type_url: format!("type.googleapis.com/temporal.api.update.v1.{name}"),
            value,
        }),
        ..Default::default()
    };
    let acceptance = update::Acceptance {
        accepted_request_message_id: asking.id.clone(),
        accepted_request_sequencing_event_id: match asking.sequencing_id {
            Some(protocol::v1::message::SequencingId::EventId(event_id)) => event_id,
            _ => 0,
        },
        accepted_request: Some(request.clone()),
    };
    let outcome = update::Outcome { value: Some(update::outcome::Value::Success(Payloads::default())) };
    let response = update::Response { meta: request.meta, outcome: Some(outcome) };
    let turn = |id: &str| {
        let attributes = ProtocolMessageCommandAttributes { message_id: id.to_owned() };
        (CommandType::ProtocolMessage, C::ProtocolMessageCommandAttributes(attributes))
    };
    let messages = vec![
        said("accept", "Acceptance", prost::Message::encode_to_vec(&acceptance)),
        said("answer", "Response", prost::Message::encode_to_vec(&response)),
    ];
    (vec![turn("accept"), turn("answer")], messages)
}
