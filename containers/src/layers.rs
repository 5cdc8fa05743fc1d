//! Which walls a runtime has, in the words of `doctor` and of a launch that refuses. Pure: it is told what was found.

use crate::{body::Dialect, runtime::Error};
use bollard::models::{SystemInfo, SystemInfoCgroupVersionEnum};
use hand::{
    protocol::{Layer, Need},
    sandbox::contained::Tried,
};
use std::path::Path;

/// Why a runtime is not one of those that this is made for, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub why: &'static str,
    pub fix: &'static str,
}

const NUMBERS_USERS_ANEW: Unfit = Unfit {
    why: "this Docker gives every user another number inside",
    fix: "use rootless Podman, or a Docker that is neither rootless nor told to remap users (userns-remap)",
};
const ANOTHERS: Unfit = Unfit {
    why: "this Podman is a plain user's, and cannot make what belongs to the users that hands have here",
    fix: "name root's own with --container-socket (systemctl enable --now podman.socket), or run the service as that user",
};

/// How a runtime is to be told, by what it says of itself; `as_root`: hands have users of their own.
pub fn dialect(is_podman: bool, info: &SystemInfo, as_root: bool) -> Result<Dialect, Unfit> {
    let has = |name: &str| info.security_options.iter().flatten().any(|option| option.contains(name));
    match (is_podman, has("name=rootless"), has("name=userns")) {
        (true, false, _) => Ok(Dialect::Podman),
        (true, true, _) if as_root => Err(ANOTHERS),
        (true, true, _) => Ok(Dialect::RootlessPodman),
        (false, false, false) => Ok(Dialect::Docker),
        (false, ..) => Err(NUMBERS_USERS_ANEW),
    }
}

pub fn of_runtime(runtime: &str, socket: &Path) -> Layer {
    on("container_runtime", format!("{runtime} at {}", socket.display()))
}

pub fn unfit(unfit: Unfit) -> Layer {
    off("container_users", unfit.why, unfit.fix)
}

pub fn of_image(image: &str, has_volumes: bool) -> Layer {
    if has_volumes {
        let why = format!("{image} has volumes, which would be written to without a bound");
        off("container_image", why, "use an image without VOLUME")
    } else {
        on("container_image", image)
    }
}

pub fn unreachable(error: &Error) -> Layer {
    let why = hand::error_chain(error);
    match error {
        Error::Image(image, _) => off("container_image", why, format!("pull or import it: podman pull {image}")),
        _ => off(
            "container_runtime",
            why,
            "install Podman or Docker, have its API listen (systemctl enable --now podman.socket) and name its socket with \
             --container-socket",
        ),
    }
}

pub fn of_trial(tried: Result<Tried, &str>) -> Vec<Layer> {
    let landlock = |on: bool| {
        let (why, fix) = match on {
            true => ("held in a container as well", ""),
            false => (
                "a container of this runtime cannot have it",
                "Linux 6.2 or later with landlock among the kernel's `lsm=`, and a runtime whose profile of system calls lets it through",
            ),
        };
        layer(hand::probe::LANDLOCK, Need::Strict, on, why, fix)
    };
    let wrong = |why: &str, fix: &str| vec![off("container", why, fix)];
    let runs = "no capability, no new privileges, a read-only root, no network";
    match tried {
        Ok(tried @ (Tried::Fine | Tried::WithoutLandlock)) => vec![
            on("container", runs),
            on("namespaces", "mount, pid, net, ipc and uts, by the runtime; none can be made inside"),
            on("seccomp", "put on by the first process inside, beside the runtime's own"),
            landlock(tried == Tried::Fine),
        ],
        Ok(Tried::NoShell) => wrong("the image has no /bin/bash", "use an image with bash and coreutils"),
        Ok(Tried::NoTmp) => wrong("nobody but root may write to the image's /tmp", "an image whose /tmp has mode 1777"),
        Ok(Tried::NoFilter) => {
            wrong("the filter of system calls is refused inside", "a runtime on Linux 4.14 or later")
        }
        Ok(Tried::NotInit) => {
            wrong("the first process inside is another one", "a runtime that adds no init of its own")
        }
        Ok(Tried::Privileged) => wrong(
            "what runs inside has capabilities, or could get some",
            "a runtime that takes them away when it is told to",
        ),
        Ok(Tried::Writable) => {
            wrong("the root is not read-only inside", "a runtime that mounts it so when it is told to")
        }
        Ok(Tried::Networked) => wrong("there is a network inside", "a runtime that gives none when it is told to"),
        Err(why) => wrong(
            why,
            "an image for this processor; one whose libc is as new as this machine's, or the static steadyhand-hand that \
             scripts/build makes; for Podman a runtime that starts here: podman run --network none IMAGE true",
        ),
    }
}

