//! What a container of a hand is made of: the same places, limits and variables that bubblewrap is told of. Pure; who
//! asks a runtime for it is the keeper ([`crate::keeper`]).
//!
//! The image gives programs and nothing else: all that is written lies in the hand's folder, and what an image has in
//! /etc about users and names is covered.

use super::args;
use crate::folder::Folder;
use crate::limits;
use crate::link::inside;
use crate::shelf;
use crate::spec::{Limits, Plan, Shelf};
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Of this hand alone, on this machine.
    pub name: String,
    /// The user and the group of everything inside.
    pub uid: u32,
    pub mounts: Vec<Mount>,
    /// In memory, as open as they are in the image: path and bytes.
    pub tmpfs: Vec<(&'static str, u64)>,
    pub shm_bytes: u64,
    pub limits: Limits,
    /// The first process, after the program itself.
    pub arguments: Vec<String>,
}

/// A file or folder of the host, as it is seen inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub from: PathBuf,
    pub to: &'static str,
    pub is_read_only: bool,
}

/// Where this program is inside.
pub const PROGRAM: &str = inside::PROGRAM;

/// Files of /etc that runtimes write by themselves, of which nothing of the host may be seen.
const EMPTY: &[&str] = &["/etc/resolv.conf", "/etc/hostname"];

/// Names and contents of what lies in a hand's own /etc, and where it is seen.
pub fn etc(plan: &Plan) -> impl Iterator<Item = (&'static str, String)> {
    let made_up = args::etc(plan.spec.egress.as_ref(), uid(plan));
    made_up.into_iter().chain(EMPTY.iter().map(|&path| (path, String::new())))
}

/// Where a file of /etc lies in the hand's folder.
pub fn etc_file(folder: &Folder, path: &str) -> PathBuf {
    folder.etc().join(Path::new(path).file_name().expect("a file of /etc"))
}

pub fn of(plan: &Plan, program: &Path) -> io::Result<Container> {
    let spec = &plan.spec;
    let folder = Folder::new(spec.hands_dir.join(&spec.hand_id));
    let read = |from: PathBuf, to| Mount { from, to, is_read_only: true };
    // On a disk of its own these are links.
    let written = |from: PathBuf, to| Ok::<_, io::Error>(Mount { from: from.canonicalize()?, to, is_read_only: false });
    let mut mounts = vec![
        written(folder.workspace(), inside::WORKSPACE)?,
        written(folder.outputs(), inside::OUTPUTS)?,
        written(folder.home(), inside::HOME)?,
        read(folder.uploads(), inside::UPLOADS),
        read(folder.spool(), inside::SPOOL),
        read(folder.recipe(), inside::RECIPE),
        read(folder.link(), inside::LINK),
        read(folder.sandbox_lock(), inside::LOCK),
        read(program.to_owned(), inside::PROGRAM),
    ];
    mounts.extend(etc(plan).map(|(path, _)| read(etc_file(&folder, path), path)));
    mounts.extend(spec.egress.as_ref().map(|egress| read(egress.dir.clone(), inside::EGRESS)));
    match &spec.shelf {
        Some(Shelf::Fill(_)) => mounts.push(written(folder.packages(), inside::PACKAGES)?),
        Some(Shelf::Read(name)) => {
            let packages = shelf::folder(&spec.hands_dir, name).packages().canonicalize()?;
            mounts.push(read(packages, inside::PACKAGES));
        }
        None => {}
    }
    let variables = args::environment(spec).into_iter().map(|(name, value)| format!("{name}={value}"));
    Ok(Container {
        name: name(folder.path(), &spec.hand_id),
        uid: uid(plan),
        mounts,
        // Some runtimes make a /var/tmp of their own, without a bound.
        tmpfs: vec![
            ("/tmp", limits::TMPFS_BYTES),
            ("/var/tmp", limits::TMPFS_BYTES),
            ("/run", limits::RUN_TMPFS_BYTES),
        ],
        shm_bytes: limits::TMPFS_BYTES,
        limits: spec.limits.clone(),
        arguments: ["contained".to_owned()].into_iter().chain(variables).collect(),
    })
}

/// One that only tries whether an image and a runtime will do.
pub fn trial(name: String, uid: u32, program: &Path) -> Container {
    Container {
        name,
        uid,
        mounts: vec![Mount { from: program.to_owned(), to: inside::PROGRAM, is_read_only: true }],
        tmpfs: vec![("/tmp", limits::TMPFS_BYTES), ("/run", limits::RUN_TMPFS_BYTES)],
        shm_bytes: limits::RUN_TMPFS_BYTES,
        limits: Limits::default(),
        arguments: vec!["try-contained".to_owned()],
    }
}

/// As a runtime knows it; another service on this machine may have a hand of the same id.
fn name(dir: &Path, hand_id: &str) -> String {
    format!("steadyhand-{}", super::cgroup::name(hand_id, dir))
}

/// The same number inside and outside, so that what is written belongs to the hand's user.
fn uid(plan: &Plan) -> u32 {
    plan.uid.unwrap_or_else(|| rustix::process::getuid().as_raw())
}
