//! A child process whose life is followed from its start: running, stopped by a signal, ended.
//!
//! It is killed when dropped. Nobody else waits for it: one thread does, and tells everybody.

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use std::{
    process::{ChildStdout, Command},
    time::Duration,
};
use tokio::sync::watch;

/// How long a process may take to do what is awaited of it.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    /// By SIGSTOP, as at a fault point.
    Stopped,
    Ended,
}

pub struct Process {
    name: String,
    pid: Pid,
    state: watch::Receiver<State>,
}

impl Process {
    /// Gives its standard output too, if `command` pipes it.
    pub fn start(name: &str, command: &mut Command) -> anyhow::Result<(Self, Option<ChildStdout>)> {
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let pid = Pid::from_child(&child);
        let (tell, state) = watch::channel(State::Running);
        std::thread::Builder::new().name(format!("minder-{name}")).spawn(move || mind(pid, &tell))?;
        Ok((Process { name: name.to_owned(), pid, state }, child.stdout.take()))
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    pub fn has_ended(&self) -> bool {
        self.state() == State::Ended
    }

    /// Until it is stopped.
    pub async fn stopped(&self) -> anyhow::Result<()> {
        match self.until(|state| state != State::Running).await? {
            State::Stopped => Ok(()),
            other => bail!("{} was to stop and is {other:?}", self.name),
        }
    }

    pub async fn ended(&self) -> anyhow::Result<()> {
        self.until(|state| state == State::Ended).await.map(drop)
    }

    async fn until(&self, wanted: impl Fn(State) -> bool) -> anyhow::Result<State> {
        let mut state = self.state.clone();
        let waited = tokio::time::timeout(PATIENCE, state.wait_for(|state| wanted(*state))).await;
        match waited {
            Ok(Ok(state)) => Ok(*state),
            Ok(Err(_)) => Ok(State::Ended),
            Err(_) => bail!("{} is still {:?} after {} s", self.name, self.state(), PATIENCE.as_secs()),
        }
    }

    /// `kill -9`, whatever it is doing. Returns when it is gone.
    pub async fn kill(&self) -> anyhow::Result<()> {
        self.signal(Signal::KILL);
        self.ended().await
    }

    /// `kill -9` of the processes that it started.
    pub fn kill_children(&self) -> anyhow::Result<()> {
        let tasks = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        for task in std::fs::read_dir(tasks)? {
            let children = std::fs::read_to_string(task?.path().join("children"))?;
            for child in children.split_ascii_whitespace() {
                if let Some(child) = Pid::from_raw(child.parse()?) {
                    // One that ended by itself is as dead.
                    let _ = kill_process(child, Signal::KILL);
                }
            }
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Goes on after it was stopped.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if !self.has_ended() {
            // It may have ended just now; its id stays its own until its minder has seen it.
            let _ = kill_process(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn mind(pid: Pid, tell: &watch::Sender<State>) {
    loop {
        let state = match waitpid(Some(pid), WaitOptions::UNTRACED | WaitOptions::CONTINUED) {
            Ok(Some((_, status))) => state_of(status),
            Err(rustix::io::Errno::INTR) => continue,
            Ok(None) | Err(_) => State::Ended,
        };
        tell.send_replace(state);
        if state == State::Ended {
            return;
        }
    }
}

fn state_of(status: WaitStatus) -> State {
    if status.stopped() {
        State::Stopped
    } else if status.continued() {
        State::Running
    } else {
        State::Ended
    }
}
