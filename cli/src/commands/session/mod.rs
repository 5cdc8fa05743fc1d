//! `steadyhand session`: what sessions there are, what happened in them, and what to tell them.

mod confirm;
mod end;
mod events;
mod fork;
mod list;
mod send;
mod show;
mod strategy;
mod swap;
mod watch;

pub use self::{confirm::answer as confirm_answer, send::user_message};

use crate::service::Service;
use clap::{Args, Subcommand};

/// Look at sessions and talk to them
#[derive(Debug, Args)]
pub struct Session {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::List),
    Show(show::Show),
    Events(events::Events),
    Watch(watch::Watch),
    Send(send::Send),
    Interrupt(send::Interrupt),
    Confirm(confirm::Confirm),
    Diff(show::Diff),
    Swap(swap::Swap),
    Strategy(strategy::Strategy),
    Fork(fork::Fork),
    Archive(end::Archive),
    Delete(end::Delete),
}

impl Session {
    pub async fn run(self) -> anyhow::Result<()> {
        let service = self.service;
        match self.command {
            Command::Watch(watch) => watch.run(service).await,
            Command::List(list) => list.run(&service.client()?).await,
            Command::Show(show) => show.run(&service.client()?).await,
            Command::Events(events) => events.run(&service.client()?).await,
            Command::Send(send) => send.run(&service.client()?).await,
            Command::Interrupt(interrupt) => interrupt.run(&service.client()?).await,
            Command::Confirm(confirm) => confirm.run(&service.client()?).await,
            Command::Fork(fork) => fork.run(&service.client()?).await,
            Command::Strategy(strategy) => strategy.run(&service.client()?).await,
            Command::Swap(swap) => swap.run(&service.client()?).await,
            Command::Diff(diff) => diff.run(&service.client()?).await,
            Command::Archive(archive) => archive.run(&service.client()?).await,
            Command::Delete(delete) => delete.run(&service.client()?).await,
        }
    }
}
