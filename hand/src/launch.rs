//! Making a hand: its folder, its host uid, its cgroups, and the shim. One short-lived process, asked over stdin.
//!
//! It is asked again with the same id after a crash, or by a second worker at the same time, and gives the hand that is
//! there. It never looks into a workspace.
//!
//! Whoever launches may have every right of this machine, and the hand's own user must be assumed to be hostile. So the
//! folder of a hand belongs to whoever launches, and that user owns folders in it but no name: nothing that is opened,
//! made or read back here can have been put there by a sandbox.

mod contained;

use crate::client::Client;
use crate::folder::{self, Folder};
use crate::image;
use crate::keeper;
use crate::limits;
use crate::link::inside;
use crate::probe;
use crate::protocol::{Layer, Need};
use crate::sandbox::{cgroup, landlock};
use crate::shelf;
use crate::shown;
use crate::spec::{
    HandRef, Limits, Mode, Plan, Resources, Shelf, Spec, Walls, is_hand_id, is_plain_name, is_plain_relative,
};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What `launch` prints: one JSON line.
#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "launched", rename_all = "snake_case")]
pub enum Launched {
    Ready(HandRef),
    /// These layers are off, and the hand does not start without them.
    Refused {
        layers: Vec<Layer>,
    },
    Failed {
        message: String,
    },
}

