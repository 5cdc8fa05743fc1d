//! Workers: which workflows and activities run on which queue, with which limits. Assembly only.

pub mod brain;
pub mod deployment;
pub mod hands;
mod thread;

pub use thread::{Error, WorkerThread};
