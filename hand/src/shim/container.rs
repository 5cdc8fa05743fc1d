//! A sandbox that somebody else starts: its first process comes to the shim, by a socket that only this container has.
//!
//! Nothing else runs in it by then. One is let in, and nobody after it.

use super::sandbox::{Pipes, Process};
use crate::descriptor;
use crate::limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// The first process of a container. When it ends, the kernel ends all others there.
pub struct First(OwnedFd);

impl First {
    pub fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.0, Signal::KILL)?)
    }

    pub fn wait(&self) -> io::Result<()> {
        wait_readable(&self.0, None).map(drop)
    }
}

/// Wait for the container that is being started for this hand.
pub fn found() -> io::Result<(Process, Pipes)> {
    // Whoever launched has sent it over what is our stdout.
    let listener = UnixListener::from(descriptor::receive(io::stdout())?);
    if !wait_readable(&listener, Some(limits::CONTAINER_WITHIN))? {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "its container did not come to the shim"));
    }
    let (connection, _) = listener.accept()?;
    let first = first(&connection)?;
    Ok((Process::Contained(first), Pipes::new(connection.try_clone()?, connection)))
}

fn first(connection: &UnixStream) -> io::Result<First> {
    let peer = rustix::net::sockopt::socket_peercred(connection)?;
    if peer.uid != rustix::process::getuid() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "its container is of another user"));
    }
    Ok(First(pidfd_open(peer.pid, PidfdFlags::empty())?))
}

/// Whether it has become so within that time.
fn wait_readable(what: impl AsFd, within: Option<Duration>) -> io::Result<bool> {
    let until = within.map(|within| Instant::now() + within);
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).expect("a minute fits"));
        match poll(&mut [PollFd::new(&what, PollFlags::IN)], left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
