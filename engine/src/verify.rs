//! Proves that what the store holds fits together: every history has the right shape, every state agrees with its
//! history, and every index has exactly the entries that the states call for.

use crate::host::{Error, Host};

/// What an examination found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub runs: u64,
    pub open_runs: u64,
    pub history_events: u64,
    /// What is wrong, each with the run that it concerns. Empty: all is well.
    pub problems: Vec<String>,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

pub fn verify(host: &Host) -> Result<Report, Error> {
    let mut report = Report::default();
    host.examine(&mut report)?;
    Ok(report)
}
