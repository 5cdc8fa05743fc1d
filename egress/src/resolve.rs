//! From a name to addresses that may be dialled: resolved once, checked, and those very addresses are used.

use crate::address::{self, Listed};
use crate::policy;
use async_trait::async_trait;
use domain::egress::Policy;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Who knows the addresses of names: the machine, or a test.
#[async_trait]
pub trait Resolver: Send + Sync {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's own.
pub struct System;

#[async_trait]
impl Resolver for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
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
    pub resolver: Box<dyn Resolver>,
    pub listed: Vec<Listed>,
}

impl Guard {
    /// A destination that the policy names.
    pub async fn check(&self, policy: &Policy, host: &str, port: u16) -> Result<Checked, Denied> {
        let normal = policy::normal(host).ok_or_else(|| Denied::NoHost(host.chars().take(100).collect()))?;
        if !policy::allows(policy, &normal, port) {
            return Err(Denied::NotListed { host: normal, port });
        }
        self.resolve(normal, port).await
    }

    /// A destination that is named by something else than the hosts: a repository, a credential's binding.
    pub async fn check_bound(&self, host: &str, port: u16) -> Result<Checked, Denied> {
        let normal = policy::normal(host).ok_or_else(|| Denied::NoHost(host.chars().take(100).collect()))?;
        self.resolve(normal, port).await
    }

    async fn resolve(&self, host: String, port: u16) -> Result<Checked, Denied> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => match tokio::time::timeout(RESOLVE_WITHIN, self.resolver.resolve(&host, port)).await {
                Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
                _ => return Err(Denied::Unresolved { host }),
            },
        };
        let listed = |addr: &SocketAddr| self.listed.iter().any(|listed| listed.holds(*addr));
        // One bad address among good ones is how a name is rebound: then none is dialled.
        if !addresses.iter().all(|addr| address::is_public(addr.ip()) || listed(addr)) {
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
    use domain::egress::Networking;

    struct Fixed(Vec<&'static str>);

    #[async_trait]
    impl Resolver for Fixed {
        async fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            Ok(self.0.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
        }
    }

    #[tokio::test]
    async fn a_name_is_as_good_as_its_worst_address() {
        let policy = Policy { networking: Networking::Unrestricted, ..Policy::default() };
        for (addresses, listed, good) in [
            (vec!["1.1.1.1"], vec![], true),
            (vec!["1.1.1.1", "10.0.0.1"], vec![], false),
            (vec!["1.1.1.1", "10.0.0.1"], vec!["10.0.0.1"], true),
            (vec!["::ffff:127.0.0.1"], vec![], false),
            (vec![], vec![], false),
        ] {
            let listed = listed.iter().map(|listed: &&str| listed.parse().unwrap()).collect();
            let guard = Guard { resolver: Box::new(Fixed(addresses.clone())), listed };
            assert_eq!(guard.check(&policy, "name.test", 80).await.is_ok(), good, "{addresses:?}");
        }
        let guard = Guard { resolver: Box::new(Fixed(vec!["1.1.1.1"])), listed: vec![] };
        for host in ["127.0.0.1", "[::1]", "169.254.169.254", "a b"] {
            assert!(guard.check(&policy, host, 80).await.unwrap_err().is_refusal(), "{host}");
        }
    }
}
