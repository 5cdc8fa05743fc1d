//! The engine under the real Rust SDK: worker and client in this process, every RPC through `Engine::call`.

mod fixture;
mod lifecycle;
mod workflows;
