//! Memory, processes and processor time of a sandbox as a whole, by cgroups of version 2 or 1, whichever can be had.
//!
//! The limits are written by whoever launches and stay his: the sandbox's uid may only move its own processes in.

use crate::limits::END_CONFIRM;
use crate::protocol::{Layer, Need};
use crate::spec::Limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sha2::{Digest, Sha256};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The folder of all our groups, below the mount of each hierarchy.
const OURS: &str = "steadyhand";

/// One limit, and where it can be set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Controller {
    Memory,
    Pids,
    Cpu,
}

const CONTROLLERS: [Controller; 3] = [Controller::Memory, Controller::Pids, Controller::Cpu];

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
        }
    }

    fn layer(self) -> String {
        format!("cgroup_{}", self.name())
    }

    /// Files and values, in order; one that may be missing is marked.
    fn settings(self, version: Version, limits: &Limits) -> Vec<(&'static str, String, bool)> {
        const PERIOD_US: u64 = 100_000;
        let quota_us = limits.cpu_percent * PERIOD_US / 100;
        let memory = limits.memory_bytes.to_string();
        match (self, version) {
            (Self::Memory, Version::Two) => {
                vec![("memory.max", memory, true), ("memory.swap.max", "0".to_owned(), false)]
            }
            (Self::Memory, Version::One) => vec![
                ("memory.limit_in_bytes", memory.clone(), true),
                // Memory and swap together; only where the kernel counts swap.
                ("memory.memsw.limit_in_bytes", memory, false),
            ],
            (Self::Pids, _) => vec![("pids.max", limits.pids.to_string(), true)],
            (Self::Cpu, Version::Two) => vec![("cpu.max", format!("{quota_us} {PERIOD_US}"), true)],
            (Self::Cpu, Version::One) => vec![("cpu.cfs_quota_us", quota_us.to_string(), true)],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
}

/// A mounted hierarchy that has a controller.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Hierarchy {
    version: Version,
    mount: PathBuf,
}

/// What could be put up for a hand.
#[derive(Default)]
pub struct Groups {
    /// Where the sandbox enters.
    pub procs: Vec<PathBuf>,
    /// Where whoever starts the shim enters first: in version 2, moving a process needs the right to the group above
    /// both ends.
    pub shim_procs: Option<PathBuf>,
    pub layers: Vec<Layer>,
}

/// The name of a hand's groups: other services on this machine may have hands of the same id.
pub fn name(hand_id: &str, dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    format!("{hand_id}-{}", hex::encode(&Sha256::digest(dir.as_os_str().as_bytes())[..4]))
}

/// Make the groups of that name, which `uid` may enter. What cannot be had is told in its layer.
pub fn create(name: &str, uid: Option<u32>, limits: &Limits) -> Groups {
    let mut groups = Groups::default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for controller in CONTROLLERS {
        let made = find(&mounts, controller)
            .and_then(|hierarchy| set_up(&hierarchy, controller, name, uid, limits).map(|procs| (hierarchy, procs)));
        groups
            .layers
            .push(layer(controller, made.as_ref().map(|(hierarchy, _)| hierarchy.version).map_err(String::as_str)));
        if let Ok((hierarchy, procs)) = made {
            if hierarchy.version == Version::Two {
                groups.shim_procs = Some(hierarchy.mount.join(OURS).join(name).join("shim/cgroup.procs"));
            }
            if !groups.procs.contains(&procs) {
                groups.procs.push(procs);
            }
        }
    }
    groups
}

/// Remove the groups of that name, whose sandbox has ended.
pub fn remove(name: &str) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for controller in CONTROLLERS {
        if let Ok(hierarchy) = find(&mounts, controller) {
            let group = hierarchy.mount.join(OURS).join(name);
            wait_empty(&group.join("sandbox"));
            // There may be none of that name here, or one that somebody else has entered: then it stays.
            std::fs::remove_dir(group.join("sandbox")).ok();
            std::fs::remove_dir(group.join("shim")).ok();
            std::fs::remove_dir(group).ok();
        }
    }
}

/// The last processes of a sandbox that was killed may still be on their way out.
fn wait_empty(group: &Path) {
    let deadline = Instant::now() + END_CONFIRM;
    while let Ok(procs) = std::fs::read_to_string(group.join("cgroup.procs")) {
        let Some(pid) = procs.lines().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw) else { return };
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
        // Gone between the list and this is gone as well.
        if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
            let timeout = Timespec::try_from(left).ok();
            poll(&mut [PollFd::new(&process, PollFlags::IN)], timeout.as_ref()).ok();
        }
    }
}

