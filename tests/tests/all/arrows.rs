//! The house: which crate may depend on which, and who may use what comes from outside. ARCHITECTURE.md draws it; this
//! keeps it.
//!
//! A new arrow is a decision: it is a line here, and the reason is in the commit that adds it.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// Who may use which of ours. `tests` may use all.
const ARROWS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("store", &["domain"]),
    ("log", &["domain", "store"]),
    ("engine", &[]),
    ("harness", &["domain"]),
    ("workflows", &["domain", "harness"]),
    ("hand", &[]),
    ("containers", &["hand"]),
    // Its tests let real sandboxes out through it; the program knows none.
    ("egress", &["domain", "hand"]),
    ("activities", &["domain", "store", "log", "harness", "workflows", "hand"]),
    ("api", &["domain", "store", "log", "harness"]),
    ("worker", &["domain", "store", "workflows", "activities"]),
    (
        "cli",
        &["domain", "store", "log", "engine", "harness", "api", "activities", "worker", "hand", "containers", "egress"],
    ),
];

/// Who may name a crate from outside in its `[dependencies]`. `tests` may name all.
const OUTSIDE: &[(&str, &[&str])] = &[
    // Determinism is a crate boundary: workflow code cannot even name what would break it.
    ("tokio", &["store", "log", "engine", "activities", "containers", "egress", "api", "worker", "cli"]),
    ("rand", &["api", "cli", "egress"]),
    ("uuid", &["containers", "engine"]),
    // Who talks to a Temporal server, and as what.
    ("temporalio-sdk", &["activities", "worker"]),
    ("temporalio-workflow", &["workflows", "activities"]),
    ("temporalio-client", &["log", "api", "activities", "worker", "cli"]),
    ("temporalio-protos", &["engine"]),
    // What clients are told of the wire comes from the types that are on it.
    ("schemars", &["domain", "api"]),
    // One way in from the network, one way out to it.
    ("axum", &["api"]),
    ("reqwest", &["activities", "cli"]),
    // Where bytes last.
    ("fjall", &["store", "engine"]),
    ("zstd", &["log", "engine"]),
    // What only a program decides, never a library.
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("anyhow", &["cli"]),
    ("tracing-subscriber", &["cli"]),
    ("opentelemetry", &["cli"]),
    ("opentelemetry_sdk", &["cli"]),
    ("opentelemetry-otlp", &["cli"]),
    // The walls of a sandbox.
    ("seccompiler", &["hand"]),
    ("landlock", &["hand"]),
    // Who may ask a container runtime for something has every right of its machine.
    ("bollard", &["containers"]),
    // Secrets at rest.
    ("chacha20poly1305", &["egress"]),
    // Signals to a thread, and terminals of tests, for which rustix has nothing.
    ("libc", &["cli", "hand"]),
];

/// Crates that stay small and pure: nothing of these may be anywhere below them, development included.
const NEVER_BELOW: &[(&str, &[&str])] = &[
    ("domain", &["tokio", "temporalio", "hyper", "reqwest", "fjall", "rand"]),
    ("harness", &["tokio", "temporalio", "hyper", "reqwest", "fjall", "rand"]),
    ("hand", &["tokio", "temporalio", "hyper", "reqwest", "fjall", "tracing"]),
    ("store", &["temporalio", "tonic", "hyper", "reqwest"]),
    ("engine", &["steadyhand-domain", "steadyhand-store", "steadyhand-log", "steadyhand-harness"]),
];

const PREFIX: &str = "steadyhand-";
/// Sees everything, as black-box tests must.
const TESTS: &str = "tests";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every member with what it names in `Cargo.toml`: (dependency, whether for development alone).
fn members() -> BTreeMap<String, Vec<(String, bool)>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let depends = |package: &Value| {
        list(&package["dependencies"])
            .iter()
            .map(|dependency| (text(&dependency["name"]), dependency["kind"] == "dev"))
            .collect()
    };
    list(&metadata["packages"]).iter().map(|package| (ours(&text(&package["name"])), depends(package))).collect()
}

/// As the table and the folders call it.
fn ours(package: &str) -> String {
    package.strip_prefix(PREFIX).unwrap_or(package).to_owned()
}

