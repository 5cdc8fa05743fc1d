//! The keeper of containers, as whoever launches hands sees it: another process that may talk to a container runtime, which
//! is as good as having every right of the machine.
//!
//! It is asked for hands by their ids and believes nothing else: what a container is made of it reads in the plan that
//! whoever launches has written. Nobody else may ask, a hand worker least of all. Who keeps it is the crate
//! `containers`.

use crate::folder::Folder;
use crate::launch;
use crate::limits;
use crate::local;
use crate::protocol::Layer;
use crate::sandbox::container::{self, Container};
use crate::spec::{Egress, Mode, Walls, is_hand_id};
use crate::{socket, wire};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One JSON line to the keeper.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Which walls containers have here.
    Probe,
    /// Start the container of a hand that is being launched; one that is there is removed.
    Start { hand_id: String },
}

/// One JSON line back.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Layers { layers: Vec<Layer> },
    Started,
    Refused { message: String },
}

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("reach the keeper of containers")]
    Gone(#[source] io::Error),
    #[error("talk to the keeper of containers")]
    Broken(#[from] wire::Error),
    #[error("start a container: {0}")]
    Refused(String),
    #[error("understand the keeper of containers")]
    Unexpected,
    #[error("find the plan of the hand")]
    Plan(#[source] launch::Error),
    #[error("find a hand of that id that is being launched")]
    NoHand,
    #[error("find what is mounted")]
    Mounts(#[source] io::Error),
    #[error("mount {0}: it is a link, or another's folder")]
    NotEgress(PathBuf),
}

pub fn probe(socket: &Path) -> Result<Vec<Layer>, Error> {
    match ask(socket, &Request::Probe)? {
        Reply::Layers { layers } => Ok(layers),
        other => Err(unexpected(other)),
    }
}

pub fn start(socket: &Path, hand_id: &str) -> Result<(), Error> {
    match ask(socket, &Request::Start { hand_id: hand_id.to_owned() })? {
        Reply::Started => Ok(()),
        other => Err(unexpected(other)),
    }
}

fn ask(socket: &Path, request: &Request) -> Result<Reply, Error> {
    let mut connection = socket::connect(socket).map_err(Error::Gone)?;
    connection.set_read_timeout(Some(limits::CONTAINER_WITHIN)).map_err(Error::Gone)?;
    wire::write_line(&mut connection, request)?;
    Ok(wire::read_line(&mut BufReader::new(connection), limits::REPLY_BYTES)?)
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused { message } => Error::Refused(message),
        _ => Error::Unexpected,
    }
}

/// What is to be started for a hand.
#[derive(Debug)]
pub struct Planned {
    pub container: Container,
    pub mode: Mode,
}

/// The container of a hand that is being launched right now, by what was decided for it. For the keeper.
pub fn planned(hands_dir: &Path, hand_id: &str, program: &Path) -> Result<Planned, Error> {
    if !is_hand_id(hand_id) {
        return Err(Error::NoHand);
    }
    let folder = Folder::new(hands_dir.join(hand_id));
    if !is_being_launched(&folder) {
        return Err(Error::NoHand);
    }
    let plan = launch::earlier(&folder).map_err(Error::Plan)?.ok_or(Error::NoHand)?;
    if !matches!(plan.spec.walls, Walls::Container { .. }) {
        return Err(Error::NoHand);
    }
    plan.spec.egress.as_ref().map_or(Ok(()), is_egress)?;
    let container = container::of(&plan, program).map_err(Error::Mounts)?;
    Ok(Planned { container, mode: plan.spec.mode })
}

/// Whoever launches holds that lock until the container has started.
fn is_being_launched(folder: &Folder) -> bool {
    File::open(folder.launch_lock()).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// The runtime follows links with all its rights, and the folder above belongs to egress: nothing but a folder of its own is
/// mounted from there.
fn is_egress(egress: &Egress) -> Result<(), Error> {
    let owner_of_folder =
        |path: &Path| path.symlink_metadata().ok().filter(|found| found.is_dir()).map(|found| found.uid());
    let above = egress.dir.parent().and_then(owner_of_folder);
    let is_fine = above.is_some() && owner_of_folder(&egress.dir) == above;
    if is_fine { Ok(()) } else { Err(Error::NotEgress(egress.dir.clone())) }
}

/// Whether somebody launches, ends or runs the hand of that id, whose container is then left alone. For the keeper.
pub fn is_needed(hands_dir: &Path, hand_id: &str) -> bool {
    if !is_hand_id(hand_id) {
        return false;
    }
    let folder = Folder::new(hands_dir.join(hand_id));
    // Never made where it is not there: that hand was removed.
    let Ok(launch) = File::open(folder.launch_lock()) else { return false };
    launch.try_lock().is_err() || local::is_held(&folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Plan, Spec};

    fn plan(dir: &Path, walls: Walls, egress: Option<Egress>) -> Plan {
        let spec = Spec { walls, egress, ..Spec::new("h", dir, "/program") };
        Plan { spec, uid: None, client_uid: 0, cgroup_procs: Vec::new(), landlock: None, layers: Vec::new() }
    }

    /// What the keeper says to a hand of that plan, whose launch is under way.
    fn said(dir: &Path, plan: &Plan) -> Result<Planned, Error> {
        let folder = Folder::new(dir.join("h"));
        for made in [folder.workspace(), folder.outputs(), folder.home()] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(folder.plan(), serde_json::to_vec(plan).unwrap()).unwrap();
        let _launch = crate::folder::lock(&folder.launch_lock()).unwrap();
        planned(dir, "h", Path::new("/program"))
    }

    #[test]
    fn only_a_container_that_is_being_launched_is_planned() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let container = plan(dir, Walls::Container { keeper: "/keeper".into() }, None);
        assert_eq!(said(dir, &container).unwrap().mode, Mode::Strict);
        // The launch is over.
        assert!(matches!(planned(dir, "h", Path::new("/program")), Err(Error::NoHand)));
        assert!(matches!(said(dir, &plan(dir, Walls::Bubblewrap, None)), Err(Error::NoHand)));
    }

    #[test]
    fn the_way_out_is_a_folder_of_who_has_the_folder_above() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (own, link) = (dir.join("sockets/own"), dir.join("sockets/link"));
        std::fs::create_dir_all(&own).unwrap();
        std::os::unix::fs::symlink("/root", &link).unwrap();
        std::os::unix::fs::symlink(dir.join("sockets"), dir.join("elsewhere")).unwrap();
        let said = |at: PathBuf| {
            let egress = Egress { dir: at, ..Egress::default() };
            said(dir, &plan(dir, Walls::Container { keeper: "/keeper".into() }, Some(egress)))
        };
        assert!(said(own.clone()).is_ok());
        for at in [link, dir.join("elsewhere/own"), dir.join("sockets/none")] {
            assert!(matches!(said(at.clone()), Err(Error::NotEgress(found)) if found == at), "{}", at.display());
        }
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&own, Some(60_999), None).unwrap();
            assert!(matches!(said(own), Err(Error::NotEgress(_))));
        }
    }
}
