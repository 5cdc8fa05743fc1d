//! The hand's one persistent bash, and the thread that keeps it.
//!
//! Bash reads its commands from a socket, which is also where it reports each exit code; nothing but bash can open a
//! socket through /proc. Its output, stdout and stderr together, comes through a pipe that is read even between calls,
//! so that a background job never blocks on it; what was said in between opens the next call's output. The end of a
//! call is bash's report, never the end of the pipe: a background job may hold that for as long as it likes.

use super::Outbox;
use super::disk::Disk;
use super::processes::{Exit, Processes};
use crate::limits;
use crate::link::FromInit;
use crate::protocol::ToolResult;
use crate::tools::output::{Tail, last, plain};
use crate::tools::{Stop, Stopped};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// A handle to the shell's keeper.
pub struct Shell {
    jobs: mpsc::Sender<Job>,
    wake: Arc<OwnedFd>,
    lost: Arc<AtomicBool>,
}

/// What a call brings beside its input.
pub struct ShellCall {
    pub stop: Arc<Stop>,
    /// The caller's bound in milliseconds.
    pub limit_ms: Option<u64>,
    /// Where the whole output can be read inside.
    pub spool: PathBuf,
    pub call: u64,
    pub outbox: Outbox,
    /// Who is told the result.
    pub done: Box<dyn FnOnce(ToolResult) + Send>,
}

/// What can be asked of a shell.
#[derive(Debug, PartialEq, Eq)]
pub enum Ask {
    Run {
        command: String,
        timeout_ms: Option<u64>,
    },
    /// End everything in the sandbox and begin anew.
    Restart,
}

struct Job {
    call: ShellCall,
    ask: Ask,
}

impl Job {
    fn answer(self, result: ToolResult) {
        (self.call.done)(result);
    }
}

impl Shell {
    /// Start the keeper; bash itself starts with the first command, in `workdir`.
    pub fn start(
        processes: Arc<Processes>,
        workdir: PathBuf,
        first_to_go: Arc<FirstToGo>,
        disk: Option<Arc<Disk>>,
    ) -> io::Result<Self> {
        let wake = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (jobs, queue) = mpsc::channel();
        let lost = Arc::new(AtomicBool::new(false));
        let mut keeper = Keeper {
            processes,
            workdir,
            first_to_go,
            disk,
            wake: Arc::clone(&wake),
            queue,
            waiting: VecDeque::new(),
            bash: None,
            said: Tail::new(2 * limits::BASH_OUTPUT_BYTES),
            lost: Arc::clone(&lost),
        };
        std::thread::Builder::new().name("shell".into()).spawn(move || {
            // A sandbox without a keeper would keep its callers waiting: better it ends, and its calls are lost.
            catch_unwind(AssertUnwindSafe(|| keeper.run())).ok();
            std::process::exit(101);
        })?;
        Ok(Self { jobs, wake, lost })
    }

    /// Do it after what was asked for before; the call is told when it is done.
    pub fn ask(&self, ask: Ask, call: ShellCall) {
        self.jobs.send(Job { call, ask }).expect("the keeper lives as long as init");
        self.wake();
    }

    /// Make the keeper look at its queue and at whether its call was cancelled.
    pub fn wake(&self) {
        // Only a full counter can refuse, and then it is awake.
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).ok();
    }

    /// Processes outlived their killing: nothing that this sandbox says can be relied on any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

/// When memory runs out, what the model started goes first and not process 1.
///
/// The mark is inherited, so it is worn while something is started and taken off again; the file is opened before Landlock
/// closes /proc to writing, for us and for all others.
pub struct FirstToGo(Option<Mutex<(File, String)>>);

impl FirstToGo {
    /// Best effort: without the file the whole sandbox may end, which the shim sees.
    pub fn open() -> Self {
        let mut file = File::options().read(true).write(true).open("/proc/self/oom_score_adj").ok();
        let mut own = String::new();
        let read = file.as_mut().and_then(|file| file.read_to_string(&mut own).ok());
        Self(read.and(file).map(|file| Mutex::new((file, own))))
    }

