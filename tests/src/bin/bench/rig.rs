//! A node, a worker for its steps, and a client, as three processes on one data folder.

use crate::{
    process::{self, Process},
    roles,
};
use std::{path::Path, process::Command, time::Duration};
use tempfile::TempDir;
use temporalio_client::Client;

pub struct Rig {
    pub client: Client,
    pub node: Process,
    pub steps: Process,
    dir: TempDir,
}

impl Rig {
    /// On an empty folder.
    pub async fn new() -> anyhow::Result<Self> {
        Self::on(tempfile::tempdir()?).await
    }

    /// On what another one left.
    pub async fn on(dir: TempDir) -> anyhow::Result<Self> {
        let node = child(roles::NODE, &dir.path().display().to_string())?;
        let addr = node.line(roles::LISTENING).await?;
        let steps = child(roles::STEPS, &addr)?;
        let client = roles::connect(&addr).await?;
        steps.line(roles::READY).await?;
        Ok(Rig { client, node, steps, dir })
    }

    /// `kill -9` of both. Gives the folder.
    pub fn kill(mut self) -> anyhow::Result<TempDir> {
        self.node.kill()?;
        self.steps.kill()?;
        Ok(self.dir)
    }

    /// Ends both in good order. Gives the folder.
    pub async fn stop(self) -> anyhow::Result<TempDir> {
        self.steps.stop().await?;
        self.node.stop().await?;
        Ok(self.dir)
    }

    /// Processor time that both have used so far.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        Ok(process::cpu(self.node.id())? + process::cpu(self.steps.id())?)
    }

    /// Memory of both, in KiB.
    pub fn pss_kib(&self) -> anyhow::Result<u64> {
        Ok(process::pss_kib(self.node.id())? + process::pss_kib(self.steps.id())?)
    }
}

fn child(role: &str, place: &str) -> anyhow::Result<Process> {
    let bench: &Path = &std::env::current_exe()?;
    Process::start(Command::new(bench).args([roles::ARGUMENT, role, place]))
}
