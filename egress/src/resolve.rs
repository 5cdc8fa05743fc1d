//! From a name to addresses that may be dialled: resolved once, checked, and those very addresses are used.

use crate::address::{self, Listed};
use crate::proxy::Session;
use crate::{own, policy};
use async_trait::async_trait;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Who knows the addresses of names: the machine, or a test.
#[async_trait]
pub trait Resolver: Send + Sync {
    /// `place` is given back when nothing works on it any more, which may be long after nobody waits for it.
    async fn resolve(&self, host: &str, port: u16, place: Place) -> io::Result<Vec<SocketAddr>>;
}

/// The right to have a thread wait for a name.
pub struct Place {
    _session: OwnedSemaphorePermit,
    _process: OwnedSemaphorePermit,
}

/// Threads that wait for names, of one session and of all: a name server that does not answer holds each for long.
pub const SESSION_LOOKUPS_MAX: usize = 8;
const LOOKUPS_MAX: usize = 64;

/// The machine's own.
pub struct System;

#[async_trait]
impl Resolver for System {
    async fn resolve(&self, host: &str, port: u16, place: Place) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_owned();
        let looked_up = tokio::task::spawn_blocking(move || {
            let found = (host.as_str(), port).to_socket_addrs();
            drop(place);
            Ok(found?.collect())
        });
        looked_up.await.map_err(io::Error::other)?
    }
}

/// Why a destination is not reached. The words go to the sandbox and, without the cause, into the audit log.
#[derive(thiserror::Error, Debug)]
pub enum Denied {
    #[error("{0:?} is no host")]
    NoHost(String),
    #[error("{host}:{port} is not among the hosts of this session's environment")]
    NotListed { host: String, port: u16 },
    #[error("{host} has an address that is not public")]
    NotPublic { host: String },
    #[error("{host} cannot be resolved")]
    Unresolved { host: String },
    #[error("{host}:{port} cannot be reached")]
    Unreachable { host: String, port: u16 },
}

impl Denied {
    /// Whether it was forbidden, and not only out of order.
    pub fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unresolved { .. } | Self::Unreachable { .. })
    }
}

/// A destination whose addresses have been checked. Dialling it asks no resolver again.
#[derive(Debug)]
pub struct Checked {
    pub host: String,
    pub port: u16,
    /// None of them is public: an operator has listed them.
    pub listed: bool,
    addresses: Vec<SocketAddr>,
}

/// What the names and addresses are checked with.
pub struct Guard {
    resolver: Box<dyn Resolver>,
    listed: Vec<Listed>,
    /// Whether an address is this machine's own.
    is_own: fn(IpAddr) -> bool,
    lookups: Arc<Semaphore>,
}

impl Guard {
    pub fn new(resolver: Box<dyn Resolver>, listed: Vec<Listed>) -> Self {
        Self { resolver, listed, is_own: own::is_own, lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }

    /// A destination that the session's policy names.
    pub async fn check(&self, session: &Session, host: &str, port: u16) -> Result<Checked, Denied> {
        let normal = policy::normal(host).ok_or_else(|| Denied::NoHost(host.chars().take(100).collect()))?;
        if !policy::allows(&session.policy, &normal, port) {
            return Err(Denied::NotListed { host: normal, port });
        }
        self.resolve(session, normal, port).await
    }

    /// A destination that is named by something else than the hosts: a repository, a credential's binding.
    pub async fn check_bound(&self, session: &Session, host: &str, port: u16) -> Result<Checked, Denied> {
        let normal = policy::normal(host).ok_or_else(|| Denied::NoHost(host.chars().take(100).collect()))?;
        self.resolve(session, normal, port).await
    }

    async fn look_up(&self, session: &Session, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let looked_up = async {
            let session = Arc::clone(&session.lookups).acquire_owned().await.ok()?;
            let process = Arc::clone(&self.lookups).acquire_owned().await.ok()?;
            self.resolver.resolve(host, port, Place { _session: session, _process: process }).await.ok()
        };
        tokio::time::timeout(RESOLVE_WITHIN, looked_up).await.ok()?.filter(|addresses| !addresses.is_empty())
    }

    async fn resolve(&self, session: &Session, host: String, port: u16) -> Result<Checked, Denied> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => match self.look_up(session, &host, port).await {
                Some(addresses) => addresses,
                None => return Err(Denied::Unresolved { host }),
            },
        };
        let listed = |addr: &SocketAddr| self.listed.iter().any(|listed| listed.holds(*addr));
        // One bad address among good ones is how a name is rebound: then none is dialled.
        let is_others = |addr: &SocketAddr| address::is_public(addr.ip()) && !(self.is_own)(address::plain(addr.ip()));
        if !addresses.iter().all(|addr| is_others(addr) || listed(addr)) {
            return Err(Denied::NotPublic { host });
        }
        let listed = addresses.iter().all(listed);
        Ok(Checked { host, port, listed, addresses })
    }
}

