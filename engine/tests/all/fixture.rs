//! Engines, clients and workers for the scenarios.

use futures::TryStreamExt;
use std::sync::Arc;
use std::time::Duration;
use steadyhand_engine::{Engine, Options, Store};
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcSuccessResponse};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, Url, WorkflowHandle};
use temporalio_common::HasWorkflowDefinition;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use temporalio_sdk::{Runtime, Worker, WorkerOptions};

use crate::workflows::{self, Acts};

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
    let options = ConnectionOptions::new(url).service_override(service).dns_load_balancing(None).build();
    let connection = Connection::connect(options).await.expect("connects");
    Client::new(connection, ClientOptions::new("default").build()).expect("a client")
}

/// What a scenario's worker is like.
#[derive(Clone, Copy)]
pub struct WorkerShape {
    pub cached_workflows: usize,
}

impl Default for WorkerShape {
    fn default() -> Self {
        WorkerShape { cached_workflows: 100 }
    }
}

/// Runs `scenario` beside a worker; the worker is shut down in good order afterwards.
pub async fn beside_worker<T>(client: &Client, shape: WorkerShape, scenario: impl Future<Output = T>) -> T {
    let runtime = Runtime::from_current_tokio(Default::default()).expect("a runtime");
    let mut options = WorkerOptions::new(QUEUE)
        .register_activities(Acts)
        .max_cached_workflows(shape.cached_workflows)
        .graceful_shutdown_period(Duration::from_secs(1))
        .build();
    workflows::register(&mut options);
    let mut worker = Worker::new(&runtime, client.clone(), options).expect("a worker");
    let shutdown = worker.shutdown_handle();
    let scenario = async {
        let result = within(scenario).await;
        shutdown();
        result
    };
    let (worked, result) = tokio::join!(worker.run(), scenario);
    worked.expect("the worker ends in good order");
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

/// The names of events, in order.
pub fn names(events: &[HistoryEvent]) -> Vec<String> {
    events.iter().map(|event| format!("{:?}", event.event_type())).collect()
}
