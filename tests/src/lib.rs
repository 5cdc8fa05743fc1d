//! What the black-box tests and `bench` share: engines to run on, services to start, sessions to watch.

pub mod bed;
pub mod engines;
pub mod hands;
