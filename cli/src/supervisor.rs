//! Children of `serve`: started with an empty environment and a socket of their own, started again when they die,
//! gone when the service is.

use crate::env_vars;
use domain::fault;
use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{net::UnixStream, process::Command, sync::watch, task::JoinHandle};
use tracing::{info, warn};

/// Pause before a child that died is started again: grows while it dies young.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A child that lived this long died of something new.
const GROWN_UP: Duration = Duration::from_secs(10);
/// How long a child may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(5);

pub struct Child {
    /// As logs call it.
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Another user to run it as, where that can be chosen.
    pub uid: Option<u32>,
    /// Serves our end of its socket, as often as it is started; the socket ends with the task.
    pub serve: Box<dyn Fn(UnixStream) -> JoinHandle<()> + Send + Sync>,
}

/// Keeps one child running until `closing` turns true; `up` turns true when it was first started.
pub async fn supervise(child: Child, mut closing: watch::Receiver<bool>, up: watch::Sender<bool>) {
    let mut pause = PAUSE_FIRST;
    while !*closing.borrow() {
        let born = Instant::now();
        match run_once(&child, &mut closing, &up).await {
            Ok(ended) if *closing.borrow() => info!(role = child.name, %ended, "worker ended"),
            Ok(ended) => warn!(role = child.name, %ended, "worker died and is started again"),
            Err(error) => {
                warn!(role = child.name, error = &error as &dyn std::error::Error, "worker not started")
            }
        }
        if born.elapsed() >= GROWN_UP {
            pause = PAUSE_FIRST;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            () = closed(&mut closing) => {}
        }
    }
}

/// Until `closing` turns true, or nobody is left who could turn it.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn run_once(
    child: &Child,
    closing: &mut watch::Receiver<bool>,
    up: &watch::Sender<bool>,
) -> std::io::Result<String> {
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = theirs.into_std()?;
    theirs.set_nonblocking(false)?;
    let mut command = Command::new(&child.program);
    command.args(&child.args).env_clear().stdin(Stdio::from(OwnedFd::from(theirs))).kill_on_drop(true);
    // A moment that a test waits for may be a child's.
    command.envs(fault::armed().map(|fault| (env_vars::FAULT, fault.to_string())));
    if let Some(uid) = child.uid {
        command.uid(uid).gid(uid).current_dir("/");
    }
    let mut process = command.spawn()?;
    info!(role = child.name, pid = process.id(), "worker started");
    let served = (child.serve)(ours);
    up.send_replace(true);
    let ended = tokio::select! {
        ended = process.wait() => ended?.to_string(),
        () = closed(closing) => {
            // The end of its socket is what it listens for.
            served.abort();
            match tokio::time::timeout(GRACE, process.wait()).await {
                Ok(ended) => ended?.to_string(),
                Err(_) => {
                    process.kill().await?;
                    "killed: it did not end in time".to_owned()
                }
            }
        }
    };
    served.abort();
    Ok(ended)
}
