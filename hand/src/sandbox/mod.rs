//! The walls of a sandbox: how bubblewrap is called, the system-call filter, and the limits of the host.
//!
//! Nothing here decides whether a sandbox may do without a wall; [`crate::probe`] and `launch` do.

pub mod args;
pub mod cgroup;
pub mod contained;
pub mod container;
pub mod enter;
pub mod landlock;
mod rlimits;
pub mod seccomp;

use std::path::{Path, PathBuf};

/// bubblewrap, where distributions put it. The environment is empty, so there is no PATH to search.
pub fn bwrap() -> Option<PathBuf> {
    ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
