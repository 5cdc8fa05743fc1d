//! Serving the router on a listener until told to stop.

mod connections;
mod pace;

use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::{TcpListener, UnixListener};

pub(crate) use self::pace::is_too_slow;
use crate::app::App;
use crate::resources::rollouts;
use crate::router;
use crate::tenants::Tenants;
use crate::upkeep::keep_up;

/// How long requests may take to end once the service is closing.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// How long clients may take, and how many there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Connections at a time, on each listener. Where there are as many, the one goes that has been idle for longest.
    pub connections_max: usize,
    /// For the head of a request; and so for a connection to stay without a next one.
    pub head: Duration,
    /// For a body, before it has to keep up a pace.
    pub body: Duration,
    /// Its pace, on the average.
    pub body_bytes_per_s: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connections_max: 512,
            head: Duration::from_secs(60),
            body: Duration::from_secs(30),
            body_bytes_per_s: 16 << 10,
        }
    }
}

/// Serves on both listeners, that of the network and that of the machine, until `shutdown` resolves; then takes no new
/// connections, ends streams and waits for what is running. Beside them it keeps up what nobody asks for, beginning with
/// what an earlier service left half done, and moves rollouts on.
pub async fn serve(
    listener: TcpListener,
    local: UnixListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::warn!(%error, "nagle's algorithm stays on");
        }
    });
    let tenants = Tenants::new(app.clone());
    let upkeep = tokio::spawn(keep_up(tenants.clone(), app.clock.now()));
    let rollouts = tokio::spawn(rollouts::keep(tenants.clone()));
    let closing = app.closing();
    let close = async {
        shutdown.await;
        app.close();
    };
    let router = router::served(&tenants);
    let local = connections::serve(local, router.clone(), app.patience, app.closing());
    let network = connections::serve(listener, router, app.patience, app.closing());
    let overdue = async {
        closing.await;
        tokio::time::sleep(DRAIN_TIME_MAX).await;
    };
    tokio::select! {
        _ = async { tokio::join!(close, local, network) } => {}
        () = overdue => tracing::warn!("requests still running at shutdown were cut off"),
    }
    // What it did not come to is done at the next start. Cancelled is as good as done.
    for task in [upkeep, rollouts] {
        task.abort();
        let _ = task.await;
    }
}
