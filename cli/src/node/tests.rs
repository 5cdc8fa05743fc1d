//! What workers may do over `node.sock`.

use super::*;
use crate::grpc::RawClient;
use engine::{Engine, Options, Store};
use prost::Message;
use store::MemoryBlobs;
use temporalio_common::protos::temporal::api::{
    command::v1::{
        Command, ContinueAsNewWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
        command::Attributes,
    },
    common::v1::{ActivityType, WorkflowExecution, WorkflowType},
    enums::v1::CommandType,
    taskqueue::v1::TaskQueue,
    workflowservice::v1::*,
};
use tonic::Code;

const NAMESPACE: &str = "default";

fn queue(name: &str) -> Option<TaskQueue> {
    Some(TaskQueue { name: name.to_owned(), ..Default::default() })
}

async fn call<M: Message, R: Message + Default>(rpc: &Rpc, name: &str, message: M) -> R {
    let reply = rpc.call(WORKFLOW_SERVICE, name, &HeaderMap::new(), message.encode_to_vec().into()).await.unwrap();
    R::decode(&*reply).unwrap()
}

/// An engine with one call that waits for each of some hosts.
async fn engine(hosts: &[&str]) -> Rpc {
    let rpc = Rpc::Embedded(Engine::open(Options::new(Store::Memory)).unwrap());
    let start = StartWorkflowExecutionRequest {
        namespace: NAMESPACE.to_owned(),
        workflow_id: "w".to_owned(),
        workflow_type: Some(WorkflowType { name: "W".to_owned() }),
        task_queue: queue("brain"),
        request_id: "r".to_owned(),
        ..Default::default()
    };
    call::<_, StartWorkflowExecutionResponse>(&rpc, "StartWorkflowExecution", start).await;
    let poll = PollWorkflowTaskQueueRequest {
        namespace: NAMESPACE.to_owned(),
        task_queue: queue("brain"),
        ..Default::default()
    };
    let task: PollWorkflowTaskQueueResponse = call(&rpc, "PollWorkflowTaskQueue", poll).await;
    let commands = hosts.iter().map(|host| {
        let seconds = |seconds| Some(std::time::Duration::from_secs(seconds).try_into().unwrap());
        let schedule = ScheduleActivityTaskCommandAttributes {
            activity_id: (*host).to_owned(),
            activity_type: Some(ActivityType { name: "execute".to_owned() }),
            task_queue: queue(&domain::session::queue::hand_host(host)),
            start_to_close_timeout: seconds(60),
            ..Default::default()
        };
        Command {
            command_type: CommandType::ScheduleActivityTask as i32,
            attributes: Some(Attributes::ScheduleActivityTaskCommandAttributes(schedule)),
            ..Default::default()
        }
    });
    let done = RespondWorkflowTaskCompletedRequest {
        namespace: NAMESPACE.to_owned(),
        task_token: task.task_token,
        commands: commands.collect(),
        ..Default::default()
    };
    call::<_, RespondWorkflowTaskCompletedResponse>(&rpc, "RespondWorkflowTaskCompleted", done).await;
    rpc
}

struct Worker {
    client: RawClient,
}

impl Worker {
    /// A connection as a child's of that host has it, or as that of a worker started by hand.
    async fn new(node: &Node, host: Option<&str>) -> Self {
        Self::of(node, Peer { role: Role::Hand, host: host.map(str::to_owned) }).await
    }

    async fn of(node: &Node, peer: Peer) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(node.clone().serve(ours, Some(peer)));
        Worker { client: RawClient::new(theirs, "http://node", None, || {}).await.unwrap() }
    }

    async fn call<R: Message + Default>(&self, rpc: &str, message: impl Message) -> Result<R, Code> {
        let reply = self.client.call(WORKFLOW_SERVICE, rpc, &HeaderMap::new(), &message.encode_to_vec()).await;
        reply.map(|(_, bytes)| R::decode(bytes).unwrap()).map_err(|status| status.code())
    }

    async fn poll(&self, namespace: &str, name: &str) -> Result<Vec<u8>, Code> {
        let request = PollActivityTaskQueueRequest {
            namespace: namespace.to_owned(),
            task_queue: queue(name),
            ..Default::default()
        };
        let polled: PollActivityTaskQueueResponse = self.call("PollActivityTaskQueue", request).await?;
        Ok(polled.task_token)
    }

    /// Everything that can be said of a task.
    async fn report(&self, token: &[u8]) -> [Option<Code>; 4] {
        let (namespace, task_token) = (NAMESPACE.to_owned(), token.to_vec());
        let heartbeat = RecordActivityTaskHeartbeatRequest {
            namespace: namespace.clone(),
            task_token: task_token.clone(),
            ..Default::default()
        };
        let completed = RespondActivityTaskCompletedRequest {
            namespace: namespace.clone(),
            task_token: task_token.clone(),
            ..Default::default()
        };
        let failed = RespondActivityTaskFailedRequest {
            namespace: namespace.clone(),
            task_token: task_token.clone(),
            ..Default::default()
        };
        let canceled = RespondActivityTaskCanceledRequest { namespace, task_token, ..Default::default() };
        [
            self.call::<RecordActivityTaskHeartbeatResponse>("RecordActivityTaskHeartbeat", heartbeat).await.err(),
            self.call::<RespondActivityTaskFailedResponse>("RespondActivityTaskFailed", failed).await.err(),
            self.call::<RespondActivityTaskCanceledResponse>("RespondActivityTaskCanceled", canceled).await.err(),
            self.call::<RespondActivityTaskCompletedResponse>("RespondActivityTaskCompleted", completed).await.err(),
        ]
    }

    async fn complete(&self, token: &[u8]) -> Result<(), Code> {
        let completed = RespondActivityTaskCompletedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: token.to_vec(),
            ..Default::default()
        };
        self.call::<RespondActivityTaskCompletedResponse>("RespondActivityTaskCompleted", completed).await.map(drop)
    }
}

