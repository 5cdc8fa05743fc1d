//! The engine under the real Rust SDK: worker and client in this process, every RPC through `Engine::call`.

mod conformance;
mod control;
mod deployments;
mod families;
mod fixture;
mod fleet;
mod keeping;
mod kin;
mod limits;
mod lists;
mod raw;
mod replay;
mod restart;
mod serving;
mod workflows;
