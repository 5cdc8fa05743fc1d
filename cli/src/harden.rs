//! What a child of the service that has a user of its own does first.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};

/// No core dump holds what it knew, no process of the same user looks into it, and nobody reads its files.
pub fn harden() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
