//! Serving the router on a listener until told to stop.

use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::{TcpListener, UnixListener};

use crate::app::App;
use crate::router;
use crate::tenants::Tenants;
use crate::upkeep::keep_up;

/// How long requests may take to end once the service is closing.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Serves on both listeners, that of the network and that of the machine, until `shutdown` resolves; then takes no new
/// connections, ends streams and waits for what is running. Beside them it keeps up what nobody asks for, beginning with
/// what an earlier service left half done.
pub async fn serve(
    listener: TcpListener,
    local: UnixListener,
    app: App,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::warn!(%error, "nagle's algorithm stays on");
        }
    });
    let tenants = Tenants::new(app.clone());
    let upkeep = tokio::spawn(keep_up(tenants.clone(), app.clock.now()));
    let closing = app.closing();
    let close = {
        let app = app.clone();
        async move {
            shutdown.await;
            app.close();
        }
    };
    let router = router::served(&tenants);
    let local = axum::serve(local, router.clone()).with_graceful_shutdown(app.closing());
    let network = axum::serve(listener, router).with_graceful_shutdown(close);
    let server = async { tokio::try_join!(network.into_future(), local.into_future()).map(drop) };
    let overdue = async {
        closing.await;
        tokio::time::sleep(DRAIN_TIME_MAX).await;
    };
    let served = tokio::select! {
        served = server => served,
        () = overdue => {
            tracing::warn!("requests still running at shutdown were cut off");
            Ok(())
        }
    };
    // What it did not come to is done at the next start. Cancelled is as good as done.
    upkeep.abort();
    let _ = upkeep.await;
    served
}
