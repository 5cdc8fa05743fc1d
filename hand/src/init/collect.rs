//! What a session has made: new files under outputs, and the diff of its repository. Only bytes leave the sandbox.

use super::recipe::{EMPTY_TREE, git, run, scratch};
use super::{Init, Outbox};
use crate::limits;
use crate::link::{FromInit, Part, inside};
use crate::spec::Start;
use crate::tools::Stop;
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Say every part; true if there was more than the limits let through.
pub fn collect(init: &Init, call: u64, known: &BTreeMap<String, String>) -> Result<bool, String> {
    let stop = Stop::new(Some(Instant::now() + limits::COLLECT_TIMEOUT));
    let mut total = 0;
    let mut listed = 0;
    let mut more = false;
    let root = Path::new(inside::OUTPUTS);
    for path in regular_files(root, &stop)? {
        let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        // A file that vanished or turned into something else since is not there.
        let Ok((mut file, bytes)) = open(&path) else { continue };
        let fits = bytes <= limits::OUTPUT_FILE_BYTES && total + bytes <= limits::OUTPUT_TOTAL_BYTES;
        if fits && known.get(&shown).is_some_and(|hash| hash_of(&mut file).is_ok_and(|now| now == *hash)) {
            continue;
        }
        if listed == limits::OUTPUT_FILES {
            more = true;
            break;
        }
        listed += 1;
        let sent = fits && send(&init.outbox, call, &mut file, limits::OUTPUT_FILE_BYTES).is_ok();
        total += if sent { bytes } else { 0 };
        init.outbox.say(call, &FromInit::Part(Part::File { path: shown, bytes, sent }));
    }
    if let Some(start) = init.start.lock().expect("no holder panics").clone() {
        let (truncated, error) = match diff(init, call, &start) {
            Ok(truncated) => (truncated, None),
            Err(error) => (false, Some(error)),
        };
        init.outbox.say(call, &FromInit::Part(Part::Diff { truncated, error }));
    }
    Ok(more)
}

fn regular_files(root: &Path, stop: &Stop) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    crate::tools::walk(root, stop, |entry, kind| {
        if kind.is_file() {
            found.push(entry.path());
        }
        Ok(true)
    })
    .map_err(|refused| refused.to_string())?;
    Ok(found)
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() { Ok((file, meta.len())) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn hash_of(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => hash.update(&piece[..read]),
        }
    }
    file.rewind()?;
    Ok(hex::encode(hash.finalize()))
}

/// Say the bytes of `from`, at most `max`; true if there were more.
pub fn send(outbox: &Outbox, call: u64, from: &mut impl Read, max: u64) -> io::Result<bool> {
    let mut piece = vec![0; 64 * 1024];
    let mut left = max;
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(false),
            Ok(read) => {
                let take = read.min(usize::try_from(left).unwrap_or(usize::MAX));
                outbox.chunk(call, &piece[..take]);
                left -= take as u64;
                if take < read {
                    return Ok(true);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Everything that differs from the starting commit, untracked files too, without touching the index of the agent.
fn diff(init: &Init, call: u64, start: &Start) -> Result<bool, String> {
    let index = scratch("index");
    let base = start.commit.as_deref().unwrap_or(EMPTY_TREE);
    let git = || {
        let mut git = git(&start.dir);
        git.env("GIT_INDEX_FILE", &index);
        git
    };
    let step = |git: &mut Command, what: &str| run(&init.processes, git, limits::COLLECT_TIMEOUT, what);
    let outcome = step(git().args(["read-tree", base]), "read the starting commit")
        .and_then(|()| step(git().args(["add", "-A"]), "look at the workspace"))
        .and_then(|()| {
            let mut diff = git();
            diff.args(["diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", base]);
            stream(init, call, &mut diff, limits::DIFF_BYTES, "make the diff")
        });
    std::fs::remove_file(&index).ok();
    outcome
}

/// Say what a command prints, at most `max` bytes of it; true if there was more.
pub fn stream(init: &Init, call: u64, command: &mut Command, max: u64, what: &str) -> Result<bool, String> {
    let deadline = Instant::now() + limits::COLLECT_TIMEOUT;
    let mut child = init
        .processes
        .spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()))
        .map_err(|e| format!("{what}: {}: {e}", command.get_program().display()))?;
    let pid = child.id();
    let mut stdout = child.stdout.take().expect("asked for above");
    let more = send(&init.outbox, call, &mut stdout, max).map_err(|e| format!("{what}: {e}"))?;
    // Whoever still writes what is not wanted ends by that.
    drop(stdout);
    match init.processes.wait(pid, deadline) {
        Some(exit) if more || exit == super::processes::Exit::Code(0) => Ok(more),
        Some(exit) => Err(format!("{what}: {exit}")),
        None => Err(format!("{what}: not done in time")),
    }
}