#[test]
fn every_arrow_between_our_crates_is_drawn() {
    let drawn: BTreeMap<_, _> = ARROWS.iter().copied().collect();
    for (member, dependencies) in members().iter().filter(|(member, _)| *member != TESTS) {
        let allowed = drawn.get(member.as_str()).unwrap_or_else(|| panic!("{member} has no line in ARROWS"));
        for (dependency, _) in dependencies.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let dependency = ours(dependency);
            assert!(allowed.contains(&dependency.as_str()), "{member} -> {dependency} is no arrow of the house");
        }
    }
}

#[test]
fn the_table_has_no_crate_that_is_gone() {
    let members = members();
    let named = ARROWS.iter().chain(OUTSIDE).chain(NEVER_BELOW).flat_map(|(_, users)| users.iter());
    let named = named.filter(|name| !name.starts_with(PREFIX)).chain(ARROWS.iter().map(|(name, _)| name));
    let outside: BTreeSet<_> = NEVER_BELOW.iter().flat_map(|(_, crates)| crates.iter()).collect();
    for name in named.filter(|name| !outside.contains(name)) {
        assert!(members.contains_key(*name), "{name} is no member any more");
    }
}

#[test]
fn what_comes_from_outside_is_used_where_it_belongs() {
    let allowed: BTreeMap<_, _> = OUTSIDE.iter().copied().collect();
    for (member, dependencies) in members().iter().filter(|(member, _)| *member != TESTS) {
        for (dependency, _) in dependencies.iter().filter(|(_, for_development)| !for_development) {
            let Some(users) = allowed.get(dependency.as_str()) else { continue };
            assert!(users.contains(&member.as_str()), "{member} must not use {dependency}: {users:?} may");
        }
    }
}

/// `Cargo.lock` as a graph of names. It has every platform and every development dependency, so what is not below a
/// crate here is not below it anywhere.
fn locked() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is there");
    let lock: toml::Table = text.parse().expect("Cargo.lock is TOML");
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock["package"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name").to_owned();
        let dependencies = package.get("dependencies").and_then(toml::Value::as_array).into_iter().flatten();
        // "name", or "name version" where there are several versions.
        let names = dependencies.filter_map(|text| text.as_str()?.split(' ').next()).map(str::to_owned);
        graph.entry(name).or_default().extend(names);
    }
    graph
}

#[test]
fn pure_crates_have_nothing_impure_anywhere_below_them() {
    let graph = locked();
    for (member, never) in NEVER_BELOW {
        let mut below = BTreeSet::new();
        let mut open = vec![format!("{PREFIX}{member}")];
        while let Some(name) = open.pop() {
            open.extend(graph[&name].iter().filter(|next| below.insert((*next).clone())).cloned());
        }
        assert!(!below.is_empty(), "{member} is in Cargo.lock");
        for bad in *never {
            let found = below.iter().find(|name| *name == bad || name.starts_with(&format!("{bad}-")));
            assert_eq!(found, None, "{bad} is below {member}");
        }
    }
}

/// A file that nobody includes is a test that nobody runs.
#[test]
fn every_file_of_black_box_tests_is_a_module() {
    let mut binaries = 0;
    for member in members().keys() {
        let folder = root().join(member).join("tests/all");
        let Ok(main) = std::fs::read_to_string(folder.join("main.rs")) else { continue };
        binaries += 1;
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            let is_code = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
            let holds_code = |folder: std::fs::ReadDir| folder.flatten().any(|entry| is_code(&entry.path()));
            // Data of tests lies beside them.
            if !is_code(&path) && !std::fs::read_dir(&path).is_ok_and(holds_code) {
                continue;
            }
            let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a plain name").to_owned();
            let is_module = main.lines().any(|line| line.trim_end_matches(';').ends_with(&format!("mod {name}")));
            assert!(name == "main" || is_module, "{} is not in main.rs", path.display());
        }
    }
    assert!(binaries >= 3, "the black-box tests were not found");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    for member in members().keys() {
        let manifest = std::fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
        assert_eq!(manifest["lints"]["workspace"].as_bool(), Some(true), "{member} has lints of its own");
    }
}
