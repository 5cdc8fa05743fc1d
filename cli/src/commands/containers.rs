//! `steadyhand worker containers`: the keeper of the containers that sandboxes are.

use super::worker::hand_program_beside;
use crate::{
    error::{Code, Hint as _, failed},
    provider::ProviderArgs,
};
use clap::Args;
use containers::{Keeper, Options};
use std::{io, os::fd::AsFd as _, path::PathBuf};
use tokio::{
    io::AsyncReadExt as _,
    net::UnixStream,
    signal::unix::{SignalKind, signal},
};

#[derive(Debug, Args)]
pub struct Containers {
    /// Where it listens, for whoever makes sandboxes
    #[arg(long, value_name = "SOCKET")]
    listen: PathBuf,
    /// Folder of the sandboxes
    #[arg(long, env = crate::env_vars::HANDS_DIR)]
    hands_dir: PathBuf,
    /// The program that runs inside sandboxes [default: beside this one]
    #[arg(long)]
    hand_program: Option<PathBuf>,
    #[command(flatten)]
    provider: ProviderArgs,
    /// End with the standard input
    #[arg(long, hide = true)]
    inherited: bool,
}

impl Containers {
    pub async fn run(self) -> anyhow::Result<()> {
        let hint = "give --hand-provider container and --container-image IMAGE";
        let containers = self.provider.containers()?.ok_or_else(|| failed(Code::Usage, "no container image", hint))?;
        let program = self.hand_program.map_or_else(hand_program_beside, Ok)?;
        let options = Options {
            socket: self.listen.clone(),
            hands_dir: self.hands_dir,
            runtime_socket: containers.socket,
            image: containers.image,
            program,
        };
        let hint = "the folder of the sandboxes must be there, and a unix socket's path may have about 100 characters";
        let keeper = Keeper::open(options).hint(Code::Data, format!("listen on {}", self.listen.display()), hint)?;
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let parent_gone = async {
            if !self.inherited {
                return std::future::pending().await;
            }
            // Nothing is ever said there.
            parent()?.read_to_end(&mut Vec::new()).await.map(drop)
        };
        tokio::select! {
            () = keeper.run() => {}
            ended = parent_gone => ended?,
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    }
}

/// The socket that the service gave us as our standard input.
fn parent() -> io::Result<UnixStream> {
    let parent = std::os::unix::net::UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    parent.set_nonblocking(true)?;
    UnixStream::from_std(parent)
}
