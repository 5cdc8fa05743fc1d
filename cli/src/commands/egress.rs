//! `steadyhand worker egress`: vault and proxy, in a process of their own. Started by `serve`, with its socket as
//! standard input and nothing in its environment.

use crate::{
    error::{Code, Hint as _},
    harden::harden,
    remote,
    vault_keys::Told,
};
use clap::Args;
use egress::{
    address::Listed,
    control::{self, Options},
    resolve::System,
    vault::key::{self, MasterKey},
};
use std::path::PathBuf;
use tokio::{io::AsyncReadExt as _, net::UnixStream};
use zeroize::Zeroizing;

/// Two keys and their names.
const KEYS_BYTES: usize = 4096;

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
    /// Keys are the first line on the socket
    #[arg(long)]
    keys_told: bool,
    /// An address or network that is not public and may be reached
    #[arg(long)]
    private_address: Vec<Listed>,
    /// User of the hand worker, where it is another than egress's
    #[arg(long)]
    caller_uid: Option<u32>,
}

impl Egress {
    pub async fn run(self) -> anyhow::Result<()> {
        harden()?;
        take_descriptors()?;
        let mut socket = remote::parents_socket()?;
        let told = if self.keys_told { told(&mut socket).await? } else { Told::default() };
        let hint = "a master key is 32 bytes as base64 or hexadecimal digits, in a file that nobody else may read";
        let key = self.key(&told).hint(Code::Data, "read the vault's master key", hint)?;
        let old_keys = self.old_keys(&told).hint(Code::Data, "read an old master key of the vault", hint)?;
        let options = Options {
            dir: self.dir,
            sockets: self.sockets,
            key,
            old_keys,
            resolver: Box::new(System),
            listed: self.private_address,
            uids: hand::limits::UIDS,
            caller: self.caller_uid,
        };
        let egress = control::Egress::open(options)?;
        Ok(egress.serve(socket).await?)
    }

    fn key(&self, told: &Told) -> Result<MasterKey, key::Error> {
        match (&told.key, &self.key_command, &self.key_file) {
            (Some(key), ..) => MasterKey::from_text(&key.0),
            (None, Some(command), _) => MasterKey::from_command(command),
            (None, None, Some(path)) => MasterKey::from_file(path),
            (None, None, None) => MasterKey::from_file(&self.dir.join("master.key")),
        }
    }

    fn old_keys(&self, told: &Told) -> Result<Vec<MasterKey>, key::Error> {
        let files = self.old_key_file.iter().map(|path| MasterKey::from_existing(path));
        files.chain(told.old_key.iter().map(|key| MasterKey::from_text(&key.0))).collect()
    }
}

/// What the service says before it asks anything. Not a byte more is taken from the socket.
async fn told(socket: &mut UnixStream) -> anyhow::Result<Told> {
    let mut line = Zeroizing::new(Vec::new());
    loop {
        match socket.read_u8().await? {
            b'\n' => break,
            byte if line.len() < KEYS_BYTES => line.push(byte),
            _ => anyhow::bail!("the keys are too long"),
        }
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Each connection of each sandbox takes two descriptors.
fn take_descriptors() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: files, maximum: files })?)
}
