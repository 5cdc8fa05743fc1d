//! Limits that a process puts on itself before anything of a sandbox runs in it; they hold for all that it starts.

use crate::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

#[derive(thiserror::Error, Debug)]
#[error("set the limit {0:?}")]
pub struct Error(Resource, #[source] io::Error);

pub fn restrict() -> Result<(), Error> {
    for (resource, limit) in [
        (Resource::Nofile, limits::OPEN_FILES),
        (Resource::Core, 0),
        (Resource::Fsize, limits::FILE_SIZE_BYTES),
        (Resource::Memlock, limits::LOCKED_MEMORY_BYTES),
    ] {
        // What is lower already cannot and need not be raised.
        let limit = getrlimit(resource).maximum.map_or(limit, |have| have.min(limit));
        let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
        setrlimit(resource, limit).map_err(|e| Error(resource, e.into()))?;
    }
    Ok(())
}
