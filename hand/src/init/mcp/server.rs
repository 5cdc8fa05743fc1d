//! One MCP server that runs: its process, and the one thread that writes to it and reads what it says.
//!
//! Whatever it says is bounded before it is kept, and it is never waited for without an end: one that says too much, or nothing
//! of the protocol, or closes its output, is ended. What has ended stays so; whoever wants it again starts another one.

use super::super::processes::{Exit, Processes, members};
use super::super::shell::FirstToGo;
use super::wire::{self, HANDSHAKE, Heard, Reply};
use crate::limits;
use crate::mcp::Program;
use crate::tools::output::{Tail, last, plain};
use crate::tools::{Stop, Stopped};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A handle to one; the server runs until it is ended, whoever holds this.
pub struct Server {
    program: Program,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Makes the thread look at what is to be said.
    wake: OwnedFd,
    /// Some server's processes outlived their killing.
    lost: Arc<AtomicBool>,
}

struct State {
    phase: Phase,
    next: u64,
    /// Lines that are to be said.
    outbox: VecDeque<Vec<u8>>,
    /// Answers to what it asks, as far as there is room for them.
    answers: Vec<u8>,
    /// Requests that somebody waits for, with their replies once they are there.
    waiting: HashMap<u64, Option<Result<Reply, Failed>>>,
    end_wanted: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Phase {
    /// It has not introduced itself.
    Starting,
    Ready,
    Ended(Ended),
}

/// That a server is no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Why and how, with its last words.
    pub how: String,
    /// Processes of it outlived their killing.
    pub survived: bool,
}

/// Why a request has no reply.
#[derive(PartialEq, Eq, Debug)]
pub enum Failed {
    /// It never got to hear the request.
    NeverAsked(String),
    /// It ended with the request under way.
    Ended(String),
    /// It replied, and nobody knows what.
    Unreadable(String),
    Stopped(Stopped),
}

impl Server {
    pub fn start(
        program: &Program,
        workdir: &Path,
        processes: &Arc<Processes>,
        first_to_go: &FirstToGo,
        lost: &Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let mut command = Command::new(&program.command);
        command.args(&program.args).envs(&program.env).current_dir(workdir);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        let (child, ended) = first_to_go.marked(|| processes.spawn_watched(&mut command))?;
        let pid = child.id();
        let shared = Arc::new(Shared::new(wake, Arc::clone(lost)));
        let started = Pump::new(child, ended, Arc::clone(&shared), Arc::clone(processes))
            .and_then(|pump| std::thread::Builder::new().name("mcp".into()).spawn(move || pump.run()));
        match started {
            Ok(_) => Ok(Self { program: program.clone(), shared }),
            Err(e) => {
                let survived = !processes.end_group(pid, &[], limits::END_CONFIRM);
                shared.ended(Ended { how: e.to_string(), survived });
                Err(e)
            }
        }
    }

    /// It was started by this, and has not ended.
    pub fn is(&self, program: &Program) -> bool {
        self.program == *program && !matches!(self.shared.lock().phase, Phase::Ended(_))
    }

    /// What it replies to a request, at most until `stop`.
    pub fn ask(&self, method: &str, params: Value, stop: &Stop) -> Result<Reply, Failed> {
        let mut state = self.shared.lock();
        loop {
            match &state.phase {
                Phase::Ready => break,
                Phase::Ended(ended) => return Err(Failed::NeverAsked(ended.how.clone())),
                Phase::Starting => {}
            }
            if let Some(reason) = stop.reason() {
                return Err(Failed::Stopped(reason));
            }
            state = self.shared.wait(state, stop);
        }
        let id = state.next;
        state.next += 1;
        state.waiting.insert(id, None);
        state.outbox.push_back(wire::request(id, method, params));
        self.shared.look();
        loop {
            if let Some(Some(_)) = state.waiting.get(&id)
                && let Some(Some(reply)) = state.waiting.remove(&id)
            {
                return reply;
            }
            if let Phase::Ended(ended) = &state.phase {
                return Err(Failed::Ended(ended.how.clone()));
            }
            if let Some(reason) = stop.reason() {
                state.waiting.remove(&id);
                state.outbox.push_back(wire::cancelled(id, reason.words()));
                self.shared.look();
                return Err(Failed::Stopped(reason));
            }
            state = self.shared.wait(state, stop);
        }
    }

