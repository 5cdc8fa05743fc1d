//! Egress with real sandboxes, real git and servers on loopback. Only names are made up.

mod attacks;
mod control;
mod fixture;
mod git;
mod mcp;
mod network;
mod packages;
mod servers;
mod web;
