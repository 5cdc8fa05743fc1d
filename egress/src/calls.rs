//! The socket on which the service calls what sandboxes must not: MCP servers of sessions, with the credentials that only
//! this process has.
//!
//! It lies beside the folders of sessions, of which a sandbox sees its own alone. Who comes says which session it calls
//! for: whoever may connect is trusted with all of them, as the hand worker is.

use crate::knock;
use crate::proxy::{self, Proxy};
use crate::sessions::{self, Sessions};
use domain::egress::CALLS_SOCKET;
use std::path::Path;
use std::sync::{Arc, Weak};

/// Calls at a time, and streams on which servers say more.
const CONNECTIONS: usize = 1024;

/// Serve it as long as there are sessions. `caller` is the user of the hand worker, where that is another one than this process's.
pub fn serve(
    proxy: Arc<Proxy>,
    sessions: Weak<Sessions>,
    sockets: &Path,
    caller: Option<u32>,
) -> Result<(), sessions::Error> {
    let listener = sessions::listen(sockets, CALLS_SOCKET)?;
    let is_caller = move |uid| Some(uid) == caller;
    tokio::spawn(knock::accept(listener, CONNECTIONS, is_caller, move |stream| {
        sessions.upgrade()?;
        let sessions = Weak::clone(&sessions);
        let session = move |id: &str| sessions.upgrade()?.session(id);
        Some(proxy::serve_calls(Arc::clone(&proxy), session, stream))
    }));
    Ok(())
}
