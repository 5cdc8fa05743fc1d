//! Hands on this machine: making, finding, ending and clearing them away. Blocking; never looks into a workspace.

use crate::client::{self, Client};
use crate::folder::{self, Folder};
use crate::launch::{self, Launched};
use crate::limits;
use crate::protocol::{Layer, Status};
use crate::removal;
use crate::sandbox::cgroup;
use crate::shelf;
use crate::spec::{FileResource, HandRef, Mode, Owner, Plan, Spec, Walls, is_hand_id, is_plain_relative};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("start {0}")]
    Program(PathBuf, #[source] io::Error),
    #[error("talk to the launcher")]
    Launcher(#[source] io::Error),
    #[error("understand the launcher")]
    Answer(#[source] serde_json::Error),
    /// Each layer says why it is off and what to install or set.
    #[error("start a sandbox on this machine: {}", fixes(.0))]
    Refused(Vec<Layer>),
    #[error("find what is left of the hand ({0})")]
    Nothing(PathBuf, #[source] io::Error),
    #[error("start the hand again")]
    Plan(#[source] launch::Error),
    #[error("provision the hand: {0}")]
    Failed(String),
    #[error("release the hand")]
    Release(#[source] client::Error),
    #[error("remove the hand's folder {0}")]
    Remove(PathBuf, #[source] io::Error),
    #[error("ask the launcher")]
    Ask(#[source] Box<client::Error>),
    #[error("list the hands in {0}")]
    List(PathBuf, #[source] io::Error),
    #[error("add the file to the hand")]
    Upload(#[source] launch::Error),
    #[error("keep the hand's packages in {0}")]
    Keep(PathBuf, #[source] io::Error),
    #[error("have a folder for packages")]
    Shelves(#[source] launch::Error),
    #[error("remove packages that nobody needs from {0}")]
    Trim(PathBuf, #[source] io::Error),
    #[error("keep the packages of a hand that was not made to install any")]
    NoShelf,
}

fn fixes(layers: &[Layer]) -> String {
    let one = |layer: &Layer| format!("{}: {} ({})", layer.name, layer.why, layer.fix);
    layers.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// The `steadyhand-hand` that lies beside the running program.
pub fn program() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("steadyhand-hand");
    if program.is_file() {
        Ok(program)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "no steadyhand-hand beside it"))
    }
}

/// What this machine allows, as that program finds it.
pub fn probe(program: &Path) -> Result<Vec<Layer>, Error> {
    let output = Command::new(program)
        .arg("probe")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .map_err(|e| Error::Program(program.to_owned(), e))?;
    serde_json::from_slice(&output.stdout).map_err(Error::Answer)
}

/// Make the hand of `spec`, or find it if it lives already; its workspace is ready when this returns.
///
/// A hand whose shim died, or whose lease ran out, is started again on the folder that it left: calls that were
/// running then are lost, the workspace and the journal are as they were.
pub fn provision(spec: &Spec) -> Result<HandRef, Error> {
    let mut child = Command::new(&spec.program)
        .arg("launch")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| Error::Program(spec.program.clone(), e))?;
    let text = serde_json::to_vec(spec).map_err(Error::Answer)?;
    let mut stdin = child.stdin.take().expect("asked for above");
    // A launcher that does not read has an answer all the same, or none; both are seen below.
    stdin.write_all(&text).ok();
    drop(stdin);
    let output = child.wait_with_output().map_err(Error::Launcher)?;
    match serde_json::from_slice(&output.stdout).map_err(Error::Answer)? {
        Launched::Ready(hand) => Ok(hand),
        Launched::Refused { layers } => Err(Error::Refused(layers)),
        Launched::Failed { message } => Err(Error::Failed(message)),
    }
}

/// The hand in `dir`, if its shim lives.
pub fn attach(dir: &Path) -> Result<HandRef, client::Error> {
    let folder = Folder::new(dir);
    let status = Client::connect(&folder.socket())?.status()?;
    Ok(HandRef { hand_id: status.hand_id, dir: dir.to_owned(), socket: folder.socket(), epoch: status.epoch })
}

/// The hand in `dir`, started again by `program` on what it left if its shim is gone, within walls as it had them.
pub fn revive(dir: &Path, program: &Path) -> Result<HandRef, Error> {
    started_again(dir, |spec| Spec { program: program.to_owned(), ..spec })
}

/// As [`revive`], within the walls that hands have by now.
pub fn revive_in(dir: &Path, program: &Path, walls: Walls) -> Result<HandRef, Error> {
    started_again(dir, |spec| Spec { program: program.to_owned(), walls, ..spec })
}

fn started_again(dir: &Path, changed: impl FnOnce(Spec) -> Spec) -> Result<HandRef, Error> {
    let dir = dir.canonicalize().map_err(|e| Error::Nothing(dir.to_owned(), e))?;
    let earlier = launch::earlier(&Folder::new(&dir)).map_err(Error::Plan)?;
    let nothing = || Error::Nothing(dir.clone(), io::ErrorKind::NotFound.into());
    let Plan { spec, .. } = earlier.ok_or_else(nothing)?;
    // Nobody waits a second time for a moment that was passed.
    provision(&Spec { stop: None, ..changed(spec) })
}

/// Where the shim of the hand in `dir` listens.
pub fn socket(dir: &Path) -> PathBuf {
    Folder::new(dir).socket()
}

/// Put one more file under /mnt/session/uploads of a hand that exists.
pub fn add_file(hand: &HandRef, file: &FileResource) -> Result<(), Error> {
    if !is_plain_relative(&file.path) {
        return Err(Error::Upload(launch::Error::Spec("the path of a file is relative and without `..`")));
    }
    launch::copy_upload(&Folder::new(&hand.dir), &file.source, &file.path, None).map_err(Error::Upload)
}

/// End the hand and remove everything of it. One that is gone already is only removed.
pub fn release(hand: &HandRef) -> Result<(), Error> {
    match end(hand)? {
        Some(_launch) => clear(&Folder::new(&hand.dir)).map_err(|e| Error::Remove(hand.dir.clone(), e)),
        None => Ok(()),
    }
}

/// End the hand and leave its folder as it is. None where there is no such hand; else what keeps it from being started
/// again, as long as it is held.
pub(crate) fn end(hand: &HandRef) -> Result<Option<File>, Error> {
    let folder = Folder::new(&hand.dir);
    let failed = |e| Error::Remove(hand.dir.clone(), e);
    // Held before it is asked to end, so that nobody starts it again in between.
    let launch = match folder::lock(&folder.launch_lock()) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(failed)?,
    };
    // Somebody else may have ended it while we waited.
    if !folder.launch_lock().exists() {
        return Ok(None);
    }
    match Client::connect(&folder.socket()).and_then(|mut client| client.release(hand.epoch)) {
        Ok(()) | Err(client::Error::Gone(_) | client::Error::Broken(_)) => {}
        Err(e) => return Err(Error::Release(e)),
    }
    for held_while_alive in [folder.shim_lock(), folder.sandbox_lock()] {
        folder::lock(&held_while_alive).map_err(failed)?;
    }
    Ok(Some(launch))
}

/// A hand of this machine.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Found {
    pub hand_id: String,
    pub owner: Option<Owner>,
    pub mode: Mode,
    /// As they were when it was last started.
    pub layers: Vec<Layer>,
    /// What its shim says; none where only the folder is left.
    pub status: Option<Status>,
    /// Seconds since anything was asked of it.
    pub idle_seconds: u64,
}

/// Every hand that was started here, running or left on disk.
pub fn list(hands_dir: &Path) -> Result<Vec<Found>, Error> {
    let mut hands = Vec::new();
    for (hand_id, folder) in folders(hands_dir)? {
        // Of one that is just being made nothing is known yet.
        let Ok(Some(Plan { spec: Spec { owner, mode, .. }, layers, .. })) = launch::earlier(&folder) else { continue };
        let client = Client::connect(&folder.socket()).and_then(|client| client.within(limits::STATUS_WITHIN));
        let status = client.and_then(|mut client| client.status()).ok();
        hands.push(Found { hand_id, owner, mode, layers, status, idle_seconds: idle(&folder).as_secs() });
    }
    hands.sort_by(|a, b| a.hand_id.cmp(&b.hand_id));
    Ok(hands)
}

pub(crate) fn folders(hands_dir: &Path) -> Result<Vec<(String, Folder)>, Error> {
    let list = |e| Error::List(hands_dir.to_owned(), e);
    let mut folders = Vec::new();
    // As plans name it.
    let hands_dir = hands_dir.canonicalize().map_err(list)?;
    for entry in hands_dir.read_dir().map_err(list)? {
        let entry = entry.map_err(list)?;
        let Some(hand_id) = entry.file_name().to_str().filter(|id| is_hand_id(id)).map(str::to_owned) else { continue };
        folders.push((hand_id, Folder::new(entry.path())));
    }
    Ok(folders)
}

/// Remove every hand that no shim holds and that nothing was asked of for `age`. Returns their ids. One that cannot be removed
/// keeps none of the others.
pub fn reap(hands_dir: &Path, age: Duration) -> Result<Vec<String>, Error> {
    reap_those(hands_dir, age, |_| true)
}

/// Remove what is left of launches and removals that were broken off: it has no plan, so nobody can name or start it.
pub fn reap_unfinished(hands_dir: &Path, age: Duration) -> Result<Vec<String>, Error> {
    // What else lies beside hands is somebody's.
    let was_a_hand = |folder: &Folder| {
        folder.path().symlink_metadata().is_ok_and(|found| found.is_dir() && launch::is_ours(&found))
            && folder.launch_lock().exists()
    };
    if !hands_dir.exists() {
        // Nobody has made one yet.
        return Ok(Vec::new());
    }
    reap_those(hands_dir, age, |folder| was_a_hand(folder) && matches!(launch::earlier(folder), Ok(None)))
}

/// Remove what is left of hands that were broken off, and shelves beyond the usual bounds, of which it says which those were. What
/// cannot be removed of the ones keeps none of the others.
pub fn tidy(hands_dir: &Path) -> Result<Vec<String>, Error> {
    let unfinished = reap_unfinished(hands_dir, limits::UNFINISHED_MAX);
    let trimmed = shelf::trim(hands_dir, shelf::Bounds::default());
    unfinished.and(trimmed)
}

fn reap_those(hands_dir: &Path, age: Duration, is_meant: impl Fn(&Folder) -> bool) -> Result<Vec<String>, Error> {
    let (mut reaped, mut all) = (Vec::new(), Ok(()));
    for (hand_id, folder) in folders(hands_dir)?.into_iter().filter(|(_, folder)| is_meant(folder)) {
        match reap_one(&folder, age, &is_meant) {
            Ok(true) => reaped.push(hand_id),
            Ok(false) => {}
            Err(e) => all = all.and(Err(Error::Remove(folder.path().to_owned(), e))),
        }
    }
    all.map(|()| reaped)
}

/// Whether there was something to remove.
fn reap_one(folder: &Folder, age: Duration, is_meant: impl Fn(&Folder) -> bool) -> io::Result<bool> {
    // Whoever holds this is starting the hand.
    let launch = match File::options().write(true).create(true).truncate(false).open(folder.launch_lock()) {
        // Somebody else has just removed it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        launch => launch?,
    };
    // It is looked at again, as whoever held it may have made something of it.
    let is_left = launch.try_lock().is_ok() && is_meant(folder) && idle(folder) >= age && !is_held(folder);
    if is_left {
        clear(folder)?;
    }
    Ok(is_left)
}

/// How long nothing was asked of it: the journal's folder changes with every call.
fn idle(folder: &Folder) -> Duration {
    let changed = folder.journal().metadata().or_else(|_| folder.path().metadata()).and_then(|meta| meta.modified());
    changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default()
}

pub(crate) fn is_held(folder: &Folder) -> bool {
    let held = |path| File::open(path).is_ok_and(|file| file.try_lock().is_err());
    held(folder.shim_lock()) || held(folder.sandbox_lock())
}

/// Remove the folder of a hand that nobody holds, and what it had of the host.
pub(crate) fn clear(folder: &Folder) -> io::Result<()> {
    let (hands_dir, hand_id) = match (folder.path().parent(), folder.path().file_name().and_then(|name| name.to_str()))
    {
        (Some(hands_dir), Some(hand_id)) => (hands_dir, hand_id),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    crate::image::unmount(folder).map_err(io::Error::other)?;
    // First what it could be started by: half of a journal is none. Last what says that this was a hand.
    match std::fs::remove_file(folder.plan()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    removal::remove_all_but(folder.path(), &folder.launch_lock())?;
    removal::remove_tree(folder.path())?;
    cgroup::remove(&cgroup::name(hand_id, folder.path()));
    launch::release_uid(hands_dir, hand_id)
}
