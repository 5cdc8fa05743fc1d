//! The one place that talks to a container runtime, Docker or Podman: starts the containers of hands, says which walls they
//! have, and takes away those that nobody needs.
//!
//! Whoever may use a runtime's socket has every right of the machine. So this is a process of its own, the keeper, that
//! takes no word about a container from anybody: it is told which hand, and reads the rest in the plan that lies in that
//! hand's folder ([`hand::keeper`]). It never looks into a workspace, holds no secret, and no sandbox ever has a way to
//! it or to the runtime.

mod body;
mod keeper;
mod layers;
mod runtime;

pub use self::{
    keeper::{Keeper, Options},
    runtime::{Error, Runtime},
};
