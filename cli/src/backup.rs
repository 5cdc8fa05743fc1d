//! Backups of a data folder: what is in one, how it is taken while the service runs, and how the command asks the service
//! for it. One moment of engine and catalog, and every blob that they can name; sandboxes, sockets and logs stay out, and
//! so does the vault, which egress alone may read.

use crate::{
    data_dir,
    error::{Code, Hint as _, failed},
};
use anyhow::Context as _;
use engine::Engine;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{FjallCatalog, FolderBlobs};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tracing::{info, warn};

/// What this build writes and reads.
pub const FORMAT: u32 = 1;
/// The file that says that a backup is whole: written last.
const MANIFEST: &str = "backup.json";
/// Small files that make the folder what it is.
const FILES: &[&str] =
    &["format", "admin.key", "host", "steadyhand.toml", "roles/brain.token", "roles/hand.token", "roles/engine.token"];
/// A request is a path.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// What a backup says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// The version of the program that made it.
    pub steadyhand: String,
    pub made_at: String,
    pub engine_entries: u64,
    pub blobs: u64,
}

/// What a backup is made of.
#[derive(Clone)]
pub struct Sources {
    pub root: PathBuf,
    /// None: the workflows are in a Temporal cluster, or there never were any.
    pub engine: Option<Engine>,
    pub catalog: Arc<FjallCatalog>,
    pub blobs: Arc<FolderBlobs>,
}

#[derive(Serialize, Deserialize)]
struct Request {
    to: PathBuf,
}

#[derive(Serialize, Deserialize)]
enum Reply {
    Made(Manifest),
    Failed(String),
}

impl Sources {
    /// Writes a backup into a folder that is not there yet. It is there whole or not at all.
    pub async fn write(&self, to: &Path) -> anyhow::Result<Manifest> {
        let part = make_part(to)?;
        let written = self.write_part(&part).await;
        match written {
            Ok(manifest) => {
                put_in_place(&part, to)?;
                Ok(manifest)
            }
            Err(error) => {
                let _unfinished = fs::remove_dir_all(&part);
                Err(error)
            }
        }
    }

    async fn write_part(&self, part: &Path) -> anyhow::Result<Manifest> {
        let blobs = self.blobs.hold();
        let catalog = self.catalog.clone();
        let (engine, catalog) = match &self.engine {
            Some(engine) => {
                let (moment, catalog) = engine.moment(move || catalog.snapshot()).await?;
                (Some(moment), catalog)
            }
            None => (None, catalog.snapshot()),
        };
        let (root, part) = (self.root.clone(), part.to_owned());
        let write = move || -> anyhow::Result<Manifest> {
            let engine_entries = match engine {
                Some(moment) => moment.write(&data_dir::engine(&part)).context("copy the engine")?,
                None => 0,
            };
            fs::create_dir(data_dir::catalog(&part))?;
            catalog.write(&data_dir::catalog(&part)).context("copy the catalog")?;
            let blobs = blobs.copy(&data_dir::blobs(&part)).context("copy the blobs")?;
            copy_files(&root, &part)?;
            let manifest = Manifest {
                format: FORMAT,
                steadyhand: env!("CARGO_PKG_VERSION").to_owned(),
                made_at: jiff::Timestamp::now().to_string(),
                engine_entries,
                blobs,
            };
            let file = File::create_new(part.join(MANIFEST))?;
            serde_json::to_writer_pretty(&file, &manifest)?;
            file.sync_all()?;
            File::open(&part)?.sync_all()?;
            Ok(manifest)
        };
        tokio::task::spawn_blocking(write).await?
    }

    /// Makes a backup for whoever connects and names a folder, until the service closes.
    pub async fn listen(self, listener: UnixListener, mut closing: watch::Receiver<bool>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    // One after the other: a second one waits for the first.
                    if let Err(error) = self.answer(stream).await {
                        warn!(error = &*error as &dyn std::error::Error, "whoever asked for a backup went away");
                    }
                }
                Err(error) => warn!(error = &error as &dyn std::error::Error, "a connection was not accepted"),
            }
        }
    }

    async fn answer(&self, stream: UnixStream) -> anyhow::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        let mut read = BufReader::new(tokio::io::AsyncReadExt::take(read, REQUEST_BYTES_MAX as u64));
        read.read_line(&mut line).await?;
        let request: Request = serde_json::from_str(&line)?;
        let reply = match self.write(&request.to).await {
            Ok(manifest) => {
                info!(engine_entries = manifest.engine_entries, blobs = manifest.blobs, "a backup was made");
                Reply::Made(manifest)
            }
            Err(error) => {
                warn!(error = &*error as &dyn std::error::Error, "a backup could not be made");
                Reply::Failed(format!("{error:#}"))
            }
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        Ok(write.write_all(&line).await?)
    }
}

