//! What bubblewrap is told. The options go to it over a descriptor, as everyone inside can read its command line.

use crate::folder::Folder;
use crate::limits;
use crate::link::inside;
use crate::shelf;
use crate::spec::{Egress, Shelf, Spec};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

const GITCONFIG: &str = "/etc/gitconfig";
/// Whom the agent sees itself as where bubblewrap says so.
pub const UID: u32 = 1000;

/// Files of /etc that exist in every sandbox, made up so that neither the host's nor an image's are seen.
pub fn etc(egress: Option<&Egress>, uid: u32) -> [(&'static str, String); 5] {
    let git = "[user]\n\tname = agent\n\temail = agent@hand\n[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n";
    let agent = format!("agent:x:{uid}:{uid}:agent:{}:/bin/bash", inside::HOME);
    [
        ("/etc/passwd", format!("root:x:0:0:root:/:/usr/sbin/nologin\n{agent}\n")),
        ("/etc/group", format!("root:x:0:\nagent:x:{uid}:\n")),
        ("/etc/hosts", "127.0.0.1 localhost hand\n::1 localhost\n".to_owned()),
        ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
        (GITCONFIG, format!("{git}{}", egress.map(git_routes).unwrap_or_default())),
    ]
}

/// What git is told: the session's repositories are reached through the proxy, under their own URLs.
fn git_routes(egress: &Egress) -> String {
    let route = |(url, path): &(String, String)| {
        format!("[url \"http://127.0.0.1:{}{path}\"]\n\tinsteadOf = {url}\n", inside::PROXY_PORT)
    };
    egress.repositories.iter().map(route).collect()
}

/// Descriptors that bubblewrap reads while it puts the sandbox up.
pub struct Descriptors<'a> {
    /// One for each file of [`etc`].
    pub etc: &'a [std::fs::File],
    /// The parts of the filter.
    pub seccomp: &'a [std::fs::File],
}

/// An argument list as bubblewrap's `--args` takes it.
#[derive(Default)]
pub struct Args(Vec<OsString>);

impl Args {
    fn add<const N: usize>(&mut self, words: [&str; N]) -> &mut Self {
        self.0.extend(words.map(OsString::from));
        self
    }

    fn mount(&mut self, how: &str, from: impl AsRef<OsStr>, to: &str) -> &mut Self {
        self.0.extend([how.into(), from.as_ref().to_owned(), to.into()]);
        self
    }

    fn descriptor(&mut self, how: &str, fd: RawFd) -> &mut Self {
        self.0.extend([how.into(), fd.to_string().into()]);
        self
    }

    /// Separated by NUL.
    pub fn to_bytes(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        self.0.iter().flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect()
    }

    pub fn words(&self) -> &[OsString] {
        &self.0
    }
}

/// Namespaces and the host's programs: the part that does not depend on a hand, and that `probe` tries.
pub fn base() -> Args {
    let mut args = Args::default();
    let uid = UID.to_string();
    args.add(["--unshare-user", "--disable-userns", "--uid", &uid, "--gid", &uid]);
    args.add(["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup"]);
    args.add(["--hostname", "hand", "--new-session", "--die-with-parent", "--as-pid-1"]);
    args.add(["--ro-bind", "/usr", "/usr"]);
    for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
        let path = Path::new("/").join(name);
        let to = format!("/{name}");
        // Links into /usr on most systems, folders of their own on others.
        if let Ok(target) = path.read_link() {
            args.mount("--symlink", target, &to);
        } else if path.is_dir() {
            args.mount("--ro-bind", &path, &to);
        }
    }
    args.add(["--proc", "/proc", "--dev", "/dev"]);
    args
}

/// Where each manager's programs are, before the machine's.
const PACKAGE_PROGRAMS: &str = "/opt/packages/pip/bin:/opt/packages/npm/bin:/opt/packages/gem/bin:\
    /opt/packages/cargo/bin:/opt/packages/go/bin:/opt/packages/apt/usr/bin:/opt/packages/apt/usr/sbin:\
    /opt/packages/apt/usr/games:/opt/packages/apt/bin:/opt/packages/apt/sbin";
const MACHINE_PROGRAMS: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// How interpreters find what is on a shelf.
const PACKAGE_VARIABLES: &[(&str, &str)] = &[
    ("PYTHONPATH", "/opt/packages/pip:/opt/packages/apt/usr/lib/python3/dist-packages"),
    ("PERL5LIB", "/opt/packages/apt/usr/share/perl5"),
    ("NODE_PATH", "/opt/packages/npm/lib/node_modules"),
    // What ends with a colon goes on with its own places.
    ("GEM_PATH", "/opt/packages/gem:"),
];

