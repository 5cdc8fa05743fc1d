//! The calls of a hand: begun once in the journal, waited for by whoever asks, settled once.

use super::{Shim, gather, note};
use crate::journal::{self, Ended, Key, Known, input_hash};
use crate::limits;
use crate::link::{ToInit, inside};
use crate::protocol::{CallId, How, Refusal, Settled, State, ToolResult};
use crate::spec::StopAt;
use crate::tools::output::{last, plain};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// Everything that runs, by the number that init knows it by.
#[derive(Default)]
pub struct Calls {
    state: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    next: u64,
    /// Calls that are begun and not settled.
    by_key: HashMap<Key, Arc<Call>>,
    by_number: HashMap<u64, Work>,
    /// Nothing may start any more.
    closed: bool,
}

/// What a number stands for.
enum Work {
    Call(Arc<Call>, Spool),
    Gather(Box<gather::Gathering>),
}

struct Call {
    id: CallId,
    key: Key,
    hash: String,
    number: u64,
    dispatch: Mutex<Dispatch>,
    settled: Mutex<Option<Ended>>,
    changed: Condvar,
}

/// Init must hear of a call before it hears that it is cancelled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dispatch {
    Begun,
    CancelWanted,
    Sent,
}

impl Call {
    /// Tell init of the call, and at once of a cancellation that came first.
    fn send(&self, shim: &Shim, message: &ToInit) {
        // If nobody hears it the sandbox is gone, and its reader settles every call as lost.
        shim.sandbox.say(self.number, message).ok();
        let before = std::mem::replace(&mut *self.dispatch.lock().expect("no holder panics"), Dispatch::Sent);
        if before == Dispatch::CancelWanted {
            shim.sandbox.say(self.number, &ToInit::Cancel).ok();
        }
    }

    fn cancel(&self, shim: &Shim) {
        let mut dispatch = self.dispatch.lock().expect("no holder panics");
        if *dispatch == Dispatch::Sent {
            drop(dispatch);
            // As in `send`.
            shim.sandbox.say(self.number, &ToInit::Cancel).ok();
        } else {
            *dispatch = Dispatch::CancelWanted;
        }
    }

    fn wait(&self, how: How) -> Settled {
        let settled = self.settled.lock().expect("no holder panics");
        let settled = self.changed.wait_while(settled, |settled| settled.is_none()).expect("no holder panics");
        let Ended { state, result } = settled.clone().expect("waited for");
        Settled { state, how, result }
    }

    fn settle(&self, ended: Ended) {
        self.settled.lock().expect("no holder panics").get_or_insert(ended);
        self.changed.notify_all();
    }
}

/// A call's output on disk, as it comes.
struct Spool {
    path: PathBuf,
    /// None where it could not be made or written: the output is then only in the result.
    file: Option<File>,
    left: u64,
}

impl Spool {
    fn create(path: PathBuf) -> Self {
        Self { file: File::create(&path).ok(), path, left: limits::SPOOL_BYTES }
    }

    fn push(&mut self, bytes: &[u8]) {
        let take = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= take as u64;
        if let Some(file) = &mut self.file
            && file.write_all(&bytes[..take]).is_err()
        {
            self.file = None;
        }
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.state.lock().expect("no holder panics")
    }

    pub fn running(&self) -> Vec<CallId> {
        self.lock().by_key.values().map(|call| call.id.clone()).collect()
    }
}

pub struct Asked {
    pub id: CallId,
    pub name: String,
    pub input: Value,
    pub timeout_ms: Option<u64>,
    pub epoch: u64,
}

type Refused = (Refusal, String);

/// Run a call once, or get what became of it.
pub fn execute(shim: &Shim, asked: Asked) -> Result<Settled, Refused> {
    let key = Key::of(&asked.id);
    let hash = input_hash(&asked.name, &asked.input);
    let conflict = || (Refusal::Conflict, "the id was used with another name or input".to_owned());
    let (call, how) = {
        // From here to the journal's entry no fence may come between, else an old brain could still begin a call.
        let _epoch = check_epoch(shim, asked.epoch)?;
        let mut running = shim.calls.lock();
        if let Some(call) = running.by_key.get(&key) {
            if call.hash != hash {
                return Err(conflict());
            }
            (Arc::clone(call), How::Attached)
        } else {
            match shim.journal.known(&key).map_err(journal_failed)? {
                Known::Begun { hash: known } | Known::Ended { hash: known, .. } if known != hash => {
                    return Err(conflict());
                }
                Known::Ended { ended, .. } => {
                    shim.lease.renew(std::time::Duration::from_millis(shim.plan.spec.lease_ms));
                    return Ok(Settled { state: ended.state, how: How::Replayed, result: ended.result });
                }
                Known::Begun { .. } => {
                    let result = lost(&spool_path(shim, &key), "the hand that ran it died").to_json();
                    return Ok(Settled { state: State::Lost, how: How::Replayed, result });
                }
                Known::Nothing => (begin(shim, &mut running, key, hash, &asked)?, How::Ran),
            }
        }
    };
    if how == How::Ran {
        let spool = inside_spool(&call.key);
        let Asked { name, input, timeout_ms, .. } = asked;
        call.send(shim, &ToInit::Call { name, input, timeout_ms, spool });
    }
    Ok(call.wait(how))
}

