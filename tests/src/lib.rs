//! What the black-box tests and `bench` share: engines to run on, services to start, sessions to watch.

pub mod afterwards;
pub mod bed;
pub mod client;
pub mod collector;
pub mod counting;
pub mod crowd;
pub mod engines;
pub mod gate;
pub mod git;
pub mod ground;
pub mod hands;
pub mod hold;
pub mod long;
pub mod mcp;
pub mod origin;
pub mod podman;
pub mod process;
pub mod registry;
pub mod service;
pub mod shims;
pub mod transcript;
