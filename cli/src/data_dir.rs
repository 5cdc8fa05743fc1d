//! The data folder: what lies where, who holds it, the admin key, and how others find the service.

use crate::error::{Code, Hint, failed};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// The format of the folder: which files it has, and what the catalog's rows and the blobs are. The engine's store has a
/// format of its own. A folder that does not say has the first one.
const FORMAT: u32 = 1;

pub struct DataDir {
    root: PathBuf,
    /// Held while the service runs.
    _lock: File,
}

/// `serve.json`: where a running service listens. It may be stale, and then whoever has that address now is a stranger:
/// the key of the folder goes over [`api_socket`] alone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Running {
    pub addr: SocketAddr,
    pub pid: u32,
}

/// Paths inside a data folder, held or not.
pub fn format(root: &Path) -> PathBuf {
    root.join("format")
}

pub fn catalog(root: &Path) -> PathBuf {
    root.join("catalog")
}

pub fn blobs(root: &Path) -> PathBuf {
    root.join("blobs")
}

pub fn engine(root: &Path) -> PathBuf {
    root.join("engine")
}

pub fn admin_key(root: &Path) -> PathBuf {
    root.join("admin.key")
}

pub fn serve_json(root: &Path) -> PathBuf {
    root.join("serve.json")
}

/// The HTTP API for those who may enter the folder: nobody else can listen there.
pub fn api_socket(root: &Path) -> PathBuf {
    root.join("api.sock")
}

/// Where the running service is asked for a backup.
pub fn backup_socket(root: &Path) -> PathBuf {
    root.join("backup.sock")
}

pub fn node_socket(root: &Path) -> PathBuf {
    root.join("node.sock")
}

pub fn role_token(root: &Path, role: &str) -> PathBuf {
    root.join("roles").join(format!("{role}.token"))
}

impl DataDir {
    /// Makes the folder if need be and takes it for this process alone.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(root).hint(
            Code::Data,
            format!("make the data folder {}", root.display()),
            "choose another with --data",
        )?;
        close_to_others(root).hint(
            Code::Data,
            format!("close the data folder {} to other users", root.display()),
            "it must belong to the user that runs the service",
        )?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(root.join("lock")).hint(
                Code::Data,
                format!("write to the data folder {}", root.display()),
                "it must belong to the user that runs the service",
            )?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(in_use(root));
        }
        check_format(root)?;
        Ok(DataDir { root: root.to_owned(), _lock: lock })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The admin key of this folder, made at the first start.
    pub fn admin_key(&self) -> anyhow::Result<String> {
        secret(&admin_key(&self.root), "sk-steadyhand-")
    }

    /// The token that lets a process started by hand act in `role`.
    pub fn role_token(&self, role: &str) -> anyhow::Result<String> {
        secret(&role_token(&self.root, role), "")
    }

    /// Says where the service listens.
    pub fn announce(&self, addr: SocketAddr) -> anyhow::Result<()> {
        let running = serde_json::to_vec(&Running { addr, pid: std::process::id() })?;
        write_private(&serve_json(&self.root), &running).hint(
            Code::Data,
            format!("write {}", serve_json(&self.root).display()),
            "is the disk full?",
        )
    }

    pub fn withdraw(&self) {
        // Whoever finds a stale file finds nobody at its address.
        let _ = fs::remove_file(serve_json(&self.root));
    }
}

/// Children that have users of their own must not find what is in it, whoever made the folder.
fn close_to_others(root: &Path) -> std::io::Result<()> {
    let mode = root.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(mode = format!("{mode:03o}"), "the data folder was open to other users and is closed");
        fs::set_permissions(root, fs::Permissions::from_mode(mode & 0o700))?;
    }
    Ok(())
}

fn in_use(root: &Path) -> anyhow::Error {
    let by =
        running(root).map_or(String::new(), |running| format!(" (process {}, http://{})", running.pid, running.addr));
    failed(
        Code::Data,
        format!("the data folder {} is in use by another service{by}", root.display()),
        "stop that one, or choose another folder with --data",
    )
}

/// Refuses what a newer build wrote, and says what this one writes.
fn check_format(root: &Path) -> anyhow::Result<()> {
    let path = format(root);
    let problem = || format!("learn the format of the data folder {}", root.display());
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return write_private(&path, format!("{FORMAT}\n").as_bytes()).hint(
                Code::Data,
                format!("write {}", path.display()),
                "it must belong to the user that runs the service",
            );
        }
        Err(error) => return Err(error).hint(Code::Data, problem(), "is it readable for this user?"),
    };
    match text.trim().parse::<u32>() {
        Ok(FORMAT) => Ok(()),
        Ok(found) => Err(failed(
            Code::Data,
            format!("the data folder {} has format {found}, and this build knows {FORMAT}", root.display()),
            "use the version that wrote it, or a newer one",
        )),
        Err(error) => Err(error).hint(Code::Data, problem(), "the file `format` in it was changed: restore a backup"),
    }
}

/// The service that last announced itself from this folder.
pub fn running(root: &Path) -> Option<Running> {
    serde_json::from_slice(&fs::read(serve_json(root)).ok()?).ok()
}

/// Reads a secret, or makes one.
fn secret(path: &Path, prefix: &str) -> anyhow::Result<String> {
    let problem = format!("keep a key in {}", path.display());
    let hint = "the data folder must belong to the user that runs the service";
    let mut text = String::new();
    match File::open(path).and_then(|mut file| file.read_to_string(&mut text)) {
        Ok(_) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).hint(Code::Data, problem, hint);
        }
        _ => {}
    }
    let made = format!("{prefix}{}", hex::encode(rand::random::<[u8; 32]>()));
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).hint(Code::Data, problem.clone(), hint)?;
    }
    write_private(path, format!("{made}\n").as_bytes()).hint(Code::Data, problem, hint)?;
    Ok(made)
}

/// Writes a file that only its owner can read; it is there whole or not at all.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(temporary, path)
}
