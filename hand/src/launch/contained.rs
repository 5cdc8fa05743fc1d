//! What the launch of a hand in a container does beside the rest: its own /etc, the socket by which its first process
//! finds the shim, and asking the keeper to start it.

use super::{Error, Owner, make_dir, readable};
use crate::descriptor;
use crate::folder::{self, Folder};
use crate::keeper;
use crate::sandbox::container;
use crate::spec::{Plan, Walls};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};

/// Where the shim will hear the container; none where it starts its sandbox itself.
pub fn prepare(folder: &Folder, plan: &Plan) -> Result<Option<UnixListener>, Error> {
    if plan.spec.walls == Walls::Bubblewrap {
        return Ok(None);
    }
    make_dir(&folder.etc(), 0o755, Owner::Launcher)?;
    for (path, content) in container::etc(plan) {
        let file = container::etc_file(folder, path);
        let failed = |e| Error::Make(file.clone(), e);
        folder::replace(&file, content.as_bytes()).map_err(failed)?;
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).map_err(failed)?;
    }
    make_dir(&folder.link(), 0o700, Owner::Launcher)?;
    readable(&folder.link(), 0o750, plan.uid)?;
    let listener = listen(folder, plan.uid).map_err(|e| Error::Make(folder.link_socket(), e))?;
    Ok(Some(listener))
}

/// Only the hand's own user may come, and only through a folder that its container alone has.
fn listen(folder: &Folder, uid: Option<u32>) -> io::Result<UnixListener> {
    let path = folder.link_socket();
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = crate::socket::listen(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    uid.map_or(Ok(()), |uid| lchown(&path, Some(uid), Some(uid)))?;
    Ok(listener)
}

/// Give the shim its listener, and have the container started that comes there.
pub fn start(plan: &Plan, shim: &UnixStream, listener: UnixListener) -> Result<(), Error> {
    let Walls::Container { keeper } = &plan.spec.walls else { return Ok(()) };
    descriptor::send(shim, &listener).map_err(Error::Shim)?;
    keeper::start(keeper, &plan.spec.hand_id).map_err(|e| Error::Keeper(Box::new(e)))
}
