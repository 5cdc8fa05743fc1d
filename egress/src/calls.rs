//! The socket on which the service calls what sandboxes must not: MCP servers of sessions, with the credentials that only
//! this process has.
//!
//! It lies beside the folders of sessions, of which a sandbox sees its own alone. Who comes says which session it calls
//! for: whoever may connect is trusted with all of them, as the hand worker is.

use crate::proxy::{self, Proxy};
use crate::sessions::{self, Sessions};
use domain::egress::CALLS_SOCKET;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

/// Calls at a time, and streams on which servers say more.
const CONNECTIONS: usize = 1024;
/// Before the next try where none could be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serve it as long as there are sessions. `caller` is the user of the hand worker, where that is another one than this process's.
pub fn serve(
    proxy: Arc<Proxy>,
    sessions: Weak<Sessions>,
    sockets: &Path,
    caller: Option<u32>,
) -> Result<(), sessions::Error> {
    let path = sockets.join(CALLS_SOCKET);
    let io = |e| sessions::Error::Io(path.clone(), e);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let listener = sessions::bind(sockets, CALLS_SOCKET)?;
    // Everyone may knock; who may come in is decided by the kernel's word on who it is.
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).map_err(io)?;
    tokio::spawn(accept(proxy, sessions, listener, caller));
    Ok(())
}

async fn accept(proxy: Arc<Proxy>, sessions: Weak<Sessions>, listener: UnixListener, caller: Option<u32>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let own = rustix::process::geteuid().as_raw();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "connection of the service not accepted");
                // Out of descriptors, most likely: some are given back meanwhile.
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        if sessions.strong_count() == 0 {
            return;
        }
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || Some(peer.uid()) == caller) {
            continue;
        }
        let (proxy, sessions) = (Arc::clone(&proxy), Weak::clone(&sessions));
        tokio::spawn(async move {
            proxy::serve_calls(proxy, move |id: &str| sessions.upgrade()?.session(id), stream).await;
            drop(place);
        });
    }
}
