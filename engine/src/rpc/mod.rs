//! The wire: which RPCs exist, and how requests become inputs and replies become responses, one group a file. No rules
//! live here.

mod activity;
mod deployment;
mod describe;
mod filter;
mod history;
mod namespace;
mod open_closed;
mod options;
mod query;
mod start;
mod status;
mod system;
mod task_queue;
mod token;
mod undelivered;
mod update;
mod visibility;
mod worker;
mod workflow;
mod workflow_task;

use crate::host::{Error, Host, Slot};
use crate::pb::common::v1::WorkflowExecution;
use crate::pb::enums::v1::{ResourceExhaustedCause, ResourceExhaustedScope};
use crate::store::keys;
use crate::time::Time;
use bytes::Bytes;
use http::HeaderMap;
use prost::Message;
use std::sync::Arc;
use tonic::Status;

pub use namespace::Namespaces;

/// What every handler is given besides its request.
pub struct Call {
    pub host: Arc<Host>,
    pub namespaces: Arc<Namespaces>,
    /// When the caller stops waiting, if it said so.
    deadline: Option<Time>,
    /// `client-name`: command-line tools and SDKs are answered differently in one place.
    client_name: String,
}

type Reply<T> = Result<T, Status>;

/// One line an RPC: its service, its name, and who answers.
macro_rules! methods {
    ($($service:literal $($rpc:ident => $handler:path),+ $(,)?;)+) => {
        /// Every RPC that is implemented.
        #[cfg(test)]
        pub const METHODS: &[(&str, &str)] = &[$($(($service, stringify!($rpc)),)+)+];

        /// Answers one RPC.
        pub async fn dispatch(call: Call, service: &str, rpc: &str, body: Bytes) -> Reply<Vec<u8>> {
            match (service, rpc) {
                $($(($service, stringify!($rpc)) => Box::pin(answer(body, |request| $handler(call, request))).await,)+)+
                _ => Err(Status::unimplemented(format!("unknown method {rpc}"))),
            }
        }
    };
}

methods! {
    "temporal.api.workflowservice.v1.WorkflowService"
        GetSystemInfo => system::get_system_info,
        GetClusterInfo => system::get_cluster_info,
        DescribeNamespace => namespace::describe,
        ListNamespaces => namespace::list,
        RegisterNamespace => namespace::register,
        StartWorkflowExecution => start::start,
        SignalWithStartWorkflowExecution => start::signal_with_start,
        SignalWorkflowExecution => workflow::signal,
        RequestCancelWorkflowExecution => workflow::request_cancel,
        TerminateWorkflowExecution => workflow::terminate,
        DeleteWorkflowExecution => workflow::delete,
        PollWorkflowTaskQueue => workflow_task::poll,
        RespondWorkflowTaskCompleted => workflow_task::respond_completed,
        RespondWorkflowTaskFailed => workflow_task::respond_failed,
        ResetStickyTaskQueue => workflow_task::reset_sticky,
        PollActivityTaskQueue => activity::poll,
        RespondActivityTaskCompleted => activity::respond_completed,
        RespondActivityTaskCompletedById => activity::respond_completed_by_id,
        RespondActivityTaskFailed => activity::respond_failed,
        RespondActivityTaskFailedById => activity::respond_failed_by_id,
        RespondActivityTaskCanceled => activity::respond_canceled,
        RespondActivityTaskCanceledById => activity::respond_canceled_by_id,
        RecordActivityTaskHeartbeat => activity::heartbeat,
        RecordActivityTaskHeartbeatById => activity::heartbeat_by_id,
        UpdateWorkflowExecution => update::update,
        PollWorkflowExecutionUpdate => update::poll,
        QueryWorkflow => query::query,
        RespondQueryTaskCompleted => query::respond,
        GetWorkflowExecutionHistory => history::get,
        GetWorkflowExecutionHistoryReverse => history::get_reverse,
        DescribeWorkflowExecution => describe::workflow,
        DescribeTaskQueue => task_queue::describe,
        ListWorkflowExecutions => visibility::list,
        ScanWorkflowExecutions => visibility::scan,
        CountWorkflowExecutions => visibility::count,
        ListOpenWorkflowExecutions => open_closed::list_open,
        ListClosedWorkflowExecutions => open_closed::list_closed,
        GetSearchAttributes => visibility::search_attributes,
        DescribeWorkerDeployment => deployment::describe,
        ListWorkerDeployments => deployment::list,
        DescribeWorkerDeploymentVersion => deployment::describe_version,
        SetWorkerDeploymentCurrentVersion => deployment::set_current,
        SetWorkerDeploymentRampingVersion => deployment::set_ramping,
        UpdateWorkerDeploymentVersionMetadata => deployment::update_metadata,
        DeleteWorkerDeploymentVersion => deployment::delete_version,
        DeleteWorkerDeployment => deployment::delete,
        UpdateWorkflowExecutionOptions => options::update,
        RecordWorkerHeartbeat => worker::record_heartbeat,
        ListWorkers => worker::list,
        CountWorkers => worker::count,
        DescribeWorker => worker::describe,
        ShutdownWorker => worker::shutdown;
    "temporal.api.operatorservice.v1.OperatorService"
        ListSearchAttributes => visibility::list_search_attributes,
        AddSearchAttributes => visibility::add_search_attributes,
        RemoveSearchAttributes => visibility::remove_search_attributes;
    "grpc.health.v1.Health"
        Check => system::health;
}

async fn answer<Request, Response, Answer>(body: Bytes, handler: impl FnOnce(Request) -> Answer) -> Reply<Vec<u8>>
where
    Request: Message + Default,
    Response: Message,
    Answer: Future<Output = Reply<Response>>,
{
    let request = Request::decode(body).map_err(|e| Status::invalid_argument(format!("malformed request: {e}")))?;
    Ok(handler(request).await?.encode_to_vec())
}

