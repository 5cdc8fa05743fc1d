//! The shims of a service's hands, and other processes that are no children of a test: found, seen stopped, ended.

use anyhow::{Context as _, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(90);
/// Nothing tells that somebody else's child was stopped: it is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A process that somebody else started. It goes on when this is dropped.
pub struct Foreign(Pid);

impl Foreign {
    /// `kill -9`, whatever it is doing. Returns when it is gone.
    pub fn kill(&self) -> anyhow::Result<()> {
        let handle = pidfd_open(self.0, PidfdFlags::empty())?;
        kill_process(self.0, Signal::KILL)?;
        self.gone(&handle)
    }

    /// Returns when it has ended of its own accord. Blocking.
    pub fn ended(&self) -> anyhow::Result<()> {
        self.gone(&pidfd_open(self.0, PidfdFlags::empty())?)
    }

    fn gone(&self, handle: &OwnedFd) -> anyhow::Result<()> {
        let mut ended = [PollFd::new(handle, PollFlags::IN)];
        let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
        match rustix::event::poll(&mut ended, Some(&patience))? {
            0 => bail!("process {} does not end", self.0.as_raw_nonzero()),
            _ => Ok(()),
        }
    }

    /// Goes on after it was stopped.
    pub fn go_on(&self) {
        // One that has ended needs nothing.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.go_on();
    }
}

/// The one shim of a folder of hands.
pub fn shim(hands_dir: &Path) -> anyhow::Result<Foreign> {
    found(shims(hands_dir)).context("no shim runs")
}

/// The one shim of a folder of hands, once it is stopped.
pub async fn stopped_shim(hands_dir: &Path) -> anyhow::Result<Foreign> {
    let give_up = Instant::now() + PATIENCE;
    while Instant::now() < give_up {
        if let Some(shim) = found(shims(hands_dir).filter(|pid| is_stopped(*pid))) {
            return Ok(shim);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    bail!("no shim stops")
}

/// A child of `parent` that has `word` among its arguments.
pub fn child(parent: i32, word: &str) -> anyhow::Result<Foreign> {
    let of_parent = |pid: &Pid| stat(*pid).is_some_and(|(_, of)| of == parent);
    let is_it = |pid: &Pid| arguments(*pid).iter().any(|argument| argument == word);
    found(processes().filter(|pid| is_it(pid) && of_parent(pid))).with_context(|| format!("no {word} runs"))
}

fn found(mut pids: impl Iterator<Item = Pid>) -> Option<Foreign> {
    pids.next().map(Foreign)
}

fn shims(hands_dir: &Path) -> impl Iterator<Item = Pid> {
    processes().filter(move |pid| match &arguments(*pid)[..] {
        [_, role, dir, ..] => role == "shim" && Path::new(dir).starts_with(hands_dir),
        _ => false,
    })
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

fn arguments(pid: Pid) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn is_stopped(pid: Pid) -> bool {
    stat(pid).is_some_and(|(state, _)| state == 'T')
}

/// State and parent.
fn stat(pid: Pid) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name before it may hold anything.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}
