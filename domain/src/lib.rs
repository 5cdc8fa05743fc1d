//! Words and shapes that every part of Steadyhand shares: ids, events, commits, failures, limits.
//!
//! Nothing here does IO, reads a clock or awaits. What is serialized into workflow history is defined
//! in this crate, so a log written by any version can be read by any program that has these shapes.

pub mod agent;
pub mod commit;
pub mod committed;
pub mod content;
pub mod delta;
pub mod egress;
pub mod event;
pub mod failure;
pub mod fault;
pub mod held;
pub mod ids;
pub mod limits;
pub mod model;
pub mod outcome;
pub mod packages;
pub mod rollout;
#[cfg(feature = "schema")]
mod schema;
pub mod session;
pub mod summary;
pub mod time;
pub mod trial;
pub mod usage;

pub use commit::{Commit, PrivateEntry, Step, Take};
pub use committed::Committed;
pub use content::{Block, Content};
pub use event::{Event, EventBody};
pub use failure::{Failure, RetryClass};
pub use held::{HandName, Held};
pub use summary::{Status, Summary, TurnBegin};
pub use time::Time;
pub use usage::Usage;
