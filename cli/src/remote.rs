//! The near end of node.sock, in a worker's process: engine, blobs and deltas over one connection.

use crate::{
    connect,
    error::{Code, Hint},
    grpc::RawClient,
    node::{PUBLISH_DELTA, SERVICE},
};
use async_trait::async_trait;
use bytes::Bytes;
use domain::delta::Delta;
use engine::serve::MESSAGE_BYTES_MAX;
use http::{HeaderMap, HeaderValue};
use std::{
    io::ErrorKind,
    os::fd::{FromRawFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};
use store::{RemoteBlobs, remote::Call};
use temporalio_client::Connection;
use tokio::{net::UnixStream, sync::watch};
use tonic::Status;

/// Deltas that may wait for the connection; more are dropped.
const DELTAS_MAX: usize = 1024;

pub struct Remote {
    pub connection: Connection,
    pub blobs: Arc<RemoteBlobs>,
    pub deltas: Arc<RemoteDeltas>,
    /// Turns true when the service is gone.
    pub gone: watch::Receiver<bool>,
}

/// Connects by the socket that the parent gave as standard input.
pub async fn inherited(identity: &str) -> anyhow::Result<Remote> {
    open(parents_socket()?, None, identity).await
}

/// The socket that the parent gave as standard input. Taken once.
pub fn parents_socket() -> std::io::Result<UnixStream> {
    #[expect(unsafe_code, reason = "the parent's socket is descriptor 0, and std lends it only as stdin")]
    // SAFETY: file descriptor 0 is open, and nothing else in this process uses it.
    let stdin = unsafe { OwnedFd::from_raw_fd(0) };
    let stream = std::os::unix::net::UnixStream::from(stdin);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Connects by path, with a role's token.
pub async fn by_path(socket: &Path, token_file: &Path, identity: &str) -> anyhow::Result<Remote> {
    let token = std::fs::read_to_string(token_file).hint(
        Code::Usage,
        format!("read the role token {}", token_file.display()),
        "it is in the service's data folder, under roles/",
    )?;
    let stream = UnixStream::connect(socket).await.hint(
        Code::Unreachable,
        format!("connect to {}", socket.display()),
        "is the service running on this machine with that data folder?",
    )?;
    open(stream, Some(token.trim().to_owned()), identity).await
}

async fn open(stream: UnixStream, token: Option<String>, identity: &str) -> anyhow::Result<Remote> {
    let (tell, gone) = watch::channel(false);
    let raw = RawClient::new(stream, "http://node", None, move || {
        tell.send_replace(true);
    })
    .await?;
    let node = NodeCall { raw: raw.clone(), token: token.clone() };
    let (deltas, mut waiting) = tokio::sync::mpsc::channel::<Delta>(DELTAS_MAX);
    let publisher = node.clone();
    tokio::spawn(async move {
        while let Some(delta) = waiting.recv().await {
            let message = serde_json::to_vec(&delta).expect("a delta has string keys only");
            // A preview that is lost is lost.
            let _ = publisher.call(PUBLISH_DELTA, message.into()).await;
        }
    });
    Ok(Remote {
        connection: connect::node(raw, token, identity).await?,
        blobs: Arc::new(RemoteBlobs::new(Arc::new(node))),
        deltas: Arc::new(RemoteDeltas { deltas }),
        gone,
    })
}

#[derive(Clone)]
struct NodeCall {
    raw: RawClient,
    token: Option<String>,
}

#[async_trait]
impl Call for NodeCall {
    async fn call(&self, rpc: &'static str, message: Bytes) -> std::io::Result<Bytes> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(std::io::Error::other)?;
            headers.insert("authorization", value);
        }
        let answered = self.raw.call(SERVICE, rpc, &headers, &message).await;
        answered.map(|(_, answer)| answer).map_err(|status| refusal(status, message.len()))
    }
}

/// What a caller hears: that there is no room now is told apart, and not from what is too large at any time.
fn refusal(status: Status, bytes: usize) -> std::io::Error {
    let is_busy = status.code() == tonic::Code::ResourceExhausted && bytes <= MESSAGE_BYTES_MAX;
    std::io::Error::new(if is_busy { ErrorKind::ResourceBusy } else { ErrorKind::Other }, status)
}

pub struct RemoteDeltas {
    deltas: tokio::sync::mpsc::Sender<Delta>,
}

impl activities::Deltas for RemoteDeltas {
    fn publish(&self, delta: Delta) {
        // Full: the service is slower than the model, and previews are what may be lost.
        let _ = self.deltas.try_send(delta);
    }
}

/// Whoever makes an HTTPS client needs this once.
pub fn install_tls() {
    // An error says that it was installed before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_taken_later_is_said_to_be_busy() {
        let kind = |status, bytes| refusal(status, bytes).kind();
        assert_eq!(kind(Status::resource_exhausted("full"), MESSAGE_BYTES_MAX), ErrorKind::ResourceBusy);
        assert_eq!(kind(Status::resource_exhausted("too large"), MESSAGE_BYTES_MAX + 1), ErrorKind::Other);
        assert_eq!(kind(Status::unavailable("gone"), 1), ErrorKind::Other);
    }
}
