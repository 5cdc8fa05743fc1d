//! Lesser hands: what people build first, or ours with layers taken away. Each says whether the attack got through.

use crate::Attack;
use crate::fixture::{naive_uid, without_filters};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Seek};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// A shell of a plain user, with whatever environment the service has.
pub fn plain_shell(attack: &Attack) -> bool {
    attack.judge(&run_plain(attack).said).is_err()
}

/// Namespaces alone.
pub fn namespaces(attack: &Attack) -> bool {
    attack.judge(&without_filters(&attack.command)).is_err()
}

pub struct Outcome {
    pub said: String,
    /// Processes that were there after the shell was killed.
    pub left: usize,
}

/// A plain user's shell, killed when its time is up, as timeouts are first written.
pub fn run_plain(attack: &Attack) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    chown(dir.path(), Some(naive_uid()), Some(naive_uid())).unwrap();
    // A file and no pipe: what is left behind would hold that open.
    let mut output = tempfile::tempfile().unwrap();
    Command::new("timeout")
        .args(["--signal=KILL", &attack.timeout_s.min(10).to_string(), "bash", "-c"])
        .arg(format!("exec 2>&1; {}\n", attack.command))
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .uid(naive_uid())
        .gid(naive_uid())
        .status()
        .unwrap();
    let left = end_strays();
    let mut said = Vec::new();
    output.rewind().and_then(|()| output.read_to_end(&mut said)).unwrap();
    Outcome { said: String::from_utf8_lossy(&said).into_owned(), left }
}

/// End what an attack has left behind where nothing holds it; nobody else is that user.
fn end_strays() -> usize {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let (Some(pid), Ok(meta)) = (pid, entry.metadata())
            && meta.uid() == naive_uid()
            && kill_process(pid, Signal::KILL).is_ok()
        {
            count += 1;
        }
    }
    count
}