    /// End it, and wait until it is no more.
    pub fn end(&self) -> Ended {
        let mut state = self.shared.lock();
        state.end_wanted = true;
        self.shared.look();
        loop {
            if let Phase::Ended(ended) = &state.phase {
                return ended.clone();
            }
            state = self.shared.changed.wait(state).expect("no holder panics");
        }
    }

    /// Make everybody who waits look at whether they still should.
    pub fn wake(&self) {
        drop(self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn new(wake: OwnedFd, lost: Arc<AtomicBool>) -> Self {
        let state = State {
            phase: Phase::Starting,
            next: HANDSHAKE + 1,
            outbox: VecDeque::from([wire::hello()]),
            answers: Vec::new(),
            waiting: HashMap::from([(HANDSHAKE, None)]),
            end_wanted: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), wake, lost }
    }

    /// It is no more, whoever wanted that. Whoever waits hears it after `lost` is known.
    fn ended(&self, ended: Ended) {
        if ended.survived {
            self.lost.store(true, Ordering::SeqCst);
        }
        let mut state = self.lock();
        state.phase = Phase::Ended(ended);
        state.outbox.clear();
        state.answers.clear();
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, stop: &Stop) -> MutexGuard<'s, State> {
        match stop.left() {
            Some(left) => self.changed.wait_timeout(state, left).expect("no holder panics").0,
            None => self.changed.wait(state).expect("no holder panics"),
        }
    }

