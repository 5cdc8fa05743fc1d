//! The engines that every scenario runs on: the embedded one, and a real Temporal server.
//!
//! The server comes from `STEADYHAND_TEMPORAL_BIN`, which `scripts/test` sets; without it the scenario fails,
//! as "works on one engine" is not "works".

use anyhow::Context as _;
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub const TEMPORAL_BIN: &str = "STEADYHAND_TEMPORAL_BIN";

/// Scenarios of a whole service, each once on the embedded engine and once on Temporal. They are told which: `false`, `true`.
#[macro_export]
macro_rules! on_each_engine {
    ($($scenario:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                super::$scenario(false).await
            })*
        }
        mod temporal {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $scenario() -> anyhow::Result<()> {
                super::$scenario(true).await
            })*
        }
    };
}

/// A Temporal server for a scenario, or none for the embedded engine.
pub fn engine(is_temporal: bool) -> anyhow::Result<Option<Temporal>> {
    is_temporal.then(|| Temporal::start(None)).transpose()
}

/// A Temporal dev server on a free port, killed when dropped.
pub struct Temporal {
    process: Child,
    pub addr: SocketAddr,
}

impl Temporal {
    /// In memory, or on a file that survives it.
    pub fn start(file: Option<&Path>) -> anyhow::Result<Self> {
        Self::start_at(free_addr()?, file, &[])
    }

    /// One that ends every connection at this age, as clusters do after some minutes.
    pub fn of_short_connections(age: Duration) -> anyhow::Result<Self> {
        let setting = |name: &str, age: Duration| format!("frontend.{name}=\"{}ms\"", age.as_millis());
        let (most, grace) = ("keepAliveMaxConnectionAge", "keepAliveMaxConnectionAgeGrace");
        let settings = [setting(most, age), setting(grace, Duration::from_secs(1))];
        Self::launch(free_addr()?, settings.iter().flat_map(|setting| ["--dynamic-config-value", setting]))
    }

    /// With these namespaces beside `default`.
    pub fn start_at(addr: SocketAddr, file: Option<&Path>, namespaces: &[String]) -> anyhow::Result<Self> {
        let file = file.map(|file| file.display().to_string());
        let file = file.iter().flat_map(|file| ["--db-filename", file]);
        let namespaces = namespaces.iter().flat_map(|namespace| ["--namespace", namespace]);
        Self::launch(addr, file.chain(namespaces))
    }

    fn launch<'a>(addr: SocketAddr, arguments: impl Iterator<Item = &'a str>) -> anyhow::Result<Self> {
        let bin = temporal_bin()?;
        let mut command = Command::new(&bin);
        command
            .args(["server", "start-dev", "--headless", "--log-level", "error", "--ip", "127.0.0.1", "--port"])
            .arg(addr.port().to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("start {}", bin.display()))?;
        let mut temporal = Temporal { process, addr };
        temporal.wait_until_healthy(&bin)?;
        Ok(temporal)
    }

    fn wait_until_healthy(&mut self, bin: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                anyhow::bail!("the Temporal server ended at once: {status}");
            }
            let health = Command::new(bin)
                .args(["operator", "namespace", "describe", "-n", "default", "--address", &self.addr.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()?;
            if health.success() {
                return Ok(());
            }
        }
        anyhow::bail!("the Temporal server did not come up within 60 s")
    }

    pub fn kill(&mut self) {
        // Already dead is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Temporal {
    fn drop(&mut self) {
        self.kill();
    }
}

fn temporal_bin() -> anyhow::Result<PathBuf> {
    let bin = std::env::var_os(TEMPORAL_BIN)
        .with_context(|| format!("{TEMPORAL_BIN} is not set: run the tests through scripts/test"))?;
    Ok(PathBuf::from(bin))
}

/// A loopback address that nobody listens on.
pub fn free_addr() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
