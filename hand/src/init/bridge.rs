//! The way out: a port on the sandbox's own loopback, led to the proxy's socket. Bytes only; who may reach what is
//! decided outside, where nothing inside can argue with it.

use crate::link::inside;
use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longer than egress may take to be there again when it has died.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);
/// Each takes two threads of the sandbox's processes.
const CONNECTIONS: usize = 64;

pub fn start() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, inside::PROXY_PORT))?;
    std::thread::Builder::new().name("bridge".into()).spawn(move || accept(&listener))?;
    Ok(())
}

fn accept(listener: &TcpListener) {
    let open = Arc::new(AtomicUsize::new(0));
    for connection in listener.incoming() {
        // Out of descriptors, or gone before it was taken: the next may be well.
        let Ok(connection) = connection else { continue };
        let place = Place(Arc::clone(&open));
        if place.0.fetch_add(1, Ordering::SeqCst) < CONNECTIONS {
            // Without room for a thread the connection is closed, which is an answer.
            std::thread::Builder::new().spawn(move || lead(connection, place)).ok();
        }
    }
}

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn reach() -> Option<UnixStream> {
    let socket = Path::new(inside::EGRESS).join(inside::EGRESS_SOCKET);
    once_back(Instant::now() + BACK_WITHIN, || UnixStream::connect(&socket)).ok()
}

fn once_back<T>(give_up: Instant, mut connect: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match connect() {
            Err(e) if is_away(&e) && Instant::now() < give_up => std::thread::sleep(AGAIN),
            connected => return connected,
        }
    }
}

/// A socket that its process has left behind, or has not made anew yet; its supervisor starts another.
fn is_away(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// Whatever fails ends the connection, and both sides see that.
fn lead(inner: TcpStream, place: Place) -> Option<()> {
    let outer = reach()?;
    let (mut from, mut to) = (inner.try_clone().ok()?, outer.try_clone().ok()?);
    let out = std::thread::Builder::new().spawn(move || {
        io::copy(&mut from, &mut to).ok();
        to.shutdown(Shutdown::Write).ok();
    });
    let (mut from, mut to) = (outer, inner);
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Both).ok();
    from.shutdown(Shutdown::Both).ok();
    out.ok()?.join().ok();
    drop(place);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};

    #[test]
    fn who_comes_while_egress_is_away_waits_for_it() {
        let knocks = |give_up: Instant, answers: &[io::ErrorKind]| {
            let mut answers = answers.iter();
            once_back(give_up, || answers.next().map_or(Ok(()), |&kind| Err(kind.into()))).map_err(|e| e.kind())
        };
        let later = Instant::now() + BACK_WITHIN;
        assert_eq!(knocks(later, &[NotFound, ConnectionRefused, NotFound]), Ok(()));
        assert_eq!(knocks(later, &[NotFound, PermissionDenied]), Err(PermissionDenied));
        assert_eq!(knocks(Instant::now(), &[NotFound]), Err(NotFound));
    }
}
