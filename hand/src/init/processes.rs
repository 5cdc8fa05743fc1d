//! Every process of the sandbox: started here, reaped here, ended here.
//!
//! One thread reaps whatever dies, ours or orphaned. It first looks without reaping and takes the lock before it
//! reaps, so that a process being started is never reaped under the hands of the standard library.

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process_group, pidfd_open};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Process 1 alone may signal all others at once; elsewhere that would be everything on the machine.
pub struct Processes {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Ours by pid; the outcome once it is known.
    ours: HashMap<u32, Option<Exit>>,
    /// No process is left, as of the last look.
    alone: bool,
    /// All are being ended: nothing may be started.
    ending: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
        }
    }
}

/// A process of somebody else's child dies without our being told.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(thiserror::Error, Debug)]
#[error("end all processes within {} s", .0.as_secs())]
pub struct Survivors(Duration);

impl Processes {
    pub fn start() -> io::Result<Arc<Self>> {
        let state = Mutex::new(State { alone: true, ..State::default() });
        let processes = Arc::new(Self { state, changed: Condvar::new() });
        let reaper = Arc::clone(&processes);
        std::thread::Builder::new().name("reaper".into()).spawn(move || reaper.reap())?;
        Ok(processes)
    }

    /// Start a process of ours; waits while all are being ended.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.spawn_and(command, |_| Ok(())).map(|(child, ())| child)
    }

    /// As [`Self::spawn`], with what is readable once the process has ended, however soon that is.
    pub fn spawn_watched(&self, command: &mut Command) -> io::Result<(Child, OwnedFd)> {
        self.spawn_and(command, |child| {
            let pid = Pid::from_raw(child.id().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
            Ok(pidfd_open(pid, PidfdFlags::empty())?)
        })
    }

    /// `look` sees it before anybody can have reaped it.
    fn spawn_and<T>(
        &self,
        command: &mut Command,
        look: impl FnOnce(&Child) -> io::Result<T>,
    ) -> io::Result<(Child, T)> {
        let mut state = self.changed.wait_while(self.lock(), |state| state.ending).expect("no holder panics");
        let mut child = command.spawn()?;
        state.ours.insert(child.id(), None);
        state.alone = false;
        self.changed.notify_all();
        match look(&child) {
            Ok(seen) => Ok((child, seen)),
            Err(e) => {
                // Nobody will hear of it.
                child.kill().ok();
                Err(e)
            }
        }
    }

    /// How many there are beside this one.
    pub fn count(&self) -> usize {
        pids().count()
    }

    /// How one of ours ended, and forget it; none if it still runs at the deadline.
    pub fn wait(&self, pid: u32, deadline: Instant) -> Option<Exit> {
        let mut state = self.lock();
        loop {
            if let Some(exit) = state.ours.get(&pid)? {
                let exit = *exit;
                state.ours.remove(&pid);
                return Some(exit);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.changed.wait_timeout(state, left).expect("no holder panics").0;
        }
    }

    /// Kill every process of the sandbox but this one, and wait until none is left. Gives back their names.
    ///
    /// The kernel signals all of them under one lock, so that not even a fork bomb slips through.
    pub fn end_all(&self, within: Duration) -> Result<Vec<String>, Survivors> {
        assert!(rustix::process::getpid().is_init(), "only process 1 of a sandbox may end all processes");
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        state.ending = true;
        let names = names();
        signal_all(Signal::KILL);
        state.alone = false;
        self.changed.notify_all();
        while !state.alone {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            state = self.changed.wait_timeout(state, left).expect("no holder panics").0;
        }
        state.ending = false;
        self.changed.notify_all();
        if state.alone { Ok(names) } else { Err(Survivors(within)) }
    }

    /// Kill a process of ours, all that is in its group, all that came of these and still has them above it, and of `known` whoever
    /// is left; waits until none is, and gives back whether it was so in time. What cut itself off before that lives on.
    pub fn end_group(&self, leader: u32, known: &[Member], within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let mut state = self.lock();
        loop {
            let mut left = members(leader);
            left.extend(known.iter().filter(|member| Living::read(member.pid).is_some_and(|now| now.is(member))));
            if left.is_empty() {
                return true;
            }
            for member in left {
                if let Some(pid) = Pid::from_raw(member.pid.cast_signed()) {
                    // One that has ended meanwhile is not there any more.
                    rustix::process::kill_process(pid, Signal::KILL).ok();
                }
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            // Each that dies is reaped, which is told; those of another parent only once that one is dead too.
            state = self.changed.wait_timeout(state, left.min(LOOK_AGAIN)).expect("no holder panics").0;
        }
    }

    /// Hold every process still while `work` runs. What `work` starts is not held.
    pub fn frozen<T>(&self, work: impl FnOnce() -> T) -> T {
        assert!(rustix::process::getpid().is_init(), "only process 1 of a sandbox may stop all processes");
        signal_all(Signal::STOP);
        let outcome = work();
        signal_all(Signal::CONT);
        outcome
    }

    fn reap(&self) {
        loop {
            match rustix::process::waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => {
                    let mut state = self.lock();
                    // Whoever is dead now; the one seen above may have been reaped by a failed start.
                    while let Ok(Some((pid, exit))) = reap_one() {
                        if let Some(ours) = state.ours.get_mut(&pid) {
                            *ours = Some(exit);
                        }
                    }
                    self.changed.notify_all();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    let mut state = self.lock();
                    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                    // Again under the lock: one may have been started since.
                    if rustix::process::waitid(WaitId::All, look).is_err() {
                        state.alone = true;
                        self.changed.notify_all();
                        drop(self.changed.wait_while(state, |state| state.alone).expect("no holder panics"));
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// Reap a process that is dead already, if there is one.
fn reap_one() -> rustix::io::Result<Option<(u32, Exit)>> {
    Ok(rustix::process::wait(WaitOptions::NOHANG)?.map(|(pid, status)| {
        let exit = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        };
        (pid.as_raw_nonzero().get().unsigned_abs(), exit)
    }))
}

fn signal_all(signal: Signal) {
    // ESRCH says that there is nobody; there is no other error for process 1.
    kill_process_group(Pid::INIT, signal).ok();
}

/// One process, and no other that gets its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pid: u32,
    /// In ticks since the machine was started.
    started: u64,
}

/// A process that is not dead.
struct Living {
    member: Member,
    parent: u32,
    group: u32,
}

impl Living {
    fn read(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: state, parent, group, and the start as the twentieth.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        let is_dead = matches!(*fields.first()?, "Z" | "X");
        let (parent, group) = (u32::try_from(number(1)?).ok()?, u32::try_from(number(2)?).ok()?);
        (!is_dead).then_some(Self { member: Member { pid, started: number(19)? }, parent, group })
    }

    fn is(&self, member: &Member) -> bool {
        self.member == *member
    }
}

/// Processes of the group of `leader`, and what descends from them.
pub fn members(leader: u32) -> Vec<Member> {
    let living: Vec<Living> = pids().filter_map(Living::read).collect();
    let is_of_group = |one: &&Living| one.member.pid == leader || one.group == leader;
    let mut members: Vec<Member> = living.iter().filter(is_of_group).map(|one| one.member).collect();
    let mut at = 0;
    while let Some(above) = members.get(at).map(|member| member.pid) {
        let below = living.iter().filter(|one| one.parent == above && !members.contains(&one.member));
        let below: Vec<Member> = below.map(|one| one.member).collect();
        members.extend(below);
        at += 1;
    }
    members
}

/// What runs beside us, by name.
fn names() -> Vec<String> {
    pids()
        .filter_map(|pid| Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()))
        .collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|&pid| pid != 1)
}
