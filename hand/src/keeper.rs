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
use crate::spec::is_hand_id;
use crate::{socket, wire};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

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

/// The container of a hand that is being launched, by what was decided for it. For the keeper.
pub fn planned(hands_dir: &Path, hand_id: &str, program: &Path) -> Result<Container, Error> {
    if !is_hand_id(hand_id) {
        return Err(Error::NoHand);
    }
    let folder = Folder::new(hands_dir.join(hand_id));
    let plan = launch::earlier(&folder).map_err(Error::Plan)?.ok_or(Error::NoHand)?;
    container::of(&plan, program).map_err(Error::Mounts)
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