impl Call {
    pub fn new(host: Arc<Host>, namespaces: Arc<Namespaces>, headers: &HeaderMap) -> Call {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let deadline = parse_timeout(header("grpc-timeout")).map(|nanos| host.clock.now().plus(nanos));
        Call { namespaces, deadline, client_name: header("client-name").to_owned(), host }
    }

    /// When to stop waiting: after `wait` nanoseconds, or shortly before the caller gives up.
    fn wait_until(&self, wait: i64) -> Time {
        const MARGIN: i64 = 100_000_000;
        let own = self.host.clock.now().plus(wait);
        self.deadline.map_or(own, |deadline| own.min(deadline.plus(-MARGIN)))
    }

    /// The namespace must exist.
    fn namespace<'a>(&self, name: &'a str) -> Reply<&'a str> {
        if self.namespaces.exists(name) { Ok(name) } else { Err(status::namespace_not_found(name)) }
    }

    /// The run that is meant; without a run id the newest.
    fn run(&self, namespace: &str, execution: &WorkflowExecution) -> Reply<Arc<Slot>> {
        let WorkflowExecution { workflow_id, run_id } = execution;
        if !run_id.is_empty() && keys::run(run_id).is_none() {
            return Err(Status::invalid_argument("Invalid RunId."));
        }
        self.host.resolve(namespace, execution).map_err(|error| match error {
            Error::NoRun if run_id.is_empty() => {
                status::not_found(&format!("workflow not found for ID: {workflow_id}"))
            }
            Error::NoRun => status::not_found(&format!(
                "workflow execution not found for workflow ID {workflow_id:?} and run ID {run_id:?}"
            )),
            other => other.into(),
        })
    }

    /// `id` must be there and of acceptable length.
    fn id(&self, what: &str, id: &str) -> Reply<()> {
        if id.is_empty() {
            return Err(Status::invalid_argument(format!("{what} is not set on request.")));
        }
        if id.len() > self.host.limits.id_bytes_max {
            return Err(Status::invalid_argument(format!("{what} length exceeds limit.")));
        }
        Ok(())
    }

    /// An id that need not be there must be of acceptable length too.
    fn id_if_any(&self, what: &str, id: &str) -> Reply<()> {
        if id.is_empty() { Ok(()) } else { self.id(what, id) }
    }

    /// A workflow id, or the name of a signal that starts a workflow: servers say of these how long they are.
    fn measured_id(&self, what: &str, id: &str) -> Reply<()> {
        let (length, max) = (id.len(), self.host.limits.id_bytes_max);
        if length > max {
            let message = format!("{what} exceeds maximum allowed length ({length}/{max})");
            return Err(Status::invalid_argument(message));
        }
        Ok(())
    }

    /// The name of a task queue must be there and of acceptable length.
    fn queue_name(&self, name: &str) -> Reply<()> {
        if name.len() > self.host.limits.id_bytes_max {
            return Err(Status::invalid_argument("taskQueue length exceeds limit"));
        }
        self.id("TaskQueue", name)
    }

    /// There must be room for more tasks: what waits is in memory.
    fn room(&self) -> Reply<()> {
        if self.host.queues.waiting() < self.host.limits.waiting_tasks_max {
            return Ok(());
        }
        let (cause, scope) = (ResourceExhaustedCause::SystemOverloaded, ResourceExhaustedScope::System);
        Err(status::exhausted("too many tasks wait for workers", cause, scope))
    }

    /// A payload field must fit.
    fn blob<M: Message>(&self, payloads: Option<&M>) -> Reply<()> {
        if payloads.is_some_and(|payloads| payloads.encoded_len() > self.host.limits.blob_bytes_max) {
            return Err(Status::invalid_argument("Blob data size exceeds limit."));
        }
        Ok(())
    }
}

/// Nanoseconds of a `grpc-timeout` header.
fn parse_timeout(header: &str) -> Option<i64> {
    let digits = header.len().checked_sub(1)?;
    let (amount, unit) = (header.get(..digits)?.parse::<i64>().ok()?, header.get(digits..)?);
    let nanos = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    Some(amount.saturating_mul(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_every_unit_are_read_and_nonsense_is_none() {
        let table = [
            ("1H", Some(3_600_000_000_000)),
            ("2M", Some(120_000_000_000)),
            ("3S", Some(3_000_000_000)),
            ("70000m", Some(70_000_000_000)),
            ("5u", Some(5_000)),
            ("6n", Some(6)),
            ("99999999H", Some(i64::MAX)),
            ("", None),
            ("S", None),
            ("3x", None),
            ("ü", None),
        ];
        for (header, expected) in table {
            assert_eq!(parse_timeout(header), expected, "{header:?}");
        }
    }

    #[test]
    fn the_documents_list_what_is_implemented_and_nothing_else() {
        let page = include_str!("../../../docs/engine.md");
        let (_, rest) = page.split_once("\n## Implemented\n").expect("a list");
        let (list, _) = rest.split_once("\nCommands of a workflow").expect("its end");
        let listed: std::collections::BTreeSet<_> = list.split('`').skip(1).step_by(2).collect();
        let implemented: std::collections::BTreeSet<_> = METHODS.iter().map(|method| method.1).collect();
        assert_eq!(listed, implemented);
    }

    #[test]
    fn no_method_is_listed_twice() {
        let unique: std::collections::BTreeSet<_> = METHODS.iter().collect();
        assert_eq!(unique.len(), METHODS.len());
    }
}