    /// One at a time: what is started beside it would take the mark off too early.
    pub fn marked<T>(&self, start: impl FnOnce() -> T) -> T {
        let Some(mark) = &self.0 else { return start() };
        let mark = mark.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, own) = &*mark;
        file.write_at(b"500", 0).ok();
        let started = start();
        file.write_at(own.trim().as_bytes(), 0).ok();
        started
    }
}

struct Keeper {
    processes: Arc<Processes>,
    workdir: PathBuf,
    first_to_go: Arc<FirstToGo>,
    disk: Option<Arc<Disk>>,
    wake: Arc<OwnedFd>,
    queue: mpsc::Receiver<Job>,
    waiting: VecDeque<Job>,
    bash: Option<Bash>,
    said: Tail,
    lost: Arc<AtomicBool>,
}

struct Bash {
    pid: u32,
    output: OwnedFd,
    control: UnixStream,
    /// Readable once bash has ended; a subshell that it left may hold the socket open for longer.
    ended: OwnedFd,
}

/// How a command's run came to its end.
enum End {
    Code(i32),
    ShellGone(Option<Exit>),
    Stopped(Stopped),
}

/// Which descriptors have something to say.
struct Ready {
    output: bool,
    control: bool,
    ended: bool,
}

impl Keeper {
    fn run(&mut self) {
        loop {
            self.take_jobs();
            while let Some(job) = self.waiting.pop_front() {
                let result = match &job.ask {
                    Ask::Run { command, timeout_ms } => self.command(&job.call, command, *timeout_ms),
                    Ask::Restart => self.restart(&job.call),
                };
                job.answer(result);
                self.take_jobs();
            }
            let ready = self.poll(None);
            if ready.output {
                self.read_some(None);
            }
            if ready.control || ready.ended {
                // Between calls bash has nothing to report but its end.
                self.bash = None;
            }
        }
    }

    /// Take in what was asked for, and answer at once whoever was cancelled while it waited for its turn.
    fn take_jobs(&mut self) {
        self.waiting.extend(self.queue.try_iter());
        for job in std::mem::take(&mut self.waiting) {
            match job.call.stop.reason() {
                Some(reason) => job.answer(ToolResult::error(format!("{} before it was run", reason.words()))),
                None => self.waiting.push_back(job),
            }
        }
    }

    fn restart(&mut self, call: &ShellCall) -> ToolResult {
        call.outbox.say(call.call, &FromInit::Started { timeout_ms: limits::CALL_TIMEOUT_DEFAULT_MS });
        match self.end_everything() {
            Ok(_) => {
                self.said.take();
                ToolResult::ok("bash session restarted")
            }
            Err(said) => ToolResult::error(said),
        }
    }

    fn command(&mut self, call: &ShellCall, command: &str, timeout_ms: Option<u64>) -> ToolResult {
        let asked = timeout_ms.unwrap_or(limits::CALL_TIMEOUT_DEFAULT_MS);
        let timeout_ms = asked.min(call.limit_ms.unwrap_or(u64::MAX)).clamp(1, limits::CALL_TIMEOUT_MAX_MS);
        call.outbox.say(call.call, &FromInit::Started { timeout_ms });
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        if self.bash.is_none() {
            match self.spawn() {
                Ok(bash) => self.bash = Some(bash),
                Err(e) => return ToolResult::error(format!("bash could not be started: {e}; nothing was run")),
            }
        }
        let mut spool = Spool { call, left: limits::SPOOL_BYTES };
        let end = match self.send(command, deadline) {
            Ok(()) => self.follow(&mut spool, deadline),
            Err(e) => self.unsent(&e, call, deadline),
        };
        let note = match &end {
            End::Code(0) => None,
            End::Code(code) => Some(Exit::Code(*code).to_string()),
            End::ShellGone(exit) => {
                self.bash = None;
                let how = exit.map_or_else(|| "no exit code".to_owned(), |exit| exit.to_string());
                Some(format!("the shell itself ended ({how}); the next call starts a new one"))
            }
            End::Stopped(reason) => {
                let ended = self.end_everything_reading(&mut spool);
                let after = if *reason == Stopped::Timeout { format!(" after {timeout_ms} ms") } else { String::new() };
                Some(format!("command {}{after}; {}", reason.words(), ended.unwrap_or_else(|lost| lost)))
            }
        };
        let full = self.disk.as_ref().and_then(|disk| disk.news());
        let good = full.is_none() && matches!(end, End::Code(0) | End::ShellGone(Some(Exit::Code(0))));
        let notes: Vec<_> = full.into_iter().chain(note).collect();
        self.result(call, (!notes.is_empty()).then(|| notes.join("; ")), good)
    }

