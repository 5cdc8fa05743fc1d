//! A Temporal-compatible server for one machine, embedded in a process.
//!
//! [`Engine::call`] answers one RPC; everything else is an adapter of it ([`serve`]). It implements a published subset of
//! the Temporal API, answers `UNIMPLEMENTED` for the rest, and advertises only what it has.
//!
//! ```text
//! serve ─► rpc (wire <-> inputs) ─► host (one run at a time) ─► core (pure rules)
//!                │                    │
//!                └─► dispatch ◄───────┴─► store (atomic batches, group commit)
//! ```

mod backup;
pub mod clock;
pub mod core;
mod deployments;
mod dispatch;
mod engine;
mod format;
mod host;
mod options;
mod rpc;
pub mod serve;
#[cfg(test)]
mod simulation;
mod store;
pub mod time;
mod verify;

pub use backup::Moment;
pub use engine::{Engine, Error};
pub use options::{Limits, Options, Store};
pub use verify::Report;

pub(crate) use temporalio_protos::temporal::api as pb;
