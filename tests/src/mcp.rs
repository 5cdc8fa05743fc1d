//! MCP servers that nobody here wrote: FastMCP, which lets in who shows its token, and one of the official SDK that speaks stdio.
//!
//! The python that has it comes from `STEADYHAND_MCP_PYTHON`, which `scripts/test` sets.

use crate::process::Process;
use anyhow::{Context as _, ensure};
use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub const PYTHON: &str = "STEADYHAND_MCP_PYTHON";

/// One that listens; it ends when this is dropped.
pub struct McpServer {
    pub addr: SocketAddr,
    _process: Process,
    /// A line a call of `count`, or a refresh.
    counter: PathBuf,
}

impl McpServer {
    /// At an address of its own, or at this one. Whoever comes has to show the token, if there is one.
    pub async fn start(dir: &Path, at: Option<SocketAddr>, token: Option<&str>) -> anyhow::Result<Self> {
        let port = at.map_or(0, |addr| addr.port());
        let counter = dir.join(format!("counter-{port}"));
        let mut command = python()?;
        command.args(["-c", SERVER, &port.to_string()]).arg(&counter).arg(token.unwrap_or_default());
        Self::begin(command, counter).await
    }

    /// Behind OAuth: the client `steadyhand` with its secret and the refresh token of [`Self::refreshes`]' first line.
    pub async fn start_oauth(dir: &Path) -> anyhow::Result<Self> {
        let counter = dir.join("refreshes");
        let mut command = python()?;
        command.args(["-c", OAUTH]).arg(&counter);
        Self::begin(command, counter).await
    }

    async fn begin(mut command: Command, counter: PathBuf) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let (process, stdout) = Process::start("MCP server", &mut command)?;
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout.context("its output is piped")?).read_line(&mut line)?;
            anyhow::Ok(line)
        });
        let line = line.await??;
        ensure!(!line.is_empty(), "the MCP server does not start: see what {PYTHON} says to `import fastmcp`");
        Ok(McpServer { addr: SocketAddr::new([127, 0, 0, 1].into(), line.trim().parse()?), _process: process, counter })
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// How often `count` took effect.
    pub fn count(&self) -> usize {
        std::fs::read_to_string(&self.counter).map_or(0, |text| text.lines().count())
    }

    /// The refresh tokens that were used, in order.
    pub fn refreshes(&self) -> Vec<String> {
        std::fs::read_to_string(&self.counter).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// A tar with a server that speaks stdio as `server.py`, and beside it the official SDK, which it is made with, and all that that
/// needs: for a sandbox whose python is of the same version.
pub fn packed() -> anyhow::Result<Vec<u8>> {
    let server = tempfile::NamedTempFile::new()?;
    std::fs::write(server.path(), STDIO)?;
    let packed = python()?.args(["-c", PACKED]).arg(server.path()).stdin(Stdio::null()).output()?;
    ensure!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    Ok(packed.stdout)
}

fn python() -> anyhow::Result<Command> {
    let python = std::env::var_os(PYTHON).with_context(|| format!("{PYTHON} is not set: run scripts/test"))?;
    Ok(Command::new(python))
}

const SERVER: &str = include_str!("mcp/server.py");
const OAUTH: &str = include_str!("mcp/oauth.py");
const STDIO: &str = include_str!("mcp/stdio.py");
const PACKED: &str = include_str!("mcp/packed.py");
