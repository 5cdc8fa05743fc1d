//! Where the vault's master key comes from, as `serve` is told. A file and a command are egress's to read and run; a key in
//! the environment goes to it over its own socket, as its environment is empty.

use crate::{
    env_vars,
    error::{Code, Hint as _, failed},
};
use clap::Args;
use domain::egress::Secret;
use egress::vault::key::MasterKey;
use serde::{Deserialize, Serialize};
use std::{ffi::OsString, path::PathBuf};

#[derive(Clone, Debug, Default, Args)]
pub struct VaultArgs {
    /// File with the vault's master key, which must be of egress's user alone [default: one in its own folder, made there]
    #[arg(long, env = env_vars::VAULT_KEY_FILE, value_name = "FILE", hide_short_help = true)]
    pub vault_key_file: Option<PathBuf>,
    /// Command that prints the vault's master key, run by egress's user with an empty environment
    #[arg(long, env = env_vars::VAULT_KEY_COMMAND, value_name = "COMMAND", hide_short_help = true)]
    pub vault_key_command: Option<String>,
    /// File with a master key of before: what it wraps is wrapped with the new one at start
    #[arg(long, env = env_vars::VAULT_OLD_KEY_FILE, value_name = "FILE", hide_short_help = true)]
    pub vault_old_key_file: Option<PathBuf>,
}

/// What egress is started with.
#[derive(Clone, Default)]
pub struct VaultKeys {
    pub args: Vec<OsString>,
    /// To be said on its socket first.
    pub told: Option<Told>,
}

/// Keys that came with the environment of the service.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Told {
    pub key: Option<Secret>,
    pub old_key: Option<Secret>,
}

impl VaultArgs {
    pub fn keys(self) -> anyhow::Result<VaultKeys> {
        let told = Told { key: from_env(env_vars::VAULT_KEY)?, old_key: from_env(env_vars::VAULT_OLD_KEY)? };
        self.with(told)
    }

    fn with(self, told: Told) -> anyhow::Result<VaultKeys> {
        let named = [self.vault_key_file.is_some(), self.vault_key_command.is_some(), told.key.is_some()];
        if named.into_iter().filter(|named| *named).count() > 1 {
            let hint = format!("one of --vault-key-file, --vault-key-command and {}", env_vars::VAULT_KEY);
            return Err(failed(Code::Usage, "the vault's master key comes from more than one place", hint));
        }
        let mut args: Vec<OsString> = Vec::new();
        if let Some(file) = self.vault_key_file {
            args.extend(["--key-file".into(), file.into_os_string()]);
        }
        if let Some(command) = self.vault_key_command {
            args.extend(["--key-command".into(), command.into()]);
        }
        if let Some(file) = self.vault_old_key_file {
            args.extend(["--old-key-file".into(), file.into_os_string()]);
        }
        let is_told = told.key.is_some() || told.old_key.is_some();
        if is_told {
            args.push("--keys-told".into());
        }
        Ok(VaultKeys { args, told: is_told.then_some(told) })
    }
}

/// One that is no key is found now, by whoever can correct it.
fn from_env(name: &str) -> anyhow::Result<Option<Secret>> {
    let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty()).map(Secret) else {
        return Ok(None);
    };
    let hint = "32 bytes, as base64 or 64 hexadecimal digits";
    MasterKey::from_text(&text.0).hint(Code::Usage, format!("use {name}"), hint)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_from_one_place_and_is_on_no_command_line() {
        let key = || Told { key: Some(Secret("CANARY".to_owned())), old_key: None };
        let file = || VaultArgs { vault_key_file: Some("/k".into()), ..VaultArgs::default() };
        let keys = VaultArgs::default().with(key()).unwrap();
        assert_eq!(keys.args, ["--keys-told"]);
        assert!(serde_json::to_string(&keys.told).unwrap().contains("CANARY"), "it goes over the socket");
        assert!(file().with(key()).is_err());
        assert!(VaultArgs { vault_key_command: Some("c".into()), ..file() }.with(Told::default()).is_err());
        let keys = file().with(Told::default()).unwrap();
        assert!(keys.args == ["--key-file", "/k"] && keys.told.is_none());
    }
}