impl Checked {
    pub async fn dial(&self) -> Result<TcpStream, Denied> {
        for address in &self.addresses {
            if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
                // Without it small writes wait for one another; a system that cannot is only slower.
                stream.set_nodelay(true).ok();
                return Ok(stream);
            }
        }
        Err(Denied::Unreachable { host: self.host.clone(), port: self.port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::egress::{Networking, Policy};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    struct Fixed(Vec<&'static str>);

    #[async_trait]
    impl Resolver for Fixed {
        async fn resolve(&self, _: &str, port: u16, _: Place) -> io::Result<Vec<SocketAddr>> {
            Ok(self.0.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
        }
    }

    fn session() -> Session {
        Session::new("s", Policy { networking: Networking::Unrestricted, ..Policy::default() })
    }

    #[tokio::test]
    async fn a_name_is_as_good_as_its_worst_address() {
        let session = session();
        for (addresses, listed, good) in [
            (vec!["1.1.1.1"], vec![], true),
            (vec!["1.1.1.1", "10.0.0.1"], vec![], false),
            (vec!["1.1.1.1", "10.0.0.1"], vec!["10.0.0.1"], true),
            (vec!["::ffff:127.0.0.1"], vec![], false),
            (vec![], vec![], false),
        ] {
            let listed = listed.iter().map(|listed: &&str| listed.parse().unwrap()).collect();
            let guard = Guard::new(Box::new(Fixed(addresses.clone())), listed);
            assert_eq!(guard.check(&session, "name.test", 80).await.is_ok(), good, "{addresses:?}");
        }
        let guard = Guard::new(Box::new(Fixed(vec!["1.1.1.1"])), vec![]);
        for host in ["127.0.0.1", "[::1]", "169.254.169.254", "a b"] {
            assert!(guard.check(&session, host, 80).await.unwrap_err().is_refusal(), "{host}");
        }
    }

    #[tokio::test]
    async fn what_is_this_machines_own_is_not_public_however_it_is_numbered() {
        let session = session();
        for (address, listed, good) in [
            ("8.8.8.8", None, false),
            ("::ffff:8.8.8.8", None, false),
            ("8.8.4.4", None, true),
            ("8.8.8.8", Some("8.8.8.8:80"), true),
        ] {
            let listed = listed.iter().map(|listed: &&str| listed.parse().unwrap()).collect();
            let mut guard = Guard::new(Box::new(Fixed(vec![address])), listed);
            guard.is_own = |ip| ip == IpAddr::from([8, 8, 8, 8]);
            assert_eq!(guard.check(&session, "name.test", 80).await.is_ok(), good, "{address}");
        }
    }

    /// A name server that does not answer until it is let.
    struct Slow {
        waiting: Arc<AtomicUsize>,
        asked: Arc<Notify>,
        answers: Arc<Semaphore>,
    }

    #[async_trait]
    impl Resolver for Slow {
        async fn resolve(&self, _: &str, port: u16, place: Place) -> io::Result<Vec<SocketAddr>> {
            let (waiting, answers) = (Arc::clone(&self.waiting), Arc::clone(&self.answers));
            waiting.fetch_add(1, Ordering::SeqCst);
            self.asked.notify_one();
            // As a thread would, it goes on when nobody waits for it any more.
            let thread = tokio::spawn(async move {
                answers.acquire_owned().await.unwrap().forget();
                waiting.fetch_sub(1, Ordering::SeqCst);
                drop(place);
            });
            thread.await.map_err(io::Error::other)?;
            Ok(vec![SocketAddr::from(([1, 1, 1, 1], port))])
        }
    }

    #[tokio::test]
    async fn a_name_server_that_does_not_answer_holds_few_threads_of_a_session_and_none_of_another() {
        let (waiting, asked, answers) = (Arc::default(), Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
        let slow = Slow { waiting: Arc::clone(&waiting), asked: Arc::clone(&asked), answers: Arc::clone(&answers) };
        let guard = Arc::new(Guard::new(Box::new(slow), vec![]));
        let greedy = Arc::new(session());
        let ask = |session: &Arc<Session>| {
            let (guard, session) = (Arc::clone(&guard), Arc::clone(session));
            tokio::spawn(async move { guard.check(&session, "name.test", 80).await })
        };
        let given_up: Vec<_> = (0..SESSION_LOOKUPS_MAX).map(|_| ask(&greedy)).collect();
        while waiting.load(Ordering::SeqCst) < SESSION_LOOKUPS_MAX {
            asked.notified().await;
        }
        // Whoever asked has gone, and the threads are still there.
        given_up.iter().for_each(tokio::task::JoinHandle::abort);
        let more: Vec<_> = (0..3).map(|_| ask(&greedy)).collect();
        let other = ask(&Arc::new(session()));
        while waiting.load(Ordering::SeqCst) < SESSION_LOOKUPS_MAX + 1 {
            asked.notified().await;
        }
        assert_eq!(greedy.lookups.available_permits(), 0);
        answers.add_permits(100);
        other.await.unwrap().unwrap();
        for asked in more {
            asked.await.unwrap().unwrap();
        }
    }
}
