//! The world behind the workflows: what a session does outside its own log. Implements `workflows::contract`.
//!
//! * [`brain`]: decisions, model requests, sealing: queue `brain`.
//! * [`hands`]: sandboxes: queues `hands` and `hand-host-<id>`.
//! * [`model`]: model backends.
//!
//! Activities repeat when a worker is lost, so each one is written to be run again.

pub mod answer;
mod aside;
pub mod beat;
pub mod brain;
mod call_model;
mod decide;
pub mod deltas;
mod gate;
pub mod hands;
pub mod harnesses;
mod judge;
pub mod log_cache;
pub mod model;
mod read_log;
mod turn;
mod url_sources;
mod whatif;

pub use brain::BrainActivities;
pub use deltas::Deltas;
pub use hands::HandsActivities;
