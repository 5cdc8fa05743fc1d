//! The hand worker as `serve` has it. Where the service is root, it is a user of its own that has no right on the machine,
//! and a launcher beside it, with every right and no connection to anything, makes sandboxes for it.

use crate::{
    commands::worker::hand_program_beside,
    error::{Code, failed},
    node::{Node, Peer, Role},
    provider::Containers,
    supervisor::Child,
    telemetry::Collector,
};
use hand::{
    launcher, limits,
    spec::{Mode, Walls},
};
use std::{ffi::OsString, path::PathBuf};
use tokio::{net::UnixStream, task::JoinHandle};
use tracing::{info, warn};

/// Users that a service that is root gives to its children; none where it is not.
#[derive(Clone, Copy, Debug)]
pub struct Users {
    pub worker: Option<u32>,
    pub egress: Option<u32>,
}

impl Users {
    /// Of those that were asked for, or the defaults.
    pub fn new(worker: Option<u32>, egress: Option<u32>) -> anyhow::Result<Self> {
        let worker = worker.unwrap_or(limits::WORKER_UID);
        let egress = egress.unwrap_or(limits::EGRESS_UID);
        let is_free = |uid: &u32| *uid != 0 && !limits::UIDS.contains(uid);
        if worker == egress || ![worker, egress].iter().all(is_free) {
            let hint = format!("two numbers but 0 and {}-{}", limits::UIDS.start(), limits::UIDS.end());
            return Err(failed(Code::Usage, "the hand worker and egress must be users of their own", hint));
        }
        let is_root = rustix::process::geteuid().is_root();
        Ok(Users { worker: is_root.then_some(worker), egress: is_root.then_some(egress) })
    }
}

pub struct HandWorker {
    pub dir: PathBuf,
    pub mode: Mode,
    /// None: sandboxes are bubblewrap's.
    pub containers: Option<Containers>,
    /// Name of this machine in task queues.
    pub host: String,
    pub namespace: String,
    pub ways_out: Option<PathBuf>,
    pub collector: Option<Collector>,
    pub uid: Option<u32>,
}

impl HandWorker {
    /// What is to be started, in order.
    pub fn children(self, node: Node) -> anyhow::Result<Vec<Child>> {
        match self.mode {
            Mode::Strict => info!(mode = self.mode.name(), "sandboxes have every layer or are not made"),
            Mode::Dev => warn!(
                mode = self.mode.name(),
                "sandboxes are weaker than they could be: layers that are missing are left out"
            ),
        }
        let mut children = Vec::new();
        let walls = match &self.containers {
            Some(containers) => {
                info!(image = containers.image, "sandboxes are containers");
                let (keeper, socket) = self.keeper(containers)?;
                children.push(keeper);
                Walls::Container { keeper: socket }
            }
            None => Walls::Bubblewrap,
        };
        let mut args: Vec<OsString> = ["worker", "hand", "--inherited", "--node", "-"].map(Into::into).into();
        args.extend(["--host".into(), self.host.clone().into()]);
        args.extend(["--namespace".into(), self.namespace.clone().into()]);
        args.extend(["--hands-dir".into(), self.dir.clone().into_os_string()]);
        if let Some(ways_out) = self.ways_out.clone() {
            args.extend(["--ways-out".into(), ways_out.into_os_string()]);
        }
        if let Some(collector) = &self.collector {
            args.extend(["--otlp-endpoint".into(), collector.url().into()]);
        }
        if let Some(Containers { image, .. }) = &self.containers {
            args.extend(["--container-image".into(), image.into()]);
        }
        match self.uid {
            Some(uid) => {
                let (launcher, socket) = self.launcher(uid, walls)?;
                children.push(launcher);
                args.extend(["--launcher".into(), socket.into_os_string()]);
            }
            None => {
                args.extend(["--hand-program".into(), hand_program_beside()?.into_os_string()]);
                args.extend(["--hands-mode".into(), self.mode.name().into()]);
                if let Walls::Container { keeper } = walls {
                    args.extend(["--keeper".into(), keeper.into_os_string()]);
                }
            }
        }
        let peer = Peer { role: Role::Hand, host: Some(self.host) };
        let serve = move |stream| tokio::spawn(node.clone().serve(stream, Some(peer.clone())));
        // By this name it can be started by a user who could not walk to where it lies.
        let program = "/proc/self/exe".into();
        children.push(Child { name: "hand", program, args, uid: self.uid, serve: Box::new(serve) });
        Ok(children)
    }

    fn hands_dir(&self) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(&self.dir)?;
        Ok(self.dir.canonicalize()?)
    }

    /// The one process that may use the runtime's socket.
    fn keeper(&self, containers: &Containers) -> anyhow::Result<(Child, PathBuf)> {
        let hands_dir = self.hands_dir()?;
        let socket = hands_dir.join(format!(".keeper-{}", self.host));
        let mut args: Vec<OsString> = ["worker", "containers", "--inherited"].map(Into::into).into();
        args.extend(["--listen".into(), socket.clone().into_os_string()]);
        args.extend(["--hands-dir".into(), hands_dir.into_os_string()]);
        args.extend(["--hand-program".into(), hand_program_beside()?.into_os_string()]);
        args.extend(["--hand-provider".into(), "container".into()]);
        args.extend(["--container-image".into(), containers.image.clone().into()]);
        args.extend(["--container-socket".into(), containers.socket.clone().into_os_string()]);
        let program = "/proc/self/exe".into();
        Ok((Child { name: "containers", program, args, uid: None, serve: Box::new(held) }, socket))
    }

    /// It ends with its socket, on which nothing is ever said.
    fn launcher(&self, uid: u32, walls: Walls) -> anyhow::Result<(Child, PathBuf)> {
        let hands_dir = self.hands_dir()?;
        let socket = hands_dir.join(format!(".launcher-{}", self.host));
        let options = launcher::Options {
            socket: socket.clone(),
            hands_dir,
            client: uid,
            mode: self.mode,
            walls,
            ways_out: self.ways_out.clone(),
        };
        let args = vec!["launcher".into(), serde_json::to_string(&options)?.into()];
        let program = hand_program_beside()?;
        Ok((Child { name: "launcher", program, args, uid: None, serve: Box::new(held) }, socket))
    }
}

/// A child that is told nothing, and ends when this does.
fn held(stream: UnixStream) -> JoinHandle<()> {
    tokio::spawn(async move {
        let _held = stream;
        std::future::pending().await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_child_shares_a_user() {
        for (worker, egress) in
            [(Some(0), None), (None, Some(0)), (Some(60_999), None), (Some(61_000), None), (Some(7), Some(7))]
        {
            assert!(Users::new(worker, egress).is_err(), "{worker:?} {egress:?}");
        }
        let users = Users::new(None, Some(7)).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!((users.worker, users.egress), (is_root.then_some(60_998), is_root.then_some(7)));
    }
}
