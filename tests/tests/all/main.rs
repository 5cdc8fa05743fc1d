//! All black-box tests, one binary. Every scenario about sessions runs on both engines.

mod arrows;
mod canary;
mod connections;
mod crash;
mod data;
mod egress;
mod endings;
mod first_harness;
mod flat;
mod forks;
mod harnesses;
mod kills;
mod mcp;
mod mcp_oauth;
mod packages;
mod repositories;
mod rollouts;
mod session;
mod traces;
mod turns;
mod users;
mod web;
mod whatif;