const DENIED: Code = Code::PermissionDenied;

#[tokio::test]
async fn a_hand_worker_polls_its_own_queues_and_reports_on_its_own_tasks() {
    let rpc = engine(&["a", "b"]).await;
    let node = Node::new(rpc, NAMESPACE, Arc::new(MemoryBlobs::new()), Arc::new(|_| {}), BTreeMap::new());
    let (a, b) = (Worker::new(&node, Some("a")).await, Worker::new(&node, None).await);
    for (namespace, name) in
        [(NAMESPACE, "brain"), (NAMESPACE, "hand-host-b"), ("other", "hand-host-a"), (NAMESPACE, "")]
    {
        assert_eq!(a.poll(namespace, name).await, Err(DENIED), "{namespace} {name}");
    }
    let (of_a, of_b) =
        (a.poll(NAMESPACE, "hand-host-a").await.unwrap(), b.poll(NAMESPACE, "hand-host-b").await.unwrap());
    assert!(!of_a.is_empty() && !of_b.is_empty() && of_a != of_b);
    // One that was started by hand is of the host that it asked for first.
    assert_eq!(b.poll(NAMESPACE, "hand-host-a").await, Err(DENIED));
    assert_eq!(a.report(&of_b).await, [Some(DENIED); 4]);
    assert_eq!(b.report(&of_a).await, [Some(DENIED); 4]);
    assert_eq!(a.report(b"no token").await, [Some(DENIED); 4]);
    assert_eq!((a.complete(&of_a).await, b.complete(&of_b).await), (Ok(()), Ok(())));
    // An answered task is nobody's.
    assert_eq!(a.complete(&of_a).await, Err(DENIED));
}

/// The answer to a workflow task with one command.
fn answer(namespace: &str, attributes: Attributes) -> RespondWorkflowTaskCompletedRequest {
    let command = Command { attributes: Some(attributes), ..Default::default() };
    RespondWorkflowTaskCompletedRequest {
        namespace: namespace.to_owned(),
        task_token: b"none".into(),
        commands: vec![command],
        ..Default::default()
    }
}

#[tokio::test]
async fn a_brain_worker_gives_no_command_that_is_not_a_sessions() {
    use Attributes as A;
    let rpc = engine(&[]).await;
    let node = Node::new(rpc, NAMESPACE, Arc::new(MemoryBlobs::new()), Arc::new(|_| {}), BTreeMap::new());
    let brain = Worker::of(&node, Peer { role: Role::Brain, host: None }).await;
    let on = |name: &str| {
        A::ScheduleActivityTaskCommandAttributes(ScheduleActivityTaskCommandAttributes {
            task_queue: queue(name),
            ..Default::default()
        })
    };
    let new_on = |name: &str| {
        A::ContinueAsNewWorkflowExecutionCommandAttributes(ContinueAsNewWorkflowExecutionCommandAttributes {
            task_queue: queue(name),
            ..Default::default()
        })
    };
    let respond = async |namespace: &str, attributes: Attributes| {
        let request = answer(namespace, attributes);
        brain.call::<RespondWorkflowTaskCompletedResponse>("RespondWorkflowTaskCompleted", request).await.map(drop)
    };
    for attributes in [
        A::StartChildWorkflowExecutionCommandAttributes(Default::default()),
        A::SignalExternalWorkflowExecutionCommandAttributes(Default::default()),
        A::RequestCancelExternalWorkflowExecutionCommandAttributes(Default::default()),
        A::ScheduleNexusOperationCommandAttributes(Default::default()),
        A::ProtocolMessageCommandAttributes(Default::default()),
        on("billing"),
        on("hand-host"),
        new_on("billing"),
    ] {
        assert_eq!(respond(NAMESPACE, attributes.clone()).await, Err(DENIED), "{attributes:?}");
    }
    // What sessions do gets as far as the engine, which knows no such task.
    for attributes in [
        on("brain"),
        on("brain-trials"),
        on("hands"),
        on("hand-host-a"),
        on(""),
        new_on("brain"),
        A::RecordMarkerCommandAttributes(Default::default()),
        A::StartTimerCommandAttributes(Default::default()),
    ] {
        let reached = respond(NAMESPACE, attributes.clone()).await.unwrap_err();
        assert!(matches!(reached, Code::NotFound | Code::InvalidArgument), "{attributes:?}: {reached:?}");
        assert_eq!(respond("other", attributes).await, Err(DENIED));
    }
    let nothing = RespondWorkflowTaskCompletedRequest {
        namespace: NAMESPACE.to_owned(),
        commands: vec![Command::default()],
        ..Default::default()
    };
    let refused = brain.call::<RespondWorkflowTaskCompletedResponse>("RespondWorkflowTaskCompleted", nothing).await;
    assert_eq!(refused.map(drop), Err(DENIED));
}