/// The shim's note that the recipe is carried out.
const PREPARED: &str = "prepared.json";

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("use the spec: {0}")]
    Spec(&'static str),
    #[error("start a hand with layers off")]
    Layers(Vec<Layer>),
    #[error("make {0}")]
    Make(PathBuf, #[source] io::Error),
    #[error("copy {0}")]
    Copy(PathBuf, #[source] io::Error),
    #[error("copy {0}: it is no file of the user who asks")]
    NotTheirs(PathBuf),
    #[error("use {0}: it must be a folder that only this user writes to")]
    NotOurs(PathBuf),
    #[error("trust what is left of the hand ({0}): somebody else has written it")]
    Plan(PathBuf),
    #[error(
        "reach {0} as the hand's own user: every user must be able to pass through it (chmod o+x), or choose another --hands-dir"
    )]
    Unreachable(PathBuf),
    #[error("find a free user id in {start}-{end}", start = limits::UIDS.start(), end = limits::UIDS.end())]
    NoUid,
    #[error("start the shim")]
    Shim(#[source] io::Error),
    #[error("bring up the hand: {0}")]
    NotReady(String),
    #[error("read the packages in {0}: none were kept there by this user")]
    NoShelf(PathBuf),
    #[error("have the packages' disk")]
    ShelfDisk(#[source] image::Error),
    #[error("have a container")]
    Keeper(#[source] Box<keeper::Error>),
    #[error("talk to the new hand")]
    Client(#[from] crate::client::Error),
}

/// Make or find the hand of `spec`.
pub fn launch(spec: Spec) -> Launched {
    match try_launch(spec) {
        Ok(hand) => Launched::Ready(hand),
        Err(Error::Layers(layers)) => Launched::Refused { layers },
        Err(e) => Launched::Failed { message: crate::error_chain(&e) },
    }
}

fn try_launch(spec: Spec) -> Result<HandRef, Error> {
    check(&spec)?;
    let root = rustix::process::geteuid().is_root();
    let passable = if root { 0o711 } else { 0o700 };
    make_dir(&spec.hands_dir, passable, Owner::Launcher)?;
    let hands_dir = spec.hands_dir.canonicalize().map_err(|e| Error::Make(spec.hands_dir.clone(), e))?;
    let spec = Spec { hands_dir, ..spec };
    let folder = Folder::new(spec.hands_dir.join(&spec.hand_id));
    if root {
        set_aside(&folder)?;
    }
    make_dir(folder.path(), passable, Owner::Launcher)?;
    let _lock = folder::lock(&folder.launch_lock()).map_err(|e| Error::Make(folder.launch_lock(), e))?;
    if let Some(hand) = live(&folder) {
        return Ok(hand);
    }
    let is_shown = shown::is_noted(&spec.hands_dir);
    let mut layers = match &spec.walls {
        Walls::Bubblewrap if is_shown => probe::promised(),
        Walls::Bubblewrap => probe::required(),
        Walls::Container { keeper } => keeper::probe(keeper).map_err(|e| Error::Keeper(Box::new(e)))?,
    };
    if layers.iter().any(|layer| !layer.on && layer.need == Need::Always) {
        layers.retain(|layer| !layer.on);
        return Err(Error::Layers(layers));
    }

    let uid = match (root, earlier(&folder)?) {
        (false, _) => None,
        (true, Some(Plan { uid: Some(uid), .. })) if has_claimed(&spec, uid) => Some(uid),
        (true, _) => Some(claim_uid(&spec)?),
    };
    if uid.is_some() {
        reachable(&spec.hands_dir)?;
        spec.egress.as_ref().map_or(Ok(()), |egress| reachable(&egress.dir))?;
    }
    let owner = uid.map_or(Owner::Launcher, Owner::Hand);
    // A hand that has a disk of its own keeps it, whatever is asked for now.
    let own_disk = spec.mode == Mode::Strict || folder.image().exists();
    let shelf = match &spec.shelf {
        Some(Shelf::Read(name)) => Some(shelf::open(&spec.hands_dir, name)?),
        Some(Shelf::Fill(_)) | None => None,
    };
    let mounted = own_disk.then(|| image::mount(&folder, spec.limits.disk_bytes, Some(&spec.hands_dir)));
    let fresh = image::Fresh::new(&folder, matches!(mounted, Some(Ok(true))));
    let disk = mounted.map_or_else(probe::disk_watched, |mounted| probe::disk_own(mounted.map(drop)));
    fill(&folder, &spec, owner, own_disk && disk.on)?;
    let cgroup_name = cgroup::name(&spec.hand_id, folder.path());
    let groups = match &spec.walls {
        Walls::Bubblewrap => cgroup::create(&cgroup_name, uid, &spec.limits),
        // The runtime's own, as its layers say.
        Walls::Container { .. } => cgroup::Groups::default(),
    };
    if let Some(procs) = &groups.shim_procs {
        std::fs::write(procs, "0").map_err(|e| Error::Make(procs.clone(), e))?;
    }
    layers.extend(groups.layers);
    // What a runtime does to one of them it knows better.
    let others: Vec<_> = probe::others(disk).into_iter().filter(|layer| !has(&layers, &layer.name)).collect();
    layers.extend(others);
    if spec.mode == Mode::Strict {
        let off: Vec<_> = layers.iter().filter(|layer| !layer.on && layer.need != Need::Advice).cloned().collect();
        if !off.is_empty() {
            cgroup::remove(&cgroup_name);
            return Err(Error::Layers(off));
        }
    }
    let client_uid = spec.client.unwrap_or_else(|| rustix::process::getuid().as_raw());
    let is_held = layers.iter().any(|layer| layer.name == probe::LANDLOCK && layer.on);
    let landlock = landlock::level().filter(|_| is_held);
    let plan = Plan { spec, uid, client_uid, cgroup_procs: groups.procs, landlock, layers };
    let text = serde_json::to_vec(&plan).expect("a plan has only string keys");
    folder::replace(&folder.plan(), &text).map_err(|e| Error::Make(folder.plan(), e))?;
    readable(&folder.plan(), 0o640, uid)?;
    // From now on the plan says who has it.
    drop(shelf);
    if let Err(error) = start_shim(&folder, &plan) {
        // It may be that none starts here any more.
        let required = if plan.spec.walls == Walls::Bubblewrap { probe::required() } else { Vec::new() };
        let off: Vec<_> = required.into_iter().filter(|layer| !layer.on).collect();
        cgroup::remove(&cgroup_name);
        return Err(if off.is_empty() { error } else { Error::Layers(off) });
    }
    fresh.keep();
    if !is_shown && plan.spec.walls == Walls::Bubblewrap {
        shown::note(&plan.spec.hands_dir);
    }
    // What they were made from is in the workspace now; what cannot be removed goes with the folder.
    for name in [inside::BUNDLE, inside::ARCHIVE] {
        std::fs::remove_file(folder.recipe().join(name)).ok();
    }
    live(&folder).ok_or_else(|| Error::NotReady("the shim said it was ready and does not answer".to_owned()))
}

fn has(layers: &[Layer], name: &str) -> bool {
    layers.iter().any(|layer| layer.name == name)
}

/// A folder that belongs to a hand's user, as earlier releases made them, is no hand any more: nothing in it can be trusted.
/// It is kept under a name that no hand has, for whoever wants something of it.
fn set_aside(folder: &Folder) -> Result<(), Error> {
    let is_a_hands = |found: std::fs::Metadata| found.is_dir() && limits::UIDS.contains(&found.uid());
    if !folder.path().symlink_metadata().is_ok_and(is_a_hands) {
        return Ok(());
    }
    let name = folder.path().file_name().expect("it is named by the hand's id");
    let aside = folder.path().with_file_name(format!(".left-{}", name.display()));
    let failed = |e| Error::Make(aside.clone(), e);
    match crate::removal::remove_tree(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    std::fs::rename(folder.path(), &aside).map_err(failed)
}

/// What was decided for the hand of this folder before, if it was launched before.
pub fn earlier(folder: &Folder) -> Result<Option<Plan>, Error> {
    let path = folder.plan();
    let open = || {
        let above = folder.path().symlink_metadata()?;
        let file = File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path)?;
        Ok::<_, io::Error>((is_ours(&above) && is_ours(&file.metadata()?), file))
    };
    let file = match open() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok((true, file)) => file,
        _ => return Err(Error::Plan(path)),
    };
    let plan: Plan = serde_json::from_reader(BufReader::new(file)).map_err(|_| Error::Plan(path.clone()))?;
    let is_here = plan.spec.hands_dir.join(&plan.spec.hand_id) == folder.path();
    if is_here { Ok(Some(plan)) } else { Err(Error::Plan(path)) }
}

fn check(spec: &Spec) -> Result<(), Error> {
    if !is_hand_id(&spec.hand_id) {
        return Err(Error::Spec("a hand id is 1 to 64 of A-Z a-z 0-9 _ -"));
    }
    let Limits { memory_bytes, pids, cpu_percent, disk_bytes } = spec.limits;
    if [memory_bytes, pids, cpu_percent, disk_bytes].contains(&0) {
        // To a container runtime it would mean none at all.
        return Err(Error::Spec("no limit is 0"));
    }
    if spec.resources.files.iter().any(|file| !is_plain_relative(&file.path)) {
        return Err(Error::Spec("the path of a file is relative and without `..`"));
    }
    if spec.resources.repo.iter().filter_map(|repo| repo.name.as_deref()).any(|name| !is_plain_name(name)) {
        return Err(Error::Spec("the name of a repository is one plain folder name"));
    }
    if let Some(egress) = &spec.egress {
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !egress.variables.iter().all(|(name, value)| plain(name) && plain(value)) {
            return Err(Error::Spec("variables of the way out are of letters, digits and _"));
        }
        let url = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !egress.registries.iter().all(|(name, value)| plain(name) && url(value)) {
            return Err(Error::Spec("a registry is a variable and a URL"));
        }
        let bare = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'#' | b';'));
        if !egress.repositories.iter().all(|(url, path)| bare(url) && bare(path)) {
            return Err(Error::Spec("a repository's URL has neither spaces nor quotes"));
        }
    }
    if let Some(Shelf::Fill(name) | Shelf::Read(name)) = &spec.shelf
        && !is_hand_id(name)
    {
        return Err(Error::Spec("a shelf's name is 1 to 64 of A-Z a-z 0-9 _ -"));
    }
    let word = |text: &str| !text.is_empty() && !text.starts_with('-') && text.bytes().all(|b| b.is_ascii_graphic());
    for clone in &spec.resources.clones {
        let checkout = clone.checkout.as_deref().is_none_or(word);
        let path = clone.path.as_os_str().is_empty() || is_plain_relative(&clone.path);
        if !word(&clone.url) || !checkout || !path {
            return Err(Error::Spec("a clone has a URL, a relative path without `..`, and a branch or commit"));
        }
    }
    if !spec.resources.clones.is_empty() && spec.egress.is_none() {
        return Err(Error::Spec("without a way out nothing can be cloned"));
    }
    if spec.resources.repo.is_some() && spec.resources.restore.is_some() {
        return Err(Error::Spec("a workspace is either cloned or restored"));
    }
    Ok(())
}

/// The hand that answers in this folder, if one does.
fn live(folder: &Folder) -> Option<HandRef> {
    let status = Client::connect(&folder.socket()).ok()?.status().ok()?;
    Some(HandRef {
        hand_id: status.hand_id,
        dir: folder.path().to_owned(),
        socket: folder.socket(),
        epoch: status.epoch,
    })
}

/// Take a uid that no other hand of this folder has; it stays taken until the hand is removed.
fn claim_uid(spec: &Spec) -> Result<u32, Error> {
    let claims = spec.hands_dir.join(".uids");
    make_dir(&claims, 0o700, Owner::Launcher)?;
    for uid in limits::UIDS {
        let path = claims.join(uid.to_string());
        match File::options().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                io::Write::write_all(&mut file, spec.hand_id.as_bytes()).map_err(|e| Error::Make(path, e))?;
                return Ok(uid);
            }
            // A launch that ended between claim and plan has left its claim to us.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if std::fs::read_to_string(&path).is_ok_and(|hand| hand == spec.hand_id) {
                    return Ok(uid);
                }
            }
            Err(e) => return Err(Error::Make(path, e)),
        }
    }
    Err(Error::NoUid)
}

