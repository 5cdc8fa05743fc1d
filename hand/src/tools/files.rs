//! Files as tools may reach them: below the working directory or another allowed root, symlinks resolved first.
//!
//! A path is resolved once to a real one, checked, and then opened from its root without following any link, so that
//! a link swapped in between is an error and never a way out. Runs inside the sandbox; the roots are the second wall.

use super::Refused;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The working directory and the roots that file tools may use.
#[derive(Clone, Debug)]
pub struct Files {
    workdir: PathBuf,
    roots: Vec<PathBuf>,
}

/// A regular file opened for reading.
pub struct Opened {
    pub file: File,
    pub bytes: u64,
}

/// A real path below one of the roots; what it names need not exist yet.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    /// Empty for the root itself.
    rest: PathBuf,
}

impl Files {
    /// Both must be real paths.
    pub fn new(workdir: PathBuf, more_roots: Vec<PathBuf>) -> Self {
        let roots = std::iter::once(workdir.clone()).chain(more_roots).collect();
        Self { workdir, roots }
    }

    /// `path` as the model gave it, made absolute.
    pub fn absolute(&self, path: &str) -> PathBuf {
        self.workdir.join(path)
    }

    /// How a path is shown to the model: relative to the working directory where it is below it.
    pub fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.workdir).unwrap_or(path)
    }

    /// Open a regular file. Never blocks on what only looks like one.
    pub fn open(&self, path: &str) -> Result<Opened, Refused> {
        let place = self.place(path)?;
        let fd = place.open(OFlags::RDONLY | OFlags::NONBLOCK).map_err(|e| refused(path, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| refused(path, e))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Refused(format!("{path}: not a regular file")));
        }
        Ok(Opened { file: File::from(fd), bytes: u64::try_from(stat.st_size).unwrap_or(0) })
    }

    /// The whole of a text file of at most `max` bytes.
    pub fn read_text(&self, path: &str, max: u64) -> Result<String, Refused> {
        let opened = self.open(path)?;
        let mut bytes = Vec::new();
        opened.file.take(max + 1).read_to_end(&mut bytes).map_err(|e| Refused(format!("{path}: {e}")))?;
        if bytes.len() as u64 > max {
            return Err(Refused(format!("{path}: larger than {} KiB ({} bytes)", max / 1024, opened.bytes)));
        }
        String::from_utf8(bytes).map_err(|_| Refused(format!("{path}: not UTF-8 text")))
    }

    /// Put `content` in the place of a file, whole or not at all; makes the folders above it.
    pub fn replace(&self, path: &str, content: &[u8]) -> Result<(), Refused> {
        let place = self.place(path)?;
        let name = place.rest.file_name().ok_or_else(|| Refused(format!("{path}: is a directory")))?.to_owned();
        let dir = place.open_parent().map_err(|e| refused(path, e))?;
        let mode = match rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Mode::from_raw_mode(stat.st_mode & 0o777)
            }
            Ok(_) => return Err(Refused(format!("{path}: not a regular file"))),
            Err(Errno::NOENT) => Mode::from_raw_mode(0o644),
            Err(e) => return Err(refused(path, e)),
        };
        let temporary = temporary_name(&name);
        let written = write_new(&dir, &temporary, mode, content)
            .and_then(|()| Ok(rustix::fs::renameat(&dir, &temporary, &dir, &name)?));
        written.map_err(|e| {
            // The temporary may not exist; there is nothing better to do than to leave it then.
            rustix::fs::unlinkat(&dir, &temporary, AtFlags::empty()).ok();
            Refused(format!("{path}: {e}"))
        })
    }

    /// The real path of an existing directory, to walk.
    pub fn directory(&self, path: Option<&str>) -> Result<PathBuf, Refused> {
        let path = path.unwrap_or(".");
        let place = self.place(path)?;
        place.open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| refused(path, e))?;
        Ok(place.real())
    }

    /// The real path of an existing file or directory.
    pub fn existing(&self, path: &str) -> Result<PathBuf, Refused> {
        let place = self.place(path)?;
        place.open(OFlags::PATH).map_err(|e| refused(path, e))?;
        Ok(place.real())
    }

    fn place(&self, path: &str) -> Result<Place, Refused> {
        if path.is_empty() || path.contains('\0') {
            return Err("the path is empty or holds a NUL".into());
        }
        let real = resolve(&self.absolute(path)).map_err(|e| Refused(format!("{path}: {e}")))?;
        let root = self.roots.iter().find(|root| real.starts_with(root)).ok_or_else(|| {
            Refused(format!("{path}: outside the working directory {} and the allowed roots", self.workdir.display()))
        })?;
        let rest = real.strip_prefix(root).expect("found by this prefix").to_owned();
        Ok(Place { root: root.clone(), rest })
    }
}

impl Place {
    fn real(&self) -> PathBuf {
        if self.rest.as_os_str().is_empty() { self.root.clone() } else { self.root.join(&self.rest) }
    }

    fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let rest = if self.rest.as_os_str().is_empty() { Path::new(".") } else { &self.rest };
        open_beneath(&self.open_root()?, rest, flags)
    }

    fn open_root(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(&self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// The folder that holds the place, made where it is missing, step by step and without following links.
    fn open_parent(&self) -> rustix::io::Result<OwnedFd> {
        let mut dir = self.open_root()?;
        for part in self.rest.parent().unwrap_or(Path::new("")) {
            match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e),
            }
            dir = open_beneath(&dir, Path::new(part), OFlags::PATH | OFlags::DIRECTORY)?;
        }
        Ok(dir)
    }
}

fn open_beneath(dir: &OwnedFd, rest: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::io::retry_on_intr(|| rustix::fs::openat2(dir, rest, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
}

fn write_new(dir: &OwnedFd, name: &OsStr, mode: Mode, content: &[u8]) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dir, name, flags, mode)?);
    // The umask must not take bits from a file that had them.
    rustix::fs::fchmod(&file, mode)?;
    file.write_all(content)
}

/// Beside the file, so that the rename stays on one filesystem; unlike any name that is in use.
fn temporary_name(name: &OsStr) -> OsString {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut temporary = OsString::from(format!(".hand-{}-{next}-", rustix::process::getpid()));
    temporary.push(OsStr::from_bytes(&name.as_bytes()[..name.len().min(100)]));
    temporary
}

/// The real path of `path`; what is missing at its end is appended as it is.
fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    match path.canonicalize() {
        Ok(real) => return Ok(real),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        Err(_) => {}
    }
    if path.symlink_metadata().is_ok() {
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "a symlink to nothing"));
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(resolve(parent)?.join(name)),
        _ => Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "`..` below a folder that does not exist")),
    }
}

fn refused(path: &str, errno: Errno) -> Refused {
    Refused(match errno {
        Errno::NOENT => format!("{path}: no such file or directory"),
        Errno::NOTDIR => format!("{path}: not a directory"),
        Errno::LOOP | Errno::XDEV => format!("{path}: changed while it was opened"),
        other => format!("{path}: {}", std::io::Error::from(other)),
    })
}

#[cfg(test)]
mod tests {
    use crate::tools::testing::Bench;
    use serde_json::json;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn links_are_resolved_before_the_roots_are_checked() {
        let bench = Bench::new();
        bench.put("out/secret", "secret");
        bench.put("work/in", "inside");
        bench.put("more/other", "other");
        symlink(bench.path("out"), bench.path("work/away")).unwrap();
        symlink(bench.path("work/in"), bench.path("work/near")).unwrap();
        symlink(bench.path("out/nothing"), bench.path("work/dangling")).unwrap();
        symlink("/proc/self", bench.path("work/p")).unwrap();
        for path in ["away/secret", "../out/secret", "/etc/passwd", "p/environ", "work/../../out/secret"] {
            let text = bench.bad("read", json!({"file_path": path}));
            assert!(text.contains("outside") || text.contains("`..`"), "{path}: {text}");
        }
        for path in ["away/new", "away/secret", "/tmp/hand-escape", "dangling", "away/deep/new", "p/new"] {
            bench.bad("write", json!({"file_path": path, "content": "x"}));
        }
        assert_eq!(std::fs::read_to_string(bench.path("out/secret")).unwrap(), "secret");
        assert!(!bench.path("out/new").exists() && !bench.path("out/nothing").exists());
        assert!(bench.good("read", json!({"file_path": "near"})).contains("inside"));
        assert!(bench.good("read", json!({"file_path": bench.path("more/other")})).contains("other"));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let bench = Bench::new();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            bench.path("work/fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        for path in ["fifo", "."] {
            assert!(bench.bad("read", json!({"file_path": path})).contains("not a regular file"), "{path}");
        }
        assert!(bench.bad("write", json!({"file_path": "fifo", "content": "x"})).contains("not a regular file"));
        assert!(bench.bad("write", json!({"file_path": ".", "content": "x"})).contains("is a directory"));
    }

    #[test]
    fn a_file_keeps_its_mode_and_leaves_no_temporary() {
        let bench = Bench::new();
        let path = bench.put("work/run.sh", "old");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        bench.good("write", json!({"file_path": "run.sh", "content": "new"}));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_dir(bench.path("work")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_swapped_in_is_never_followed() {
        let bench = Bench::new();
        bench.put("out/f", "secret");
        bench.put("work/d/f", "safe");
        let (dir, out) = (bench.path("work/d"), bench.path("out"));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    // A write in between makes the folder again, so any of these may fail.
                    std::fs::remove_dir_all(&dir).ok();
                    symlink(&out, &dir).ok();
                    std::fs::remove_file(&dir).ok();
                    std::fs::create_dir(&dir).ok();
                    std::fs::write(dir.join("f"), "safe").ok();
                }
            });
            for _ in 0..2_000 {
                assert!(!bench.run("read", json!({"file_path": "d/f"})).text().contains("secret"));
                bench.run("write", json!({"file_path": "d/f", "content": "written"}));
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(std::fs::read_to_string(bench.path("out/f")).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(bench.path("out")).unwrap().count(), 1);
    }
}
