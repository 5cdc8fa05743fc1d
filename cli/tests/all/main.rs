//! The program as people and scripts meet it: exit code, stdout, stderr.

mod documents;
mod fake;
mod feed;
mod help;
mod program;
mod refused;
mod run;
mod serve;
mod terminal;
mod unreachable;
mod usage;
mod verify;
