//! Egress as `serve` has it: its folders, its user, the child, and the socket on which it is told what to enforce.

use crate::{
    error::{Code, Hint as _},
    supervisor::Child,
    vault_keys::{Told, VaultKeys},
};
use async_trait::async_trait;
use domain::egress::{Reply, Request};
use domain::packages::Registries;
use std::{
    fs::{DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::{Mutex, mpsc, oneshot},
};
use tracing::warn;
use zeroize::Zeroizing;

/// Below the folder of the sandboxes, as every user must pass through there; no hand has a name with a dot.
const FOLDER: &str = ".egress";
/// A request waits this long for egress, which may just be started again.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const WAITING_MAX: usize = 64;

type Ask = (Request, oneshot::Sender<Reply>);

pub struct WayOut {
    dir: PathBuf,
    uid: Option<u32>,
    link: Arc<Link>,
    asks: Arc<Mutex<mpsc::Receiver<Ask>>>,
}

impl WayOut {
    /// Makes the folders, and gives those that are egress's alone to its user, if it has one of its own. `host` tells services apart that share
    /// the folder of the sandboxes. None where egress could not work: sandboxes then have no network.
    pub fn prepare(
        hands_dir: &Path,
        host: &str,
        uid: Option<u32>,
        private_addresses: Vec<String>,
        registries: Registries,
    ) -> anyhow::Result<Option<Self>> {
        let hint = "choose another with --hands-dir, or run without hands: --hands false";
        let made = std::fs::create_dir_all(hands_dir).and_then(|()| {
            let above = hands_dir.canonicalize()?.join(FOLDER);
            make(&above, 0o711, None)?;
            let dir = above.join(host);
            make(&dir, 0o711, None)?;
            make(&dir.join("data"), 0o700, uid)?;
            make(&dir.join("sockets"), 0o711, uid)?;
            Ok(dir)
        });
        let dir = made.hint(Code::Data, format!("make the folder of the sandboxes {}", hands_dir.display()), hint)?;
        if uid.is_some() && !dir.ancestors().all(is_passable) {
            warn!("sandboxes have no network: a folder above that of the sandboxes cannot be passed by other users");
            return Ok(None);
        }
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Ok(Some(WayOut {
            dir,
            uid,
            link: Arc::new(Link { asks: sender, private_addresses, registries }),
            asks: Arc::new(Mutex::new(receiver)),
        }))
    }

    pub fn sockets(&self) -> PathBuf {
        self.dir.join("sockets")
    }

    /// What the api tells policies to.
    pub fn link(&self) -> Arc<dyn api::egress::Egress> {
        self.link.clone()
    }

    /// `caller` is the hand worker's user, where it has one of its own.
    pub fn child(self, caller: Option<u32>, keys: VaultKeys) -> Child {
        let mut args: Vec<std::ffi::OsString> = vec!["worker".into(), "egress".into()];
        args.extend(["--dir".into(), self.dir.join("data").into_os_string()]);
        args.extend(["--sockets".into(), self.sockets().into_os_string()]);
        for address in &self.link.private_addresses {
            args.extend(["--private-address".into(), address.into()]);
        }
        if let Some(caller) = caller {
            args.extend(["--caller-uid".into(), caller.to_string().into()]);
        }
        args.extend(keys.args);
        let asks = self.asks;
        let serve = move |stream| tokio::spawn(pass_on(Arc::clone(&asks), keys.told.clone(), stream));
        // By this name it can be started by a user who could not walk to where it lies.
        let program = "/proc/self/exe".into();
        Child { name: "egress", program, args, uid: self.uid, serve: Box::new(serve) }
    }
}

fn is_passable(dir: &Path) -> bool {
    dir.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}

/// Only by its umask could the folder come out closed, so the mode is set once more.
fn make(dir: &Path, mode: u32, uid: Option<u32>) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => std::fs::set_permissions(dir, Permissions::from_mode(mode))?,
    }
    uid.map_or(Ok(()), |uid| std::os::unix::fs::chown(dir, Some(uid), Some(uid)))
}

struct Link {
    asks: mpsc::Sender<Ask>,
    /// `HOST:PORT`s that the operator lists.
    private_addresses: Vec<String>,
    registries: Registries,
}

#[async_trait]
impl api::egress::Egress for Link {
    async fn ask(&self, request: Request) -> io::Result<Reply> {
        let (sender, reply) = oneshot::channel();
        let asked = async {
            self.asks.send((request, sender)).await.map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
            // Dropped where egress died over it. What it was is asked for again by whoever wanted it.
            reply.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))
        };
        tokio::time::timeout(ANSWER_WITHIN, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    fn may_go_unencrypted(&self, authority: &str) -> bool {
        self.private_addresses.iter().any(|listed| listed == authority)
    }

    fn registries(&self) -> Registries {
        self.registries.clone()
    }
}

/// Requests to one life of egress, one at a time.
async fn pass_on(asks: Arc<Mutex<mpsc::Receiver<Ask>>>, told: Option<Told>, stream: UnixStream) {
    let (read, mut write) = stream.into_split();
    if let Some(told) = told {
        let mut line = Zeroizing::new(serde_json::to_vec(&told).expect("keys are strings"));
        line.push(b'\n');
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
    let mut lines = BufReader::new(read).lines();
    let mut asks = asks.lock().await;
    while let Some((request, reply)) = asks.recv().await {
        if reply.is_closed() {
            continue;
        }
        let mut line = serde_json::to_vec(&request).expect("a request has string keys only");
        line.push(b'\n');
        let answered = match write.write_all(&line).await {
            Ok(()) => lines.next_line().await,
            Err(error) => Err(error),
        };
        match answered.ok().flatten().and_then(|line| serde_json::from_str(&line).ok()) {
            // Whoever asked may have given up.
            Some(answer) => drop(reply.send(answer)),
            None => return,
        }
    }
}
