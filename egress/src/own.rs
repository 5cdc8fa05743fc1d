//! Whether an address is this machine's own, however public it looks: what listens on all interfaces was not meant for
//! sandboxes. Asks the kernel for a route; nothing is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Nothing is sent there; a route needs one.
const ANY_PORT: u16 = 9;

pub fn is_own(ip: IpAddr) -> bool {
    let from: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let near_end = || {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        socket.connect(SocketAddr::new(ip, ANY_PORT))?;
        socket.local_addr()
    };
    // Where one talks to oneself both ends have one address. An address without a route is nobody's.
    near_end().is_ok_and(|near| near.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_the_addresses_of_interfaces_are_ones_own() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("1.1.1.1".parse().unwrap()));
        // The address from which this machine would reach others, if it reaches any.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("1.1.1.1:9").is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
    }
}
