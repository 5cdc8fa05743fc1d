//! Hands as their callers see them: real sandboxes, real shims, one binary.
//!
//! As root every hand gets a uid of its own and cgroups; as a plain user the same tests run without both.

mod bubblewrap;
mod crash;
mod disk;
mod fixture;
mod isolation;
mod launcher;
mod limits;
mod protocol;
mod resources;
mod shelf;
mod shell;
mod takeover;
mod walls;
