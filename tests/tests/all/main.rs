//! All black-box tests, one binary. Every scenario about sessions runs on both engines.

mod arrows;
mod attacks;
mod bad_inputs;
mod connections;
mod crash;
mod data;
mod egress;
mod endings;
mod first_harness;
mod flat;
mod forks;
mod hand_kills;
mod harnesses;
mod kills;
mod mcp;
mod parking;
mod repositories;
mod rollouts;
mod session;
mod traces;
mod trials;
mod turns;
mod users;
mod whatif;