fn begin(shim: &Shim, running: &mut Running, key: Key, hash: String, asked: &Asked) -> Result<Arc<Call>, Refused> {
    if running.closed {
        return Err((Refusal::Ending, "the hand is ending".to_owned()));
    }
    if running.by_number.values().any(|work| matches!(work, Work::Gather(gathering) if gathering.is_exclusive())) {
        return Err((Refusal::Busy, "the workspace is being packed".to_owned()));
    }
    if running.by_key.len() >= limits::CALLS_RUNNING {
        return Err((Refusal::Busy, format!("{} calls are running", limits::CALLS_RUNNING)));
    }
    shim.journal.begin(&key, &asked.id, &hash, asked.epoch).map_err(journal_failed)?;
    shim.stop.pass(StopAt::Begun);
    running.next += 1;
    let number = running.next;
    let call = Arc::new(Call {
        id: asked.id.clone(),
        key: key.clone(),
        hash,
        number,
        dispatch: Mutex::new(Dispatch::Begun),
        settled: Mutex::default(),
        changed: Condvar::new(),
    });
    let spool = Spool::create(spool_path(shim, &key));
    running.by_key.insert(key, Arc::clone(&call));
    running.by_number.insert(number, Work::Call(Arc::clone(&call), spool));
    shim.lease.begin(number);
    Ok(call)
}

/// End a running call, and wait for what becomes of it.
pub fn cancel(shim: &Shim, id: &str, epoch: u64) -> Result<Settled, Refused> {
    drop(check_epoch(shim, epoch)?);
    let key = Key::of(id);
    let running = shim.calls.lock().by_key.get(&key).map(Arc::clone);
    let Some(call) = running else {
        return match shim.journal.known(&key).map_err(journal_failed)? {
            Known::Nothing => Err((Refusal::Unknown, "no call of that id".to_owned())),
            Known::Ended { ended, .. } => Ok(Settled { state: ended.state, how: How::Replayed, result: ended.result }),
            Known::Begun { .. } => {
                let result = lost(&spool_path(shim, &key), "the hand that ran it died").to_json();
                Ok(Settled { state: State::Lost, how: How::Replayed, result })
            }
        };
    };
    // Past this the sandbox itself is given up, and the call with it.
    shim.lease.expect_within(call.number, limits::END_CONFIRM + limits::INIT_GRACE);
    call.cancel(shim);
    Ok(call.wait(How::Attached))
}

/// Number a collection or snapshot. An exclusive one starts only when nothing else runs.
pub fn begin_gathering(shim: &Shim, gathering: gather::Gathering, exclusive: bool) -> Result<u64, Refused> {
    let mut running = shim.calls.lock();
    if running.closed {
        return Err((Refusal::Ending, "the hand is ending".to_owned()));
    }
    if exclusive && !running.by_number.is_empty() {
        return Err((Refusal::Busy, "calls are running".to_owned()));
    }
    running.next += 1;
    let number = running.next;
    running.by_number.insert(number, Work::Gather(Box::new(gathering)));
    shim.lease.begin(number);
    shim.lease.expect_within(number, limits::COLLECT_TIMEOUT + limits::INIT_GRACE);
    Ok(number)
}

/// Bytes that init says belong to a number.
pub fn chunk(shim: &Shim, number: u64, bytes: &[u8]) {
    match shim.calls.lock().by_number.get_mut(&number) {
        Some(Work::Call(_, spool)) => spool.push(bytes),
        Some(Work::Gather(gathering)) => gathering.push(bytes),
        None => {}
    }
}

/// Let `act` work on a gathering.
pub fn with_gathering(shim: &Shim, number: u64, act: impl FnOnce(&mut gather::Gathering)) {
    if let Some(Work::Gather(gathering)) = shim.calls.lock().by_number.get_mut(&number) {
        act(gathering);
    }
}

