//! What runs around and inside a sandbox: the shim with its journal, init, the tools, and the sandbox itself.
//!
//! Two kinds of callers. The binary `steadyhand-hand` takes its roles from [`launch`], [`launcher`], [`shim`], [`sandbox`]
//! and [`init`]; everyone else uses [`hands`] or [`local`] to make hands, [`client`] or [`protocol`] and [`wire`] to talk to them,
//! [`tools::TOOLS`] to tell the model what they can do, and [`probe::probe`] to learn what this machine allows.
//! Nothing here knows of sessions, models or Temporal, reads the environment, or interprets what a sandbox made.

pub mod client;
mod descriptor;
mod folder;
pub mod hands;
mod image;
pub mod init;
mod journal;
pub mod keeper;
pub mod launch;
pub mod launcher;
pub mod limits;
mod link;
pub mod local;
pub mod mcp;
pub mod probe;
pub mod protocol;
mod removal;
pub mod sandbox;
pub mod shelf;
pub mod shim;
mod shown;
mod signals;
mod socket;
pub mod spec;
pub mod tools;
pub mod wire;

/// An error with its causes in one line, for a reader in another process.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
