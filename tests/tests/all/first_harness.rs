//! "Your first harness in ten minutes" (docs/harnesses.md), followed literally: its files and its commands, and nothing else.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use steadyhand_tests::service::{Layout, Options, Service, program};
use tokio::net::TcpListener;

const PAGE: &str = include_str!("../../../docs/harnesses.md");
const HEADING: &str = "## Your first harness in ten minutes\n";

/// A model that looks three times if nobody tells it to come to an end.
const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "Come to an end" }
answer = [{ text = "It is small." }]
[[rules]]
when = { results = { max = 2 } }
answer = [{ tool = "bash", input = { command = "ls" } }]
[[rules]]
answer = [{ text = "It is large." }]
"#;

/// The blocks of the section, each with its language.
fn blocks() -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let (_, section) = PAGE.split_once(HEADING).context("the page has the section")?;
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let parts = section.split("\n```").skip(1).step_by(2);
    parts.map(|block| block.split_once('\n').context("a block has a language")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_harness_is_written_as_the_page_says() -> anyhow::Result<()> {
    let blocks = blocks()?;
    let languages: Vec<&str> = blocks.iter().map(|(language, _)| *language).collect();
    ensure!(languages == ["sh", "json", "rust", "sh"], "{languages:?}");
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, Script::from_toml(SCRIPT, Path::new("first.toml"))?)?;
    let service = Service::start(Options { layout: Layout::One, ..Options::new(model.url()) }).await?;

    let sources = tempfile::tempdir()?;
    let tree = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    std::os::unix::fs::symlink(tree.join("examples"), sources.path().join("examples"))?;
    let first = sources.path().join("first");
    let (data, target) = (service.data_dir(), first.join("target"));
    // Where there is no target for modules, what the page does is done up to there.
    let builds = std::env::var_os("STEADYHAND_WITHOUT_MODULE_TARGET").is_none();
    let shell = move |folder: PathBuf, script: &'static str| {
        let beside = program("steadyhand");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(beside.parent().map(Path::to_owned).unwrap_or_default());
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&path)));
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(folder);
        command.env("PATH", path.unwrap_or_default()).env("CARGO_TARGET_DIR", &target).env("STEADYHAND_DATA", &data);
        // What the tests were started with is not what somebody who reads the page has.
        for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        tokio::task::spawn_blocking(move || command.output())
    };
    let done = async {
        let mut said = String::new();
        for (language, text) in blocks {
            match language {
                "json" => std::fs::write(first.join("harness.json"), text)?,
                "rust" => std::fs::write(first.join("src/lib.rs"), text)?,
                _ => {
                    let folder = if first.is_dir() { &first } else { sources.path() };
                    let script = if builds { text } else { text.split("cargo build").next().unwrap_or(text) };
                    let output = shell(folder.to_owned(), script).await??;
                    let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                    ensure!(output.status.success(), "{}\n{}\n{}", output.status, told[0], told[1]);
                    said.extend(told);
                }
            }
        }
        anyhow::Ok(said)
    };
    let said = service.with_logs(done.await)?;
    let expected = ["1 passed", "brief@1", "It is small.", "parts: decision"];
    for expected in &expected[..if builds { expected.len() } else { 1 }] {
        ensure!(said.contains(expected), "{expected:?} is not in\n{said}");
    }
    service.stop().await.map(drop)
}