fn layer(controller: Controller, made: Result<Version, &str>) -> Layer {
    let (on, why, fix) = match made {
        Ok(Version::One) => (true, "cgroup v1".to_owned(), ""),
        Ok(Version::Two) => (true, "cgroup v2".to_owned(), ""),
        Err(why) => (
            false,
            why.to_owned(),
            "run the service as root, or under systemd with Delegate=yes, on a host with cgroup memory, pids and cpu",
        ),
    };
    Layer { name: controller.layer(), on, need: Need::Strict, why, fix: fix.to_owned() }
}

/// The hierarchy that has the controller: version 2 if it is there, else version 1.
fn find(mountinfo: &str, controller: Controller) -> Result<Hierarchy, String> {
    let mut one = None;
    for line in mountinfo.lines() {
        let Some((mount, kind, options)) = parse_mount(line) else { continue };
        if kind == "cgroup2" {
            let mount = PathBuf::from(mount);
            let has = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
            if has.split_whitespace().any(|name| name == controller.name()) {
                return Ok(Hierarchy { version: Version::Two, mount });
            }
        } else if kind == "cgroup" && options.split(',').any(|name| name == controller.name()) {
            one = Some(Hierarchy { version: Version::One, mount: mount.into() });
        }
    }
    one.ok_or_else(|| format!("no cgroup hierarchy has the {} controller", controller.name()))
}

/// Mount point, filesystem and its options, of a line of mountinfo.
fn parse_mount(line: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    let (kind, _, options) = (after.next()?, after.next()?, after.next()?);
    Some((before.split(' ').nth(4)?, kind, options))
}

/// The file through which the sandbox enters its group, limits set.
fn set_up(
    hierarchy: &Hierarchy,
    controller: Controller,
    name: &str,
    uid: Option<u32>,
    limits: &Limits,
) -> Result<PathBuf, String> {
    let ours = hierarchy.mount.join(OURS);
    let hand = ours.join(name);
    let sandbox = hand.join("sandbox");
    let told = |path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| format!("{}: {e}", path.display())
    };
    std::fs::create_dir_all(&sandbox).map_err(told(&sandbox))?;
    if hierarchy.version == Version::Two {
        for above in [&hierarchy.mount, &ours, &hand] {
            let control = above.join("cgroup.subtree_control");
            std::fs::write(&control, format!("+{}", controller.name())).map_err(told(&control))?;
        }
        let shim = hand.join("shim");
        std::fs::create_dir_all(&shim).map_err(told(&shim))?;
        give(&hand.join("cgroup.procs"), uid).map_err(told(&hand))?;
    }
    for (name, value, required) in controller.settings(hierarchy.version, limits) {
        let path = sandbox.join(name);
        match std::fs::write(&path, value) {
            Err(e) if required => return Err(told(&path)(e)),
            _ => {}
        }
    }
    let procs = sandbox.join("cgroup.procs");
    give(&procs, uid).map_err(told(&procs))?;
    Ok(procs)
}

fn give(path: &Path, uid: Option<u32>) -> io::Result<()> {
    uid.map_or(Ok(()), |uid| std::os::unix::fs::chown(path, Some(uid), Some(uid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_by_their_mount() {
        let mounts = "35 24 0:30 / /sys/fs/cgroup/memory rw,relatime shared:15 - cgroup cgroup rw,memory\n\
                      36 24 0:31 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                      37 24 0:32 / /nowhere rw - cgroup2 cgroup2 rw\nnonsense\n";
        let of = |controller| find(mounts, controller).map(|found| (found.version, found.mount));
        assert_eq!(of(Controller::Memory), Ok((Version::One, "/sys/fs/cgroup/memory".into())));
        assert_eq!(of(Controller::Cpu), Ok((Version::One, "/sys/fs/cgroup/cpu".into())));
        assert!(of(Controller::Pids).is_err());
    }

    #[test]
    fn version_two_is_preferred_where_it_has_the_controller() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cgroup.controllers"), "cpuset memory").unwrap();
        let mounts = format!(
            "35 24 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n1 1 0:1 / {} rw - cgroup2 x rw\n",
            dir.path().display()
        );
        assert_eq!(find(&mounts, Controller::Memory).unwrap().version, Version::Two);
        assert!(find(&mounts, Controller::Pids).is_err());
    }
}
