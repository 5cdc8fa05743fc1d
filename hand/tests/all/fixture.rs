//! A folder of hands for one test, removed with everything that still runs in it.

use crate::walls::{Made, program};
use hand::client::Client;
use hand::local;
use hand::protocol::{Settled, ToolResult};
use hand::spec::{HandRef, Limits, Mode, Resources, Spec, Walls};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Hands {
    dir: tempfile::TempDir,
    pub made: Made,
}

impl Hands {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let made = Made::new(&dir.path().join("hands"));
        Self { dir, made }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn walls(&self) -> Walls {
        self.made.walls()
    }

    pub fn hands_dir(&self) -> PathBuf {
        self.dir.path().join("hands")
    }

    pub fn spec(&self, id: &str) -> Spec {
        // Whoever runs these may be a plain user.
        Spec { mode: Mode::Dev, walls: self.walls(), ..Spec::new(id, self.hands_dir(), program()) }
    }

    pub fn hand(&self, id: &str) -> Hand {
        Hand::new(&self.spec(id))
    }

    pub fn hand_with(&self, id: &str, resources: Resources) -> Hand {
        Hand::new(&Spec { resources, ..self.spec(id) })
    }

    pub fn hand_within(&self, id: &str, limits: Limits) -> Hand {
        Hand::new(&Spec { limits, ..self.spec(id) })
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        for entry in self.hands_dir().read_dir().into_iter().flatten().flatten() {
            // Names of hands have no dot.
            if !entry.file_name().to_string_lossy().starts_with('.') {
                let hand = local::attach(&entry.path()).unwrap_or_else(|_| gone(&entry.path()));
                local::release(&hand).unwrap();
            }
        }
    }
}

/// A hand whose shim does not answer; releasing it only removes what it left.
fn gone(dir: &Path) -> HandRef {
    HandRef { hand_id: String::new(), dir: dir.to_owned(), socket: dir.join("shim.sock"), epoch: 0 }
}

pub struct Hand {
    pub at: HandRef,
    pub next: AtomicU64,
}

impl Hand {
    pub fn new(spec: &Spec) -> Self {
        Self { at: local::provision(spec).unwrap(), next: AtomicU64::new(0) }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.at.socket).unwrap()
    }

    pub fn call(&self, id: &str, name: &str, input: Value) -> Settled {
        self.client().execute(id, name, input, None, self.at.epoch).unwrap()
    }

    /// A call with an id of its own.
    pub fn tool(&self, name: &str, input: Value) -> ToolResult {
        let id = format!("t{}", self.next.fetch_add(1, Ordering::Relaxed));
        parse(&self.call(&id, name, input))
    }

    pub fn bash(&self, command: &str) -> ToolResult {
        self.tool("bash", json!({"command": command}))
    }

    /// What a command prints that must end well.
    pub fn sh(&self, command: &str) -> String {
        let result = self.bash(command);
        assert!(!result.is_error, "{command}: {}", result.text());
        result.text()
    }

    pub fn file(&self, path: &str) -> PathBuf {
        self.at.dir.join(path)
    }
}

pub fn parse(settled: &Settled) -> ToolResult {
    serde_json::from_str(&settled.result).unwrap()
}

/// Block until something inside has written a line to a FIFO that the host can see. An event, not a poll.
pub fn wait_line(fifo: &Path) -> String {
    std::fs::read_to_string(fifo).unwrap()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What a command says in a sandbox of namespaces alone, without the filter and without Landlock: for showing that it
/// is these that hold.
pub fn without_filters(command: &str) -> String {
    let mut bwrap = Command::new(hand::sandbox::bwrap().unwrap());
    bwrap.args(hand::sandbox::args::base().words()).args(["--tmpfs", "/tmp", "--tmpfs", "/workspace"]);
    bwrap.args(["--chdir", "/workspace", "--", "/bin/bash", "-c"]).arg(format!("exec 2>&1; {command}\n"));
    if is_root() {
        bwrap.uid(naive_uid()).gid(naive_uid());
    }
    let output = bwrap.current_dir("/").stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A plain user that no hand runs as, nor another of these tests.
pub fn naive_uid() -> u32 {
    1_000_000 + std::process::id()
}

/// A process of the host that is not our child.
pub struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Process {
    pub fn new(pid: u32) -> Self {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        Self { pid, handle: pidfd_open(pid, PidfdFlags::empty()).unwrap() }
    }

    pub fn kill(&self) {
        kill_process(self.pid, Signal::KILL).unwrap();
    }

    /// Wait until it has ended.
    pub fn wait(&self) {
        let mut ready = [PollFd::new(&self.handle, PollFlags::IN)];
        rustix::event::poll(&mut ready, None).unwrap();
    }
}
