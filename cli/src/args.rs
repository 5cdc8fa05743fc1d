//! The command line. One file a command holds its arguments; this one lists them.

use crate::commands;
use clap::{Parser, Subcommand};

/// Run long agent tasks in durable sessions
#[derive(Debug, Parser)]
#[command(name = "steadyhand", version, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(commands::serve::Serve),
    Worker(commands::worker::Worker),
}
