//! `steadyhand worker egress`: vault and proxy, in a process of their own. Started by `serve`, with its socket as
//! standard input and nothing in its environment.

use crate::{
    error::{Code, Hint as _},
    harden::harden,
    remote,
};
use clap::Args;
use egress::{
    address::Listed,
    control::{self, Options},
    resolve::System,
    vault::key::{self, MasterKey},
};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Egress {
    /// Folder of the vault, the policies and the audit log
    #[arg(long)]
    dir: PathBuf,
    /// Folder of the sockets that sandboxes are given
    #[arg(long)]
    sockets: PathBuf,
    /// File with the vault's master key, made if it is not there [default: DIR/master.key]
    #[arg(long, conflicts_with = "key_command")]
    key_file: Option<PathBuf>,
    /// Command that prints the vault's master key
    #[arg(long)]
    key_command: Option<String>,
    /// File with a master key of before
    #[arg(long)]
    old_key_file: Vec<PathBuf>,
    /// An address or network that is not public and may be reached
    #[arg(long)]
    private_address: Vec<Listed>,
}

impl Egress {
    pub async fn run(self) -> anyhow::Result<()> {
        harden()?;
        take_descriptors()?;
        let hint = "a master key is 32 bytes as base64 or hexadecimal digits, in a file that nobody else may read";
        let key = self.key().hint(Code::Data, "read the vault's master key", hint)?;
        let old_keys = self.old_key_file.iter().map(|path| MasterKey::from_existing(path)).collect::<Result<_, _>>();
        let options = Options {
            dir: self.dir,
            sockets: self.sockets,
            key,
            old_keys: old_keys.hint(Code::Data, "read an old master key of the vault", hint)?,
            resolver: Box::new(System),
            listed: self.private_address,
            uids: hand::limits::UIDS,
        };
        let egress = control::Egress::open(options)?;
        Ok(egress.serve(remote::parents_socket()?).await?)
    }

    fn key(&self) -> Result<MasterKey, key::Error> {
        match (&self.key_command, &self.key_file) {
            (Some(command), _) => MasterKey::from_command(command),
            (None, Some(path)) => MasterKey::from_file(path),
            (None, None) => MasterKey::from_file(&self.dir.join("master.key")),
        }
    }
}

/// Each connection of each sandbox takes two descriptors.
fn take_descriptors() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })?)
}
