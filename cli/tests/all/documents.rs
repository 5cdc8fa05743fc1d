//! What the documents show is true: commands and snippets run, examples are accepted, every setting is described, and
//! links lead somewhere.
//!
//! A block is run when the line before it says so: `<!-- run: with a service -->`.

use crate::program::{Place, Service};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const MARK: &str = "<!-- run: with a service -->";
/// Whatever is asked, in one answer.
const SCRIPT: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"There are 7 files.\" }]\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(document: &str) -> String {
    std::fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// Every document, by its path from the root.
fn documents() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions", "changes"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(Path::new(folder).join(path.file_name().unwrap()).display().to_string());
            }
        }
    }
    found
}

/// The fenced blocks of a language, each with the last line before it.
fn blocks(text: &str, language: &str) -> Vec<(String, String)> {
    let (mut found, mut before) = (Vec::new(), String::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(fenced) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if fenced == language {
                found.push((before.clone(), block.join("\n") + "\n"));
            }
        }
        before = line.to_owned();
    }
    found
}

fn marked(document: &str, language: &str) -> Vec<String> {
    let found: Vec<String> = blocks(&read(document), language)
        .into_iter()
        .filter_map(|(before, block)| (before == MARK).then_some(block))
        .collect();
    assert!(!found.is_empty(), "{document} has no {language} block to run");
    found
}

fn ran(mut command: Command, what: &str) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{what}\n{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn commands_of_the_readme_run() {
    let place = Place::new();
    let service = place.serve(SCRIPT);
    let programs = Path::new(env!("CARGO_BIN_EXE_steadyhand")).parent().unwrap().display();
    let path = std::env::var("PATH").unwrap();
    for block in marked("README.md", "sh") {
        let mut command = Command::new("sh");
        command.args(["-euc", &block]).env_clear().env("PATH", format!("{programs}:{path}"));
        command.env("HOME", place.path()).env("STEADYHAND_DATA", place.data()).current_dir(place.path());
        let said = ran(command, &block);
        assert!(said.contains("There are 7 files."), "{said}");
    }
    service.stop();
}

/// With the official SDK, as installed beside the Temporal server that the tests use.
#[test]
fn the_examples_in_python_run_with_the_official_sdk() {
    let temporal = std::env::var_os("STEADYHAND_TEMPORAL_BIN");
    let temporal = temporal.expect("STEADYHAND_TEMPORAL_BIN is not set: run the tests through scripts/test");
    let place = Place::new();
    let service = place.serve(SCRIPT);
    let examples = [("README.md", "There are 7 files.\n"), ("docs/hands.md", "time\n")];
    let blocks =
        examples.map(|(document, says)| marked(document, "python").into_iter().map(move |block| (block, says)));
    for (block, says) in blocks.into_iter().flatten() {
        let mut command = Command::new(Path::new(&temporal).with_file_name("python"));
        command.args(["-c", &block]).env_clear().env("HOME", place.path()).env("PATH", std::env::var("PATH").unwrap());
        command.env("ANTHROPIC_BASE_URL", &service.url).env("ANTHROPIC_API_KEY", place.read("data/admin.key").trim());
        assert_eq!(ran(command, &block), says);
    }
    service.stop();
}

/// Starts a service and ends it again: what it was given was accepted.
fn starts(place: &Place, script: &str) {
    let service: Service = place.serve(script);
    service.stop();
}

#[test]
fn the_example_configuration_is_accepted_and_has_every_key() {
    let place = Place::new();
    let manual = read("docs/operations.md");
    let (_, example) = blocks(&manual, "toml").into_iter().next().expect("an example");
    // The same, but on ports that are free.
    let example = example.replace("127.0.0.1:8280", "127.0.0.1:0").replace("127.0.0.1:7233", "127.0.0.1:0");
    place.write("data/steadyhand.toml", &example);
    starts(&place, SCRIPT);
    let wrong = place.run(&["serve", "--config", place.write("wrong.toml", "[serve]\nnone = 1").to_str().unwrap()]);
    let keys = wrong.stderr.split("expected one of ").nth(1).expect("the keys that there are");
    for key in keys.lines().next().unwrap_or_default().split(", ").map(|key| key.trim_matches('`')) {
        assert!(manual.contains(&format!("`{key}`")), "docs/operations.md does not tell of the key {key}");
    }
}

#[test]
fn the_example_scripts_are_accepted() {
    for (_, script) in blocks(&read("docs/models.md"), "toml") {
        starts(&Place::new(), &script);
    }
    starts(&Place::new(), &read("examples/leap.toml"));
}

#[test]
fn every_setting_is_described() {
    let manual = read("docs/operations.md");
    let words = |text: &str, is_wanted: fn(&str) -> bool| -> BTreeSet<String> {
        let parts = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
        parts.filter(|word| is_wanted(word)).map(str::to_owned).collect()
    };
    let variables = words(&read("cli/src/env_vars.rs"), |word| word.starts_with("STEADYHAND_"));
    let place = Place::new();
    let flags = ["serve", "worker"].map(|command| place.run(&[command, "--help"]).ok()).concat();
    let flags = words(&flags, |word| word.starts_with("--") && !matches!(word, "--" | "--help" | "--version"));
    assert!(variables.len() > 10 && flags.len() > 10, "{variables:?} {flags:?}");
    for setting in variables.iter().chain(&flags) {
        assert!(manual.contains(setting.as_str()), "docs/operations.md does not tell of {setting}");
    }
}

#[test]
fn every_command_and_exit_code_is_described() {
    let manual = read("docs/operations.md");
    let help = Place::new().run(&["--help"]).ok();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.split_whitespace().next()).filter(|command| *command != "help") {
        assert!(manual.contains(&format!("`{command}")), "docs/operations.md does not tell of {command}");
    }
    let codes = read("cli/src/error.rs");
    for code in codes.lines().filter_map(|line| line.trim().strip_suffix(',')?.split(" = ").nth(1)?.parse::<u8>().ok())
    {
        assert!(manual.contains(&format!("\n| {code} | ")), "docs/operations.md does not tell of exit code {code}");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if target.contains("://") || file.is_empty() {
                continue;
            }
            links += 1;
            let path = root().join(&document).parent().unwrap().join(file);
            assert!(path.exists(), "{document} links to {target}, which is not there");
        }
    }
    assert!(links > 20, "{links} links were found");
}