#[tokio::test]
async fn a_brain_worker_stays_in_its_namespace_and_on_its_queues() {
    let rpc = engine(&["a"]).await;
    let node = Node::new(rpc, NAMESPACE, Arc::new(MemoryBlobs::new()), Arc::new(|_| {}), BTreeMap::new());
    let brain = Worker::of(&node, Peer { role: Role::Brain, host: None }).await;
    for (namespace, name) in [(NAMESPACE, "hand-host-a"), (NAMESPACE, "hands"), ("other", "brain"), (NAMESPACE, "")] {
        assert_eq!(brain.poll(namespace, name).await, Err(DENIED), "{namespace} {name}");
        let poll = PollWorkflowTaskQueueRequest {
            namespace: namespace.to_owned(),
            task_queue: queue(name),
            ..Default::default()
        };
        let polled = brain.call::<PollWorkflowTaskQueueResponse>("PollWorkflowTaskQueue", poll).await;
        assert_eq!(polled.map(drop), Err(DENIED), "{namespace} {name}");
    }
    let history = |namespace: &str| GetWorkflowExecutionHistoryRequest {
        namespace: namespace.to_owned(),
        execution: Some(WorkflowExecution { workflow_id: "w".to_owned(), run_id: String::new() }),
        ..Default::default()
    };
    let read = async |namespace: &str| {
        let read = brain.call::<GetWorkflowExecutionHistoryResponse>("GetWorkflowExecutionHistory", history(namespace));
        read.await.map(drop)
    };
    assert_eq!((read(NAMESPACE).await, read("other").await), (Ok(()), Err(DENIED)));
}

#[tokio::test]
async fn a_hand_worker_closes_no_queue_of_workflows() {
    let rpc = engine(&[]).await;
    let node = Node::new(rpc, NAMESPACE, Arc::new(MemoryBlobs::new()), Arc::new(|_| {}), BTreeMap::new());
    let worker = Worker::new(&node, Some("a")).await;
    let shutdown = |sticky: &str| ShutdownWorkerRequest {
        namespace: NAMESPACE.to_owned(),
        sticky_task_queue: sticky.to_owned(),
        ..Default::default()
    };
    let closed = worker.call::<ShutdownWorkerResponse>("ShutdownWorker", shutdown("brain")).await;
    assert_eq!(closed.map(drop), Err(DENIED));
    let own = worker.call::<ShutdownWorkerResponse>("ShutdownWorker", shutdown("")).await;
    assert_eq!(own.map(drop), Ok(()));
}

#[test]
fn a_hand_worker_reads_no_history_and_signals_nobody() {
    for rpc in [
        "GetWorkflowExecutionHistory",
        "GetWorkflowExecutionHistoryReverse",
        "SignalWorkflowExecution",
        "StartWorkflowExecution",
        "PollWorkflowTaskQueue",
        "QueryWorkflow",
        "TerminateWorkflowExecution",
    ] {
        assert!(!Role::Hand.allows(WORKFLOW_SERVICE, rpc), "{rpc}");
    }
    assert!(Role::Hand.allows(WORKFLOW_SERVICE, "PollActivityTaskQueue"));
    assert!(Role::Hand.allows(SERVICE, remote::PUT));
    assert!(!Role::Hand.allows(SERVICE, PUBLISH_DELTA));
}

#[test]
fn no_worker_starts_signals_or_ends_a_session() {
    for role in Role::ALL {
        for rpc in [
            "StartWorkflowExecution",
            "SignalWorkflowExecution",
            "TerminateWorkflowExecution",
            "DeleteWorkflowExecution",
        ] {
            assert!(!role.allows(WORKFLOW_SERVICE, rpc), "{rpc} as {}", role.name());
        }
        assert!(!role.allows("temporal.api.operatorservice.v1.OperatorService", "DeleteNamespace"));
    }
}
