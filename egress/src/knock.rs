//! Who comes to a socket of this process: whoever runs as this process does, and whom its owner lets in. The kernel says who it
//! is.

use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Before the next try where none could be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves `connections` at a time, each of a known user, until `serve` has nothing to serve with any more.
pub async fn accept<S: Future<Output = ()> + Send + 'static>(
    listener: UnixListener,
    connections: usize,
    is_known: impl Fn(u32) -> bool,
    serve: impl Fn(UnixStream) -> Option<S>,
) {
    let places = Arc::new(Semaphore::new(connections));
    let own = rustix::process::geteuid().as_raw();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                let socket = listener.local_addr().ok();
                let socket = socket.as_ref().and_then(|addr| addr.as_pathname());
                tracing::warn!(error = &error as &dyn std::error::Error, ?socket, "connection not accepted");
                // Out of descriptors, most likely: some are given back meanwhile.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || is_known(peer.uid())) {
            continue;
        }
        let Some(served) = serve(stream) else { return };
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}