/// `warnings` are what the runtime said when it was asked for a container with limits: it may go on without them.
pub fn of_limits(info: &SystemInfo, dialect: Dialect, warnings: &[String]) -> Vec<Layer> {
    let is_v2 = info.cgroup_version == Some(SystemInfoCgroupVersionEnum::_2);
    // It lets go of every limit there, whatever it says that it can.
    let lets_go = dialect == Dialect::RootlessPodman && !is_v2;
    // Podman looks for a file that only version 1 has; with version 2 processor time can always be bounded.
    let cpu = info.cpu_cfs_quota == Some(true) || is_v2;
    let limits = [("memory", info.memory_limit == Some(true)), ("pids", info.pids_limit == Some(true)), ("cpu", cpu)];
    let layer_of = |(name, can): (&str, bool)| {
        let name = format!("cgroup_{name}");
        let fix = "a runtime with cgroups: not rootless, or with cgroup v2 delegated";
        if lets_go || !can {
            layer(&name, Need::Strict, false, "the runtime cannot bound it", fix)
        } else if !warnings.is_empty() {
            layer(&name, Need::Strict, false, format!("the runtime warns: {}", warnings.join("; ")), fix)
        } else {
            layer(&name, Need::Strict, true, "by the runtime", "")
        }
    };
    limits.into_iter().map(layer_of).collect()
}

fn on(name: &str, why: impl Into<String>) -> Layer {
    layer(name, Need::Always, true, why, "")
}

fn off(name: &str, why: impl Into<String>, fix: impl Into<String>) -> Layer {
    layer(name, Need::Always, false, why, fix)
}

fn layer(name: &str, need: Need, on: bool, why: impl Into<String>, fix: impl Into<String>) -> Layer {
    Layer { name: name.to_owned(), on, need, why: why.into(), fix: fix.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_off_says_what_to_do() {
        for tried in Tried::ALL.map(Ok).into_iter().chain([Err("exec format error")]) {
            let layers = of_trial(tried);
            assert!(layers.iter().all(|layer| layer.on == layer.fix.is_empty()), "{layers:?}");
            let is_required = |layer: &&Layer| !layer.on && layer.need == Need::Always;
            let starts = matches!(tried, Ok(Tried::Fine | Tried::WithoutLandlock));
            assert_eq!(layers.iter().any(|layer| is_required(&layer)), !starts, "{layers:?}");
        }
        for limit in of_limits(&SystemInfo::default(), Dialect::Docker, &[]) {
            assert!(!limit.on && !limit.fix.is_empty(), "{limit:?}");
        }
    }

    #[test]
    fn a_limit_is_on_where_the_runtime_keeps_it() {
        use SystemInfoCgroupVersionEnum::{_1, _2};
        let info = |version, cpu| SystemInfo {
            cgroup_version: Some(version),
            memory_limit: Some(true),
            pids_limit: Some(true),
            cpu_cfs_quota: Some(cpu),
            ..SystemInfo::default()
        };
        let warned = ["Resource limits are not supported and ignored".to_owned()];
        for (version, cpu, dialect, warnings, expect) in [
            (_1, true, Dialect::Docker, &[][..], [true, true, true]),
            (_1, false, Dialect::Podman, &[], [true, true, false]),
            (_2, false, Dialect::Podman, &[], [true, true, true]),
            (_2, false, Dialect::RootlessPodman, &[], [true, true, true]),
            (_1, true, Dialect::RootlessPodman, &[], [false, false, false]),
            (_2, true, Dialect::Docker, &warned, [false, false, false]),
        ] {
            let layers = of_limits(&info(version, cpu), dialect, warnings);
            assert_eq!(layers.iter().map(|layer| layer.on).collect::<Vec<_>>(), expect, "{version} {dialect:?}");
        }
    }

    #[test]
    fn a_runtime_that_numbers_users_otherwise_is_refused() {
        let info = |options: &[&str]| SystemInfo {
            security_options: Some(options.iter().map(ToString::to_string).collect()),
            ..SystemInfo::default()
        };
        let (rootless, remapped) = (&["name=seccomp,profile=default", "name=rootless"], &["name=userns"]);
        for (is_podman, options, as_root, expect) in [
            (true, &[][..], true, Ok(Dialect::Podman)),
            (true, rootless, false, Ok(Dialect::RootlessPodman)),
            (true, rootless, true, Err(ANOTHERS)),
            (false, &["name=cgroupns"], true, Ok(Dialect::Docker)),
            (false, rootless, false, Err(NUMBERS_USERS_ANEW)),
            (false, remapped, true, Err(NUMBERS_USERS_ANEW)),
        ] {
            assert_eq!(dialect(is_podman, &info(options), as_root), expect, "{is_podman} {options:?} {as_root}");
        }
    }
}