    fn result(&mut self, call: &ShellCall, note: Option<String>, good: bool) -> ToolResult {
        let total = self.said.total();
        let text = plain(&self.said.take());
        let mut output = last(&text, limits::BASH_OUTPUT_BYTES).to_owned();
        let truncated = output.len() < text.len() || total > 2 * limits::BASH_OUTPUT_BYTES as u64;
        if truncated {
            let which = if total > limits::SPOOL_BYTES { "the first 16 MiB of all" } else { "all" };
            let spool = call.spool.display();
            output = format!("[output truncated]\n[{which} {total} bytes are in {spool}]\n{output}");
        }
        if let Some(note) = note {
            if !output.is_empty() && !output.ends_with('\n') {
                output.push('\n');
            }
            output.push_str(&format!("[{note}]"));
        }
        ToolResult { is_error: !good, truncated, ..ToolResult::ok(output) }
    }

    fn spawn(&self) -> io::Result<Bash> {
        let (control, theirs) = UnixStream::pair()?;
        let (output, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut command = Command::new("/bin/bash");
        command.args(["--noprofile", "--norc"]).current_dir(&self.workdir);
        command.stdin(OwnedFd::from(theirs)).stdout(write.try_clone()?).stderr(Stdio::from(write));
        let (child, ended) = self.first_to_go.marked(|| self.processes.spawn_watched(&mut command))?;
        Ok(Bash { pid: child.id(), output, control, ended })
    }

    /// Bash runs it as one word at its top level, so that no quote, here-document or `break` in it reaches further.
    fn send(&mut self, command: &str, deadline: Instant) -> io::Result<()> {
        let Some(bash) = &mut self.bash else { return Err(io::ErrorKind::NotConnected.into()) };
        let quoted = command.replace('\'', r"'\''");
        let line = format!("eval '{quoted}' </dev/null\n{{ printf '%d\\0' \"$?\" >&0; }} 2>/dev/null\n");
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        bash.control.set_write_timeout(Some(left))?;
        bash.control.write_all(line.as_bytes())
    }

    /// Bash did not take the command: it has stopped reading, or it is gone.
    fn unsent(&mut self, error: &io::Error, call: &ShellCall, deadline: Instant) -> End {
        if error.kind() == io::ErrorKind::WouldBlock {
            return End::Stopped(call.stop.reason().unwrap_or(Stopped::Timeout));
        }
        End::ShellGone(self.bash.as_ref().and_then(|bash| self.processes.wait(bash.pid, deadline)))
    }

    /// Read along until bash reports, or is gone, or the call is to stop.
    fn follow(&mut self, spool: &mut Spool<'_>, deadline: Instant) -> End {
        let mut report = Vec::new();
        loop {
            if let Some(reason) = spool.call.stop.reason() {
                return End::Stopped(reason);
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return End::Stopped(Stopped::Timeout);
            };
            let ready = self.poll(Some(left));
            self.take_jobs();
            if ready.output {
                self.read_some(Some(spool));
            }
            if ready.control || ready.ended {
                let Some(bash) = &mut self.bash else { return End::ShellGone(None) };
                let mut piece = [0; 64];
                // Its last report comes before its end.
                match if ready.control { bash.control.read(&mut piece) } else { Ok(0) } {
                    Ok(0) | Err(_) => {
                        let pid = bash.pid;
                        self.read_rest(spool);
                        return End::ShellGone(self.processes.wait(pid, deadline));
                    }
                    Ok(read) => report.extend_from_slice(&piece[..read]),
                }
                if let Some(code) = report.strip_suffix(b"\0") {
                    self.read_rest(spool);
                    let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
                    return code.map_or(End::ShellGone(None), End::Code);
                }
            }
        }
    }

    /// What lies in the pipe now and no more: all that the command itself said is in it.
    fn read_rest(&mut self, spool: &mut Spool<'_>) {
        let Some(bash) = &self.bash else { return };
        let mut left = rustix::io::ioctl_fionread(&bash.output).unwrap_or(0);
        while left > 0 {
            let read = self.read_some(Some(&mut *spool));
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read as u64);
        }
    }

