//! Calls of workers on node.sock, forwarded to a Temporal cluster.
//!
//! The cluster ends every connection after some minutes (its frontend's `keepAliveMaxConnectionAge`, 5 min and 70 s of
//! grace), and may be restarted: a connection that fails is replaced for the next call. The call that it failed is the
//! worker's to repeat, which SDKs do.

use crate::{
    error::{Code, Hint},
    grpc::RawClient,
};
use http::HeaderMap;
use std::time::Duration;
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tonic::Status;

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// As the SDK's own connections to a cluster.
const PING: Duration = Duration::from_secs(30);

pub struct Forwarder {
    /// `host:port`.
    host: String,
    current: Mutex<RawClient>,
}

impl Forwarder {
    /// Connects, so that a wrong address is said at once.
    pub async fn new(address: &str) -> anyhow::Result<Self> {
        let host = address.split_once("://").map_or(address, |(_, host)| host).trim_end_matches('/');
        let client = connect(host).await.hint(
            Code::Unreachable,
            format!("reach Temporal at {address}"),
            "is it running, and is HOST:PORT that of its frontend (usually port 7233)?",
        )?;
        Ok(Forwarder { host: host.to_owned(), current: Mutex::new(client) })
    }

    /// The message in, the answer's message out.
    pub async fn call(&self, service: &str, rpc: &str, headers: &HeaderMap, message: &[u8]) -> Result<Vec<u8>, Status> {
        let (_, answer) = self.usable().await?.call(service, rpc, headers, message).await?;
        Ok(answer.to_vec())
    }

    async fn usable(&self) -> Result<RawClient, Status> {
        // One connects, the others wait for it.
        let mut current = self.current.lock().await;
        if !current.is_usable() {
            let again = connect(&self.host).await;
            *current = again.map_err(|error| Status::unavailable(format!("Temporal cannot be reached: {error:#}")))?;
            tracing::info!("connected to Temporal again");
        }
        Ok(current.clone())
    }
}

async fn connect(host: &str) -> anyhow::Result<RawClient> {
    let stream = timeout(CONNECT_TIME_MAX, TcpStream::connect(host)).await??;
    stream.set_nodelay(true)?;
    Ok(RawClient::new(stream, &format!("http://{host}"), Some(PING), || {}).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Engine, Options, Store};
    use std::net::SocketAddr;
    use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
    use tonic::Code;

    /// A server for one life: it ends when the sender is dropped.
    async fn serving(addr: SocketAddr) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let engine = Engine::open(Options::new(Store::Memory)).unwrap();
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(async move {
            engine::serve::grpc(engine.clone(), listener, async { drop(stopped.await) }).await;
            engine.shutdown().await;
        });
        (addr, stop, serving)
    }

    async fn ask(forwarder: &Forwarder) -> Result<Vec<u8>, Status> {
        let service = "temporal.api.workflowservice.v1.WorkflowService";
        forwarder.call(service, "GetSystemInfo", &HeaderMap::new(), &[]).await
    }

    #[tokio::test]
    async fn a_cluster_that_ends_connections_is_reached_again() {
        let (addr, stop, serving_first) = serving(([127, 0, 0, 1], 0).into()).await;
        let forwarder = Forwarder::new(&addr.to_string()).await.unwrap();
        ask(&forwarder).await.unwrap();
        drop(stop);
        serving_first.await.unwrap();
        let gone = ask(&forwarder).await.unwrap_err();
        assert_eq!(gone.code(), Code::Unavailable, "{gone}");

        let (_, _stop, _serving) = serving(addr).await;
        // The call that finds the connection broken is the last that it fails.
        let found = ask(&forwarder).await;
        assert!(found.is_ok() || ask(&forwarder).await.is_ok(), "{found:?}");
        ask(&forwarder).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_said_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let problem = Forwarder::new(&addr.to_string()).await.err().map(|error| error.to_string());
        assert_eq!(problem, Some(format!("reach Temporal at {addr}")));
    }
}
