//! The hand worker as `serve` has it. Where the service is root, it is a user of its own that has no right on the machine,
//! and a launcher beside it, with every right and no connection to anything, makes sandboxes for it.

use crate::{
    commands::worker::hand_program_beside,
    error::{Code, failed},
    node::{Node, Peer, Role},
    supervisor::Child,
    telemetry::Collector,
};
use hand::{launcher, limits, spec::Mode};
use std::{ffi::OsString, path::PathBuf};
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
        match self.uid {
            Some(uid) => {
                let (launcher, socket) = self.launcher(uid)?;
                children.push(launcher);
                args.extend(["--launcher".into(), socket.into_os_string()]);
            }
            None => {
                args.extend(["--hand-program".into(), hand_program_beside()?.into_os_string()]);
                args.extend(["--hands-mode".into(), self.mode.name().into()]);
            }
        }
        let peer = Peer { role: Role::Hand, host: Some(self.host) };
        let serve = move |stream| tokio::spawn(node.clone().serve(stream, Some(peer.clone())));
        // By this name it can be started by a user who could not walk to where it lies.
        let program = "/proc/self/exe".into();
        children.push(Child { name: "hand", program, args, uid: self.uid, serve: Box::new(serve) });
        Ok(children)
    }

    /// It ends with its socket, on which nothing is ever said.
    fn launcher(&self, uid: u32) -> anyhow::Result<(Child, PathBuf)> {
        std::fs::create_dir_all(&self.dir)?;
        let hands_dir = self.dir.canonicalize()?;
        let socket = hands_dir.join(format!(".launcher-{}", self.host));
        let options = launcher::Options {
            socket: socket.clone(),
            hands_dir,
            client: uid,
            mode: self.mode,
            ways_out: self.ways_out.clone(),
        };
        let args = vec!["launcher".into(), serde_json::to_string(&options)?.into()];
        let serve = |stream| {
            tokio::spawn(async move {
                let _held = stream;
                std::future::pending().await
            })
        };
        let program = hand_program_beside()?;
        Ok((Child { name: "launcher", program, args, uid: None, serve: Box::new(serve) }, socket))
    }
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
