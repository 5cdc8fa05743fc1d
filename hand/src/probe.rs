//! Which walls this machine can put up, and what to do about those it cannot. For `doctor`, and for every refusal.
//!
//! Nothing is guessed: a sandbox is started with the very options that hands get.

use crate::image;
use crate::limits;
use crate::protocol::{Layer, Need};
use crate::sandbox::{args, bwrap, cgroup, landlock, seccomp};
use crate::spec::Limits;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

pub const LANDLOCK: &str = "landlock";

/// Every layer, on or off, as this very program would put it up.
pub fn probe() -> Vec<Layer> {
    let mut layers = required();
    let name = format!("probe-{}", std::process::id());
    layers.extend(cgroup::create(&name, None, &Limits::default()).layers);
    cgroup::remove(&name);
    layers.extend(others(disk_own(image::probe())));
    layers
}

/// The layers without which no hand starts, where one has: a sandbox that is put up has them all.
pub fn promised() -> Vec<Layer> {
    match bwrap() {
        Some(bwrap) => vec![on("bubblewrap", bwrap.display().to_string()), namespaces_on(), system_calls()],
        None => vec![no_bubblewrap()],
    }
}

fn on(name: &str, why: String) -> Layer {
    layer(name, Need::Always, true, why, "")
}

fn off(name: &str, why: String, fix: &str) -> Layer {
    layer(name, Need::Always, false, why, fix)
}

fn no_bubblewrap() -> Layer {
    let fix = "install bubblewrap 0.8 or later (apt-get install bubblewrap, dnf install bubblewrap)";
    off("bubblewrap", "bwrap was not found".to_owned(), fix)
}

fn namespaces_on() -> Layer {
    on("namespaces", "user, mount, pid, net, ipc, uts and cgroup; no further user namespaces".to_owned())
}

fn system_calls() -> Layer {
    match seccomp::filters() {
        Ok(filters) => on("seccomp", format!("{} filters", filters.len())),
        Err(e) => off("seccomp", e.to_string(), "run on x86_64 or aarch64"),
    }
}

/// The layers without which no hand starts, each tried.
pub fn required() -> Vec<Layer> {
    let mut layers = Vec::new();
    let Some(bwrap) = bwrap() else {
        layers.push(no_bubblewrap());
        return layers;
    };
    match version(&bwrap) {
        Some(version) if version >= (0, 8) => {
            layers.push(on("bubblewrap", format!("version {}.{}", version.0, version.1)));
        }
        found => {
            let found = found.map_or("unknown".to_owned(), |(major, minor)| format!("{major}.{minor}"));
            layers.push(off("bubblewrap", format!("version {found}"), "install bubblewrap 0.8 or later"));
            return layers;
        }
    }
    layers.push(match namespaces(&bwrap) {
        Ok(()) => namespaces_on(),
        Err(why) => {
            let fix = namespaces_fix(&why);
            off("namespaces", why, fix)
        }
    });
    layers.push(system_calls());
    layers
}

/// What is neither required nor tried by making it.
pub fn others(disk: Layer) -> Vec<Layer> {
    vec![second_wall(), own_uid(), disk, static_program()]
}

/// Landlock is put on inside; here it is asked whether the kernel would hold it.
fn second_wall() -> Layer {
    let (on, why, fix) = match landlock::level() {
        Some(level) => (true, format!("holds {}", level.name()), ""),
        None => (
            false,
            "this kernel does not hold its rules for files".to_owned(),
            "Linux 6.2 or later with landlock among the kernel's `lsm=`",
        ),
    };
    layer(LANDLOCK, Need::Strict, on, why, fix)
}

/// Whether a host uid of its own can be given to each hand.
fn own_uid() -> Layer {
    let root = rustix::process::geteuid().is_root();
    let (why, fix) = if root {
        (format!("each hand gets one of {}-{}", limits::UIDS.start(), limits::UIDS.end()), "")
    } else {
        let why = "hands share the uid of the service, which is not root";
        (why.to_owned(), "run the service as root, or one service a tenant")
    };
    layer("own_uid", Need::Strict, root, why, fix)
}

