//! Secrets at rest. Each vault has a data key; the master key wraps that; secrets are sealed with the data key, bound to
//! their vault, name and version.
//!
//! There is no way to list or read a secret from outside this process: [`Vault::open_secret`] is for the proxy beside it.

pub mod key;
mod seal;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use domain::egress::CredentialId;
use key::MasterKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use zeroize::Zeroizing;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("use {0:?} as a name: 1 to 128 of A-Z a-z 0-9 _ -")]
    Name(String),
    #[error("keep a secret of more than {0} bytes")]
    TooLong(usize),
    #[error("read or write {0}")]
    Io(PathBuf, #[source] io::Error),
    #[error("understand {0}")]
    Format(PathBuf),
    #[error("open {0} with this key: it was sealed with another, or changed")]
    Sealed(PathBuf),
    #[error("find the credential")]
    Unknown,
}

/// What one credential may hold.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// One vault on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// Which master key wraps the data key.
    key_id: String,
    data_key: String,
    credentials: BTreeMap<String, Sealed>,
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Sealed {
    version: u64,
    secret: String,
}

/// A secret, and the entry that it was read from.
pub(crate) struct Opened {
    pub secret: Zeroizing<String>,
    /// Sealed anew with each put, so no other entry is like it: not even one of the same version, after a deletion.
    entry: Sealed,
}

pub struct Vault {
    dir: PathBuf,
    key: MasterKey,
    /// Keys of before, by which what was wrapped with them is still opened.
    old_keys: Vec<MasterKey>,
    writing: Mutex<()>,
}

