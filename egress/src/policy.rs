//! Whether a session's policy lets it reach a host and port. Pure; names are decided here, addresses in
//! [`crate::resolve`].

use domain::egress::{Networking, Policy};

/// Where packages of the managers that environments know come from.
const PACKAGE_HOSTS: &[&str] = &[
    "deb.debian.org",
    "security.debian.org",
    "archive.ubuntu.com",
    "security.ubuntu.com",
    "ports.ubuntu.com",
    "crates.io",
    "index.crates.io",
    "static.crates.io",
    "rubygems.org",
    "index.rubygems.org",
    "proxy.golang.org",
    "sum.golang.org",
    "registry.npmjs.org",
    "pypi.org",
    "files.pythonhosted.org",
];

/// What an entry without a port stands for.
const WEB_PORTS: [u16; 2] = [80, 443];

/// A host as it is compared: lower case, no dot at its end. None for what no host is called.
pub fn normal(host: &str) -> Option<String> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    let is_host =
        (1..=253).contains(&bare.len()) && bare.bytes().all(fine) && !bare.contains("..") && !bare.starts_with('.');
    is_host.then(|| bare.to_ascii_lowercase())
}

/// Whether the policy names this host and port. `host` is normal.
pub fn allows(policy: &Policy, host: &str, port: u16) -> bool {
    match &policy.networking {
        Networking::None => false,
        Networking::Unrestricted => true,
        Networking::Limited { allowed_hosts, allow_mcp_servers, allow_package_managers } => {
            let mcp = policy.mcp_hosts.iter().filter(|_| *allow_mcp_servers);
            let known = PACKAGE_HOSTS.contains(&host) && WEB_PORTS.contains(&port);
            let listed = || policy.registries.values().any(|url| leads_to(url, host, port));
            allowed_hosts.iter().chain(mcp).any(|entry| names(entry, host, port))
                || (*allow_package_managers && (known || listed()))
        }
    }
}

/// Whether a URL is of this host and port.
fn leads_to(url: &str, host: &str, port: u16) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let of_url = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    uri.host().and_then(normal).is_some_and(|name| name == host) && of_url == port
}

/// Whether an entry of a list names this host and port.
pub fn names(entry: &str, host: &str, port: u16) -> bool {
    let (name, ports) = match entry.rsplit_once(':') {
        // More colons are an IPv6 address without a port.
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => match port.parse::<u16>() {
            Ok(port) => (name, vec![port]),
            Err(_) => return false,
        },
        _ => (entry, WEB_PORTS.to_vec()),
    };
    let (below, name) = match name.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, name),
    };
    let Some(name) = normal(name) else { return false };
    let matches = if below { host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.')) } else { host == name };
    matches && ports.contains(&port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::packages::Manager;

    #[test]
    fn entries_name_hosts_and_ports() {
        for (entry, host, port, expect) in [
            ("example.com", "example.com", 443, true),
            ("example.com", "example.com", 80, true),
            ("example.com", "example.com", 8080, false),
            ("example.com:8080", "example.com", 8080, true),
            ("example.com:8080", "example.com", 443, false),
            ("example.com", "www.example.com", 443, false),
            ("example.com", "example.com.evil.test", 443, false),
            ("example.com", "notexample.com", 443, false),
            ("*.example.com", "a.example.com", 443, true),
            ("*.example.com", "a.b.example.com", 443, true),
            ("*.example.com", "example.com", 443, false),
            ("*.example.com", "notexample.com", 443, false),
            ("*.example.com:22", "a.example.com", 22, true),
            ("EXAMPLE.com.", "example.com", 443, true),
            ("*", "example.com", 443, false),
            ("*.", "example.com", 443, false),
            ("example.com:port", "example.com", 443, false),
            ("[::1]:80", "::1", 80, true),
            ("::1", "::1", 80, true),
        ] {
            assert_eq!(names(entry, host, port), expect, "{entry} {host}:{port}");
        }
    }

    #[test]
    fn networking_says_which_lists_count() {
        let policy = |networking| Policy { networking, mcp_hosts: vec!["mcp.test".into()], ..Policy::default() };
        let limited = |allow_mcp_servers, allow_package_managers| {
            policy(Networking::Limited {
                allowed_hosts: vec!["a.test".into()],
                allow_mcp_servers,
                allow_package_managers,
            })
        };
        for (policy, host, expect) in [
            (policy(Networking::None), "a.test", false),
            (policy(Networking::Unrestricted), "any.test", true),
            (limited(false, false), "a.test", true),
            (limited(false, false), "mcp.test", false),
            (limited(true, false), "mcp.test", true),
            (limited(true, false), "pypi.org", false),
            (limited(false, true), "pypi.org", true),
            (limited(true, true), "other.test", false),
        ] {
            assert_eq!(allows(&policy, host, 443), expect, "{policy:?} {host}");
        }
        let mirrored = |managers| Policy {
            registries: [(Manager::Pip, "http://Mirror.test:8080/simple".to_owned())].into(),
            ..limited(false, managers)
        };
        assert!(allows(&mirrored(true), "mirror.test", 8080) && allows(&mirrored(true), "pypi.org", 443));
        assert!(!allows(&mirrored(true), "mirror.test", 80) && !allows(&mirrored(false), "mirror.test", 8080));
        assert!(!allows(&limited(false, true), "pypi.org", 22));
    }

    #[test]
    fn what_no_host_is_called_is_refused() {
        for host in ["", ".", "a b", "a/b", "a@b", "a\0b", "a..b", ".a", "a#b", "a%2e", "ä.test"] {
            assert_eq!(normal(host), None, "{host:?}");
        }
        assert_eq!(normal("Example.COM.").as_deref(), Some("example.com"));
        assert_eq!(normal("[::1]").as_deref(), Some("::1"));
    }
}
