//! Calls of workers on node.sock, forwarded to a Temporal cluster.
//!
//! The cluster ends every connection after some minutes (its frontend's `keepAliveMaxConnectionAge`, 5 min and 70 s of
//! grace), and may be restarted: a connection that fails is replaced for the next call. The call that it failed is the
//! worker's to repeat, which SDKs do.

use crate::{
    error::{Code, Hint, failed},
    grpc::RawClient,
};
use http::{HeaderMap, header};
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
        let host = cluster_host(address)?;
        let client = connect(host).await.hint(
            Code::Unreachable,
            format!("reach Temporal at {address}"),
            "is it running, and is HOST:PORT that of its frontend (usually port 7233)?",
        )?;
        Ok(Forwarder { host: host.to_owned(), current: Mutex::new(client) })
    }

    /// The message in, the answer's message out.
    pub async fn call(&self, service: &str, rpc: &str, headers: &HeaderMap, message: &[u8]) -> Result<Vec<u8>, Status> {
        // It says who a worker is to this process, and nothing to the cluster.
        let mut headers = headers.clone();
        headers.remove(header::AUTHORIZATION);
        let (_, answer) = self.usable().await?.call(service, rpc, &headers, message).await?;
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

/// `host:port` of a cluster's frontend that is given with a scheme or without.
pub fn cluster_host(address: &str) -> anyhow::Result<&str> {
    let (scheme, host) = address.split_once("://").unwrap_or(("http", address));
    if scheme != "http" {
        return Err(failed(
            Code::Usage,
            format!("reach Temporal at {address}: {scheme} is not spoken"),
            "give HOST:PORT; a cluster that wants TLS is reached through a proxy on this machine that adds it",
        ));
    }
    Ok(host.trim_end_matches('/'))
}

async fn connect(host: &str) -> anyhow::Result<RawClient> {
    let stream = timeout(CONNECT_TIME_MAX, TcpStream::connect(host)).await??;
    stream.set_nodelay(true)?;
    Ok(RawClient::new(stream, &format!("http://{host}"), Some(PING), || {}).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use engine::serve::{Callee, accept, connection};
    use engine::{Engine, Options, Store};
    use http::HeaderValue;
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

    /// A cluster that answers each call with the authorization that came with it.
    struct Echo;

    impl Callee for Echo {
        fn admit(&self, _: &HeaderMap) -> Result<(), Status> {
            Ok(())
        }

        async fn call(&self, _: &str, _: &str, headers: &HeaderMap, _: Bytes) -> Result<Vec<u8>, Status> {
            let shown = headers.get(header::AUTHORIZATION).map_or(&b"nothing"[..], HeaderValue::as_bytes);
            Ok([shown, headers.get("temporal-namespace").map_or(&b""[..], HeaderValue::as_bytes)].concat())
        }
    }

    #[tokio::test]
    async fn who_a_worker_is_here_is_not_told_to_the_cluster() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, std::future::pending(), |io, closing| connection(Echo, io, closing.begun())));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer of a role"));
        headers.insert("temporal-namespace", HeaderValue::from_static("-default"));
        let forwarder = Forwarder::new(&addr.to_string()).await.unwrap();
        let told = forwarder.call("service", "rpc", &headers, b"").await.unwrap();
        assert_eq!(String::from_utf8(told).unwrap(), "nothing-default");
    }

    #[test]
    fn a_cluster_is_reached_in_plaintext_or_not_at_all() {
        for (address, expected) in [
            ("localhost:7233", Some("localhost:7233")),
            ("http://localhost:7233/", Some("localhost:7233")),
            ("https://cloud:7233", None),
            ("unix:///tmp/x", None),
        ] {
            assert_eq!(cluster_host(address).ok(), expected, "{address}");
        }
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
