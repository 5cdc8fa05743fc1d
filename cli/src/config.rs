//! The configuration file: one TOML file, every key optional. A flag wins over the environment, the environment
//! over the file, the file over the default.

use crate::{
    env_vars,
    error::{Code, Hint, failed},
    provider::HandProvider,
    registries::Registry,
    telemetry::Collector,
};
use hand::spec::Mode;
use serde::Deserialize;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// A file with every key, explained and commented out.
pub const EXAMPLE: &str = include_str!("steadyhand.toml");

/// `[serve]` of the file, under the names of the flags.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    #[serde(default)]
    pub serve: ServeFile,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ServeFile {
    pub listen: Option<SocketAddr>,
    pub data: Option<PathBuf>,
    pub engine_listen: Option<SocketAddr>,
    pub engine_tls_cert: Option<PathBuf>,
    pub engine_tls_key: Option<PathBuf>,
    pub engine_tls_client_ca: Option<PathBuf>,
    pub engine_keys: Option<bool>,
    pub engine_plaintext: Option<bool>,
    pub role: Option<Role>,
    pub temporal: Option<String>,
    pub namespace: Option<String>,
    pub model_url: Option<String>,
    pub model_api: Option<String>,
    pub model_script: Option<PathBuf>,
    pub judge_model: Option<String>,
    pub hands_dir: Option<PathBuf>,
    pub hands: Option<bool>,
    pub hands_mode: Option<Mode>,
    pub hand_provider: Option<HandProvider>,
    pub container_image: Option<String>,
    pub container_socket: Option<PathBuf>,
    pub worker_uid: Option<u32>,
    pub egress_uid: Option<u32>,
    pub vault_key_file: Option<PathBuf>,
    pub vault_key_command: Option<String>,
    pub vault_old_key_file: Option<PathBuf>,
    pub private_addresses: Option<Vec<String>>,
    pub package_registries: Option<Vec<Registry>>,
    pub creates_per_minute: Option<u32>,
    pub reads_per_minute: Option<u32>,
    pub park_after: Option<u64>,
    pub journal_mib: Option<u32>,
    pub decisions_per_run: Option<u64>,
    pub otlp_endpoint: Option<Collector>,
}

/// Which roles `serve` runs in its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The HTTP API, the engine, a brain worker, and as children a hand worker and egress
    All,
    /// The HTTP API and the engine; workers are started by hand
    Api,
}

/// Reads the file: the one named, else `steadyhand.toml` in the data folder if it is there.
pub fn load(named: Option<&Path>, data: &Path) -> anyhow::Result<File> {
    let (path, must_exist) = match named {
        Some(path) => (path.to_owned(), true),
        None => (data.join("steadyhand.toml"), false),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(File::default()),
        Err(error) => {
            let hint = format!("name another file with --config or {}", env_vars::CONFIG);
            return Err(error).hint(Code::Usage, format!("read the configuration {}", path.display()), hint);
        }
    };
    toml::from_str(&text).map_err(|error| {
        failed(Code::Usage, format!("{}: {error}", path.display()), "docs/operations.md lists every key")
    })
}

/// `$XDG_DATA_HOME/steadyhand`, else `~/.local/share/steadyhand`.
pub fn default_data_dir() -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from);
    base.or_else(|| home.map(|home| home.join(".local/share"))).unwrap_or_else(|| PathBuf::from(".")).join("steadyhand")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example with its keys in force.
    fn in_force() -> String {
        let lines =
            EXAMPLE.lines().map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_changes_nothing_and_every_key_in_it_is_one() {
        let file: File = toml::from_str(EXAMPLE).unwrap();
        assert_eq!(format!("{file:?}"), format!("{:?}", File::default()));
        toml::from_str::<File>(&in_force()).unwrap();
    }

    #[test]
    fn the_example_has_every_key() {
        let refused = toml::from_str::<File>("serve.no-such-key = 1").unwrap_err().to_string();
        let known = refused.split("expected one of ").nth(1).unwrap();
        let known: std::collections::BTreeSet<_> = known.split('`').skip(1).step_by(2).collect();
        let document: toml::Table = in_force().parse().unwrap();
        let shown: std::collections::BTreeSet<_> =
            document["serve"].as_table().unwrap().keys().map(String::as_str).collect();
        assert_eq!(shown, known);
    }
}
