//! `steadyhand`: the one binary. Parses, assembles the other crates, prints, and says why something failed.

mod args;
mod commands;
mod config;
mod connect;
mod data_dir;
mod env_vars;
mod error;
mod fault;
mod grpc;
mod node;
mod output;
mod remote;
mod supervisor;
mod telemetry;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = args::Args::parse();
    match fault::arm().and_then(|()| commands::run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = error::Failed::from(error);
            output::error(&error);
            error.code.into()
        }
    }
}