impl Vault {
    pub fn open(dir: &Path, key: MasterKey, old_keys: Vec<MasterKey>) -> Result<Self, Error> {
        match DirBuilder::new().recursive(true).mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Error::Io(dir.to_owned(), e)),
            _ => {}
        }
        Ok(Self { dir: dir.to_owned(), key, old_keys, writing: Mutex::default() })
    }

    /// Keep a secret under a new version, which it gives back.
    pub fn put(&self, id: &CredentialId, secret: &str) -> Result<u64, Error> {
        check_length(secret)?;
        let path = self.path(id)?;
        let _writing = self.writing.lock().expect("no holder panics");
        let (mut stored, data_key) = match self.read(&path)? {
            Some(stored) => {
                let data_key = self.data_key(&stored, &id.vault, &path)?;
                (stored, data_key)
            }
            None => {
                let data_key = seal::random_key();
                let stored = Stored {
                    key_id: self.key.id(),
                    data_key: BASE64.encode(seal::seal(
                        self.key.bytes(),
                        data_key.as_slice(),
                        wrap_name(&id.vault).as_bytes(),
                    )),
                    credentials: BTreeMap::new(),
                };
                (stored, data_key)
            }
        };
        let version = stored.credentials.get(&id.credential).map_or(1, |sealed| sealed.version + 1);
        stored.credentials.insert(id.credential.clone(), Sealed::new(&data_key, id, version, secret));
        write(&path, &stored)?;
        Ok(version)
    }

    /// Keep a secret in the place of one that was read before. Gives back its version, and none where that one is not
    /// there any more: what was deleted stays so, and what somebody put since then is newer.
    pub(crate) fn replace(&self, id: &CredentialId, before: &Opened, secret: &str) -> Result<Option<u64>, Error> {
        check_length(secret)?;
        let path = self.path(id)?;
        let _writing = self.writing.lock().expect("no holder panics");
        let Some(mut stored) = self.read(&path)? else { return Ok(None) };
        let data_key = self.data_key(&stored, &id.vault, &path)?;
        let Some(entry) = stored.credentials.get_mut(&id.credential).filter(|entry| **entry == before.entry) else {
            return Ok(None);
        };
        let version = entry.version + 1;
        *entry = Sealed::new(&data_key, id, version, secret);
        write(&path, &stored)?;
        Ok(Some(version))
    }

    pub fn delete(&self, id: &CredentialId) -> Result<(), Error> {
        let path = self.path(id)?;
        let _writing = self.writing.lock().expect("no holder panics");
        let Some(mut stored) = self.read(&path)? else { return Err(Error::Unknown) };
        stored.credentials.remove(&id.credential).ok_or(Error::Unknown)?;
        write(&path, &stored)
    }

    /// Keep one secret under another name too; nobody is told it.
    pub fn copy(&self, from: &CredentialId, to: &CredentialId) -> Result<u64, Error> {
        let secret = self.open_secret(from)?;
        self.put(to, &secret)
    }

    /// Remove a vault with all that is in it. False where there is none.
    pub fn remove(&self, vault: &str) -> Result<bool, Error> {
        let path = self.vault_path(vault)?;
        let _writing = self.writing.lock().expect("no holder panics");
        match std::fs::remove_file(&path) {
            Ok(()) => sync_dir(&path).map(|()| true).map_err(|e| Error::Io(path, e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::Io(path, e)),
        }
    }

    /// The secret, for the proxy in this process and nobody else.
    pub(crate) fn open_secret(&self, id: &CredentialId) -> Result<Zeroizing<String>, Error> {
        self.open_entry(id).map(|opened| opened.secret)
    }

    /// The same, for who means to replace it.
    pub(crate) fn open_entry(&self, id: &CredentialId) -> Result<Opened, Error> {
        let path = self.path(id)?;
        let stored = self.read(&path)?.ok_or(Error::Unknown)?;
        let sealed = stored.credentials.get(&id.credential).ok_or(Error::Unknown)?;
        let data_key = self.data_key(&stored, &id.vault, &path)?;
        let bytes = BASE64.decode(&sealed.secret).map_err(|_| Error::Format(path.clone()))?;
        let secret = seal::open(&data_key, &bytes, bound_name(id, sealed.version).as_bytes());
        let secret = secret.ok_or_else(|| Error::Sealed(path.clone()))?;
        let text = std::str::from_utf8(&secret).map_err(|_| Error::Format(path))?;
        Ok(Opened { secret: Zeroizing::new(text.to_owned()), entry: sealed.clone() })
    }

    pub fn holds(&self, id: &CredentialId) -> bool {
        self.open_secret(id).is_ok()
    }

    /// Wrap every data key with the master key of now. Gives back how many were not.
    pub fn rotate(&self) -> Result<u64, Error> {
        let _writing = self.writing.lock().expect("no holder panics");
        let mut rotated = 0;
        for entry in self.dir.read_dir().map_err(|e| Error::Io(self.dir.clone(), e))? {
            let path = entry.map_err(|e| Error::Io(self.dir.clone(), e))?.path();
            let Some(vault) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else { continue };
            let Some(mut stored) = self.read(&path)? else { continue };
            if stored.key_id != self.key.id() {
                let data_key = self.data_key(&stored, vault, &path)?;
                let wrapped = seal::seal(self.key.bytes(), data_key.as_slice(), wrap_name(vault).as_bytes());
                (stored.data_key, stored.key_id) = (BASE64.encode(wrapped), self.key.id());
                write(&path, &stored)?;
                rotated += 1;
            }
        }
        Ok(rotated)
    }

    fn data_key(&self, stored: &Stored, vault: &str, path: &Path) -> Result<seal::Key, Error> {
        let keys = std::iter::once(&self.key).chain(&self.old_keys);
        let key =
            keys.into_iter().find(|key| key.id() == stored.key_id).ok_or_else(|| Error::Sealed(path.to_owned()))?;
        let bytes = BASE64.decode(&stored.data_key).map_err(|_| Error::Format(path.to_owned()))?;
        let data_key = seal::open(key.bytes(), &bytes, wrap_name(vault).as_bytes());
        data_key.and_then(|bytes| seal::key(&bytes)).ok_or_else(|| Error::Sealed(path.to_owned()))
    }

    fn path(&self, id: &CredentialId) -> Result<PathBuf, Error> {
        check_name(&id.credential)?;
        self.vault_path(&id.vault)
    }

    fn vault_path(&self, vault: &str) -> Result<PathBuf, Error> {
        check_name(vault)?;
        Ok(self.dir.join(format!("{vault}.json")))
    }

    fn read(&self, path: &Path) -> Result<Option<Stored>, Error> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|_| Error::Format(path.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::Io(path.to_owned(), e)),
        }
    }
}