    fn look(&self) {
        // Only a full counter can refuse, and then it is awake.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }
}

/// The thread of one server.
struct Pump {
    shared: Arc<Shared>,
    processes: Arc<Processes>,
    pid: u32,
    /// Readable once the process has ended; others may hold its output open for longer.
    ended: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// The rest of what is being said: a line, or some answers.
    unwritten: Vec<u8>,
    /// The beginning of a line that is being heard.
    line: Vec<u8>,
    /// What was heard since somebody waits for a reply.
    unanswered_bytes: u64,
    said: Tail,
}

impl Pump {
    fn new(mut child: Child, ended: OwnedFd, shared: Arc<Shared>, processes: Arc<Processes>) -> io::Result<Self> {
        let pid = child.id();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let ours =
            [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for fd in ours.into_iter().flatten() {
            // Of our ends alone: the server's are as it expects them.
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Self {
            shared,
            processes,
            pid,
            ended,
            stdin,
            stdout,
            stderr,
            unwritten: Vec::new(),
            line: Vec::new(),
            unanswered_bytes: 0,
            said: Tail::new(limits::MCP_STDERR_BYTES),
        })
    }

    fn run(mut self) {
        let why = self.talk();
        // A server that is told so may end in its own way, and leave others behind.
        let known = members(self.pid);
        self.flush();
        drop(self.stdin.take());
        let exit = self.processes.wait(self.pid, Instant::now() + limits::MCP_END_GRACE);
        self.hear_errors();
        let survived = !self.processes.end_group(self.pid, &known, limits::END_CONFIRM);
        // Forgotten, however it ended.
        self.processes.wait(self.pid, Instant::now() + limits::END_CONFIRM);
        let why = why.filter(|why| why != CLOSED || exit.is_none());
        let ended = Ended { how: self.words(why, exit), survived };
        self.shared.ended(ended);
    }

    fn words(&mut self, why: Option<String>, exit: Option<Exit>) -> String {
        let mut words = match (why, exit) {
            (Some(why), _) => why,
            (None, Some(exit)) => format!("it ended ({exit})"),
            (None, None) => "it ended".to_owned(),
        };
        let said = plain(&self.said.take());
        let said = last(said.trim(), limits::MCP_STDERR_BYTES);
        if !said.is_empty() {
            words.push_str(&format!("; its last words on stderr:\n{said}"));
        }
        words
    }

    /// Until it is over: why, unless it ended by itself.
    fn talk(&mut self) -> Option<String> {
        let start_by = Instant::now() + limits::MCP_START_WITHIN;
        loop {
            let starting = {
                let mut state = self.shared.lock();
                if state.end_wanted {
                    return Some("it was ended".to_owned());
                }
                if self.unwritten.is_empty() {
                    self.unwritten = state.outbox.pop_front().unwrap_or_else(|| std::mem::take(&mut state.answers));
                }
                if !state.waiting.values().any(Option::is_none) {
                    self.unanswered_bytes = 0;
                }
                state.phase == Phase::Starting
            };
            let left = starting.then(|| start_by.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                let within = limits::MCP_START_WITHIN.as_secs();
                return Some(format!("it did not introduce itself within {within} s"));
            }
            let ready = self.poll(left);
            if ready.stdin && self.write().is_err() {
                // It reads no more; its end, or its silence, follows.
                self.stdin = None;
                self.unwritten.clear();
            }
            if ready.stderr {
                self.hear_errors();
            }
            if ready.stdout
                && let Err(why) = self.hear()
            {
                return Some(why);
            }
            if ready.ended {
                // What it said last lies in the pipe.
                let rest = self.hear();
                self.hear_errors();
                return rest.err().filter(|why| why != CLOSED);
            }
        }
    }

    /// Wait until there is something to do.
    fn poll(&self, timeout: Option<Duration>) -> Ready {
        let mut fds = vec![PollFd::new(&self.shared.wake, PollFlags::IN), PollFd::new(&self.ended, PollFlags::IN)];
        let stdin = self.stdin.as_ref().filter(|_| !self.unwritten.is_empty());
        let [stdin, stdout, stderr] = [
            stdin.map(|fd| PollFd::new(fd, PollFlags::OUT)),
            self.stdout.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)),
            self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)),
        ]
        .map(|fd| {
            fds.extend(fd.clone());
            fd.map(|_| fds.len() - 1)
        });
        // Rounded up, else the last part of a millisecond is spent spinning.
        let timeout =
            timeout.map(|left| left + Duration::from_millis(1)).and_then(|left| Timespec::try_from(left).ok());
        // Interrupted or not, whatever is ready is seen in the next round.
        rustix::event::poll(&mut fds, timeout.as_ref()).ok();
        let is_ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
        if is_ready(Some(0)) {
            let mut count = [0u8; 8];
            rustix::io::read(&self.shared.wake, &mut count).ok();
        }
        Ready { ended: is_ready(Some(1)), stdin: is_ready(stdin), stdout: is_ready(stdout), stderr: is_ready(stderr) }
    }

    /// As much of the line as it takes now.
    fn write(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        match stdin.write(&self.unwritten) {
            Ok(written) => drop(self.unwritten.drain(..written)),
            Err(e) if would_block(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Say what it takes without being waited for.
    fn flush(&mut self) {
        let lines: Vec<u8> = self.shared.lock().outbox.drain(..).flatten().collect();
        self.unwritten.extend(lines);
        while !self.unwritten.is_empty() {
            let before = self.unwritten.len();
            if self.write().is_err() || self.unwritten.len() == before {
                return;
            }
        }
    }

    fn hear_errors(&mut self) {
        let Some(stderr) = &mut self.stderr else { return };
        let mut piece = [0; 8 * 1024];
        // Bounded, so that one who never stops does not keep us from the rest.
        for _ in 0..64 {
            match stderr.read(&mut piece) {
                Ok(0) => {
                    self.stderr = None;
                    return;
                }
                Ok(read) => self.said.push(&piece[..read]),
                Err(e) if would_block(&e) => return,
                Err(_) => {
                    self.stderr = None;
                    return;
                }
            }
        }
    }

    /// What lies in its output now.
    fn hear(&mut self) -> Result<(), String> {
        let mut piece = vec![0; 64 * 1024];
        for _ in 0..64 {
            let Some(stdout) = &mut self.stdout else { return Ok(()) };
            let read = match stdout.read(&mut piece) {
                Ok(0) => return Err(CLOSED.to_owned()),
                Ok(read) => read,
                Err(e) if would_block(&e) => return Ok(()),
                Err(e) => return Err(format!("its output could not be read: {e}")),
            };
            self.unanswered_bytes += read as u64;
            let mut rest = &piece[..read];
            while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
                let whole;
                let line = if self.line.is_empty() {
                    &rest[..at]
                } else {
                    self.line.extend_from_slice(&rest[..at]);
                    whole = std::mem::take(&mut self.line);
                    &whole
                };
                bounded(line)?;
                let heard = wire::heard(line);
                rest = &rest[at + 1..];
                if heard != Heard::Nothing {
                    self.heard(heard)?;
                }
            }
            self.line.extend_from_slice(rest);
            bounded(&self.line)?;
            if self.unanswered_bytes > limits::MCP_UNANSWERED_BYTES {
                let said = limits::MCP_UNANSWERED_BYTES / 1024 / 1024;
                return Err(format!("it said {said} MiB and no answer among them, and was ended"));
            }
        }
        Ok(())
    }

    fn heard(&mut self, heard: Heard) -> Result<(), String> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        match heard {
            Heard::Reply(HANDSHAKE, hello) if state.phase == Phase::Starting => {
                let agreed = wire::agreed(&hello)?;
                state.waiting.remove(&HANDSHAKE);
                state.phase = Phase::Ready;
                state.outbox.push_back(agreed);
                self.shared.changed.notify_all();
            }
            Heard::Unreadable(HANDSHAKE, why) if state.phase == Phase::Starting => {
                return Err(format!("how it introduced itself cannot be read: {why}"));
            }
            Heard::Reply(id, reply) => self.settle(&mut state, id, Ok(reply)),
            Heard::Unreadable(id, why) => self.settle(&mut state, id, Err(Failed::Unreadable(why))),
            Heard::Asked(answer) => state.answer(&answer),
            Heard::Nothing => {}
        }
        Ok(())
    }

    /// What nobody waits for, or has waited for, is not kept.
    fn settle(&mut self, state: &mut State, id: u64, outcome: Result<Reply, Failed>) {
        if let Some(waiting @ None) = state.waiting.get_mut(&id) {
            *waiting = Some(outcome);
            self.unanswered_bytes = 0;
            self.shared.changed.notify_all();
        }
    }
}

