//! The keeper as a server: one JSON line a request, one a connection, on a socket for whoever launches hands.

use crate::runtime::{Error, Runtime};
use hand::{
    keeper::{Reply, Request},
    limits,
};
use std::{
    fs::Permissions,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
};
use tracing::warn;

/// Between two looks for containers that nobody needs.
const SWEEP_EVERY: Duration = Duration::from_secs(5 * 60);
/// A request names a hand and nothing else.
const REQUEST_BYTES: u64 = 4 * 1024;
/// Where there is room for no more connections, until there may be.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub socket: PathBuf,
    pub hands_dir: PathBuf,
    /// Of the runtime.
    pub runtime_socket: PathBuf,
    pub image: String,
    /// `steadyhand-hand`, as it is mounted into containers.
    pub program: PathBuf,
}

pub struct Keeper {
    listener: UnixListener,
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Runtime,
    hands_dir: PathBuf,
}

impl Keeper {
    pub fn open(options: Options) -> io::Result<Self> {
        match std::fs::remove_file(&options.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&options.socket)?;
        std::fs::set_permissions(&options.socket, Permissions::from_mode(0o600))?;
        let hands_dir = options.hands_dir.canonicalize()?;
        let runtime = Runtime::new(options.runtime_socket, options.image, options.program);
        Ok(Keeper { listener, shared: Arc::new(Shared { runtime, hands_dir }) })
    }

    /// Until it is dropped. Containers outlive it.
    pub async fn run(self) {
        let Keeper { listener, shared } = self;
        tokio::join!(sweep(&shared.runtime, &shared.hands_dir), accept(listener, &shared));
    }
}

async fn sweep(runtime: &Runtime, hands_dir: &Path) {
    loop {
        if let Err(error) = runtime.sweep(hands_dir).await {
            warn!(error = &error as &dyn std::error::Error, "containers not looked through");
        }
        if let Err(error) = runtime.sweep_trials().await {
            warn!(error = &error as &dyn std::error::Error, "trials of images not looked through");
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

async fn accept(listener: UnixListener, shared: &Arc<Shared>) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                // Closed without a word is the answer to a stranger.
                let may_ask = connection.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own);
                if may_ask {
                    tokio::spawn(serve(Arc::clone(shared), connection));
                }
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "connection not taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, connection: UnixStream) {
    let (read, mut write) = connection.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(REQUEST_BYTES));
    let reply = match tokio::time::timeout(limits::CONTAINER_WITHIN, read.read_line(&mut line)).await {
        Ok(Ok(_)) => match serde_json::from_str(&line) {
            Ok(request) => answer(&shared, request).await,
            Err(error) => refused(&error),
        },
        _ => return,
    };
    let mut line = serde_json::to_vec(&reply).expect("a reply has string keys only");
    line.push(b'\n');
    // Who does not wait for it asks again.
    write.write_all(&line).await.ok();
}

async fn answer(shared: &Shared, request: Request) -> Reply {
    match request {
        Request::Probe => Reply::Layers { layers: shared.runtime.probe().await },
        Request::Start { hand_id } => match shared.runtime.start(&shared.hands_dir, &hand_id).await {
            Ok(()) => Reply::Started,
            Err(error) => {
                warn!(hand_id, error = &error as &dyn std::error::Error, "container not started");
                refused::<Error>(&error)
            }
        },
    }
}

fn refused<E: std::error::Error>(error: &E) -> Reply {
    Reply::Refused { message: hand::error_chain(error) }
}