impl Sealed {
    fn new(data_key: &seal::Key, id: &CredentialId, version: u64, secret: &str) -> Self {
        let sealed = seal::seal(data_key, secret.as_bytes(), bound_name(id, version).as_bytes());
        Self { version, secret: BASE64.encode(sealed) }
    }
}

fn check_length(secret: &str) -> Result<(), Error> {
    if secret.len() > SECRET_BYTES_MAX { Err(Error::TooLong(SECRET_BYTES_MAX)) } else { Ok(()) }
}

fn check_name(name: &str) -> Result<(), Error> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=128).contains(&name.len()) && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::Name(name.chars().take(128).collect()))
}

/// A wrapped key is only good for its own vault.
fn wrap_name(vault: &str) -> String {
    format!("steadyhand data key|{vault}")
}

/// A sealed secret is only good under its own name and version. Names hold no `|`.
fn bound_name(id: &CredentialId, version: u64) -> String {
    format!("steadyhand secret|{}|{}|{version}", id.vault, id.credential)
}

fn write(path: &Path, stored: &Stored) -> Result<(), Error> {
    let io = |e| Error::Io(path.to_owned(), e);
    let part = path.with_extension("part");
    let text = serde_json::to_vec(stored).expect("a vault has only string keys");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(io)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
    std::fs::rename(&part, path).and_then(|()| sync_dir(path)).map_err(io)
}

