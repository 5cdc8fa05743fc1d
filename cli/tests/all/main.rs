//! The program as people and scripts meet it: exit code, stdout, stderr.

mod backup;
mod bad_input;
mod disk;
mod documents;
mod fake;
mod feed;
mod hands;
mod help;
mod program;
mod refused;
mod run;
mod serve;
mod stranger;
mod terminal;
mod traces;
mod unreachable;
mod upgrade;
mod usage;
mod vault;
mod verify;
