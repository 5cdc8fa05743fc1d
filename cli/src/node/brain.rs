//! What a brain worker may do on its connection: run sessions of this namespace, with the commands that sessions have.
//!
//! A command is carried out by the engine with the engine's rights. So a worker that nobody lets signal or start a workflow
//! must not do so by answering a task either: answers are read, on either engine.

use domain::session::queue;
use prost::Message;
use temporalio_common::protos::temporal::api::{
    command::v1::{Command, command::Attributes},
    enums::v1::TaskQueueKind,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::{
        DescribeWorkflowExecutionRequest, GetWorkflowExecutionHistoryRequest,
        GetWorkflowExecutionHistoryReverseRequest, PollActivityTaskQueueRequest, PollWorkflowTaskQueueRequest,
        RespondWorkflowTaskCompletedRequest,
    },
};
use tonic::Status;

/// Whether a call of a brain worker is within its bounds.
pub fn check(namespace: &str, rpc: &str, body: &[u8]) -> Result<(), Status> {
    let of = |asked: &str| {
        if asked == namespace { Ok(()) } else { Err(Status::permission_denied("that is another namespace")) }
    };
    match rpc {
        "PollWorkflowTaskQueue" => {
            let request = decode::<PollWorkflowTaskQueueRequest>(body)?;
            of(&request.namespace)?;
            polled(request.task_queue, &[queue::BRAIN])
        }
        "PollActivityTaskQueue" => {
            let request = decode::<PollActivityTaskQueueRequest>(body)?;
            of(&request.namespace)?;
            polled(request.task_queue, &[queue::BRAIN, queue::TRIALS])
        }
        "RespondWorkflowTaskCompleted" => {
            let request = decode::<RespondWorkflowTaskCompletedRequest>(body)?;
            of(&request.namespace)?;
            request.commands.iter().try_for_each(|command| commanded(namespace, command))
        }
        "GetWorkflowExecutionHistory" => of(&decode::<GetWorkflowExecutionHistoryRequest>(body)?.namespace),
        "GetWorkflowExecutionHistoryReverse" => {
            of(&decode::<GetWorkflowExecutionHistoryReverseRequest>(body)?.namespace)
        }
        "DescribeWorkflowExecution" => of(&decode::<DescribeWorkflowExecutionRequest>(body)?.namespace),
        _ => Ok(()),
    }
}

/// One of its own queues, or the one on which the engine gives back to a worker what it has begun.
fn polled(queue: Option<TaskQueue>, own: &[&str]) -> Result<(), Status> {
    let queue = queue.unwrap_or_default();
    let is_sticky = queue.kind == TaskQueueKind::Sticky as i32 && queue.normal_name == queue::BRAIN;
    if own.contains(&queue.name.as_str()) || is_sticky {
        return Ok(());
    }
    Err(Status::permission_denied("a brain worker polls its own queues only"))
}

/// An allow-list: what is not known to be harmless is refused.
fn commanded(namespace: &str, command: &Command) -> Result<(), Status> {
    use Attributes as A;
    match command.attributes.as_ref() {
        Some(A::ScheduleActivityTaskCommandAttributes(schedule)) => activity_queue(schedule.task_queue.as_ref()),
        Some(A::ContinueAsNewWorkflowExecutionCommandAttributes(new)) => match name(new.task_queue.as_ref()) {
            "" | queue::BRAIN => Ok(()),
            _ => Err(Status::permission_denied("a session goes on where brain workers are")),
        },
        Some(
            A::StartTimerCommandAttributes(_)
            | A::CancelTimerCommandAttributes(_)
            | A::RequestCancelActivityTaskCommandAttributes(_)
            | A::RecordMarkerCommandAttributes(_)
            | A::UpsertWorkflowSearchAttributesCommandAttributes(_)
            | A::ModifyWorkflowPropertiesCommandAttributes(_)
            | A::CompleteWorkflowExecutionCommandAttributes(_)
            | A::FailWorkflowExecutionCommandAttributes(_)
            | A::CancelWorkflowExecutionCommandAttributes(_),
        ) => Ok(()),
        _ => {
            tracing::warn!(
                command_type = command.command_type,
                namespace,
                "a brain worker gave a command that is no session's"
            );
            Err(Status::permission_denied("no session gives that command"))
        }
    }
}

/// Where sessions have their work done; named by none it is where the session itself runs.
fn activity_queue(queue: Option<&TaskQueue>) -> Result<(), Status> {
    let name = name(queue);
    if matches!(name, "" | queue::BRAIN | queue::TRIALS | queue::HANDS) || queue::host_of(name).is_some() {
        return Ok(());
    }
    Err(Status::permission_denied("sessions have no work on that queue"))
}

fn name(queue: Option<&TaskQueue>) -> &str {
    queue.map_or("", |queue| &queue.name)
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|_| Status::invalid_argument("the message cannot be read"))
}