/// A disk of its own for each hand, as strict mode has it.
pub fn disk_own(tried: Result<(), image::Error>) -> Layer {
    let (on, why, fix) = match tried {
        Ok(()) => (true, "in strict mode each hand has a filesystem of its own".to_owned(), ""),
        Err(e) => (
            false,
            crate::error_chain(&e),
            "run the service as root on a system with e2fsprogs and loop devices; without it disks are only watched",
        ),
    };
    layer("disk_quota", Need::Strict, on, why, fix)
}

/// Said openly: a look once a second stops accidents, and nobody who means it.
pub fn disk_watched() -> Layer {
    let why = "use of the disk is looked at and not bounded by the kernel".to_owned();
    layer("disk_quota", Need::Strict, false, why, "strict mode, as root")
}

/// A dynamic program takes the sandbox's first process from libraries of the host's /usr.
fn static_program() -> Layer {
    if cfg!(target_feature = "crt-static") {
        layer("static_program", Need::Advice, true, "steadyhand-hand is linked statically".to_owned(), "")
    } else {
        let why = "steadyhand-hand is linked dynamically".to_owned();
        layer("static_program", Need::Advice, false, why, "use the steadyhand-hand that scripts/build makes")
    }
}

fn layer(name: &str, need: Need, on: bool, why: String, fix: &str) -> Layer {
    Layer { name: name.to_owned(), on, need, why, fix: fix.to_owned() }
}

fn version(bwrap: &Path) -> Option<(u32, u32)> {
    let output = Command::new(bwrap).arg("--version").env_clear().stdin(Stdio::null()).output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.trim().strip_prefix("bubblewrap ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Start a sandbox that does nothing, as the uid that hands run as.
fn namespaces(bwrap: &Path) -> Result<(), String> {
    let mut command = Command::new(bwrap);
    command.args(args::base().words()).args(["--", "/usr/bin/true"]).env_clear().stdin(Stdio::null());
    if rustix::process::geteuid().is_root() {
        command.uid(*limits::UIDS.start()).gid(*limits::UIDS.start());
    }
    let output = command.current_dir("/").output().map_err(|e| format!("bwrap could not be started: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(if said.is_empty() { format!("bwrap ended with {}", output.status) } else { said })
}

fn namespaces_fix(why: &str) -> &'static str {
    let set = |path: &str, bad: &str| std::fs::read_to_string(path).is_ok_and(|value| value.trim() == bad);
    if set("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "allow bwrap user namespaces: an AppArmor profile for /usr/bin/bwrap with `userns`, or sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0"
    } else if set("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "sysctl kernel.unprivileged_userns_clone=1"
    } else if set("/proc/sys/user/max_user_namespaces", "0") {
        "sysctl user.max_user_namespaces=15000"
    } else if why.contains("proc") {
        "in a container, let it mount its own /proc (docker: --security-opt systempaths=unconfined)"
    } else {
        "allow user namespaces; in a container also those that its seccomp profile blocks (docker: --security-opt \
         seccomp=unconfined --security-opt apparmor=unconfined)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (said, expect) in [
            ("bubblewrap 0.8.0\n", Some((0, 8))),
            ("bubblewrap 0.11.1\n", Some((0, 11))),
            ("bubblewrap 1.0\n", Some((1, 0))),
            ("something else", None),
            ("bubblewrap x.y", None),
        ] {
            assert_eq!(parse_version(said), expect, "{said}");
        }
        assert!((0, 11) >= (0, 8) && (1, 0) >= (0, 8) && (0, 7) < (0, 8));
    }

    #[test]
    fn whatever_is_off_says_why_and_what_to_do() {
        for layer in probe() {
            assert!(!layer.why.is_empty(), "{}", layer.name);
            assert_eq!(layer.on, layer.fix.is_empty(), "{}", layer.name);
        }
    }
}
