//! The HTTP API, as the official SDKs speak it: a library that keeps nothing of its own between requests but an
//! [`App`], reads no environment and prints nothing.
//!
//! One file a resource, under `resources/`, and one line a resource in [`router::RESOURCES`]. Everything that all
//! of them need sits beside: the errors and their envelope, keys, bodies, queries, pages.

pub mod app;
pub mod auth;
pub mod body;
pub mod deltas;
mod drain;
pub mod egress;
pub mod error;
pub mod gateway;
pub mod hands;
pub mod ids;
pub mod listing;
mod lists;
pub mod media;
pub mod metadata;
mod numbers;
pub mod openapi;
pub mod operation;
pub mod page;
pub mod query;
mod reading;
pub mod references;
pub mod resources;
pub mod router;
pub mod serve;
mod shorthand;
mod sse;
pub mod sweep;
pub mod tenants;
#[cfg(test)]
mod tests;
pub mod time;
pub mod upkeep;
pub mod verify;

pub use app::{App, Engine, Options};
pub use error::{ApiError, Result};
pub use resources::sessions::catch_up::catch_up;
pub use router::router;
pub use serve::{Patience, serve};