impl State {
    /// Said to it once it reads; what there is no room for is not said.
    fn answer(&mut self, line: &[u8]) {
        if self.answers.len() + line.len() <= limits::MCP_ANSWERS_BYTES {
            self.answers.extend_from_slice(line);
        }
    }
}

struct Ready {
    ended: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

const CLOSED: &str = "it closed its output";

fn bounded(line: &[u8]) -> Result<(), String> {
    if line.len() > limits::MCP_MESSAGE_BYTES {
        let most = limits::MCP_MESSAGE_BYTES / 1024 / 1024;
        return Err(format!("it said a message of more than {most} MiB, and was ended"));
    }
    Ok(())
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(lost: &Arc<AtomicBool>) -> Shared {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        Shared::new(wake, Arc::clone(lost))
    }

    #[test]
    fn survivors_are_known_whoever_wanted_the_end() {
        let lost = Arc::new(AtomicBool::new(false));
        let ended = |survived| shared(&lost).ended(Ended { how: "it ended".to_owned(), survived });
        ended(false);
        assert!(!lost.load(Ordering::SeqCst));
        ended(true);
        assert!(lost.load(Ordering::SeqCst));
        ended(false);
        assert!(lost.load(Ordering::SeqCst), "they may still be there");
    }

    #[test]
    fn one_that_asks_and_does_not_read_is_answered_as_far_as_there_is_room() {
        let shared = shared(&Arc::default());
        let mut state = shared.lock();
        let said = br#"{"id":"a","method":"ping"}"#;
        let Heard::Asked(answer) = wire::heard(said) else { panic!("it is a question") };
        for _ in 0..limits::MCP_ANSWERS_BYTES {
            state.answer(&answer);
        }
        assert_eq!(state.answers.len(), limits::MCP_ANSWERS_BYTES / answer.len() * answer.len());
        assert_eq!(state.outbox.len(), 1, "what is asked of it has a place of its own");
    }
}
