//! The hands of this machine as whoever uses them has them: made by its own means, or by a launcher that has more
//! rights. Blocking.

use crate::client;
use crate::launch::Launched;
use crate::launcher::{Reply, Request};
use crate::limits;
use crate::local::{self, Error, Found};
use crate::shelf;
use crate::spec::{HandRef, Mode, Spec, Walls};
use crate::{socket, wire};
use std::io::{self, BufReader};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Before a launcher that does not listen is asked again.
const AGAIN: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub struct Hands {
    pub dir: PathBuf,
    pub by: By,
}

#[derive(Clone, Debug)]
pub enum By {
    /// Its own rights, with the `steadyhand-hand` program.
    Itself { program: PathBuf, mode: Mode, walls: Walls },
    /// A launcher that listens there.
    Launcher { socket: PathBuf },
}

impl Hands {
    /// A hand of that id with defaults and an empty workspace.
    pub fn spec(&self, hand_id: &str) -> Spec {
        let spec = Spec::new(hand_id, &self.dir, "");
        match &self.by {
            By::Itself { program, mode, walls } => {
                Spec { program: program.clone(), mode: *mode, walls: walls.clone(), ..spec }
            }
            // The launcher has its own.
            By::Launcher { .. } => spec,
        }
    }

    /// The hand as it is found again by its id.
    pub fn reference(&self, hand_id: &str, epoch: u64) -> HandRef {
        let dir = self.dir.join(hand_id);
        HandRef { hand_id: hand_id.to_owned(), socket: local::socket(&dir), dir, epoch }
    }

    /// As [`local::provision`].
    pub fn provision(&self, spec: Spec) -> Result<HandRef, Error> {
        match &self.by {
            By::Itself { .. } => local::provision(&spec),
            By::Launcher { .. } => self.launched(Request::Provision { spec: Box::new(spec) }),
        }
    }

    /// As [`local::revive`].
    pub fn revive(&self, hand_id: &str) -> Result<HandRef, Error> {
        match &self.by {
            By::Itself { program, walls, .. } => local::revive_in(&self.dir.join(hand_id), program, walls.clone()),
            By::Launcher { .. } => self.launched(Request::Revive { hand_id: hand_id.to_owned() }),
        }
    }

    /// As [`local::release`].
    pub fn release(&self, hand_id: &str, epoch: u64) -> Result<(), Error> {
        match &self.by {
            By::Itself { .. } => local::release(&self.reference(hand_id, epoch)),
            By::Launcher { .. } => match self.ask(&Request::Release { hand_id: hand_id.to_owned(), epoch })? {
                Reply::Released => Ok(()),
                other => Err(unexpected(other)),
            },
        }
    }

    /// As [`shelf::keep`].
    pub fn keep_shelf(&self, hand_id: &str, epoch: u64) -> Result<(), Error> {
        match &self.by {
            By::Itself { .. } => shelf::keep(&self.reference(hand_id, epoch)),
            By::Launcher { .. } => match self.ask(&Request::Keep { hand_id: hand_id.to_owned(), epoch })? {
                Reply::Released => Ok(()),
                other => Err(unexpected(other)),
            },
        }
    }

    /// As [`shelf::is_kept`].
    pub fn has_shelf(&self, name: &str) -> bool {
        shelf::is_kept(&self.dir, name)
    }

    /// As [`shelf::trim`], with the usual bounds. What is left of hands that were never made, or only half removed, goes
    /// too.
    pub fn trim_shelves(&self) -> Result<Vec<String>, Error> {
        match &self.by {
            By::Itself { .. } => local::tidy(&self.dir),
            By::Launcher { .. } => match self.ask(&Request::Trim)? {
                Reply::Trimmed { shelves } => Ok(shelves),
                other => Err(unexpected(other)),
            },
        }
    }

    /// As [`local::list`].
    pub fn list(&self) -> Result<Vec<Found>, Error> {
        match &self.by {
            By::Itself { .. } => local::list(&self.dir),
            By::Launcher { .. } => match self.ask(&Request::List)? {
                Reply::Hands { hands } => Ok(hands),
                other => Err(unexpected(other)),
            },
        }
    }

    fn launched(&self, request: Request) -> Result<HandRef, Error> {
        match self.ask(&request)? {
            Reply::Launched { outcome: Launched::Ready(hand) } => Ok(hand),
            Reply::Launched { outcome: Launched::Refused { layers } } => Err(Error::Refused(layers)),
            Reply::Launched { outcome: Launched::Failed { message } } => Err(Error::Failed(message)),
            Reply::Nothing => Err(Error::Nothing(self.dir.clone(), io::ErrorKind::NotFound.into())),
            other => Err(unexpected(other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, Error> {
        let By::Launcher { socket } = &self.by else { unreachable!("asked only where there is a launcher") };
        let asked = || -> Result<Reply, client::Error> {
            let mut connection = socket::connect(socket).map_err(client::Error::Gone)?;
            wire::write_line(&mut connection, request)?;
            Ok(wire::read_line(&mut BufReader::new(connection), limits::REPLY_BYTES)?)
        };
        let give_up = Instant::now() + limits::LAUNCHER_BACK;
        loop {
            match asked() {
                // It is being started again. Whatever it is asked can be asked twice.
                Err(client::Error::Gone(_) | client::Error::Broken(wire::Error::Closed | wire::Error::Io(_)))
                    if Instant::now() < give_up =>
                {
                    std::thread::sleep(AGAIN);
                }
                answered => return answered.map_err(|e| Error::Ask(Box::new(e))),
            }
        }
    }
}

fn unexpected(reply: Reply) -> Error {
    match reply {
        Reply::Refused { message } => Error::Failed(message),
        _ => Error::Ask(Box::new(client::Error::Unexpected)),
    }
}
