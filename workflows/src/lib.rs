//! Workflows: deterministic code that the engine replays. It sees time, chance and the world through its
//! context alone; everything that decides is in `harness`, everything that acts is behind [`contract`].

pub mod contract;
pub mod patches;
pub mod rollout;
pub mod session;
pub mod trial;

pub use rollout::RolloutWorkflow;
pub use session::SessionWorkflow;
pub use trial::TrialWorkflow;
