//! What hands of these tests are made by: bubblewrap. The same tests run on containers (`containers/tests`), which have a
//! file like this one.

use hand::spec::Walls;
use std::path::{Path, PathBuf};

/// Nothing has to be there for it.
pub struct Made;

impl Made {
    pub fn new(_hands_dir: &Path) -> Self {
        Self
    }

    /// Of a sandbox, as the host knows it: what ends with it is the sandbox.
    pub fn first_process(&self, shim: u32) -> u32 {
        let children = std::fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
        children.trim().parse().unwrap()
    }

    pub fn walls(&self) -> Walls {
        Walls::Bubblewrap
    }
}

pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_steadyhand-hand").into()
}
