//! The same engine over TCP, with a client that compresses.

use crate::fixture::{QUEUE, WorkerShape, beside_worker, connect, memory};
use crate::workflows::*;
use temporalio_client::{WorkflowGetResultOptions, WorkflowStartOptions};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

#[tokio::test]
async fn a_worker_and_a_client_over_tcp() {
    let engine = memory();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(steadyhand_engine::serve::grpc(engine.clone(), listener, async {
        stopped.await.expect("the test says when");
    }));
    let client = connect(&address).await;
    beside_worker(&client, WorkerShape::default(), async {
        let options = WorkflowStartOptions::new(QUEUE, "remote").build();
        let handle = client.start_workflow(Steps::run, (5, false), options).await.expect("starts");
        assert_eq!(handle.get_result(WorkflowGetResultOptions::default()).await.expect("completes"), 5);
    })
    .await;
    engine.shutdown().await;
    stop.send(()).expect("the server listens");
    serving.await.expect("ends in good order");
}
