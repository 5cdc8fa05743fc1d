//! `steadyhand`: the one binary. Parses, assembles the other crates, prints, and says why something failed.

mod args;
mod ask;
mod backup;
mod bundle;
mod client;
mod commands;
mod config;
mod connect;
mod data_dir;
mod document;
mod env_vars;
mod error;
mod fault;
mod feed;
mod forward;
mod grpc;
mod hand_worker;
mod hands_here;
mod harden;
mod launch;
mod live;
mod node;
mod offer;
mod output;
mod presets;
mod progress;
mod provider;
mod registries;
mod remote;
mod render;
mod service;
mod sessions_check;
mod sse;
mod supervisor;
mod table;
mod telemetry;
mod vault_keys;
mod way_out;

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
