//! A service does not go on without what makes it one.

use anyhow::{Context as _, ensure};
use std::time::Duration;
use steadyhand_tests::{engines::Temporal, service::program};
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);
const SCRIPT: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"hello\" }]\n";

/// Its worker finds no namespace there and ends. A service that took messages all the same would be dead without looking so.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_brain_ended_ends_too() -> anyhow::Result<()> {
    let server = Temporal::start(None)?;
    let dir = tempfile::tempdir()?;
    let script = dir.path().join("script.toml");
    std::fs::write(&script, SCRIPT)?;
    let mut command = Command::new(program("steadyhand"));
    command
        .env_clear()
        .args(["serve", "--listen", "127.0.0.1:0", "--hands", "false", "--namespace", "nowhere", "--data"])
        .arg(dir.path().join("data"))
        .args(["--temporal", &server.addr.to_string(), "--model-script"])
        .arg(&script)
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("it goes on without a brain")??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    ensure!(said.contains("error: run the brain worker: "), "{said}");
    ensure!(said.contains("namespace nowhere"), "{said}");
    ensure!(said.contains("hint: without it no session goes on, so the service ends"), "{said}");
    Ok(())
}
