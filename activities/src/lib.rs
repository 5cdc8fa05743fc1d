//! The world behind the workflows: what a session does outside its own log.

pub mod model;