/// Where the loader finds libraries of packages of the system, which are not where they were made for.
fn package_libraries() -> String {
    let arch = std::env::consts::ARCH;
    let dirs = [format!("usr/lib/{arch}-linux-gnu"), "usr/lib".to_owned(), format!("lib/{arch}-linux-gnu")];
    dirs.map(|dir| format!("{}/apt/{dir}", inside::PACKAGES)).join(":")
}

/// Everything for one hand.
pub fn full(folder: &Folder, spec: &Spec, fds: &Descriptors<'_>) -> Args {
    let egress = spec.egress.as_ref();
    let mut args = base();
    for path in ["/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl/certs"] {
        args.mount("--ro-bind-try", path, path);
    }
    for ((path, _), file) in etc(egress, UID).iter().zip(fds.etc) {
        args.add(["--perms", "0644"]);
        args.mount("--ro-bind-data", file.as_raw_fd().to_string(), path);
    }
    let tmpfs = |args: &mut Args, bytes: u64, to: &str| {
        args.add(["--size", &bytes.to_string(), "--tmpfs", to]);
    };
    tmpfs(&mut args, limits::TMPFS_BYTES, "/tmp");
    tmpfs(&mut args, limits::RUN_TMPFS_BYTES, "/run");
    tmpfs(&mut args, limits::TMPFS_BYTES, "/dev/shm");
    args.mount("--bind", folder.workspace(), inside::WORKSPACE);
    args.mount("--bind", folder.outputs(), inside::OUTPUTS);
    args.mount("--bind", folder.home(), inside::HOME);
    args.mount("--ro-bind", folder.uploads(), inside::UPLOADS);
    args.mount("--ro-bind", folder.spool(), inside::SPOOL);
    args.mount("--ro-bind", folder.recipe(), inside::RECIPE);
    if let Some(egress) = egress {
        args.mount("--ro-bind", &egress.dir, inside::EGRESS);
    }
    match &spec.shelf {
        Some(Shelf::Fill(_)) => {
            args.mount("--bind", folder.packages(), inside::PACKAGES);
            // What this machine has need not be fetched.
            args.mount("--ro-bind-try", "/var/lib/dpkg/status", "/etc/dpkg/status");
        }
        Some(Shelf::Read(name)) => {
            args.mount("--ro-bind", shelf::folder(&spec.hands_dir, name).packages(), inside::PACKAGES);
        }
        None => {}
    }
    // Both are tmpfs without a size of their own, so nobody may write there.
    args.add(["--remount-ro", "/dev", "--remount-ro", "/"]);
    for (name, value) in environment(spec) {
        args.add(["--setenv", &name, &value]);
    }
    args.add(["--chdir", inside::WORKSPACE]);
    for file in fds.seccomp {
        args.descriptor("--add-seccomp-fd", file.as_raw_fd());
    }
    args
}

/// The variables of everything inside.
pub fn environment(spec: &Spec) -> Vec<(String, String)> {
    let reads_shelf = matches!(spec.shelf, Some(Shelf::Read(_)));
    let programs = match reads_shelf {
        true => format!("{PACKAGE_PROGRAMS}:{MACHINE_PROGRAMS}"),
        false => MACHINE_PROGRAMS.to_owned(),
    };
    let mut variables = vec![
        ("PATH", programs.as_str()),
        ("HOME", inside::HOME),
        ("USER", "agent"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        // A git that was built for another prefix would not look there.
        ("GIT_CONFIG_SYSTEM", GITCONFIG),
    ];
    variables.extend(PACKAGE_VARIABLES.iter().filter(|_| reads_shelf));
    let libraries = match &spec.shelf {
        Some(Shelf::Read(name)) if shelf::folder(&spec.hands_dir, name).packages().join("apt").is_dir() => {
            Some(package_libraries())
        }
        _ => None,
    };
    variables.extend(libraries.as_deref().map(|libraries| ("LD_LIBRARY_PATH", libraries)));
    let proxy = format!("http://127.0.0.1:{}", inside::PROXY_PORT);
    if let Some(egress) = &spec.egress {
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            variables.push((name, &proxy));
        }
        for name in ["no_proxy", "NO_PROXY"] {
            variables.push((name, "localhost,127.0.0.1,::1"));
        }
        let listed = egress.variables.iter().chain(&egress.registries);
        variables.extend(listed.map(|(name, value)| (name.as_str(), value.as_str())));
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
