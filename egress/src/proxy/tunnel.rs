//! CONNECT: bytes to and from a checked address, and nothing looked at in between. TLS and HTTP/2 go through here.
//!
//! A tunnel ends when both sides have ended it, when its policy does, or when nothing moves any more: one that is open on
//! one side only is soon given up.

use super::{Body, Proxy, Refusal, Session, TUNNELS_MAX, full};
use crate::audit::Entry;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::time::Instant;

/// How long nothing may move.
#[derive(Clone, Copy)]
struct Patience {
    /// With both sides open: longer than a download pauses, or a long poll waits.
    open: Duration,
    /// With one side ended: the rest of an answer is under way, or nothing is.
    half_open: Duration,
}

const PATIENCE: Patience = Patience { open: Duration::from_secs(15 * 60), half_open: Duration::from_secs(60) };
const BUFFER_BYTES: usize = 16 * 1024;

pub async fn open(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let authority = request.uri().authority().ok_or_else(|| Refusal::bad("CONNECT takes HOST:PORT"))?;
    let port = authority.port_u16().ok_or_else(|| Refusal::bad("CONNECT takes HOST:PORT"))?;
    if authority.as_str().contains('@') {
        return Err(Refusal::bad("CONNECT takes HOST:PORT"));
    }
    let place = Arc::clone(&session.tunnels).try_acquire_owned();
    let place = place.map_err(|_| Refusal::busy(format!("{TUNNELS_MAX} tunnels are open: end one first")))?;
    let checked = proxy.guard.check(session, authority.host(), port).await?;
    session.opening(&proxy.audit, &checked.host, port)?;
    let upstream = checked.dial().await?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (proxy, session) = (Arc::clone(proxy), Arc::clone(session));
    tokio::spawn(async move {
        let moved = Moved::new();
        tokio::select! {
            () = carry(upgrade, upstream, &moved) => {}
            () = session.over.cancelled() => {}
        }
        let (sent, received) = moved.bytes();
        let session_id = session.id.clone();
        session.noted.note(&proxy.audit, Entry::Connected { session_id, host: checked.host, port, sent, received });
        drop(place);
    });
    Ok(Response::new(full("")))
}

async fn carry(upgrade: hyper::upgrade::OnUpgrade, upstream: tokio::net::TcpStream, moved: &Moved) {
    if let Ok(upgraded) = upgrade.await {
        copy(TokioIo::new(upgraded), upstream, moved, PATIENCE).await;
    }
}

/// How much went which way, and when something last did.
struct Moved {
    sent: AtomicU64,
    received: AtomicU64,
    last: Mutex<Instant>,
    half_open: AtomicBool,
}

impl Moved {
    fn new() -> Self {
        Self {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            last: Mutex::new(Instant::now()),
            half_open: AtomicBool::new(false),
        }
    }

    fn bytes(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    fn touch(&self) {
        *self.last.lock().expect("no holder panics") = Instant::now();
    }

    /// Until nothing has moved for too long.
    async fn stalled(&self, patience: Patience) {
        loop {
            let last = *self.last.lock().expect("no holder panics");
            let most = if self.half_open.load(Ordering::Relaxed) { patience.half_open } else { patience.open };
            if last.elapsed() >= most {
                return;
            }
            // It may become half open meanwhile.
            tokio::time::sleep_until((last + most).min(Instant::now() + patience.half_open)).await;
        }
    }
}

async fn copy(
    inside: impl AsyncRead + AsyncWrite + Unpin,
    upstream: impl AsyncRead + AsyncWrite + Unpin,
    moved: &Moved,
    patience: Patience,
) {
    let (mut inside_reads, mut inside_writes) = split(inside);
    let (mut upstream_reads, mut upstream_writes) = split(upstream);
    let both = async {
        tokio::try_join!(
            pump(&mut inside_reads, &mut upstream_writes, &moved.sent, moved),
            pump(&mut upstream_reads, &mut inside_writes, &moved.received, moved),
        )
    };
    tokio::select! {
        // A side that broke ends both, as one that is left alone would wait for nothing.
        ended = both => drop(ended),
        () = moved.stalled(patience) => {}
    }
    // Whoever is left on either side sees the end.
    inside_writes.shutdown().await.ok();
    upstream_writes.shutdown().await.ok();
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
    moved: &Moved,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        moved.touch();
        if read == 0 {
            moved.half_open.store(true, Ordering::Relaxed);
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
        moved.touch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    struct Tunnel {
        sandbox: DuplexStream,
        server: DuplexStream,
        moved: Arc<Moved>,
        running: tokio::task::JoinHandle<()>,
    }

    const SHORT: Patience = Patience { open: Duration::from_millis(600), half_open: Duration::from_millis(150) };

    fn tunnel(patience: Patience) -> Tunnel {
        let ((sandbox, inside), (upstream, server)) = (duplex(64), duplex(64));
        let moved = Arc::new(Moved::new());
        let shared = Arc::clone(&moved);
        let running = tokio::spawn(async move { copy(inside, upstream, &shared, patience).await });
        Tunnel { sandbox, server, moved, running }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_are_counted_however_it_ends() {
        let Tunnel { mut sandbox, mut server, moved, running } = tunnel(PATIENCE);
        sandbox.write_all(b"question").await.unwrap();
        let mut said = [0; 8];
        server.read_exact(&mut said).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        sandbox.read_exact(&mut said[..6]).await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        assert_eq!((&said, moved.bytes()), (b"answeron", (8, 6)));
    }

    #[tokio::test]
    async fn one_that_is_open_on_one_side_only_is_given_up_when_nothing_comes_any_more() {
        let Tunnel { mut sandbox, mut server, running, .. } = tunnel(Patience { open: PATIENCE.open, ..SHORT });
        sandbox.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        // What is under way still comes.
        server.write_all(b"rest").await.unwrap();
        sandbox.read_exact(&mut [0; 4]).await.unwrap();
        let begun = Instant::now();
        running.await.unwrap();
        assert!(begun.elapsed() < PATIENCE.half_open);
        assert_eq!(sandbox.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn one_in_which_nothing_moves_is_given_up() {
        let Tunnel { mut sandbox, server, running, .. } = tunnel(SHORT);
        let begun = Instant::now();
        // It fills what nobody reads, and that is no movement.
        let writing = async { while sandbox.write_all(&[0; 64]).await.is_ok() {} };
        tokio::join!(writing, async { running.await.unwrap() });
        assert!(begun.elapsed() >= SHORT.open);
        drop(server);
    }
}
