//! All black-box tests, one binary. Every scenario about sessions runs on both engines.

mod arrows;
mod crash;
mod harnesses;
mod kills;
mod session;
mod turns;