/// Asks the service of a data folder for a backup. `None`: no service runs from it.
pub async fn ask(root: &Path, to: &Path) -> anyhow::Result<Option<Manifest>> {
    let Ok(stream) = UnixStream::connect(data_dir::backup_socket(root)).await else { return Ok(None) };
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(&Request { to: to.to_owned() })?;
    line.push(b'\n');
    write.write_all(&line).await?;
    let mut reply = String::new();
    BufReader::new(read).read_line(&mut reply).await?;
    let gone = || failed(Code::Unreachable, "the service ended before the backup was made", "look into its log");
    match serde_json::from_str(&reply).map_err(|_| gone())? {
        Reply::Made(manifest) => Ok(Some(manifest)),
        Reply::Failed(why) => Err(failed(
            Code::Failed,
            format!("the service could not make the backup: {why}"),
            "is the folder writable for the service, and is there room on its disk?",
        )),
    }
}

/// What a backup says of itself, if it is one that was finished and that this build can read.
pub fn manifest(backup: &Path) -> anyhow::Result<Manifest> {
    let path = backup.join(MANIFEST);
    let text = fs::read_to_string(&path).hint(
        Code::Data,
        format!("{} is no backup, or one that was not finished", backup.display()),
        "name a folder that `steadyhand backup` made",
    )?;
    let manifest: Manifest =
        serde_json::from_str(&text).hint(Code::Data, format!("understand {}", path.display()), "it was changed")?;
    if manifest.format != FORMAT {
        let (found, by) = (manifest.format, &manifest.steadyhand);
        let problem = format!("the backup has format {found}, made by {by}, and this build reads {FORMAT}");
        return Err(failed(Code::Data, problem, "restore it with the version that made it"));
    }
    Ok(manifest)
}

/// Copies what a backup holds into another folder; it is on disk when this returns.
pub fn copy(backup: &Path, to: &Path) -> anyhow::Result<()> {
    for part in [data_dir::engine, data_dir::catalog, data_dir::blobs] {
        let from = part(backup);
        if from.is_dir() {
            copy_tree(&from, &part(to)).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    copy_files(backup, to)?;
    Ok(File::open(to)?.sync_all()?)
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            File::open(&target)?.sync_all()?;
        }
    }
    File::open(to)?.sync_all()
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    for name in FILES {
        let (source, target) = (from.join(name), to.join(name));
        if !source.is_file() {
            continue;
        }
        let folder = target.parent().context("a file is in a folder")?;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::copy(&source, &target).with_context(|| format!("copy {}", source.display()))?;
        File::open(&target)?.sync_all()?;
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// An empty folder beside the one that is wanted, which must not be there, or be empty.
pub fn make_part(to: &Path) -> anyhow::Result<PathBuf> {
    let is_free = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let (Some(above), Some(name), true) = (to.parent(), to.file_name(), is_free) else {
        let problem = format!("{} is there already", to.display());
        return Err(failed(Code::Usage, problem, "name a folder that is not there, or is empty"));
    };
    let mut part = name.to_owned();
    part.push(".part");
    let part = above.join(part);
    fs::DirBuilder::new().mode(0o700).create(&part).hint(
        Code::Data,
        format!("make the folder {}", part.display()),
        "if it is left from an attempt that was cut off, remove it",
    )?;
    Ok(part)
}

/// Gives a finished folder its name.
pub fn put_in_place(part: &Path, to: &Path) -> anyhow::Result<()> {
    let named = fs::rename(part, to).and_then(|()| match to.parent() {
        Some(above) if !above.as_os_str().is_empty() => File::open(above)?.sync_all(),
        _ => Ok(()),
    });
    named.hint(Code::Data, format!("name the folder {}", to.display()), "is somebody else writing there?")
}
