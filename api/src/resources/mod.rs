//! The resources of the API, one file or folder each: wire types, rows, handlers.

pub mod agents;
pub mod api_keys;
pub mod deleted;
pub mod environments;
pub mod events;
pub mod files;
pub mod hands;
pub mod harnesses;
pub mod inspect;
pub mod rollouts;
pub mod sessions;
pub mod stream;
pub mod threads;
pub mod trials;
pub mod unbuilt;
pub mod vaults;
pub mod workspaces;
