//! The first process of a container: puts on itself what bubblewrap is told to put on, finds the shim, and becomes init.
//!
//! The runtime has made namespaces, mounts and limits, and taken every capability away. It is not trusted with the rest:
//! the filter of system calls is the same as everywhere, and of the environment that runtimes add to nothing is kept.

use super::{enter, landlock, rlimits, seccomp};
use crate::link::inside;
use rustix::fs::StatVfsMountFlags;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("wait for the hand's last sandbox")]
    Lock(#[source] io::Error),
    #[error("find the shim")]
    Link(#[source] io::Error),
    #[error(transparent)]
    Limits(#[from] rlimits::Error),
    #[error("put up the filter")]
    Seccomp(#[from] seccomp::Error),
    #[error("become init")]
    Exec(#[source] io::Error),
}

/// Become init, with these variables and no others.
pub fn run(environment: &[OsString]) -> Result<Infallible, Error> {
    // Kept open, where init alone has it: two sandboxes never share a workspace.
    let lock = File::open(inside::LOCK).and_then(|file| {
        file.lock()?;
        enter::inherited(file)
    });
    let lock = lock.map_err(Error::Lock)?;
    let link = UnixStream::connect(Path::new(inside::LINK).join(inside::LINK_SOCKET)).map_err(Error::Link)?;
    let (stdin, stdout) = (link.try_clone().map_err(Error::Link)?, link);
    let program = File::open("/proc/self/exe").and_then(enter::inherited).map_err(Error::Exec)?;
    rlimits::restrict()?;
    seccomp::restrict()?;
    let mut init = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    init.arg("init").env_clear().stdin(Stdio::from(OwnedFd::from(stdin))).stdout(Stdio::from(OwnedFd::from(stdout)));
    init.envs(environment.iter().filter_map(split));
    let error = init.exec();
    drop(lock);
    Err(Error::Exec(error))
}

fn split(variable: &OsString) -> Option<(OsString, OsString)> {
    let bytes = variable.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    let part = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
    Some((part(&bytes[..at]), part(&bytes[at + 1..])))
}

/// What came of trying an image, as the exit code of a container that only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tried {
    Fine = 0,
    /// All but landlock, which the kernel or the runtime's own filter refuses.
    WithoutLandlock = 43,
    NoShell = 44,
    NoFilter = 45,
    NotInit = 46,
    /// It has capabilities, or could get new ones.
    Privileged = 47,
    /// Where every program writes nobody may.
    NoTmp = 48,
    /// The root is not read-only.
    Writable = 49,
    /// There is more of a network than the loopback.
    Networked = 50,
}

impl Tried {
    pub const ALL: [Self; 9] = [
        Self::Fine,
        Self::WithoutLandlock,
        Self::NoShell,
        Self::NoFilter,
        Self::NotInit,
        Self::Privileged,
        Self::NoTmp,
        Self::Writable,
        Self::Networked,
    ];

    /// None: it did not get as far as trying.
    pub fn of(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|tried| i64::from(*tried as u8) == code)
    }
}

impl From<Tried> for ExitCode {
    fn from(tried: Tried) -> Self {
        (tried as u8).into()
    }
}

/// Whether a sandbox could be this container, of which nothing else is wanted.
pub fn tried() -> Tried {
    if !rustix::process::getpid().is_init() {
        return Tried::NotInit;
    }
    if !is_bare() {
        return Tried::Privileged;
    }
    if !rustix::fs::statvfs("/").is_ok_and(|root| root.f_flag.contains(StatVfsMountFlags::RDONLY)) {
        return Tried::Writable;
    }
    if !std::fs::read_to_string("/proc/self/net/dev").is_ok_and(|interfaces| is_shut_off(&interfaces)) {
        return Tried::Networked;
    }
    if !Path::new("/bin/bash").is_file() {
        return Tried::NoShell;
    }
    if File::create("/tmp/tried").is_err() {
        return Tried::NoTmp;
    }
    if seccomp::restrict().is_err() {
        return Tried::NoFilter;
    }
    if landlock::level().is_none() {
        return Tried::WithoutLandlock;
    }
    Tried::Fine
}

fn is_bare() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let has = |line: &str| status.lines().any(|found| found.split_whitespace().eq(line.split_whitespace()));
    let none = "0000000000000000";
    !rustix::process::geteuid().is_root()
        && has("NoNewPrivs: 1")
        && ["CapPrm", "CapEff", "CapBnd", "CapAmb"].iter().all(|set| has(&format!("{set}: {none}")))
}

/// What the kernel itself puts into every new network, where it has such tunnels; they are down, and nobody can bring them up.
const TUNNELS: &[&str] =
    &["tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0", "ip6gretap0"];

/// Whether these, as /proc tells them after two lines of headings, are no more than a network of nobody.
fn is_shut_off(interfaces: &str) -> bool {
    let names = interfaces.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    let (loopback, others): (Vec<_>, Vec<_>) = names.partition(|name| *name == "lo");
    !loopback.is_empty() && others.iter().all(|name| TUNNELS.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_split_at_the_first_sign() {
        for (text, expect) in
            [("A=b", Some(("A", "b"))), ("A=b=c", Some(("A", "b=c"))), ("A=", Some(("A", ""))), ("A", None)]
        {
            let expect = expect.map(|(name, value)| (name.into(), value.into()));
            assert_eq!(split(&text.into()), expect, "{text}");
        }
    }

    #[test]
    fn a_network_is_shut_off_that_has_only_the_loopback() {
        let with = |names: &[&str]| {
            let lines = names.iter().map(|name| format!("{name:>6}:  0  0  0\n"));
            ["Inter-|   Receive\n face |bytes\n".to_owned()].into_iter().chain(lines).collect::<String>()
        };
        for (names, expect) in [
            (&["lo"][..], true),
            (&["lo", "sit0", "tunl0"], true),
            (&["lo", "eth0"], false),
            (&["eth0"], false),
            (&[], false),
        ] {
            assert_eq!(is_shut_off(&with(names)), expect, "{names:?}");
        }
    }

    #[test]
    fn a_code_is_what_was_meant_by_it() {
        assert_eq!(Tried::of(0), Some(Tried::Fine));
        assert_eq!(Tried::of(43), Some(Tried::WithoutLandlock));
        assert!(Tried::ALL.iter().all(|tried| Tried::of(*tried as i64) == Some(*tried)));
        for code in [1, 2, 126, 127, 137] {
            assert_eq!(Tried::of(code), None, "{code}");
        }
    }
}
