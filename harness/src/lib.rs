//! The brain, as pure code: what a session remembers, how a decision is made, and the harnesses that
//! make it. No Temporal, no IO, no clock, no randomness: everything comes in as a value.
//!
//! * [`state`]: `SessionState`, a fold over commits.
//! * [`intake`]: what arrived since the last decision, as digests.
//! * [`frame`]: orders what arrived and makes the events that are the same for every harness.
//! * [`view`], [`registry`]: what a harness sees and returns, and which ones there are.
//! * [`kit`]: a session for tests, without engine, model or clock.
//! * [`context`]: strategies that turn a slice of the log into a model request.
//! * [`ablate`]: what a workaround changes on recorded sessions.
//! * [`own_log`]: the tool by which a model reads its own log.
//! * [`replay`], [`rollout`]: what another harness makes of the record, and how it comes to be used.
//! * [`whatif`]: a recorded session gone through again with something else about it.

pub mod ablate;
pub mod context;
pub mod frame;
pub mod intake;
pub mod kit;
mod loop_v1;
mod loop_v2;
pub mod marks;
pub mod own_log;
mod plan_act_v1;
pub mod registry;
pub mod replay;
mod retry_v1;
pub mod rollout;
pub mod state;
pub mod view;
pub mod wasm;
pub mod whatif;

pub use frame::decide;
pub use intake::{Closing, Intake, Outcome, Waiting};
pub use registry::{HARNESSES, Harness};
pub use state::SessionState;
pub use view::{Decision, View};
