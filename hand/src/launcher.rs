//! Launching on behalf of a lesser user: for a hand worker that has no right on this machine but to ask here.
//!
//! It believes nothing that it is asked: where hands lie, in which mode they are and what they may use is its own to
//! say, files are copied only if they are the client's, and the folder of a way out must be one of those it knows. Each
//! hand is made by a process of its own ([`crate::launch`]). Never looks into a workspace, never talks to a network.

use crate::launch::Launched;
use crate::limits;
use crate::local::{self, Found};
use crate::shelf;
use crate::spec::{HandRef, Limits, Mode, Spec, Walls, is_hand_id};
use crate::wire;
use serde::{Deserialize, Serialize};
use std::fs::Permissions;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Who is served, and what hands of this launcher are like.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    pub hands_dir: PathBuf,
    /// The one user who may ask.
    pub client: u32,
    pub mode: Mode,
    #[serde(default)]
    pub walls: Walls,
    /// Folders of ways out lie in here.
    #[serde(default)]
    pub ways_out: Option<PathBuf>,
}

/// One JSON line to the launcher.
#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Provision {
        spec: Box<Spec>,
    },
    Revive {
        hand_id: String,
    },
    Release {
        hand_id: String,
        epoch: u64,
    },
    /// End the hand and keep the shelf that it has filled.
    Keep {
        hand_id: String,
        epoch: u64,
    },
    List,
    /// Remove shelves beyond the launcher's own bounds.
    Trim,
}

