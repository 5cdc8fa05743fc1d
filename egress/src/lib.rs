//! The one place with secrets: the vault, and the proxy that uses what is in it on behalf of sandboxes.
//!
//! A process of its own. Each session has one unix socket into its sandbox, and the socket is the session's identity:
//! there is no token to steal. A destination is reached if the session's policy names it and every address of it is
//! public or listed by the operator; the addresses that were checked are the ones that are dialled. Anything unclear is
//! denied. It never gives a secret back, logs no body, path or header, and knows of no model and no engine.

pub mod address;
pub mod audit;
pub mod calls;
pub mod canary;
pub mod control;
mod idle;
mod knock;
mod own;
mod policy;
pub mod proxy;
pub mod resolve;
pub mod sessions;
pub mod vault;