fn has_claimed(spec: &Spec, uid: u32) -> bool {
    let claim = spec.hands_dir.join(".uids").join(uid.to_string());
    std::fs::read_to_string(claim).is_ok_and(|hand| hand == spec.hand_id)
}

/// Let go of the uid that a hand claimed, if it did.
pub fn release_uid(hands_dir: &Path, hand_id: &str) -> io::Result<()> {
    let claims = match hands_dir.join(".uids").read_dir() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        claims => claims?,
    };
    for claim in claims {
        let path = claim?.path();
        if std::fs::read_to_string(&path).is_ok_and(|claimed_by| claimed_by == hand_id) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The hand's own user must be able to walk to its folder.
fn reachable(hands_dir: &Path) -> Result<(), Error> {
    for above in hands_dir.ancestors() {
        let mode = above.metadata().map_err(|e| Error::Make(above.to_owned(), e))?.mode();
        if mode & 0o001 == 0 {
            return Err(Error::Unreachable(above.to_owned()));
        }
    }
    Ok(())
}

/// Make what is not there yet; an earlier launch may have ended anywhere.
fn fill(folder: &Folder, spec: &Spec, owner: Owner, own_disk: bool) -> Result<(), Error> {
    let uid = owner.uid();
    for dir in [folder.journal(), folder.blobs(), folder.spool()] {
        make_dir(&dir, 0o700, owner)?;
    }
    let own = [folder.workspace(), folder.outputs(), folder.home()].map(|dir| (dir, 0o700));
    // Hands of other users will read it.
    let shelf = matches!(spec.shelf, Some(Shelf::Fill(_))).then(|| (folder.packages(), 0o755));
    for (dir, mode) in own.into_iter().chain(shelf) {
        let name = dir.file_name().expect("it is a folder of the hand");
        if !own_disk {
            make_dir(&dir, mode, owner)?;
            continue;
        }
        make_dir(&folder.disk().join(name), mode, owner)?;
        match symlink(Path::new("disk").join(name), &dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Error::Make(dir, e)),
            _ => {}
        }
    }
    for lock in [folder.shim_lock(), folder.sandbox_lock()] {
        let made = File::options().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        made.map_err(|e| Error::Make(lock.clone(), e))?;
        give(&lock, uid, uid)?;
    }
    // Their owner stays whoever launches: inside they are read-only, and outside nobody else needs to write there.
    for dir in [folder.uploads(), folder.recipe()] {
        make_dir(&dir, 0o700, Owner::Launcher)?;
        readable(&dir, 0o750, uid)?;
    }
    for file in &spec.resources.files {
        // Its source need not be there any more when a hand is started again.
        if !folder.uploads().join(&file.path).exists() {
            copy_upload(folder, &file.source, &file.path, spec.client)?;
        }
    }
    if folder.journal().join(PREPARED).exists() {
        return Ok(());
    }
    let Resources { repo, restore, .. } = &spec.resources;
    let bundle = repo.as_ref().map(|repo| (&repo.bundle, inside::BUNDLE));
    let archive = restore.as_ref().map(|restore| (&restore.archive, inside::ARCHIVE));
    for (source, name) in bundle.into_iter().chain(archive) {
        let to = folder.recipe().join(name);
        copy(source, &to, 0o600, spec.client)?;
        readable(&to, 0o640, uid)?;
    }
    Ok(())
}