pub fn end_gathering(shim: &Shim, number: u64) -> Option<gather::Gathering> {
    let work = shim.calls.lock().by_number.remove(&number);
    shim.lease.finish(number);
    match work? {
        Work::Gather(gathering) => Some(*gathering),
        Work::Call(..) => None,
    }
}

/// Init says that a call is over: record it, then tell.
pub fn done(shim: &Shim, number: u64, mut result: ToolResult) {
    let Some(Work::Call(call, spool)) = shim.calls.lock().by_number.remove(&number) else { return };
    if result.truncated {
        result.blob = keep(shim, &spool);
    } else {
        // All of it is in the result.
        std::fs::remove_file(&spool.path).ok();
    }
    settle(shim, &call, Ended { state: State::Finished, result: result.to_json() });
}

/// The sandbox is gone: nobody knows any more how its calls ended.
pub fn lose_all(shim: &Shim, why: &str) {
    let work = {
        let mut running = shim.calls.lock();
        running.closed = true;
        std::mem::take(&mut running.by_number)
    };
    for (number, work) in work {
        match work {
            Work::Call(call, spool) => {
                let result = lost(&spool.path, why).to_json();
                settle(shim, &call, Ended { state: State::Lost, result });
            }
            Work::Gather(gathering) => {
                shim.lease.finish(number);
                gathering.fail(format!("the hand died: {why}"));
            }
        }
    }
}

fn settle(shim: &Shim, call: &Call, ended: Ended) {
    shim.stop.pass(StopAt::Ended);
    let ended = match shim.journal.end(&call.key, &ended) {
        Ok(()) => ended,
        Err(e) => {
            // What is not on disk must not be told: a later ask could be told otherwise.
            note("result not recorded", &[("error", &crate::error_chain(&e))]);
            let result = lost(&spool_path(shim, &call.key), "its result could not be recorded").to_json();
            Ended { state: State::Lost, result }
        }
    };
    shim.stop.pass(StopAt::Recorded);
    call.settle(ended);
    // Only now: who asks in between attaches and finds it settled.
    shim.calls.lock().by_key.remove(&call.key);
    shim.lease.finish(call.number);
}

/// The words for a call whose end nobody saw, with what it had said until then.
fn lost(spool: &Path, why: &str) -> ToolResult {
    const SHOWN: u64 = 4 * 1024;
    let mut said = Vec::new();
    if let Ok(mut file) = File::open(spool) {
        let len = file.metadata().map_or(0, |meta| meta.len());
        // Whatever can be read helps; nothing is no worse.
        file.seek(SeekFrom::Start(len.saturating_sub(SHOWN))).ok();
        file.take(SHOWN).read_to_end(&mut said).ok();
    }
    let said = plain(&said);
    let until =
        if said.trim().is_empty() { String::new() } else { format!("\noutput until then:\n{}", last(&said, 4096)) };
    ToolResult::error(format!(
        "lost: the call was started and its outcome is unknown ({why}). It was not run again: look at what it has \
         done before you repeat it.{until}"
    ))
}

/// Give a whole output its name by content, under which it can be asked for.
fn keep(shim: &Shim, spool: &Spool) -> Option<String> {
    let file = File::open(&spool.path).ok()?;
    file.sync_all().ok()?;
    let mut hash = Sha256::new();
    std::io::copy(&mut &file, &mut hash).ok()?;
    let name = hex::encode(hash.finalize());
    match std::fs::hard_link(&spool.path, shim.folder.blobs().join(&name)) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return None,
        _ => prune(shim),
    }
    Some(name)
}

/// A hand that lives long must not fill the disk with what has been told already.
pub fn prune(shim: &Shim) {
    for dir in [shim.folder.spool(), shim.folder.blobs()] {
        if let Err(e) = crate::folder::prune(&dir, limits::KEPT_BYTES) {
            note("old outputs not removed", &[("error", &e)]);
        }
    }
}

fn spool_path(shim: &Shim, key: &Key) -> PathBuf {
    shim.folder.spool().join(format!("{}.txt", key.as_str()))
}

fn inside_spool(key: &Key) -> PathBuf {
    Path::new(inside::SPOOL).join(format!("{}.txt", key.as_str()))
}

/// Only the holder of the lease may act. The guard keeps it so.
pub fn check_epoch(shim: &Shim, asked: u64) -> Result<MutexGuard<'_, u64>, Refused> {
    let epoch = shim.journal.hold_epoch();
    if *epoch == asked {
        Ok(epoch)
    } else {
        Err((Refusal::Fenced, format!("the lease epoch is {}, not {asked}", *epoch)))
    }
}

pub fn journal_failed(e: journal::Error) -> Refused {
    (Refusal::Poisoned, format!("failed to {}", crate::error_chain(&e)))
}