/// So that it is on disk what names there are.
fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/"))).and_then(|dir| dir.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(vault: &str, credential: &str) -> CredentialId {
        CredentialId { vault: vault.into(), credential: credential.into() }
    }

    fn vault(dir: &Path, byte: u8, old: &[u8]) -> Vault {
        let key = |byte: &u8| MasterKey::from_bytes(&[*byte; 32]).expect("32 bytes");
        Vault::open(dir, key(&byte), old.iter().map(key).collect()).unwrap()
    }

    #[test]
    fn secrets_come_back_to_the_proxy_alone_and_lie_nowhere_in_the_clear() {
        let dir = tempfile::tempdir().unwrap();
        let store = vault(dir.path(), 1, &[]);
        assert_eq!(store.put(&id("v", "a"), "CANARY-1").unwrap(), 1);
        assert_eq!(store.put(&id("v", "a"), "CANARY-2").unwrap(), 2);
        assert_eq!(store.put(&id("v", "b"), "CANARY-3").unwrap(), 1);
        assert_eq!(&*vault(dir.path(), 1, &[]).open_secret(&id("v", "a")).unwrap(), "CANARY-2");
        for entry in dir.path().read_dir().unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            assert!(!text.contains("CANARY") && !text.contains(&BASE64.encode("CANARY")[..6]), "{text}");
        }
        store.delete(&id("v", "a")).unwrap();
        assert!(matches!(store.open_secret(&id("v", "a")), Err(Error::Unknown)));
        assert!(store.holds(&id("v", "b")) && !store.holds(&id("w", "b")));
        for name in ["", "../v", "a/b", "a|b", &"x".repeat(129)] {
            assert!(matches!(store.put(&id(name, "a"), "x"), Err(Error::Name(_))), "{name}");
        }
        assert!(matches!(store.put(&id("v", "c"), &"x".repeat(SECRET_BYTES_MAX + 1)), Err(Error::TooLong(_))));
    }

    #[test]
    fn a_copy_is_a_secret_of_its_own_and_a_vault_goes_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = vault(dir.path(), 1, &[]);
        store.put(&id("v", "a"), "CANARY").unwrap();
        assert!(matches!(store.copy(&id("v", "b"), &id("w", "b")), Err(Error::Unknown)));
        store.copy(&id("v", "a"), &id("w", "b")).unwrap();
        assert!(store.remove("v").unwrap() && !store.remove("v").unwrap());
        assert!(!store.holds(&id("v", "a")));
        assert_eq!(&*store.open_secret(&id("w", "b")).unwrap(), "CANARY");
        assert!(matches!(store.remove("../w"), Err(Error::Name(_))));
    }

    #[test]
    fn a_secret_is_replaced_only_where_it_is_the_one_that_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = vault(dir.path(), 1, &[]);
        let (one, other) = (id("v", "a"), id("v", "b"));
        store.put(&one, "first").unwrap();
        store.put(&other, "untouched").unwrap();
        let first = store.open_entry(&one).unwrap();
        assert_eq!(store.replace(&one, &first, "second").unwrap(), Some(2));
        assert_eq!(&*store.open_secret(&one).unwrap(), "second");
        // Somebody was faster.
        assert_eq!(store.replace(&one, &first, "late").unwrap(), None);
        let second = store.open_entry(&one).unwrap();
        store.delete(&one).unwrap();
        assert_eq!(store.replace(&one, &second, "back from the dead").unwrap(), None);
        assert!(!store.holds(&one) && store.holds(&other));
        // Another one under the name, as often written as the one that was read.
        store.put(&one, "new").unwrap();
        store.put(&one, "newer").unwrap();
        assert_eq!(store.replace(&one, &second, "late").unwrap(), None);
        assert_eq!(&*store.open_secret(&one).unwrap(), "newer");
        // A new master key changes no entry.
        let newer = store.open_entry(&one).unwrap();
        let rekeyed = vault(dir.path(), 2, &[1]);
        rekeyed.rotate().unwrap();
        assert_eq!(rekeyed.replace(&one, &newer, "newest").unwrap(), Some(3));
        store.remove("v").unwrap();
        assert_eq!(rekeyed.replace(&one, &newer, "late").unwrap(), None);
        assert!(!rekeyed.holds(&one));
        let long = "x".repeat(SECRET_BYTES_MAX + 1);
        assert!(matches!(rekeyed.replace(&one, &newer, &long), Err(Error::TooLong(_))));
    }

    #[test]
    fn what_is_moved_or_changed_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let store = vault(dir.path(), 1, &[]);
        store.put(&id("v", "a"), "one").unwrap();
        store.put(&id("v", "b"), "two").unwrap();
        let path = dir.path().join("v.json");
        let mut stored = store.read(&path).unwrap().unwrap();
        let moved = stored.credentials.remove("a").unwrap();
        stored.credentials.insert("b".into(), moved);
        write(&path, &stored).unwrap();
        assert!(matches!(store.open_secret(&id("v", "b")), Err(Error::Sealed(_))));
        std::fs::copy(&path, dir.path().join("w.json")).unwrap();
        assert!(matches!(store.open_secret(&id("w", "b")), Err(Error::Sealed(_))));
    }

    #[test]
    fn a_new_master_key_takes_over_and_the_old_one_is_not_needed_after_that() {
        let dir = tempfile::tempdir().unwrap();
        vault(dir.path(), 1, &[]).put(&id("v", "a"), "kept").unwrap();
        assert!(matches!(vault(dir.path(), 2, &[]).open_secret(&id("v", "a")), Err(Error::Sealed(_))));
        let between = vault(dir.path(), 2, &[1]);
        assert_eq!(&*between.open_secret(&id("v", "a")).unwrap(), "kept");
        assert_eq!((between.rotate().unwrap(), between.rotate().unwrap()), (1, 0));
        assert_eq!(&*vault(dir.path(), 2, &[]).open_secret(&id("v", "a")).unwrap(), "kept");
        assert!(vault(dir.path(), 1, &[]).open_secret(&id("v", "a")).is_err());
    }
}
