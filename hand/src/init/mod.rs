//! Process 1 of a sandbox: carries out the recipe, runs tools, keeps the shell, and reaps whatever is left behind.
//!
//! It is process 1 itself, not a child of one, as the kernel then protects it from every signal sent inside and lets
//! it end all other processes with one call. It holds no secret, reaches no network and trusts only its stdin, which
//! no other process here can open. When stdin ends, so does the sandbox.

mod bridge;
mod collect;
mod disk;
mod mcp;
mod processes;
mod recipe;
pub(crate) mod shell;
mod snapshot;

use crate::limits;
use crate::link::{Configure, FromInit, SANDBOX, ToInit, inside};
use crate::mcp::Asked;
use crate::protocol::ToolResult;
use crate::sandbox::landlock;
use crate::spec::Start;
use crate::tools::{self, Files, Run, Stop, output};
use crate::wire::{self, Frame};
use disk::Disk;
use processes::Processes;
use recipe::Prepared;
use rustix::event::{PollFd, PollFlags};
use serde_json::Value;
use shell::{Ask, Shell, ShellCall};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("run as process 1 of a sandbox, which this is not")]
    NotInit,
    #[error("shut the process off from the others")]
    Harden(#[source] io::Error),
    #[error("talk to the shim")]
    Link(#[source] wire::Error),
    #[error("understand the shim")]
    Message(#[source] serde_json::Error),
    #[error("start the {0}")]
    Start(&'static str, #[source] io::Error),
}

/// Frames to the shim, one at a time.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Mutex<File>>);

impl Outbox {
    /// A shim that is gone takes the sandbox with it, so an error here needs no other answer.
    fn say(&self, call: u64, message: &FromInit) {
        wire::write_json(&mut *self.0.lock().expect("no writer panics"), call, message).ok();
    }

    fn chunk(&self, call: u64, bytes: &[u8]) {
        wire::write_chunk(&mut *self.0.lock().expect("no writer panics"), call, bytes).ok();
    }
}

/// Everything that calls share.
struct Init {
    outbox: Outbox,
    processes: Arc<Processes>,
    /// None where the kernel bounds the disk.
    disk: Option<Arc<Disk>>,
    shell: Shell,
    servers: mcp::Servers,
    files: Files,
    start: Mutex<Option<Start>>,
    running: Mutex<HashMap<u64, Arc<Stop>>>,
}

/// Serve the shim on stdin and stdout until stdin ends.
pub fn run() -> Result<(), Error> {
    if !rustix::process::getpid().is_init() {
        return Err(Error::NotInit);
    }
    // While our own files under /proc are still ours to open.
    let first_to_go = Arc::new(shell::FirstToGo::open());
    let (stdin, stdout) = take_stdio().map_err(Error::Harden)?;
    let outbox = Outbox(Arc::new(Mutex::new(stdout)));
    let mut from_shim = BufReader::new(stdin);
    let Some((_, ToInit::Configure(configure))) = next(&mut from_shim)? else { return Ok(()) };

    if let Some(level) = configure.landlock
        && let Err(e) = landlock::restrict(level, configure.fills_shelf)
    {
        let message = format!("put up landlock: {}", crate::error_chain(&e));
        outbox.say(SANDBOX, &FromInit::Failed { message });
        return Ok(());
    }
    let processes = Processes::start().map_err(|e| Error::Start("reaper", e))?;
    let shelf = configure.fills_shelf.then_some(inside::PACKAGES);
    let disk = Disk::watch(configure.disk_bytes, shelf, Arc::clone(&processes))
        .map_err(|e| Error::Start("disk's watch", e))?;
    if configure.egress {
        bridge::start().map_err(|e| Error::Start("bridge to the way out", e))?;
    }
    end_with_shim(&from_shim).map_err(|e| Error::Start("watch of the shim", e))?;
    let Prepared { start, failed } = match prepare(&processes, configure) {
        Ok(prepared) => prepared,
        Err(message) => {
            outbox.say(SANDBOX, &FromInit::Failed { message });
            return Ok(());
        }
    };
    let servers = mcp::Servers::new(Arc::clone(&processes), inside::WORKSPACE.into(), Arc::clone(&first_to_go));
    let shell = Shell::start(Arc::clone(&processes), inside::WORKSPACE.into(), first_to_go, disk.clone())
        .map_err(|e| Error::Start("shell's keeper", e))?;
    let files = Files::new(
        inside::WORKSPACE.into(),
        [inside::UPLOADS, inside::OUTPUTS, inside::SPOOL].map(PathBuf::from).to_vec(),
    );
    outbox.say(SANDBOX, &FromInit::Ready { start: start.clone(), failed });

    let running = Mutex::new(HashMap::new());
    let init = Arc::new(Init { outbox, processes, disk, shell, servers, files, start: Mutex::new(start), running });
    while let Some((call, message)) = next(&mut from_shim)? {
        init.clone().take(call, message);
    }
    Ok(())
}

/// The next message of the shim; none once it is gone.
fn next(from: &mut BufReader<File>) -> Result<Option<(u64, ToInit)>, Error> {
    match wire::read_frame(from, limits::CALL_FRAME_BYTES) {
        Ok(Frame::Json { call, payload }) => {
            Ok(Some((call, serde_json::from_slice(&payload).map_err(Error::Message)?)))
        }
        Ok(Frame::Chunk { .. }) => Err(Error::Link(wire::Error::Kind(1))),
        Err(wire::Error::Closed) => Ok(None),
        Err(e) => Err(Error::Link(e)),
    }
}

fn prepare(processes: &Processes, configure: Configure) -> Result<Prepared, String> {
    match configure.recipe {
        None => Ok(Prepared { start: configure.start, failed: Vec::new() }),
        Some(recipe) => recipe::carry_out(processes, &recipe),
    }
}

/// A shim that dies while the recipe is carried out, when nobody reads what it says, takes the sandbox with it. Where the link
/// is a socket, as in a container: bubblewrap ends what it has started by itself.
fn end_with_shim(from_shim: &BufReader<File>) -> io::Result<()> {
    let link = from_shim.get_ref().try_clone()?;
    if rustix::net::sockopt::socket_type(&link).is_err() {
        return Ok(());
    }
    let watch = move || {
        // That the other end is gone is told unasked.
        let mut gone = [PollFd::new(&link, PollFlags::empty())];
        while rustix::event::poll(&mut gone, None).is_err() {}
        // The end of process 1 is the end of everything here.
        std::process::exit(0);
    };
    std::thread::Builder::new().name("shim's end".into()).spawn(watch).map(drop)
}

impl Init {
    fn take(self: Arc<Self>, call: u64, message: ToInit) {
        match message {
            ToInit::Configure(_) => {}
            ToInit::Cancel => {
                if let Some(stop) = self.running.lock().expect("no holder panics").get(&call) {
                    stop.cancel();
                }
                self.shell.wake();
                self.servers.wake();
            }
            ToInit::Call { name, input, timeout_ms, .. } if name == crate::mcp::NAME => {
                self.mcp_call(call, input, timeout_ms);
            }
            ToInit::Call { name, input, timeout_ms, spool } => match tools::find(&name).map(|tool| &tool.run) {
                None => self.finish(call, ToolResult::error(format!("unknown tool: {name:.100}"))),
                Some(kind @ (Run::Files(run) | Run::Writes(run))) => {
                    self.files_call(call, *run, matches!(kind, Run::Writes(_)), input, timeout_ms);
                }
                Some(Run::Shell(parse)) => match parse(input) {
                    Ok(ask) => self.shell_call(call, ask, timeout_ms, spool),
                    Err(refused) => self.finish(call, ToolResult::error(refused.to_string())),
                },
            },
            ToInit::Collect { known } => self.gather(call, move |init| collect::collect(init, call, &known)),
            ToInit::Snapshot => self.gather(call, move |init| snapshot::snapshot(init, call).map(|()| false)),
        }
    }

    /// Needs no thread, so that a shell can be restarted when there is room for none.
    fn shell_call(self: Arc<Self>, call: u64, ask: Ask, limit_ms: Option<u64>, spool: PathBuf) {
        let stop = self.begin(call, None);
        let outbox = self.outbox.clone();
        let init = Arc::clone(&self);
        let done = Box::new(move |result| init.finish(call, result));
        self.shell.ask(ask, ShellCall { stop, limit_ms, spool, call, outbox, done });
    }

    fn files_call(
        self: Arc<Self>,
        call: u64,
        run: tools::RunFiles,
        writes: bool,
        input: Value,
        timeout_ms: Option<u64>,
    ) {
        let timeout_ms = timeout_ms.unwrap_or(limits::CALL_TIMEOUT_DEFAULT_MS).min(limits::CALL_TIMEOUT_MAX_MS);
        let stop = self.begin(call, Some(Instant::now() + Duration::from_millis(timeout_ms)));
        self.outbox.say(call, &FromInit::Started { timeout_ms });
        let work = move |init: &Init| match init.disk.as_ref().filter(|_| writes).and_then(|disk| disk.refuses()) {
            Some(full) => Err(tools::Refused(full)),
            None => run(&init.files, &stop, input),
        };
        let after = move |init: &Init, result: Option<Result<ToolResult, tools::Refused>>| {
            let result = match result {
                Some(Ok(result)) => output::capped(result),
                Some(Err(refused)) => output::capped(ToolResult::error(refused.to_string())),
                None => ToolResult::error("the tool failed inside; nothing is known of its effect"),
            };
            init.finish(call, result);
        };
        if self.clone().apart(work, after).is_err() {
            let why = "the sandbox has no room for another process; nothing was run. Restarting bash ends them all";
            self.finish(call, ToolResult::error(why));
        }
    }

    /// Of an MCP server that lives here.
    fn mcp_call(self: Arc<Self>, call: u64, input: Value, timeout_ms: Option<u64>) {
        let asked: Asked = match tools::parse(input) {
            Ok(asked) => asked,
            Err(refused) => return self.finish(call, ToolResult::error(refused.to_string())),
        };
        let most = mcp::Servers::timeout_ms(&asked.request);
        let timeout_ms = timeout_ms.unwrap_or(most).min(most);
        let stop = self.begin(call, Some(Instant::now() + Duration::from_millis(timeout_ms)));
        self.outbox.say(call, &FromInit::Started { timeout_ms });
        let after = move |init: &Init, result: Option<ToolResult>| {
            let unknown = || ToolResult::error("the call failed inside; nothing is known of its effect");
            init.finish(call, result.unwrap_or_else(unknown));
        };
        if self.clone().apart(move |init| init.servers.ask(asked, &stop), after).is_err() {
            let why = "the sandbox has no room for another process; nothing was called. Restarting bash ends them all";
            self.finish(call, ToolResult::error(why));
        }
    }

    fn begin(&self, call: u64, deadline: Option<Instant>) -> Arc<Stop> {
        if let Some(disk) = &self.disk {
            disk.call_begins();
        }
        let stop = Arc::new(Stop::new(deadline));
        self.running.lock().expect("no holder panics").insert(call, Arc::clone(&stop));
        stop
    }

    fn finish(&self, call: u64, result: ToolResult) {
        if self.running.lock().expect("no holder panics").remove(&call).is_some()
            && let Some(disk) = &self.disk
        {
            disk.call_ended();
        }
        self.outbox.say(call, &FromInit::Done { result, lost: self.shell.is_lost() || self.servers.is_lost() });
    }

    /// Run a collection or a snapshot; it says its parts itself and gives back whether there was more than its limits.
    fn gather(self: Arc<Self>, call: u64, work: impl FnOnce(&Init) -> Result<bool, String> + Send + 'static) {
        let spawned = self.clone().apart(work, move |init, result| {
            let (error, more) = match result {
                Some(Ok(more)) => (None, more),
                Some(Err(error)) => (Some(error), false),
                None => (Some("failed inside".to_owned()), false),
            };
            init.outbox.say(call, &FromInit::End { error, more });
        });
        if spawned.is_err() {
            let error = Some("the sandbox has no room for another process".to_owned());
            self.outbox.say(call, &FromInit::End { error, more: false });
        }
    }

    /// Do `work` on a thread of its own, then `after` with what came of it; none if it panicked.
    fn apart<T>(
        self: Arc<Self>,
        work: impl FnOnce(&Init) -> T + Send + 'static,
        after: impl FnOnce(&Init, Option<T>) + Send + 'static,
    ) -> io::Result<()> {
        std::thread::Builder::new().spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&self))).ok();
            after(&self, outcome);
        })?;
        Ok(())
    }
}

/// Keep stdin and stdout to ourselves: other processes here have our uid, and must neither speak for us, nor find
/// descriptors that the launcher left open, nor look into our memory.
fn take_stdio() -> io::Result<(File, File)> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let stdin = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    let stdout = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if fd > 2 {
            #[expect(unsafe_code, reason = "a number from /proc is all there is to name the descriptor by")]
            // SAFETY: the descriptor is only borrowed for this call; if it is closed already, the call says so.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
        }
    }
    Ok((stdin, stdout))
}