/// One JSON line back.
#[derive(Serialize, Deserialize, Debug)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Launched {
        outcome: Launched,
    },
    /// Nothing is left of that hand.
    Nothing,
    Released,
    Hands {
        hands: Vec<Found>,
    },
    /// Names of the shelves that were.
    Trimmed {
        shelves: Vec<String>,
    },
    Refused {
        message: String,
    },
}

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("listen on {0}")]
    Listen(PathBuf, #[source] io::Error),
    #[error("outlive signals that are meant for others")]
    Signals(#[source] io::Error),
    #[error("hear the service")]
    Service(#[source] io::Error),
}

/// Requests under way at a time.
const CONNECTIONS: usize = 128;

/// Serve until the service, which holds the other end of stdin, is gone. Nothing else that is as gentle ends it, as it may just
/// then remove something.
pub fn run(options: Options) -> Result<(), Error> {
    crate::signals::outlive().map_err(Error::Signals)?;
    let failed = |e| Error::Listen(options.socket.clone(), e);
    match std::fs::remove_file(&options.socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = crate::socket::listen(&options.socket).map_err(failed)?;
    std::fs::set_permissions(&options.socket, Permissions::from_mode(0o600)).map_err(failed)?;
    if rustix::process::geteuid().is_root() {
        lchown(&options.socket, Some(options.client), None).map_err(failed)?;
    }
    let options = Arc::new(options);
    let open = Arc::new(AtomicUsize::new(0));
    let removals = Arc::new(Removals::default());
    let under_way = Arc::clone(&removals);
    let served = std::thread::Builder::new().name("launcher".into()).spawn(move || {
        // Whoever asks again after a connection that failed finds what became of it.
        for connection in listener.incoming().flatten() {
            serve(&options, connection, Place::take(&open), &under_way);
        }
    });
    served.map_err(Error::Service)?;
    let mut ended = Vec::new();
    let ended = io::stdin().read_to_end(&mut ended).map(drop).map_err(Error::Service);
    removals.finish();
    ended
}

/// Hands that are being taken away. What is begun is finished before the launcher ends, as nobody may be there afterwards who
/// would unmount a disk or remove what is left.
#[derive(Default)]
struct Removals {
    state: Mutex<Removing>,
    ended: Condvar,
}

#[derive(Default)]
struct Removing {
    count: usize,
    /// None is begun any more.
    is_over: bool,
}

/// One of them, until it is dropped.
struct Removal(Arc<Removals>);

impl Removals {
    fn begin(self: &Arc<Self>) -> Option<Removal> {
        let mut state = self.state.lock().expect("no holder panics");
        if state.is_over {
            return None;
        }
        state.count += 1;
        Some(Removal(Arc::clone(self)))
    }

    fn finish(&self) {
        let mut state = self.state.lock().expect("no holder panics");
        state.is_over = true;
        let waited = self.ended.wait_timeout_while(state, limits::REMOVALS_WITHIN, |state| state.count > 0);
        drop(waited.expect("no holder panics"));
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.0.state.lock().expect("no holder panics").count -= 1;
        self.0.ended.notify_all();
    }
}

struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(open));
        (place.0.fetch_add(1, Ordering::SeqCst) < CONNECTIONS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Closed without a word is the answer to a stranger, and to one too many.
fn serve(options: &Arc<Options>, connection: UnixStream, place: Option<Place>, removals: &Arc<Removals>) {
    let Some(place) = place else { return };
    let Ok(peer) = rustix::net::sockopt::socket_peercred(&connection) else { return };
    if !peer.uid.is_root() && peer.uid.as_raw() != options.client {
        return;
    }
    let (options, removals) = (Arc::clone(options), Arc::clone(removals));
    let spawned = std::thread::Builder::new().name("request".into()).spawn(move || {
        let _place = place;
        let request = wire::read_line::<Request>(&mut BufReader::new(&connection), limits::REQUEST_BYTES);
        let mut removal = None;
        if matches!(request, Ok(Request::Release { .. } | Request::Keep { .. } | Request::Trim)) {
            removal = removals.begin();
            if removal.is_none() {
                return;
            }
        }
        let reply = match request {
            Ok(request) => answer(&options, request),
            Err(e) => refused(&e),
        };
        drop(removal);
        // Who does not wait for it asks again.
        wire::write_line(&mut &connection, &reply).ok();
    });
    // Without room for a thread the connection ends as it is dropped.
    drop(spawned);
}

fn answer(options: &Options, request: Request) -> Reply {
    match request {
        Request::Provision { spec } => match bounded(options, *spec) {
            Ok(spec) => launched(local::provision(&spec)),
            Err(message) => Reply::Refused { message: message.to_owned() },
        },
        Request::Revive { hand_id } => match folder(options, &hand_id) {
            Some(dir) => launched(local::revive_in(&dir, Path::new(SELF), options.walls.clone())),
            None => Reply::Nothing,
        },
        Request::Release { hand_id, epoch } => match folder(options, &hand_id) {
            Some(dir) => {
                let socket = local::socket(&dir);
                match local::release(&HandRef { hand_id, dir, socket, epoch }) {
                    Ok(()) => Reply::Released,
                    Err(e) => refused(&e),
                }
            }
            None => Reply::Released,
        },
        Request::Keep { hand_id, epoch } => match folder(options, &hand_id) {
            Some(dir) => {
                let socket = local::socket(&dir);
                match shelf::keep(&HandRef { hand_id, dir, socket, epoch }) {
                    Ok(()) => Reply::Released,
                    Err(e) => refused(&e),
                }
            }
            None => Reply::Nothing,
        },
        Request::List => match local::list(&options.hands_dir) {
            Ok(hands) => Reply::Hands { hands },
            Err(e) => refused(&e),
        },
        Request::Trim => match local::tidy(&options.hands_dir) {
            Ok(shelves) => Reply::Trimmed { shelves },
            Err(e) => refused(&e),
        },
    }
}

/// This very program, wherever it lies.
const SELF: &str = "/proc/self/exe";

/// The folder of a hand, if the id can be one's.
fn folder(options: &Options, hand_id: &str) -> Option<PathBuf> {
    is_hand_id(hand_id).then(|| options.hands_dir.join(hand_id))
}

fn launched(outcome: Result<HandRef, local::Error>) -> Reply {
    let outcome = match outcome {
        Ok(hand) => Launched::Ready(hand),
        Err(local::Error::Refused(layers)) => Launched::Refused { layers },
        Err(local::Error::Nothing(..)) => return Reply::Nothing,
        Err(e) => Launched::Failed { message: crate::error_chain(&e) },
    };
    Reply::Launched { outcome }
}

fn refused(error: &dyn std::error::Error) -> Reply {
    Reply::Refused { message: crate::error_chain(error) }
}

/// What was asked for, as far as it is the client's to ask for.
fn bounded(options: &Options, asked: Spec) -> Result<Spec, &'static str> {
    if let Some(egress) = &asked.egress {
        let is_known = options.ways_out.as_ref().is_some_and(|ways_out| {
            egress.dir.parent() == Some(ways_out) && egress.dir.file_name().is_some_and(|name| name != "..")
        });
        if !is_known {
            return Err("that is no way out of this service");
        }
    }
    let most = Limits::default();
    let Limits { memory_bytes, pids, cpu_percent, disk_bytes } = asked.limits;
    Ok(Spec {
        hands_dir: options.hands_dir.clone(),
        program: SELF.into(),
        mode: options.mode,
        walls: options.walls.clone(),
        lease_ms: asked.lease_ms.min(limits::LEASE_MAX_MS),
        limits: Limits {
            memory_bytes: memory_bytes.min(most.memory_bytes),
            pids: pids.min(most.pids),
            cpu_percent: cpu_percent.min(most.cpu_percent),
            disk_bytes: disk_bytes.min(most.disk_bytes),
        },
        client: Some(options.client),
        ..asked
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Egress;

    #[test]
    fn what_is_not_the_clients_to_ask_for_is_not_given() {
        let options = Options {
            socket: "/s".into(),
            hands_dir: "/hands".into(),
            client: 7,
            mode: Mode::Strict,
            walls: Walls::Container { keeper: "/keeper".into() },
            ways_out: Some("/ways".into()),
        };
        let asked = |dir: &str| Spec {
            limits: Limits { memory_bytes: u64::MAX, pids: 5, ..Limits::default() },
            egress: Some(Egress { dir: dir.into(), ..Egress::default() }),
            mode: Mode::Dev,
            client: None,
            ..Spec::new("h", "/etc", "/evil")
        };
        let given = bounded(&options, asked("/ways/sesn_1")).unwrap();
        assert_eq!((given.hands_dir, given.program, given.mode), ("/hands".into(), SELF.into(), Mode::Strict));
        assert_eq!(given.walls, options.walls);
        assert_eq!((given.client, given.limits.memory_bytes), (Some(7), limits::MEMORY_BYTES));
        assert_eq!(given.limits.pids, 5);
        for dir in ["/root", "/ways", "/ways/a/b", "/ways/..", "ways/a"] {
            assert!(bounded(&options, asked(dir)).is_err(), "{dir}");
        }
        assert!(bounded(&Options { ways_out: None, ..options.clone() }, asked("/ways/sesn_1")).is_err());
        assert!(folder(&options, "../x").is_none() && folder(&options, "").is_none());
    }
}
