//! One file a command.

pub mod serve;
pub mod worker;

use crate::args::{Args, Command};

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve(serve) => serve.run(),
        Command::Worker(worker) => worker.run(),
    }
}