    /// Read once from the pipe, which must have something.
    fn read_some(&mut self, spool: Option<&mut Spool<'_>>) -> usize {
        let Some(bash) = &mut self.bash else { return 0 };
        let mut piece = vec![0; 64 * 1024];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&bash.output, piece.as_mut_slice())).unwrap_or(0);
        if read == 0 {
            // Every process that could speak has closed the pipe: without this the poll would spin on its end.
            self.close_output();
            return 0;
        }
        self.said.push(&piece[..read]);
        if let Some(spool) = spool {
            spool.push(&piece[..read]);
        }
        read
    }

    /// Put a pipe in place of one that ended; nothing will ever be said in it.
    fn close_output(&mut self) {
        if let (Some(bash), Ok(silent)) = (&mut self.bash, rustix::event::eventfd(0, EventfdFlags::CLOEXEC)) {
            bash.output = silent;
        }
    }

    fn end_everything(&mut self) -> Result<String, String> {
        let ended = self.processes.end_all(limits::END_CONFIRM);
        self.bash = None;
        match ended {
            Ok(names) => Ok(format!("ended {}; the next call starts a new shell", list(names))),
            Err(survivors) => {
                self.lost.store(true, Ordering::SeqCst);
                Err(format!("could not {survivors}"))
            }
        }
    }

    /// As [`Self::end_everything`], with what was said until then.
    fn end_everything_reading(&mut self, spool: &mut Spool<'_>) -> Result<String, String> {
        let bash = self.bash.take();
        let ended = self.end_everything();
        self.bash = bash;
        self.read_rest(spool);
        self.bash = None;
        ended
    }

    /// Wait for output, for bash's report, or to be woken.
    fn poll(&self, timeout: Option<Duration>) -> Ready {
        let flags = PollFlags::IN;
        let mut fds = vec![PollFd::new(&self.wake, flags)];
        if let Some(bash) = &self.bash {
            fds.push(PollFd::new(&bash.output, flags));
            fds.push(PollFd::new(&bash.control, flags));
            fds.push(PollFd::new(&bash.ended, flags));
        }
        // Rounded up, else the last part of a millisecond is spent spinning.
        let timeout =
            timeout.map(|left| left + Duration::from_millis(1)).and_then(|left| Timespec::try_from(left).ok());
        // Interrupted or not, whatever is ready is seen in the next round.
        rustix::event::poll(&mut fds, timeout.as_ref()).ok();
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[0] {
            let mut count = [0u8; 8];
            rustix::io::read(&self.wake, &mut count).ok();
        }
        let at = |n: usize| ready.get(n).copied().unwrap_or(false);
        Ready { output: at(1), control: at(2), ended: at(3) }
    }
}

/// Where a call's output goes beside the tail that is kept.
struct Spool<'a> {
    call: &'a ShellCall,
    left: u64,
}

impl Spool<'_> {
    fn push(&mut self, bytes: &[u8]) {
        let take = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if take > 0 {
            self.left -= take as u64;
            self.call.outbox.chunk(self.call.call, &bytes[..take]);
        }
    }
}

/// "3 processes: bash, sleep, sleep", with at most eight names.
fn list(mut names: Vec<String>) -> String {
    const NAMED: usize = 8;
    let count = names.len();
    let noun = if count == 1 { "process" } else { "processes" };
    names.truncate(NAMED);
    let more = if count > NAMED { ", ..." } else { "" };
    if count == 0 { format!("no {noun}") } else { format!("{count} {noun}: {}{more}", names.join(", ")) }
}