/// Copy a file to where the sandbox sees it read-only under uploads. `path` is relative and plain.
pub fn copy_upload(folder: &Folder, source: &Path, path: &Path, from: Option<u32>) -> Result<(), Error> {
    let to = folder.uploads().join(path);
    let mut above = folder.uploads();
    for part in path.parent().unwrap_or(Path::new("")) {
        above.push(part);
        make_dir(&above, 0o755, Owner::Launcher)?;
    }
    copy(source, &to, 0o644, from)
}

/// Copy a file. One that a lesser user asks for must be his: what only the launcher can read is not to be had this way.
fn copy(source: &Path, to: &Path, mode: u32, from: Option<u32>) -> Result<(), Error> {
    let temporary = to.with_file_name(format!(".{}.part", to.file_name().unwrap_or_default().display()));
    let failed = |e| Error::Copy(source.to_owned(), e);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(flags).open(source).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || from.is_some_and(|uid| uid != metadata.uid()) {
        return Err(Error::NotTheirs(source.to_owned()));
    }
    let copied = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
    let copied = copied.and_then(|mut copy| {
        io::copy(&mut file, &mut copy)?;
        copy.set_permissions(Permissions::from_mode(mode))?;
        std::fs::rename(&temporary, to)
    });
    copied.map_err(failed)
}

