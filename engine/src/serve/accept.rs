//! Whoever connects over TCP, and how a listener closes.

use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// Connections at a time. Whoever comes then waits in the listener's backlog.
const CONNECTIONS_MAX: usize = 4_096;
/// Before the next try where none could be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How long calls that are under way have when the listener closes. Polls end with [`crate::Engine::shutdown`].
const GRACE: Duration = Duration::from_secs(30);

/// Serves each connection until `shutdown` resolves. Then nobody is let in any more; the future that `serve` is given
/// resolves, and what does not end by itself is ended after half a minute.
pub async fn accept<S: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    serve: impl Fn(TcpStream, Closing) -> S,
) {
    tokio::pin!(shutdown);
    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let has_place = connections.len() < CONNECTIONS_MAX;
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if has_place => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(error = &error as &dyn std::error::Error, "connection without nodelay");
                }
                connections.spawn(serve(stream, Closing(closing.clone())));
            }
            Err(error) => {
                // Out of file descriptors, most likely: taking a breath lets some connections end.
                warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    close.send_replace(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        warn!(connections = connections.len(), "connections are ended with calls under way");
    }
}

/// Says when a listener closes.
#[derive(Clone)]
pub struct Closing(watch::Receiver<bool>);

impl Closing {
    pub async fn begun(mut self) {
        // Who would say so is gone: then it is closed.
        let _closed = self.0.wait_for(|closing| *closing).await;
    }
}
