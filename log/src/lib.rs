//! The session log as anyone reads it. History is the truth; this crate turns it into session events.
//!
//! * [`history`], [`client`]: pages of a run's history, from any Temporal server.
//! * [`projection`]: history events of one run in, commits with everything they name out.
//! * [`segment`]: closed runs as immutable blobs; [`manifest`]: which there are.
//! * [`session_log`]: both together: positional slices of the whole life of a session.
//! * [`follow`]: follows a session and tells what happened, in order.
//! * [`rollout`], [`trial`]: what the history of a rollout tells, and that of a trial.
//! * [`claim`]: payloads by reference, where content was not enough.
//! * [`blobs`]: content by reference, and its way back.
//! * [`recent`]: as many decoded logs as fit into memory.
//! * [`references`]: which blobs a log needs.
//!
//! Nothing here starts or signals a workflow, and nothing depends on a harness.

pub mod blobs;
pub mod claim;
pub mod client;
pub mod follow;
pub mod history;
pub mod manifest;
mod payload;
pub mod projection;
pub mod recent;
pub mod references;
pub mod rollout;
pub mod segment;
pub mod session_log;
#[cfg(test)]
mod testing;
pub mod trial;

pub use claim::ClaimCheck;
pub use client::TemporalReader;
pub use domain::Committed;
pub use follow::Follower;
pub use history::HistoryReader;
pub use projection::Projection;
pub use rollout::RolloutLog;
pub use session_log::SessionLog;
