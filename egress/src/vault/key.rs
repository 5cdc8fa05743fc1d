//! Where the master key comes from: a file, an environment variable, or what a command prints (a KMS, a password store).

use super::seal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("read or write {0}")]
    File(PathBuf, #[source] io::Error),
    #[error("use {0}: others may read it; it must be 0600")]
    Readable(PathBuf),
    #[error("run the key's command {0:?}")]
    Command(String, #[source] io::Error),
    #[error("run the key's command {0:?}: it ended with {1}")]
    Failed(String, std::process::ExitStatus),
    #[error("use the master key: it must be 32 bytes, as base64 or 64 hexadecimal digits")]
    Form,
}

/// Wraps the keys of vaults. Never shown.
pub struct MasterKey(seal::Key);

impl MasterKey {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        seal::key(bytes).map(Self).ok_or(Error::Form)
    }

    /// As written in a file, a variable or a command's output.
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let bytes = hex::decode(text).ok().or_else(|| BASE64.decode(text).ok()).map(Zeroizing::new);
        Self::from_bytes(&bytes.ok_or(Error::Form)?)
    }

    /// The key in this file, made there if there is none.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let failed = |e| Error::File(path.to_owned(), e);
        match File::options().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let text = Zeroizing::new(BASE64.encode(seal::random_key().as_slice()));
                file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failed(e)),
        }
        let mut file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(Error::Readable(path.to_owned()));
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(failed)?;
        Self::from_text(&text)
    }

    /// What a command of the operator's prints; it has an empty environment but for PATH.
    pub fn from_command(command: &str) -> Result<Self, Error> {
        let output = Command::new("/bin/sh")
            .args(["-c", command])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| Error::Command(command.to_owned(), e))?;
        if !output.status.success() {
            return Err(Error::Failed(command.to_owned(), output.status));
        }
        let stdout = Zeroizing::new(output.stdout);
        Self::from_text(std::str::from_utf8(&stdout).map_err(|_| Error::Form)?)
    }

    /// Tells keys apart without telling anything of them.
    pub fn id(&self) -> String {
        let mut hash = Sha256::new_with_prefix(b"steadyhand master key id|");
        hash.update(self.0.as_slice());
        hex::encode(&hash.finalize()[..8])
    }

    pub(super) fn bytes(&self) -> &seal::Key {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let id = MasterKey::from_file(&path).unwrap().id();
        assert_eq!(MasterKey::from_file(&path).unwrap().id(), id);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(MasterKey::from_text(&format!("{text}\n")).unwrap().id(), id);
        assert_eq!(MasterKey::from_command(&format!("cat {}", path.display())).unwrap().id(), id);
        assert!(MasterKey::from_command("exit 3").is_err());
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(MasterKey::from_file(&path), Err(Error::Readable(_))));
        for text in ["", "short", "zz", &"ab".repeat(33)] {
            assert!(matches!(MasterKey::from_text(text), Err(Error::Form)), "{text}");
        }
        assert_ne!(MasterKey::from_text(&"ab".repeat(32)).unwrap().id(), id);
    }
}
