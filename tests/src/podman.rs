//! Podman for tests of containers: an API of its own on a socket in a temporary folder, with a small image made of this
//! machine's own programs. It shares nothing with a Podman that the machine has otherwise, but the program.
//!
//! Used by the tests of two crates, so it names none of ours.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Set where no runtime can start, and tests of containers are to be skipped.
pub const WITHOUT: &str = "STEADYHAND_WITHOUT_CONTAINERS";

pub const IMAGE: &str = "localhost/steadyhand-test:1";

/// How long the API may take until it listens.
const START_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// What agents find in the image, beside what these load.
const PROGRAMS: &[&str] = &[
    "bash",
    "python3",
    "sh",
    "env",
    "cat",
    "ls",
    "cp",
    "mv",
    "rm",
    "ln",
    "mkdir",
    "rmdir",
    "mkfifo",
    "chmod",
    "touch",
    "sleep",
    "head",
    "tail",
    "cut",
    "sort",
    "uniq",
    "tr",
    "wc",
    "seq",
    "tee",
    "id",
    "pwd",
    "true",
    "false",
    "echo",
    "printf",
    "date",
    "stat",
    "readlink",
    "realpath",
    "dirname",
    "basename",
    "timeout",
    "nohup",
    "yes",
    "dd",
    "df",
    "du",
    "od",
    "base64",
    "sha256sum",
    "nproc",
    "test",
    "kill",
    "ps",
    "mount",
    "grep",
    "sed",
    "find",
    "xargs",
    "tar",
    "gzip",
    "setsid",
    "getent",
    "git",
    "getconf",
    "mktemp",
    "ipcmk",
    "ipcs",
    "truncate",
    "paste",
    "comm",
    "diff",
    "cmp",
    "mknod",
    "chroot",
    "unshare",
    "nsenter",
    "hostname",
];

/// Folders that programs need beside themselves.
const FOLDERS: &[&str] = &["/usr/share/git-core/templates"];

pub struct Podman {
    service: Child,
    dir: tempfile::TempDir,
    /// What belongs to this boot of the machine.
    running: PathBuf,
}

