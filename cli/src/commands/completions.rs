//! `steadyhand completions`: a script for the shell.

use crate::{args, output};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

/// Print a script that completes commands in a shell
///
/// For bash: `source <(steadyhand completions bash)`.
#[derive(Debug, Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::Args::command(), "steadyhand", &mut script);
        output::bytes(&script);
        Ok(())
    }
}
