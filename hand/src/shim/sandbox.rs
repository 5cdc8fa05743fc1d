//! The shim's side of the sandbox: starting it, preparing it, talking to init, and hearing that it is gone.

use super::container;
use super::{Shim, calls, gather, note};
use crate::folder::Folder;
use crate::limits;
use crate::link::{Configure, FromInit, SANDBOX, ToInit};
use crate::spec::{FailedClone, Start};
use crate::wire::{self, Frame};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// What a sandbox may say on stderr before it is only read and thrown away.
const STDERR_BYTES: u64 = 64 * 1024;

/// Words to init, one at a time.
pub struct Sandbox(Mutex<File>);

impl Sandbox {
    /// A sandbox that is gone is seen by its reader; here it only means that nobody listens.
    pub fn say(&self, call: u64, message: &ToInit) -> Result<(), wire::Error> {
        wire::write_json(&mut *self.0.lock().expect("no writer panics"), call, message)
    }
}

pub struct Pipes {
    to: File,
    from: BufReader<File>,
}

impl Pipes {
    pub fn new(to: impl Into<OwnedFd>, from: impl Into<OwnedFd>) -> Self {
        let from = BufReader::with_capacity(128 * 1024, File::from(from.into()));
        Self { to: File::from(to.into()), from }
    }
}

/// The sandbox as a process: whoever ends it has ended everything in it.
pub enum Process {
    /// What became bubblewrap.
    Child(Child),
    /// The first process of a container, whose parent is the runtime's.
    Contained(container::First),
}

impl Process {
    /// One that has ended already is as good.
    pub fn kill(&mut self) {
        match self {
            Self::Child(child) => child.kill().ok(),
            Self::Contained(first) => first.kill().ok(),
        };
    }

    pub fn wait(&mut self) -> io::Result<()> {
        match self {
            Self::Child(child) => child.wait().map(drop),
            Self::Contained(first) => first.wait(),
        }
    }
}

/// A sandbox whose recipe is carried out.
pub struct Prepared {
    pub sandbox: Sandbox,
    pub from: BufReader<File>,
    pub start: Option<Start>,
    pub failed: Vec<FailedClone>,
}

/// Start the sandbox of the hand: another role of this program puts up its walls and becomes bwrap.
pub fn spawn(folder: &Folder) -> io::Result<(Process, Pipes)> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("steadyhand-hand")
        .arg("enter")
        .arg(folder.path())
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let to = child.stdin.take().expect("asked for above");
    let from = child.stdout.take().expect("asked for above");
    Ok((Process::Child(child), Pipes::new(to, from)))
}

/// Have init carry out the recipe.
pub fn prepare(mut pipes: Pipes, configure: Configure) -> Result<Prepared, String> {
    // If nobody reads this, reading the answer says so.
    wire::write_json(&mut pipes.to, SANDBOX, &ToInit::Configure(configure)).ok();
    match read_message(&mut pipes.from) {
        Ok((SANDBOX, FromInit::Ready { start, failed })) => {
            Ok(Prepared { sandbox: Sandbox(Mutex::new(pipes.to)), from: pipes.from, start, failed })
        }
        Ok((_, FromInit::Failed { message })) => Err(message),
        Ok(_) => Err("it said something unexpected".to_owned()),
        Err(e) => Err(format!("it ended before it was ready ({e})")),
    }
}

fn read_message(from: &mut impl Read) -> Result<(u64, FromInit), wire::Error> {
    match wire::read_frame(from, limits::REPLY_BYTES)? {
        Frame::Json { call, payload } => Ok((call, serde_json::from_slice(&payload).map_err(wire::Error::Json)?)),
        Frame::Chunk { .. } => Err(wire::Error::Kind(1)),
    }
}

/// What a sandbox that is ending has said on stderr; for the one who wanted it, not for the log.
pub fn last_words(process: &mut Process) -> Option<String> {
    let Process::Child(child) = process else { return None };
    let mut said = Vec::new();
    child.stderr.take()?.take(4 * 1024).read_to_end(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    (!said.is_empty()).then_some(said)
}

/// Put what init says on stderr into the log, up to a bound. Only init itself has this pipe.
pub fn log_stderr(process: &mut Process) -> io::Result<()> {
    // What is said in a container has no log at all.
    let Process::Child(child) = process else { return Ok(()) };
    let Some(stderr) = child.stderr.take() else { return Ok(()) };
    std::thread::Builder::new().name("stderr".into()).spawn(move || copy_bounded(stderr))?;
    Ok(())
}

fn copy_bounded(mut stderr: ChildStderr) {
    // A log that cannot be written must not stop the hand; the pipe is emptied all the same.
    io::copy(&mut stderr.by_ref().take(STDERR_BYTES), &mut io::stderr()).ok();
    io::stderr().flush().ok();
    io::copy(&mut stderr, &mut io::sink()).ok();
}

/// Take in what init says until it is gone; why it is.
pub fn read(shim: &Shim, mut from: BufReader<File>) -> String {
    loop {
        let said = match wire::read_frame(&mut from, limits::REPLY_BYTES) {
            Ok(Frame::Chunk { call, bytes }) => {
                calls::chunk(shim, call, &bytes);
                continue;
            }
            Ok(Frame::Json { call, payload }) => serde_json::from_slice(&payload).map(|message| (call, message)),
            Err(wire::Error::Closed) => return "its first process is gone".to_owned(),
            Err(e) => {
                note("sandbox broke the protocol", &[("error", &e)]);
                return "it broke the protocol".to_owned();
            }
        };
        match said {
            Ok((call, FromInit::Started { timeout_ms })) => {
                let time = Duration::from_millis(timeout_ms.min(limits::CALL_TIMEOUT_MAX_MS)) + limits::INIT_GRACE;
                shim.lease.expect_within(call, time);
            }
            Ok((_, FromInit::Done { lost: true, .. })) => return "processes of a call could not be ended".to_owned(),
            Ok((call, FromInit::Done { result, lost: false })) => calls::done(shim, call, result),
            Ok((call, FromInit::Part(part))) => gather::part(shim, call, part),
            Ok((call, FromInit::End { error, more })) => gather::end(shim, call, error, more),
            Ok((_, FromInit::Ready { .. } | FromInit::Failed { .. })) | Err(_) => {
                return "it broke the protocol".to_owned();
            }
        }
    }
}
