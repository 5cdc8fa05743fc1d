//! The socket: who may connect, one thread a connection, one reply a request.

use super::calls::{self, Asked, journal_failed};
use super::lease::Over;
use super::{Shim, gather, note};
use crate::journal;
use crate::limits;
use crate::protocol::{Piece, Refusal, Reply, Request, Status, is_call_id};
use crate::wire;
use base64::Engine;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

type Refused = (Refusal, String);

/// How long those who waited are given to be told when the hand ends.
const DRAIN: Duration = Duration::from_secs(5);

/// Connections that are open, and the replies still owed on them.
#[derive(Default)]
pub struct Owed {
    connections: AtomicUsize,
    replies: Mutex<usize>,
    changed: Condvar,
}

impl Owed {
    fn add(&self) {
        *self.replies.lock().expect("no holder panics") += 1;
    }

    fn paid(&self) {
        *self.replies.lock().expect("no holder panics") -= 1;
        self.changed.notify_all();
    }
}

pub fn serve(shim: &Arc<Shim>, listener: &UnixListener) {
    for connection in listener.incoming() {
        match connection {
            Ok(connection) => {
                if let Err(e) = accept(shim, connection) {
                    note("connection refused", &[("error", &e)]);
                }
            }
            // That is how it is closed.
            Err(_) if shim.lease.is_over() => return,
            Err(e) => {
                note("accept failed", &[("error", &e)]);
                shim.lease.end(Over::Sandbox("its socket failed".to_owned()));
                return;
            }
        }
    }
}

fn accept(shim: &Arc<Shim>, connection: UnixStream) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(&connection)?.uid;
    // Not the hand's own user: that is who a process that broke out of the sandbox would be.
    if !peer.is_root() && peer.as_raw() != shim.plan.client_uid {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not the hand's owner"));
    }
    if shim.owed.connections.fetch_add(1, Ordering::SeqCst) >= limits::CONNECTIONS {
        shim.owed.connections.fetch_sub(1, Ordering::SeqCst);
        return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "too many connections"));
    }
    let held = Arc::clone(shim);
    let spawned = std::thread::Builder::new().name("connection".into()).spawn(move || {
        if let Err(e) = converse(&held, &connection) {
            note("connection ended", &[("error", &e)]);
        }
        held.owed.connections.fetch_sub(1, Ordering::SeqCst);
    });
    if spawned.is_err() {
        shim.owed.connections.fetch_sub(1, Ordering::SeqCst);
    }
    spawned.map(drop)
}

fn converse(shim: &Shim, connection: &UnixStream) -> Result<(), wire::Error> {
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    loop {
        let request = match wire::read_line::<Request>(&mut reader, limits::REQUEST_BYTES) {
            Ok(request) => request,
            Err(wire::Error::Closed) => return Ok(()),
            Err(e @ (wire::Error::Json(_) | wire::Error::TooLong(_))) => {
                // The reader no longer knows where the next request begins.
                let message = crate::error_chain(&e);
                return wire::write_line(&mut writer, &Reply::Refused { code: Refusal::BadRequest, message });
            }
            Err(e) => return Err(e),
        };
        let released = matches!(request, Request::Release { .. });
        shim.owed.add();
        let reply = answer(shim, request).unwrap_or_else(|(code, message)| Reply::Refused { code, message });
        let written = wire::write_line(&mut writer, &reply);
        shim.owed.paid();
        if released && matches!(reply, Reply::Released) {
            shim.lease.end(Over::Released);
        }
        written?;
    }
}

fn answer(shim: &Shim, request: Request) -> Result<Reply, Refused> {
    match request {
        Request::Execute { id, .. } | Request::Cancel { id, .. } if !is_call_id(&id) => {
            Err((Refusal::BadRequest, "a call id is 1 to 128 of A-Z a-z 0-9 _ . : -".to_owned()))
        }
        Request::Execute { id, name, input, timeout_ms, epoch } => {
            calls::execute(shim, Asked { id, name, input, timeout_ms, epoch }).map(Reply::Settled)
        }
        Request::Cancel { id, epoch } => calls::cancel(shim, &id, epoch).map(Reply::Settled),
        Request::Status => Ok(Reply::Status(Box::new(status(shim)))),
        Request::Fence { from, to } => match shim.journal.fence(from, to) {
            Ok(epoch) => Ok(Reply::Fenced { epoch }),
            Err(journal::Error::Epoch(epoch)) => {
                Err((Refusal::Fenced, format!("the lease epoch is {epoch}; from {from} to {to} does not follow")))
            }
            Err(e) => Err(journal_failed(e)),
        },
        Request::Renew { ttl_ms } => {
            let left = shim.lease.renew(Duration::from_millis(ttl_ms));
            Ok(Reply::Renewed { lease_ms: millis(left) })
        }
        Request::Collect { known, epoch } => gather::collect(shim, known, epoch).map(Reply::Collected),
        Request::Snapshot { epoch } => gather::snapshot(shim, epoch).map(Reply::Snapshot),
        Request::Blob { sha256, offset } => blob(shim, &sha256, offset).map(Reply::Blob),
        Request::Release { epoch } => calls::check_epoch(shim, epoch).map(|_| Reply::Released),
    }
}

fn status(shim: &Shim) -> Status {
    Status {
        hand_id: shim.plan.spec.hand_id.clone(),
        epoch: shim.journal.epoch(),
        pid: std::process::id(),
        lease_left_ms: millis(shim.lease.left()),
        running: shim.calls.running(),
        start: shim.start.clone(),
        failed_clones: shim.failed_clones.clone(),
        mode: shim.plan.spec.mode,
        layers: shim.plan.layers.clone(),
    }
}

fn blob(shim: &Shim, sha256: &str, offset: u64) -> Result<Piece, Refused> {
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err((Refusal::BadRequest, "a blob is named by 64 hexadecimal digits".to_owned()));
    }
    let read = || -> io::Result<Piece> {
        let mut file = std::fs::File::open(shim.folder.blobs().join(sha256))?;
        let total_bytes = file.metadata()?.len();
        file.seek(SeekFrom::Start(offset.min(total_bytes)))?;
        let mut piece = Vec::new();
        file.take(limits::BLOB_PIECE_BYTES as u64).read_to_end(&mut piece)?;
        Ok(Piece { total_bytes, data: base64::engine::general_purpose::STANDARD.encode(piece) })
    };
    read().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => (Refusal::Unknown, "no blob of that name".to_owned()),
        _ => (Refusal::Failed, format!("read the blob: {e}")),
    })
}

/// Give those who were waiting the time to be told how their calls ended.
pub fn drain(shim: &Shim) {
    let replies = shim.owed.replies.lock().expect("no holder panics");
    // Who does not read in time learns it from the journal.
    drop(shim.owed.changed.wait_timeout_while(replies, DRAIN, |owed| *owed > 0).expect("no holder panics"));
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
