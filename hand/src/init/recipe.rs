//! Filling the workspace before the first call: by a clone, or from a snapshot. All of it inside the sandbox.

use super::processes::{Exit, Processes};
use crate::limits::{CLONE_SAID_BYTES, CLONES_TIMEOUT, RECIPE_TIMEOUT};
use crate::link::{Recipe, inside};
use crate::removal::remove_tree;
use crate::spec::{CloneOf, CloneStep, FailedClone, Start};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The tree that every repository has.
pub const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

/// What a recipe has led to.
pub struct Prepared {
    /// Where the workspace began.
    pub start: Option<Start>,
    pub failed: Vec<FailedClone>,
}

/// Carry out `recipe` from its beginning, whatever an interrupted attempt has left.
pub fn carry_out(processes: &Processes, recipe: &Recipe) -> Result<Prepared, String> {
    for folder in [inside::WORKSPACE, inside::OUTPUTS] {
        empty(Path::new(folder)).map_err(|e| format!("empty {folder}: {e}"))?;
    }
    if recipe.restore {
        let archive = Path::new(inside::RECIPE).join(inside::ARCHIVE);
        let mut tar = Command::new("tar");
        tar.args(["-x", "-p", "--no-same-owner", "-C", "/", "-f"]).arg(archive);
        run(processes, &mut tar, RECIPE_TIMEOUT, "unpack the snapshot")?;
        return Ok(Prepared { start: recipe.restored_start.clone(), failed: Vec::new() });
    }
    let deadline = Instant::now() + CLONES_TIMEOUT;
    let (mut start, mut failed) = (None, Vec::new());
    for repository in &recipe.clones {
        match clone_from(processes, repository, deadline) {
            Ok(cloned) => start = start.or(Some(cloned)),
            Err((step, said)) => {
                let said = end_of(&said, CLONE_SAID_BYTES).to_owned();
                failed.push(FailedClone { url: repository.url.clone(), step, said });
            }
        }
    }
    if let Some(dir) = &recipe.clone_to {
        start = Some(clone(processes, dir)?);
    }
    Ok(Prepared { start, failed })
}

/// The URL stays the remote's: pulling and pushing go the same way as this. What cannot be had leaves nothing behind.
fn clone_from(processes: &Processes, repository: &CloneOf, deadline: Instant) -> Result<Start, (CloneStep, String)> {
    let CloneOf { url, path, checkout } = repository;
    let dir = Path::new(inside::WORKSPACE).join(path);
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut cloning = git(Path::new("/"));
    cloning.args(["clone", "-q", "--", url]).arg(&dir);
    let cloned = output(processes, &mut cloning, left()).map_err(|said| (CloneStep::Clone, said));
    let checked_out = cloned.and_then(|_| match checkout {
        Some(name) => output(processes, git(&dir).args(["checkout", "-q", name, "--"]), left())
            .map(drop)
            .map_err(|said| (CloneStep::Checkout, said)),
        None => Ok(()),
    });
    match checked_out {
        Ok(()) => Ok(Start { commit: head(processes, &dir), dir }),
        Err(error) => {
            leave_nothing(&dir);
            Err(error)
        }
    }
}

/// Removes what git has left of a clone, if it has, and the folders that it made on the way there.
fn leave_nothing(dir: &Path) {
    let workspace = Path::new(inside::WORKSPACE);
    if dir == workspace {
        empty(dir).ok();
        return;
    }
    remove_tree(dir).ok();
    // A folder with something in it stays.
    dir.ancestors().skip(1).take_while(|above| *above != workspace).find(|above| std::fs::remove_dir(above).is_err());
}

fn clone(processes: &Processes, dir: &Path) -> Result<Start, String> {
    let bundle = Path::new(inside::RECIPE).join(inside::BUNDLE);
    run(
        processes,
        git(Path::new("/")).args(["clone", "-q", "--"]).arg(bundle).arg(dir),
        RECIPE_TIMEOUT,
        "clone the repository",
    )?;
    // The bundle is gone after this; a remote that names it would only mislead.
    run(processes, git(dir).args(["remote", "remove", "origin"]), RECIPE_TIMEOUT, "remove the bundle as a remote")?;
    Ok(Start { dir: dir.to_owned(), commit: head(processes, dir) })
}

/// The commit that is checked out; none in an empty repository.
fn head(processes: &Processes, dir: &Path) -> Option<String> {
    let head = output(processes, git(dir).args(["rev-parse", "--verify", "-q", "HEAD"]), RECIPE_TIMEOUT);
    head.ok().map(|head| head.trim().to_owned())
}

/// A git that runs nothing the repository asks for.
pub fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(dir);
    for setting in ["core.fsmonitor=false", "core.hooksPath=/dev/null", "protocol.file.allow=always"] {
        git.args(["-c", setting]);
    }
    git.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
    git
}

/// Run a command to its end; its last words if it fails.
pub fn run(processes: &Processes, command: &mut Command, within: Duration, what: &str) -> Result<(), String> {
    output(processes, command, within).map(drop).map_err(|said| format!("{what}: {said}"))
}

/// What a command prints, stderr included, if it ends well.
pub fn output(processes: &Processes, command: &mut Command, within: Duration) -> Result<String, String> {
    const SHOWN: u64 = 64 * 1024;
    let deadline = Instant::now() + within;
    // In memory and not a pipe: a process left behind must not keep us reading.
    let file = memfd_create("output", MemfdFlags::CLOEXEC).map(File::from).map_err(|e| e.to_string())?;
    let copy = || file.try_clone().map_err(|e| e.to_string());
    let child = processes.spawn(command.stdin(Stdio::null()).stdout(copy()?).stderr(copy()?));
    let exit = match child {
        Ok(mut child) => processes.wait(child.id(), deadline).ok_or_else(|| {
            // It may have ended in this moment; then there is nothing to kill.
            child.kill().ok();
            format!("not done after {} s", within.as_secs())
        })?,
        Err(e) => return Err(format!("{}: {e}", command.get_program().display())),
    };
    let mut said = Vec::new();
    let mut file = file;
    file.rewind().and_then(|()| file.take(SHOWN).read_to_end(&mut said)).map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&said).into_owned();
    if exit == Exit::Code(0) { Ok(said) } else { Err(format!("{exit}: {}", said.trim())) }
}

/// A path under /tmp that nothing else uses.
pub fn scratch(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    PathBuf::from(format!("/tmp/.hand-{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn end_of(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    &text[text.ceil_char_boundary(from)..]
}

fn empty(folder: &Path) -> std::io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        } else {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
