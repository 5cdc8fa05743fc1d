//! Which addresses are public, and which others an operator has listed. Pure.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A network, or one port of it, that sandboxes may be let reach although it is not public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    net: IpNet,
    port: Option<u16>,
}

#[derive(thiserror::Error, Debug)]
#[error("{0:?} is neither an address, nor ADDRESS:PORT, nor a network like 10.0.0.0/8")]
pub struct NotAnAddress(String);

impl std::str::FromStr for Listed {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Listed { net: addr.ip().into(), port: Some(addr.port()) });
        }
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map(|net| Listed { net, port: None }).map_err(|_| NotAnAddress(text.to_owned()))
    }
}

impl Listed {
    pub fn holds(&self, addr: SocketAddr) -> bool {
        self.net.contains(&plain(addr.ip())) && self.port.is_none_or(|port| port == addr.port())
    }
}

/// Whether anyone on the internet would reach the same thing there.
pub fn is_public(ip: IpAddr) -> bool {
    match plain(ip) {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// An IPv4 address as such, however it is written.
pub fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = match (a, b, c) {
        // This network, private, loopback, carrier NAT, link-local with the clouds' metadata.
        (0 | 10 | 127, ..) | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Azure's own services for its machines, at an address that is numbered as a public one.
        (168, 63, 129) => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18..=19, _) | (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224..=255, ..) => true,
        _ => false,
    };
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Global unicast is 2000::/3. In it: Teredo and other protocol assignments, documentation, and 6to4, which carries an
    // IPv4 address of its own, as the NAT64 prefix outside of it does.
    let special = matches!((a, b), (0x2001, 0..0x0200 | 0x0db8) | (0x2002 | 0x3fff, _));
    a & 0xe000 == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let public = ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1"];
        let others = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "168.63.129.16",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "100::1",
        ];
        for ip in public {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
        for ip in others {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn lists_name_networks_addresses_and_ports() {
        let holds = |listed: &str, addr: &str| listed.parse::<Listed>().unwrap().holds(addr.parse().unwrap());
        assert!(holds("10.0.0.0/8", "10.9.9.9:1") && !holds("10.0.0.0/8", "11.0.0.1:1"));
        assert!(holds("127.0.0.1:80", "127.0.0.1:80") && !holds("127.0.0.1:80", "127.0.0.1:81"));
        assert!(holds("127.0.0.1:80", "[::ffff:127.0.0.1]:80"));
        assert!(holds("::1", "[::1]:5") && !holds("::1", "[::2]:5"));
        assert!("example.com".parse::<Listed>().is_err());
    }
}
