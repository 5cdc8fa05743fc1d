//! What the bench's own child processes do: a node (the engine on fjall, and the workflows on it, as in `serve`), and a
//! worker for the steps on a connection of its own, as a hand worker.

use crate::workload;
use anyhow::bail;
use engine::{Engine, Options, Store};
use steadyhand_tests::bed::{NAMESPACE, embedded};
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, GrpcCompression, Url};
use tokio::{net::TcpListener, sync::oneshot};
use worker::WorkerThread;

/// First argument of a child process.
pub const ARGUMENT: &str = "role";
pub const NODE: &str = "node";
pub const STEPS: &str = "steps";
/// A node says this, and then its address.
pub const LISTENING: &str = "listening on ";
/// A worker says this.
pub const READY: &str = "ready";

pub async fn play(role: &str, place: &str) -> anyhow::Result<()> {
    match role {
        NODE => node(place).await,
        STEPS => steps(place).await,
        other => bail!("there is no role {other:?}"),
    }
}

async fn node(dir: &str) -> anyhow::Result<()> {
    let engine = Engine::open(Options::new(Store::Fjall(dir.into())))?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let addr = listener.local_addr()?;
    let client = Client::new(embedded(engine.clone()).await?, ClientOptions::new(NAMESPACE).build())?;
    let workflows = WorkerThread::start("workflows", move || Ok(vec![workload::workflow_worker(client)?])).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(engine::serve::grpc(engine.clone(), listener, async {
        let _ = stopped.await;
    }));
    println!("{LISTENING}{addr}");
    input_ended().await;
    workflows.shutdown();
    workflows.ended().await;
    workflows.join()?;
    engine.shutdown().await;
    drop(stop);
    Ok(serving.await?)
}

async fn steps(addr: &str) -> anyhow::Result<()> {
    let client = connect(addr).await?;
    let steps = WorkerThread::start("steps", move || Ok(vec![workload::step_worker(client)?])).await?;
    println!("{READY}");
    input_ended().await;
    steps.shutdown();
    steps.ended().await;
    Ok(steps.join()?)
}

/// A client of a node, over TCP.
pub async fn connect(addr: &str) -> anyhow::Result<Client> {
    let options =
        ConnectionOptions::new(Url::parse(&format!("http://{addr}"))?).grpc_compression(GrpcCompression::None).build();
    Ok(Client::new(Connection::connect(options).await?, ClientOptions::new(NAMESPACE).build())?)
}

async fn input_ended() {
    let reading = || std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    // Whatever ends the input ends the process.
    let _ = tokio::task::spawn_blocking(reading).await;
}
