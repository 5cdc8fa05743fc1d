//! An index for pip, a registry for npm and a mirror for apt, as the real tools ask for them.

use crate::process::Process;
use anyhow::{Context as _, ensure};
use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One that listens; it ends when this is dropped.
pub struct Registry {
    pub addr: SocketAddr,
    _process: Process,
    /// A line a request.
    log: PathBuf,
}

impl Registry {
    pub async fn start(dir: &Path) -> anyhow::Result<Self> {
        let log = dir.join("registry.log");
        let mut command = Command::new("python3");
        command.args(["-c", SERVER]).arg(&log).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let (process, stdout) = Process::start("package registry", &mut command)?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout.context("its output is piped")?).read_line(&mut line)?;
            anyhow::Ok(line)
        });
        let line = line.await??;
        ensure!(!line.is_empty(), "the package registry does not start");
        Ok(Registry { addr: SocketAddr::new([127, 0, 0, 2].into(), line.trim().parse()?), _process: process, log })
    }

    /// As `--package-registries` takes it.
    pub fn registries(&self) -> Vec<String> {
        ["pip=http://{}/simple", "npm=http://{}", "apt=http://{}/debian"]
            .map(|registry| registry.replace("{}", &self.addr.to_string()))
            .into()
    }

    /// Paths that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).map_or_else(|_| Vec::new(), |text| text.lines().map(str::to_owned).collect())
    }
}

const SERVER: &str = include_str!("registry/server.py");
