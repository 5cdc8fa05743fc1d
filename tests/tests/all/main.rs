//! All black-box tests, one binary. Every scenario about sessions runs on both engines.

mod crash;
mod kills;
mod session;
mod turns;
