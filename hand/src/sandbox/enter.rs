//! The last step before the sandbox: a process that puts limits on itself and becomes bubblewrap.
//!
//! It is a process of its own so that the shim stays outside of what it puts on, and so that nothing has to happen
//! between fork and exec. Only what bubblewrap needs is left open.

use super::args::{self, Descriptors};
use super::{rlimits, seccomp};
use crate::folder::{self, Folder};
use crate::spec::Plan;
use rustix::fs::MemfdFlags;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("read the hand's plan")]
    Plan(#[source] io::Error),
    #[error("understand the hand's plan")]
    PlanFormat(#[source] serde_json::Error),
    #[error("wait for the hand's last sandbox")]
    Lock(#[source] io::Error),
    #[error("enter the cgroup {0}")]
    Cgroup(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Limits(#[from] rlimits::Error),
    #[error("make the filter")]
    Seccomp(#[from] seccomp::Error),
    #[error("hand bubblewrap its options")]
    Options(#[source] io::Error),
    #[error("find bubblewrap")]
    NoBwrap,
    #[error("become {0}")]
    Exec(PathBuf, #[source] io::Error),
}

/// Become the sandbox of the hand in `dir`.
pub fn run(dir: &Path) -> Result<Infallible, Error> {
    let folder = Folder::new(dir);
    let plan: Plan =
        serde_json::from_slice(&std::fs::read(folder.plan()).map_err(Error::Plan)?).map_err(Error::PlanFormat)?;
    // Kept open into the sandbox, where init alone has it: two sandboxes never share a workspace.
    let lock = folder::lock(&folder.sandbox_lock()).and_then(inherited).map_err(Error::Lock)?;
    for procs in &plan.cgroup_procs {
        std::fs::write(procs, "0").map_err(|e| Error::Cgroup(procs.clone(), e))?;
    }
    rlimits::restrict()?;
    let mut etc = Vec::new();
    for (_, content) in args::etc(plan.spec.egress.as_ref(), args::UID) {
        etc.push(in_memory(content.as_bytes()).map_err(Error::Options)?);
    }
    let mut seccomp = Vec::new();
    for filter in seccomp::filters()? {
        seccomp.push(in_memory(&filter).map_err(Error::Options)?);
    }
    let options = args::full(&folder, &plan.spec, &Descriptors { etc: &etc, seccomp: &seccomp });
    let options = in_memory(&options.to_bytes()).map_err(Error::Options)?;
    // By descriptor, as the binary's own path need not be reachable for this uid, nor be known inside.
    let program = File::open("/proc/self/exe").and_then(inherited).map_err(Error::Options)?;

    let bwrap = super::bwrap().ok_or(Error::NoBwrap)?;
    let error = Command::new(&bwrap)
        .args(["--args", &options.as_raw_fd().to_string(), "--"])
        .arg(format!("/proc/self/fd/{}", program.as_raw_fd()))
        .arg("init")
        .env_clear()
        .exec();
    drop(lock);
    Err(Error::Exec(bwrap, error))
}

fn in_memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("hand", MemfdFlags::empty())?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Let a descriptor live through exec.
pub(super) fn inherited(file: File) -> io::Result<File> {
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    Ok(file)
}