impl Podman {
    /// None where it was said that there is none; a test that cannot run otherwise fails, with what to do about it.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn start() -> Option<Self> {
        match Self::try_start() {
            Ok(podman) => Some(podman),
            Err(why) if std::env::var_os(WITHOUT).is_some() => {
                eprintln!("skipped: no container runtime can start here: {why}");
                None
            }
            Err(why) => panic!(
                "no container runtime can start here: {why}\nAs root: apt-get install podman runc. To skip: {WITHOUT}=1"
            ),
        }
    }

    fn try_start() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("these tests run it as root".to_owned());
        }
        let store = store()?;
        let dir = tempfile::Builder::new().prefix("podman-").tempdir().map_err(|error| error.to_string())?;
        let running = configure(&store).map_err(|error| format!("configure it: {error}"))?;
        import(&running, &store)?;
        let mut service = podman(&running);
        service.args(["system", "service", "--time", "0"]).arg(format!("unix://{}", socket(dir.path()).display()));
        let service = service.stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(|error| error.to_string())?;
        let podman = Podman { service, dir, running };
        let give_up = Instant::now() + START_MAX;
        // It says nothing when it listens.
        while let Err(error) = UnixStream::connect(podman.socket()) {
            if Instant::now() > give_up {
                return Err(format!("its API does not listen: {error}"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(podman)
    }

    /// Where its API listens.
    pub fn socket(&self) -> PathBuf {
        socket(self.dir.path())
    }

    /// The hands' containers of that folder, by their names, whether they run or not.
    pub fn containers(&self, hands_dir: &Path) -> Vec<String> {
        let label = format!("label=dev.steadyhand.hands-dir={}", hands_dir.display());
        let said = self.said(&["ps", "--all", "--filter", &label, "--format", "{{.Names}}"]);
        said.lines().map(str::to_owned).collect()
    }

    /// What it says to a command of its own.
    pub fn said(&self, arguments: &[&str]) -> String {
        let output = podman(&self.running).args(arguments).output().expect("it was started before");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Containers have parents of their own.
        self.service.kill().ok();
        self.service.wait().ok();
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("podman.sock")
}

fn podman(running: &Path) -> Command {
    let mut command = Command::new("podman");
    command
        .env("CONTAINERS_CONF", running.join("containers.conf"))
        .env("CONTAINERS_STORAGE_CONF", running.join("storage.conf"));
    // What watches a container writes its notes where it was started.
    command.stdin(Stdio::null()).current_dir(running);
    command
}

/// What lasts from test to test lies beside what was built: images, and the lock under which one is made.
fn store() -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let store = own.ancestors().nth(3).ok_or("tests lie in a target folder")?.join("podman");
    std::fs::create_dir_all(&store).map_err(|error| error.to_string())?;
    Ok(store)
}

/// The same for all tests that share the images: what ends a container reads it too, when its test is over.
fn configure(store: &Path) -> io::Result<PathBuf> {
    let runtime = if Path::new("/usr/sbin/runc").exists() { "runc" } else { "crun" };
    let running =
        std::env::temp_dir().join(format!("steadyhand-podman-{:x}", checksum(store.as_os_str().as_encoded_bytes())));
    let engine = format!(
        "[containers]\ndefault_ulimits = []\n[engine]\nruntime = {runtime:?}\ncgroup_manager = \"cgroupfs\"\n\
         events_logger = \"none\"\nlock_type = \"file\"\ntmp_dir = {:?}\n",
        running.join("tmp")
    );
    std::fs::create_dir_all(&running)?;
    replace(&running.join("containers.conf"), &engine)?;
    let storage = format!(
        "[storage]\ndriver = \"overlay\"\nrunroot = {:?}\ngraphroot = {:?}\n",
        running.join("run"),
        store.join("images")
    );
    replace(&running.join("storage.conf"), &storage)?;
    Ok(running)
}

/// Others may be reading it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension(format!("part-{}", std::process::id()));
    std::fs::write(&part, text)?;
    std::fs::rename(part, path)
}

/// The image, made of this machine's programs where it is not there yet.
fn import(running: &Path, store: &Path) -> Result<(), String> {
    let lock = File::create(store.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let note = store.join("image");
    let wanted = format!("{IMAGE} {:?} {:?}", PROGRAMS, FOLDERS);
    let is_there =
        podman(running).args(["image", "exists", IMAGE]).output().map_err(|error| format!("start podman: {error}"))?;
    if is_there.status.success() && std::fs::read_to_string(&note).is_ok_and(|noted| noted == wanted) {
        return Ok(());
    }
    let root = store.join("root");
    std::fs::remove_dir_all(&root).ok();
    fill(&root).map_err(|error| format!("make an image: {error}"))?;
    let archive = store.join("root.tar");
    ran(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").output())?;
    ran(podman(running).arg("import").arg(&archive).arg(IMAGE).output())?;
    std::fs::remove_dir_all(&root).ok();
    std::fs::remove_file(&archive).ok();
    ran(podman(running).args(["run", "--rm", "--network", "none", IMAGE, "/bin/true"]).output())?;
    std::fs::write(note, wanted).map_err(|error| error.to_string())
}

fn ran(output: io::Result<Output>) -> Result<(), String> {
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

fn fill(root: &Path) -> io::Result<()> {
    for folder in ["usr/bin", "usr/lib", "usr/lib64", "proc", "sys", "dev", "tmp", "run", "etc"] {
        std::fs::create_dir_all(root.join(folder))?;
    }
    for open in ["tmp", "var/tmp"] {
        std::fs::create_dir_all(root.join(open))?;
        std::fs::set_permissions(root.join(open), std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    }
    for name in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    // What ours load, which are built as this one is.
    let mut files = BTreeSet::from_iter(loaded(&std::env::current_exe()?)?);
    let path = std::env::var_os("PATH").unwrap_or_default();
    for name in PROGRAMS {
        // One that this machine does not have is not in the image either; what needs it says so.
        let found = std::env::split_paths("/usr/bin:/bin:/usr/sbin:/sbin").chain(std::env::split_paths(&path));
        let Some(program) = found.map(|dir| dir.join(name)).find(|program| program.is_file()) else { continue };
        copy(&program.canonicalize()?, &root.join("usr/bin").join(name))?;
        files.extend(loaded(&program)?);
    }
    if let Some(library) = python()? {
        let to = root.join(library.strip_prefix("/").unwrap_or(&library));
        std::fs::create_dir_all(&to)?;
        ran(Command::new("cp").arg("-a").arg(library.join(".")).arg(&to).output()).map_err(io::Error::other)?;
        for module in library.join("lib-dynload").read_dir()?.flatten() {
            files.extend(loaded(&module.path())?);
        }
    }
    for file in files {
        // Where the loader looks for it, whatever it is a link to.
        copy(&file.canonicalize()?, &root.join(file.strip_prefix("/").unwrap_or(&file)))?;
    }
    for folder in FOLDERS.iter().map(Path::new).filter(|folder| folder.is_dir()) {
        let to = root.join(folder.strip_prefix("/").unwrap_or(folder));
        std::fs::create_dir_all(&to)?;
        let copied = Command::new("cp").arg("-a").arg(folder.join(".")).arg(&to).output();
        ran(copied).map_err(io::Error::other)?;
    }
    Ok(())
}

/// What Python brings, where this machine has one.
fn python() -> io::Result<Option<PathBuf>> {
    let program = Path::new("/usr/bin/python3");
    if !program.is_file() {
        return Ok(None);
    }
    let version = program.canonicalize()?.file_name().unwrap_or_default().to_owned();
    Ok(Some(Path::new("/usr/lib").join(version)).filter(|library| library.is_dir()))
}

/// The libraries of a program and its loader.
fn loaded(program: &Path) -> io::Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|file| file.is_file())
        .collect())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    std::fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
    std::fs::copy(from, to).map(drop)
}

fn checksum(bytes: &[u8]) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
