//! What one hand worker may do on its connection: poll its own queues, and report on tasks that it was handed there.
//!
//! A worker that a sandbox took over could otherwise take calls of other hosts' hands, or end calls that others run.

use domain::session::queue;
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashSet;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, RecordActivityTaskHeartbeatRequest,
    RespondActivityTaskCanceledRequest, RespondActivityTaskCompletedRequest, RespondActivityTaskFailedRequest,
    ShutdownWorkerRequest,
};
use tonic::Status;

const POLL: &str = "PollActivityTaskQueue";
const HEARTBEAT: &str = "RecordActivityTaskHeartbeat";
const SHUTDOWN: &str = "ShutdownWorker";

/// The bounds of one connection.
pub struct Bounds {
    namespace: String,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The host whose queue it polls: given, or the first that it asked for.
    host: Option<String>,
    /// Of tasks that it was handed and has not answered.
    tokens: HashSet<Vec<u8>>,
}

impl Bounds {
    /// `host` is known of a worker that the service started itself.
    pub fn new(namespace: &str, host: Option<String>) -> Self {
        Bounds { namespace: namespace.to_owned(), known: Mutex::new(Known { host, tokens: HashSet::new() }) }
    }

    /// Whether the call is within the bounds.
    pub fn check(&self, rpc: &str, body: &[u8]) -> Result<(), Status> {
        if rpc == POLL {
            let request = decode::<PollActivityTaskQueueRequest>(body)?;
            return self.check_poll(&request.namespace, &request.task_queue.unwrap_or_default().name);
        }
        if rpc == SHUTDOWN && !decode::<ShutdownWorkerRequest>(body)?.sticky_task_queue.is_empty() {
            return Err(Status::permission_denied("a hand worker has no sticky queue to close"));
        }
        match task_token(rpc, body)? {
            Some(token) if !self.known.lock().tokens.contains(&token) => {
                Err(Status::permission_denied("this worker was not handed that task"))
            }
            _ => Ok(()),
        }
    }

    fn check_poll(&self, namespace: &str, name: &str) -> Result<(), Status> {
        let known = &mut self.known.lock();
        let is_own = match queue::host_of(name) {
            Some(host) => known.host.get_or_insert_with(|| host.to_owned()) == host,
            None => name == queue::HANDS,
        };
        if is_own && namespace == self.namespace {
            return Ok(());
        }
        Err(Status::permission_denied("a hand worker polls the queues of its own host only"))
    }

    /// Takes note of what a call that succeeded did.
    pub fn done(&self, rpc: &str, body: &[u8], reply: &[u8]) -> Result<(), Status> {
        if rpc == POLL {
            let token = decode::<PollActivityTaskQueueResponse>(reply)?.task_token;
            if !token.is_empty() {
                self.known.lock().tokens.insert(token);
            }
        } else if rpc != HEARTBEAT
            && let Some(token) = task_token(rpc, body)?
        {
            self.known.lock().tokens.remove(&token);
        }
        Ok(())
    }
}

/// The task that a call is about.
fn task_token(rpc: &str, body: &[u8]) -> Result<Option<Vec<u8>>, Status> {
    Ok(Some(match rpc {
        HEARTBEAT => decode::<RecordActivityTaskHeartbeatRequest>(body)?.task_token,
        "RespondActivityTaskCompleted" => decode::<RespondActivityTaskCompletedRequest>(body)?.task_token,
        "RespondActivityTaskFailed" => decode::<RespondActivityTaskFailedRequest>(body)?.task_token,
        "RespondActivityTaskCanceled" => decode::<RespondActivityTaskCanceledRequest>(body)?.task_token,
        _ => return Ok(None),
    }))
}

fn decode<M: Message + Default>(body: &[u8]) -> Result<M, Status> {
    M::decode(body).map_err(|_| Status::invalid_argument("the message cannot be read"))
}