/// Whose a folder is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Launcher,
    /// The user of the hand, where it has one.
    Hand(u32),
}

impl Owner {
    fn uid(self) -> Option<u32> {
        match self {
            Self::Launcher => None,
            Self::Hand(uid) => Some(uid),
        }
    }
}

/// Make a folder, or find it as it was made: no link, and nobody else's.
pub(crate) fn make_dir(path: &Path, mode: u32, owner: Owner) -> Result<(), Error> {
    let failed = |e| Error::Make(path.to_owned(), e);
    let made = match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => DirBuilder::new().recursive(true).mode(mode).create(path),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let found = path.symlink_metadata().map_err(failed)?;
            let fine = match owner {
                Owner::Launcher => is_ours(&found),
                // A launch that ended early may have left it ours.
                Owner::Hand(uid) => found.uid() == uid || is_ours(&found),
            };
            if !found.is_dir() || !fine {
                return Err(Error::NotOurs(path.to_owned()));
            }
            return give(path, owner.uid(), owner.uid());
        }
        made => made,
    };
    made.map_err(failed)?;
    // The umask must not close what others have to pass through.
    std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    give(path, owner.uid(), owner.uid())
}

/// Whether only this process's user can have written it.
pub(crate) fn is_ours(metadata: &std::fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}

/// Ours, and open to the hand's user for reading.
fn readable(path: &Path, mode: u32, uid: Option<u32>) -> Result<(), Error> {
    if uid.is_some() {
        give(path, None, uid)?;
        std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| Error::Make(path.to_owned(), e))?;
    }
    Ok(())
}

fn give(path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<(), Error> {
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    lchown(path, uid, gid).map_err(|e| Error::Make(path.to_owned(), e))
}

/// Where the shim is asked: for the client and root alone, who need not be able to enter the folders of the hand.
fn listen(folder: &Folder, client: Option<u32>) -> io::Result<UnixListener> {
    match std::fs::remove_file(folder.socket()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = crate::socket::listen(&folder.socket())?;
    std::fs::set_permissions(folder.socket(), Permissions::from_mode(0o600))?;
    if let Some(uid) = client {
        lchown(folder.socket(), Some(uid), None)?;
    }
    Ok(listener)
}

/// Start the shim as the hand's own user, with an empty environment and its socket, and wait for its word.
fn start_shim(folder: &Folder, plan: &Plan) -> Result<(), Error> {
    let log = File::options().create(true).append(true).mode(0o600).open(folder.log()).map_err(Error::Shim)?;
    let listener = listen(folder, plan.spec.client).map_err(Error::Shim)?;
    let container = contained::prepare(folder, plan)?;
    let (ours, theirs) = UnixStream::pair().map_err(Error::Shim)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("steadyhand-hand").arg("shim").arg(folder.path()).env_clear().current_dir("/");
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(OwnedFd::from(theirs)).stderr(log);
    if let Some(uid) = plan.uid {
        command.uid(uid).gid(uid);
    }
    let mut child = command.spawn().map_err(Error::Shim)?;
    // With it goes our copy of the shim's end.
    drop(command);
    if let Some(listener) = container
        && let Err(error) = contained::start(plan, &ours, listener)
    {
        child.kill().ok();
        child.wait().map_err(Error::Shim)?;
        return Err(error);
    }
    let mut said = BufReader::new(ours);
    let mut first = String::new();
    // The end of the pipe without a word is a shim that died; what it got to say comes before.
    said.read_line(&mut first).map_err(Error::Shim)?;
    if first == "ready\n" {
        return Ok(());
    }
    said.take(16 * 1024).read_to_string(&mut first).map_err(Error::Shim)?;
    child.wait().map_err(Error::Shim)?;
    Err(Error::NotReady(first.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_refused_whoever_asks() {
        let spec = |limits| Spec { limits, ..Spec::new("h", "/hands", "/program") };
        assert!(check(&spec(Limits::default())).is_ok());
        let none: [fn(&mut Limits); 4] = [
            |limits| limits.memory_bytes = 0,
            |limits| limits.pids = 0,
            |limits| limits.cpu_percent = 0,
            |limits| limits.disk_bytes = 0,
        ];
        for without in none {
            let mut limits = Limits::default();
            without(&mut limits);
            assert!(matches!(check(&spec(limits.clone())), Err(Error::Spec("no limit is 0"))), "{limits:?}");
        }
    }
}
