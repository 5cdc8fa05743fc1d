//! Landlock, the second wall inside the first: should a mount be writable or a path be there that ought not to, the
//! kernel still refuses. Init puts it on itself before it starts anything, so that every process has it for good.
//!
//! Nothing is weakened quietly: a level is tried whole at launch, named in the status, and put on whole or not at all.

use crate::link::inside;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use serde::{Deserialize, Serialize};

/// What a kernel can hold, the strongest first.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Files, devices' ioctls, and neither abstract sockets nor signals of others: Linux 6.12.
    Scoped,
    /// Files, truncation included: Linux 6.2.
    Files,
}

const LEVELS: [Level; 2] = [Level::Scoped, Level::Files];

/// Read and executed, never written.
const PROGRAMS: &[&str] = &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", inside::PACKAGES];
/// Read alone. Writing to a process's files under /proc is nothing that a tool needs.
const READ: &[&str] = &["/etc", "/proc", inside::UPLOADS, inside::SPOOL, inside::RECIPE];
/// The agent's own.
const WRITTEN: &[&str] = &[inside::WORKSPACE, inside::OUTPUTS, inside::HOME, "/tmp", "/run", "/dev/shm"];

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("make the rules")]
    Rules(#[from] RulesetError),
    #[error("open {0} for its rule")]
    Path(&'static str, #[source] landlock::PathFdError),
    #[error("have the kernel hold all of the rules")]
    Partly,
}

impl Level {
    fn abi(self) -> ABI {
        match self {
            Self::Scoped => ABI::V6,
            Self::Files => ABI::V3,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Scoped => "files, device ioctls, abstract sockets and signals",
            Self::Files => "files",
        }
    }

    fn rules(self) -> Result<Ruleset, RulesetError> {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        let ruleset = ruleset.handle_access(AccessFs::from_all(self.abi()))?;
        match self {
            Self::Scoped => ruleset.scope(Scope::from_all(self.abi())),
            Self::Files => Ok(ruleset),
        }
    }
}

/// The strongest level that this kernel holds whole.
pub fn level() -> Option<Level> {
    LEVELS.into_iter().find(|level| level.rules().and_then(Ruleset::create).is_ok())
}

/// Put it on this process, which must not have started a thread, and all that it will start.
pub fn restrict(level: Level, fills_shelf: bool) -> Result<(), Error> {
    let abi = level.abi();
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let written = AccessFs::from_all(abi) & !(AccessFs::MakeChar | AccessFs::MakeBlock) & !device_ioctl(abi);
    // Listing says no more than the mounts do, and the way to every root leads through folders.
    let mut rules: Vec<(&'static str, BitFlags<AccessFs>)> = vec![("/", AccessFs::ReadDir.into())];
    rules.extend(PROGRAMS.iter().map(|&path| (path, AccessFs::from_read(abi))));
    rules.extend(READ.iter().map(|&path| (path, read)));
    rules.push(("/dev", read | AccessFs::WriteFile | device_ioctl(abi)));
    rules.extend(WRITTEN.iter().map(|&path| (path, written)));
    if fills_shelf {
        rules.push((inside::PACKAGES, written));
    }

    let mut ruleset = level.rules()?.create()?;
    for (path, access) in rules {
        let folder = match PathFd::new(path) {
            // Not every system and hand has each of the folders that programs are in.
            Err(_) if PROGRAMS.contains(&path) => continue,
            folder => folder.map_err(|e| Error::Path(path, e))?,
        };
        ruleset = ruleset.add_rule(PathBeneath::new(folder, access))?;
    }
    match ruleset.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        _ => Err(Error::Partly),
    }
}

fn device_ioctl(abi: ABI) -> BitFlags<AccessFs> {
    AccessFs::from_all(abi) & AccessFs::IoctlDev
}
