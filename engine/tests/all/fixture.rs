//! Engines, clients and workers for the scenarios.

use futures::TryStreamExt;
use std::sync::Arc;
use std::time::Duration;
use steadyhand_engine::{Engine, Options, Store};
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcSuccessResponse};
use temporalio_client::tonic::IntoRequest;
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, RetryOptions, Url, WorkflowFetchHistoryOptions,
    WorkflowHandle,
};
use temporalio_common::HasWorkflowDefinition;
use temporalio_common::protos::temporal::api::common::v1::WorkflowExecution;
use temporalio_common::protos::temporal::api::enums::v1::PendingActivityState;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_common::protos::temporal::api::workflowservice::v1::{
    DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse,
};
use temporalio_common::worker::{VersioningBehavior, WorkerDeploymentOptions, WorkerDeploymentVersion};
use temporalio_sdk::runtime::RuntimeOptions;
use temporalio_sdk::{Runtime, Worker, WorkerOptions};

use crate::workflows::{self, Acts};
use crate::{families, fleet, replay};

pub const QUEUE: &str = "q";

/// An engine that forgets.
pub fn memory() -> Engine {
    open(Options::new(Store::Memory))
}

pub fn open(options: Options) -> Engine {
    Engine::open(options).expect("the engine opens")
}

/// A client whose every RPC is a call of the engine.
pub async fn client(engine: &Engine) -> Client {
    over(engine, RetryOptions::default()).await
}

/// The same, which tries again what fails as `retries` say.
pub async fn over(engine: &Engine, retries: RetryOptions) -> Client {
    let engine = engine.clone();
    let service = CallbackBasedGrpcService {
        callback: Arc::new(move |request| {
            let engine = engine.clone();
            Box::pin(async move {
                let proto = engine.call(&request.service, &request.rpc, &request.headers, request.proto).await?;
                Ok(GrpcSuccessResponse { headers: Default::default(), proto })
            })
        }),
    };
    let url = Url::parse("http://embedded.invalid").expect("a url");
    let options =
        ConnectionOptions::new(url).service_override(service).dns_load_balancing(None).retry_options(retries).build();
    let connection = Connection::connect(options).await.expect("connects");
    Client::new(connection, ClientOptions::new("default").build()).expect("a client")
}

/// A client of a server somewhere else.
pub async fn connect(address: &str) -> Client {
    connect_with(address, RetryOptions::default()).await
}

/// The same, which tries nothing again.
pub async fn connect_once(address: &str) -> Client {
    connect_with(address, RetryOptions::no_retries()).await
}

async fn connect_with(address: &str, retries: RetryOptions) -> Client {
    let url = Url::parse(&format!("http://{address}")).expect("an address");
    let options = ConnectionOptions::new(url).retry_options(retries).build();
    let connection = Connection::connect(options).await.expect("connects");
    Client::new(connection, ClientOptions::new("default").build()).expect("a client")
}

/// What a scenario's worker is like.
#[derive(Clone, Copy)]
pub struct WorkerShape {
    pub cached_workflows: usize,
    /// The build id of workers of the fleet, and what they want for their workflows.
    pub version: Option<(&'static str, VersioningBehavior)>,
    /// Whether it says that it lives.
    pub heartbeats: bool,
}

impl Default for WorkerShape {
    fn default() -> Self {
        WorkerShape { cached_workflows: 100, version: None, heartbeats: false }
    }
}

/// Runs `scenario` beside a worker; the worker is shut down in good order afterwards, and what it did must replay.
pub async fn beside_worker<T>(client: &Client, shape: WorkerShape, scenario: impl Future<Output = T>) -> T {
    let heartbeats = shape.heartbeats.then_some(Duration::from_secs(1));
    let options = RuntimeOptions::builder().heartbeat_interval(heartbeats).build().expect("options");
    let runtime = Runtime::from_current_tokio(options).expect("a runtime");
    let mut options = WorkerOptions::new(if shape.version.is_some() { fleet::QUEUE } else { QUEUE })
        .register_activities(Acts)
        .max_cached_workflows(shape.cached_workflows)
        .graceful_shutdown_period(Duration::from_secs(1))
        .build();
    if let Some((build_id, behavior)) = shape.version {
        let version = WorkerDeploymentVersion::builder().deployment_name(fleet::FLEET).build_id(build_id).build();
        options.deployment_options = WorkerDeploymentOptions::new(version)
            .use_worker_versioning(true)
            .default_versioning_behavior(behavior)
            .build();
    }
    workflows::register(&mut options);
    families::register(&mut options);
    let mut worker = Worker::new(&runtime, client.clone(), options).expect("a worker");
    let shutdown = worker.shutdown_handle();
    // Boxed: workers stand beside workers, and their futures are large.
    let scenario = Box::pin(scenario);
    let scenario = async {
        let result = scenario.await;
        shutdown();
        result
    };
    let (worked, result) = within(async { tokio::join!(Box::pin(worker.run()), scenario) }).await;
    worked.expect("the worker ends in good order");
    replay::all(client).await;
    result
}

/// Fails loudly instead of hanging.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("within half a minute")
}

/// Every event of the run that `handle` means.
pub async fn history<W: HasWorkflowDefinition>(handle: &WorkflowHandle<Client, W>) -> Vec<HistoryEvent> {
    handle.fetch_history(Default::default()).try_collect().await.expect("a history")
}

/// Waits until an event stands in history: `Name`, or `Name xN` for the N-th of its kind.
pub async fn happened<W: HasWorkflowDefinition>(handle: &WorkflowHandle<Client, W>, what: &str) {
    let (name, mut left) = match what.split_once(" x") {
        Some((name, n)) => (name, n.parse().expect("a number")),
        None => (what, 1),
    };
    let options = WorkflowFetchHistoryOptions::builder().wait_new_event(true).build();
    let mut events = handle.fetch_history(options);
    while let Some(event) = events.try_next().await.expect("a history") {
        left -= i32::from(format!("{:?}", event.event_type()) == name);
        if left == 0 {
            return;
        }
    }
    panic!("the workflow ended without {what}");
}

/// Waits until a worker has an activity of the workflow; that is no event, so it has to be asked for.
pub async fn activity_started(client: &Client, workflow_id: &str) {
    loop {
        let described = describe(client, workflow_id).await;
        if described.pending_activities.iter().any(|a| a.state() == PendingActivityState::Started) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn describe(client: &Client, workflow_id: &str) -> DescribeWorkflowExecutionResponse {
    let request = DescribeWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        execution: Some(WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: String::new() }),
    };
    let mut service = client.connection().workflow_service();
    service.describe_workflow_execution(request.into_request()).await.expect("is there").into_inner()
}
